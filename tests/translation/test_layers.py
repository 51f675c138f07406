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
