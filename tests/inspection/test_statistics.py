"""What tensors' numbers are like, computed in one pass over pieces."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from cyclegan_cli.inspection import Request, describe
from cyclegan_cli.inspection.statistics import summed_up

Cyclegan = Callable[..., Any]
numbers = st.floats(-1e6, 1e6) | st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf])


def of(*pieces: list[float]) -> dict[str, float | None]:
    found = summed_up(np.array(piece, dtype=np.float64) for piece in pieces)
    assert found is not None
    return found


def test_statistics_by_hand() -> None:
    assert of([1, 2, 0], [5]) == {
        "smallest": 0, "largest": 5, "mean": 2, "standard_deviation": pytest.approx(3.5**0.5),
        "zeros": 0.25, "non_finite": 0,
    }  # fmt: skip


def test_numbers_that_are_not_finite_are_counted_and_left_out() -> None:
    assert of([math.nan, 2], [math.inf], [4, -math.inf]) == {
        "smallest": 2, "largest": 4, "mean": 3, "standard_deviation": 1, "zeros": 0,
        "non_finite": 0.6,
    }  # fmt: skip


def test_nothing_finite_has_no_mean() -> None:
    found = of([math.nan])
    assert (found["mean"], found["smallest"], found["non_finite"]) == (None, None, 1)


def test_nothing_at_all_has_no_statistics() -> None:
    assert summed_up([]) is None


def test_a_large_mean_does_not_swallow_a_small_deviation() -> None:
    found = of([1e9 - 1, 1e9 + 1], [1e9 - 1, 1e9 + 1])
    assert found["standard_deviation"] == pytest.approx(1)


def test_what_fp64_cannot_hold_is_none() -> None:
    found = of([1e308, -1e308], [1e308])
    assert (found["largest"], found["standard_deviation"]) == (1e308, None)


@given(st.lists(st.lists(numbers, min_size=1, max_size=6), min_size=1, max_size=5))
def test_pieces_do_not_matter(pieces: list[list[float]]) -> None:
    found, whole = of(*pieces), np.concatenate(pieces)
    finite = whole[np.isfinite(whole)]
    assert found["zeros"] == np.mean(whole == 0)
    assert found["non_finite"] == pytest.approx(np.mean(~np.isfinite(whole)))
    if finite.size:
        assert (found["smallest"], found["largest"]) == (finite.min(), finite.max())
        assert found["mean"] == pytest.approx(finite.mean(), rel=1e-9, abs=1e-6)
        assert found["standard_deviation"] == pytest.approx(finite.std(), rel=1e-6, abs=1e-4)


def test_statistics_come_with_the_list_of_weights(cyclegan: Cyclegan, tmp_path: Path) -> None:
    tensors = {
        "a": torch.tensor([0.0, 3.0]),
        "b": torch.zeros(2, 0),
        "c": torch.tensor([math.nan, 1.0]).bfloat16(),
        "d": torch.zeros(4).to(torch.float8_e5m2),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    [document] = cyclegan("inspect", tmp_path / "x.safetensors", "--weights", "--json").documents
    found = {tensor["name"]: tensor["statistics"] for tensor in document["weights"]}
    assert found["a"] == {
        "smallest": 0, "largest": 3, "mean": 1.5, "standard_deviation": 1.5, "zeros": 0.5,
        "non_finite": 0,
    }  # fmt: skip
    assert (found["b"], found["d"]) == (None, None)
    lines = cyclegan("inspect", tmp_path / "x.safetensors", "--weights").out.splitlines()
    assert "a  F32 [2]  0 to 3, mean 1.5 ± 1.5, zeros 50 %" in lines
    assert "b  F32 [2, 0]" in lines
    assert "c  BF16 [2]  1 to 1, mean 1 ± 0, non-finite 50 %" in lines


@pytest.mark.parametrize("legacy", [False, True])
def test_statistics_of_a_pth_file(tmp_path: Path, legacy: bool) -> None:
    whole = torch.arange(12.0).view(3, 4)
    content = {"w": whole[1:, 1:3], "t": whole.T}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    weights = describe(tmp_path / "x.pth", Request(weights=True)).facts["weights"]
    for tensor in weights:
        expected = content[tensor["name"]]
        assert tensor["statistics"]["smallest"] == expected.min()
        assert tensor["statistics"]["largest"] == expected.max()
        assert tensor["statistics"]["mean"] == expected.mean()
