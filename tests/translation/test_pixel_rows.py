"""Conversion of pixel values strip by strip."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cyclegan_cli.data.tensors import array_to_tensor
from cyclegan_cli.models.padding import padded_size, reflect_to_multiple
from cyclegan_cli.translation.pixel_rows import PixelRows, PixelSink, to_channels


@given(
    height=st.integers(1, 21),
    width=st.integers(1, 21),
    strip=st.integers(1, 9),
    is_16_bit=st.booleans(),
)
def test_pixel_rows_equal_padded_image(height, width, strip, is_16_bit):
    highest = 65535 if is_16_bit else 255
    pixels = np.random.default_rng(0).integers(0, highest + 1, (height, width, 3))
    pixels = pixels.astype(np.uint16 if is_16_bit else np.uint8)
    whole = reflect_to_multiple(array_to_tensor(pixels))
    rows = PixelRows(pixels, 3, torch.zeros(()))
    assert rows.height == whole.shape[2] == padded_size(height)
    for top in range(0, rows.height, strip):
        bottom = min(top + strip, rows.height)
        assert torch.equal(rows.read(top, bottom), whole[:, :, top:bottom])


@pytest.mark.parametrize(("bit_depth", "dtype"), [(8, np.uint8), (16, np.uint16)])
def test_pixel_sink_crops_padding(bit_depth, dtype):
    pixels = np.random.default_rng(1).integers(0, 2**bit_depth, (13, 10, 3)).astype(dtype)
    rows = PixelRows(pixels, 3, torch.zeros(()))
    sink = PixelSink(13, 10, bit_depth)
    for top in range(0, rows.height, 5):
        sink(top, rows.read(top, min(top + 5, rows.height)))
    assert np.array_equal(sink.pixels, pixels)


def test_to_channels_converts_between_grey_and_rgb():
    red = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1)
    grey = to_channels(red, 1)
    assert grey.item() == pytest.approx(2 * 0.299 - 1)
    assert to_channels(grey, 3).flatten().tolist() == pytest.approx([2 * 0.299 - 1] * 3)
