"""Strips of rows, and running moments."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from cyclegan_cli.models.networks import InstanceNorm
from cyclegan_cli.translation.layers import RunningMoments, strips


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.floats(-100, 100))
def test_running_moments_equal_moments_of_all_rows(heights, offset):
    random = torch.Generator().manual_seed(len(heights))
    parts = [torch.randn(1, 3, height, 4, generator=random) * height + offset for height in heights]
    gathering = RunningMoments()
    for part in parts:
        gathering.add(part)
    variance, mean = torch.var_mean(torch.cat(parts, dim=2).double(), (0, 2, 3), correction=0)
    found = gathering.finish(InstanceNorm(3, affine=False))
    torch.testing.assert_close(found.mean.double(), mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.variance.double(), variance, rtol=1e-4, atol=1e-5)


@given(st.integers(1, 100), st.integers(1, 30))
def test_strips_cover_all_rows_once(height, strip):
    rows = [row for top, bottom in strips(height, strip) for row in range(top, bottom)]
    assert rows == list(range(height))
    assert all(bottom - top <= strip for top, bottom in strips(height, strip))


def test_running_moments_of_many_strips_are_exact():
    """Small tensors that stay, one a strip, would break the heap of a large image into pieces."""
    rows = torch.randn(1, 3, 500, 7) * torch.tensor([1.0, 5.0, 0.1]).view(1, 3, 1, 1) + 2
    gathering = RunningMoments()
    for top, bottom in strips(500, 3):
        gathering.add(rows[:, :, top:bottom])
    held = [value for value in vars(gathering).values() if isinstance(value, torch.Tensor)]
    assert len(held) == 1
    norm = gathering.finish(InstanceNorm(3, affine=False))
    flat = rows[0].flatten(1).double()
    assert torch.allclose(norm.mean.double(), flat.mean(1), rtol=1e-6)
    assert torch.allclose(norm.variance.double(), flat.var(1, correction=0), rtol=1e-5)
