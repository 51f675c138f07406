"""Pixel values strip by strip are the image as a whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cyclegan_cli.data.tensors import array_to_tensor
from cyclegan_cli.models.sizes import padded_size, reflect_to_multiple
from cyclegan_cli.translation.levels import LevelRows, LevelSink, to_channels


@given(
    height=st.integers(1, 21),
    width=st.integers(1, 21),
    strip=st.integers(1, 9),
    deep=st.booleans(),
)
def test_any_rows_are_those_of_the_padded_image(
    height: int, width: int, strip: int, deep: bool
) -> None:
    highest = 65535 if deep else 255
    levels = np.random.default_rng(0).integers(0, highest + 1, (height, width, 3))
    levels = levels.astype(np.uint16 if deep else np.uint8)
    whole = reflect_to_multiple(array_to_tensor(levels))
    rows = LevelRows(levels, 3, torch.zeros(()))
    assert rows.height == whole.shape[2] == padded_size(height)
    for top in range(0, rows.height, strip):
        bottom = min(top + strip, rows.height)
        assert torch.equal(rows.read(top, bottom), whole[:, :, top:bottom])


@pytest.mark.parametrize(("bit_depth", "dtype"), [(8, np.uint8), (16, np.uint16)])
def test_what_was_read_comes_out_cropped(bit_depth: int, dtype: type) -> None:
    levels = np.random.default_rng(1).integers(0, 2**bit_depth, (13, 10, 3)).astype(dtype)
    rows = LevelRows(levels, 3, torch.zeros(()))
    sink = LevelSink(13, 10, bit_depth)  # type: ignore[arg-type]
    for top in range(0, rows.height, 5):
        sink(top, rows.read(top, min(top + 5, rows.height)))
    assert np.array_equal(sink.levels, levels)


def test_grey_is_by_brightness_and_comes_out_in_three_channels() -> None:
    red = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1)
    grey = to_channels(red, 1)
    assert grey.item() == pytest.approx(2 * 0.299 - 1)
    assert to_channels(grey, 3).flatten().tolist() == pytest.approx([2 * 0.299 - 1] * 3)
