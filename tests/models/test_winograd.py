"""Winograd's convolution computes what a direct one does."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from cyclegan_cli.models import winograd
from cyclegan_cli.models.winograd import WinogradConv, Workspace, is_faster


def direct(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The convolution as it is defined, in fp64, with reflected columns."""
    return F.conv2d(F.pad(x.double(), [1, 1, 0, 0], mode="reflect"), weight.double())


@settings(deadline=None, max_examples=100)
@given(
    height=st.integers(1, 30),
    width=st.integers(2, 30),
    channels_in=st.integers(1, 8),
    channels_out=st.integers(1, 8),
    tiles=st.integers(1, 12),
    by_additions=st.booleans(),
    channels_last=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_winograd_equals_direct_convolution(
    height, width, channels_in, channels_out, tiles, by_additions, channels_last, seed
):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(1, channels_in, height + 2, width, generator=random)
    weight = torch.randn(channels_out, channels_in, 3, 3, generator=random)
    expected = direct(x, weight)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "TILES_PER_CHUNK", tiles)
        conv = WinogradConv(weight, Workspace())
        if not by_additions:
            conv.transforms = winograd._Products(torch.float32)
        found = conv(x)
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-3)


def test_winograd_fp32_error_is_that_of_direct_convolution():
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1, 64, 34, 32, generator=random)
    weight = torch.randn(64, 64, 3, 3, generator=random) * 0.02
    exact = direct(x, weight)
    found = WinogradConv(weight, Workspace())(x)
    assert float((found - exact).abs().max() / exact.std()) < 5e-5


def test_winograd_bf16_error_is_bounded():
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1, 64, 34, 32, generator=random).relu().bfloat16()
    weight = torch.randn(64, 64, 3, 3, generator=random) * 0.02
    exact = direct(x, weight)
    found = WinogradConv(weight, Workspace(torch.bfloat16))(x)
    assert found.dtype == torch.bfloat16
    assert 0.003 < float((found - exact).std() / exact.std()) < 0.02


@pytest.mark.parametrize(
    ("conv", "expected"),
    [
        (nn.Conv2d(64, 64, 3), True),
        (nn.Conv2d(63, 64, 3), False),
        (nn.Conv2d(64, 64, 3, stride=2), False),
        (nn.Conv2d(64, 64, 1), False),
        (nn.Conv2d(64, 64, 3).bfloat16(), True),
        (nn.Conv2d(64, 64, 3, device="meta"), False),
    ],
)
def test_winograd_applies_to_wide_3x3_convolutions_on_cpus(conv, expected):
    assert is_faster(conv) is expected
