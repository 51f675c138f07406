"""Convolutions before norms are the plain ones but for the bias, which the norm subtracts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cyclegan_cli.config import TrainConfig
from cyclegan_cli.models.convolution import convolve_before_norm, keep_kernels
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.models.normalization import instance_norm
from cyclegan_cli.models.winograd_training import WinogradConv2d

CONVS = {
    "stem": lambda: nn.Conv2d(3, 8, 7),
    "halving": lambda: nn.Conv2d(8, 16, 3, stride=2, padding=1),
    "doubling": lambda: nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1, output_padding=1),
    "hidden": lambda: nn.Conv2d(8, 16, 4, stride=1, padding=1),
    "trunk": lambda: WinogradConv2d(16, 16, 3),
}


def normed_with_gradients(
    conv: nn.Conv2d | nn.ConvTranspose2d, x: Tensor, plain: bool
) -> list[Tensor]:
    convolved = conv(x) if plain else convolve_before_norm(conv, x)
    output = instance_norm(convolved)
    weights = torch.linspace(-1, 1, output.numel(), dtype=x.dtype).view_as(output)
    return [output.detach(), *torch.autograd.grad((output * weights).sum(), [x, conv.weight])]


@pytest.mark.parametrize("side", [12, 40], ids=["as-a-product", "large"])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", CONVS)
def test_before_a_norm_nothing_but_the_bias_is_left_out(name: str, batch: int, side: int) -> None:
    torch.manual_seed(0)
    conv = CONVS[name]().double().to(memory_format=torch.channels_last)
    x = torch.randn(batch, conv.in_channels, side, side, dtype=torch.float64, requires_grad=True)
    found = normed_with_gradients(conv, x, plain=False)
    expected = normed_with_gradients(conv, x, plain=True)
    for ours, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-7, atol=1e-9)


def test_the_bias_gets_a_gradient_of_zeros() -> None:
    conv = nn.Conv2d(4, 4, 3).double()
    convolve_before_norm(conv, torch.randn(1, 4, 8, 8, dtype=torch.float64)).sum().backward()
    assert conv.bias is not None
    assert torch.equal(conv.bias.grad, torch.zeros(4, dtype=torch.float64))  # type: ignore[arg-type]


def test_a_frozen_layer_passes_gradients_and_gets_none() -> None:
    conv = nn.Conv2d(4, 4, 3).double().requires_grad_(False)
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64, requires_grad=True)
    convolve_before_norm(conv, x).square().sum().backward()
    assert x.grad is not None
    assert conv.weight.grad is None


def test_without_gradients_it_is_the_plain_layer() -> None:
    conv = nn.Conv2d(4, 4, 3).double()
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(convolve_before_norm(conv, x), conv(x))


@pytest.mark.parametrize("keeps", [False, True])
def test_under_autocast_weights_are_cast_as_often_as_needed(keeps: bool) -> None:
    conv = nn.Conv2d(4, 4, 3, bias=False)
    x = torch.randn(1, 4, 8, 8)

    def convolved() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return convolve_before_norm(conv, x).detach()

    if keeps:
        keep_kernels(conv)
    before = convolved()
    assert before.dtype == torch.bfloat16
    conv.weight.data.mul_(2)  # As torch's fused optimisers do, without counting.
    assert torch.equal(convolved(), before if keeps else 2 * before)
    if keeps:
        keep_kernels(conv)
    assert torch.equal(convolved(), 2 * before)


@pytest.mark.parametrize("bf16", [False, True])
def test_both_directions_at_once_are_those_one_after_the_other(bf16: bool) -> None:
    config = TrainConfig(
        load_size=32, crop_size=32, base_channels=4, discriminator_channels=4, residual_blocks=1
    )
    threads = torch.get_num_threads()
    results = []
    try:
        for at_once in (False, True):
            torch.set_num_threads(2 if at_once else 1)
            model = CycleGAN(config, torch.device("cpu"), bf16)
            images = torch.rand(4, 2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
            losses = [model.step(*pair).stacked() for pair in images]
            assert torch.get_num_threads() == (2 if at_once else 1)
            weights = [p.detach() for n in model.networks().values() for p in n.parameters()]
            results.append([*losses, *weights])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))
