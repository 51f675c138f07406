"""Statistics of tensors' elements, for ``cyclegan inspect --weights``."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from cyclegan_cli.inspection import Request, describe, statistics
from cyclegan_cli.inspection.statistics import statistics_of

numbers = st.floats(-1e6, 1e6) | st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf])


def of(*elements: float) -> dict[str, float | None]:
    found = statistics_of(np.array(elements, dtype=np.float64))
    assert found is not None
    return found


def test_statistics_of_a_few_elements():
    assert of(1, 2, 0, 5) == {
        "smallest": 0, "largest": 5, "mean": 2, "standard_deviation": pytest.approx(3.5**0.5),
        "zeros": 0.25, "non_finite": 0,
    }  # fmt: skip


def test_non_finite_elements_are_counted_and_excluded():
    assert of(math.nan, 2, math.inf, 4, -math.inf) == {
        "smallest": 2, "largest": 4, "mean": 3, "standard_deviation": 1, "zeros": 0,
        "non_finite": 0.6,
    }  # fmt: skip
    found = of(math.nan)
    assert (found["mean"], found["smallest"], found["non_finite"]) == (None, None, 1)


def test_empty_tensors_have_no_statistics():
    assert statistics_of(np.zeros((3, 0))) is None


def test_large_mean_does_not_cancel_small_deviation():
    found = of(1e9 - 1, 1e9 + 1, 1e9 - 1, 1e9 + 1)
    assert found["standard_deviation"] == pytest.approx(1)


def test_overflow_of_fp64_gives_none():
    found = of(1e308, -1e308, 1e308)
    assert (found["largest"], found["standard_deviation"]) == (1e308, None)


@given(st.lists(numbers, min_size=1, max_size=30), st.integers(1, 7))
def test_statistics_do_not_depend_on_the_size_of_pieces(elements, piece):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "PIECE", piece)
        found, whole = of(*elements), np.array(elements)
    finite = whole[np.isfinite(whole)]
    assert found["zeros"] == np.mean(whole == 0)
    assert found["non_finite"] == pytest.approx(np.mean(~np.isfinite(whole)))
    if finite.size:
        assert (found["smallest"], found["largest"]) == (finite.min(), finite.max())
        assert found["mean"] == pytest.approx(finite.mean(), rel=1e-9, abs=1e-6)
        assert found["standard_deviation"] == pytest.approx(finite.std(), rel=1e-6, abs=1e-4)


def test_statistics_come_with_the_list_of_weights(cyclegan, tmp_path):
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
def test_statistics_of_a_pth_file(tmp_path, legacy):
    whole = torch.arange(12.0).view(3, 4)
    content = {"w": whole[1:, 1:3], "t": whole.T}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    weights = describe(tmp_path / "x.pth", Request(weights=True)).facts["weights"]
    for tensor in weights:
        expected = content[tensor["name"]]
        assert tensor["statistics"]["smallest"] == expected.min()
        assert tensor["statistics"]["largest"] == expected.max()
        assert tensor["statistics"]["mean"] == expected.mean()
