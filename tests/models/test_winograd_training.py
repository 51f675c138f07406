"""Winograd's convolutions to train with compute what direct ones do, and their gradients."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from cyclegan_cli.config import GeneratorConfig, TrainConfig
from cyclegan_cli.models import winograd_training
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.models.networks import ResnetGenerator
from cyclegan_cli.models.winograd_training import (
    ALGORITHMS,
    WinogradConv2d,
    convolution,
    convolution_backward,
    transformed_kernels,
)


def with_gradients(result: Tensor, *inputs: Tensor, seed: int = 0) -> list[Tensor]:
    """The result, and the gradients of a random weighting of it."""
    random = torch.Generator().manual_seed(seed)
    weighting = torch.randn(result.shape, generator=random, dtype=torch.float64)
    return [result, *torch.autograd.grad((result * weighting).sum(), inputs)]


def inputs(*sizes: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """``x``, weight and bias for images, channels in and out, height and width; fp64."""
    images, channels, out, height, width = sizes
    random = torch.Generator().manual_seed(seed)
    shapes = ((images, channels, height + 2, width + 2), (out, channels, 3, 3), (out,))
    x, weight, bias = (
        torch.randn(shape, generator=random, dtype=torch.float64).requires_grad_()
        for shape in shapes
    )
    return x, weight, bias


def relative_error(found: Tensor, exact: Tensor) -> float:
    found, exact = found.detach(), exact.detach()
    return float((found.double() - exact).square().mean().sqrt() / exact.square().mean().sqrt())


@settings(deadline=None, max_examples=60)
@given(
    images=st.integers(1, 5),
    channels=st.integers(1, 6),
    out=st.integers(1, 6),
    height=st.integers(1, 19),
    width=st.integers(1, 19),
    tiles_per_chunk=st.integers(1, 12),
    small_tiles=st.booleans(),
)
def test_output_and_gradients_equal_direct_convolution(
    images, channels, out, height, width, tiles_per_chunk, small_tiles
):
    """Both algorithms are exact: in fp64 nothing but rounding is left."""
    x, weight, bias = inputs(images, channels, out, height, width, seed=height)
    expected = with_gradients(F.conv2d(x, weight, bias), x, weight, bias)
    algorithm = ALGORITHMS[torch.bfloat16 if small_tiles else torch.float64]
    precise = {
        name: getattr(algorithm, name).double()
        for name in ("from_inputs", "from_kernel", "to_results")
    }
    algorithm = dataclasses.replace(algorithm, tiles_per_chunk=tiles_per_chunk, **precise)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ALGORITHMS, torch.float64, algorithm)
        kernels = transformed_kernels(weight, x.dtype)
        found = with_gradients(convolution(x, weight, bias, kernels), x, weight, bias)
    for own, direct in zip(found, expected, strict=True):
        torch.testing.assert_close(own, direct, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 5e-6), (torch.bfloat16, 0.01)], ids=["fp32", "bf16"]
)
@pytest.mark.parametrize("images", [1, 3])
def test_training_winograd_rounding_errors(dtype, tolerance, images):
    exact_inputs = inputs(images, 64, 64, 20, 22)
    exact = with_gradients(F.conv2d(*exact_inputs), *exact_inputs)
    x, weight, bias = (tensor.detach().float().requires_grad_() for tensor in exact_inputs)
    x = x.detach().to(dtype).requires_grad_()
    kernels = transformed_kernels(weight, dtype)
    found = with_gradients(convolution(x, weight, bias, kernels), x, weight, bias)
    assert [tensor.dtype for tensor in found] == [dtype, dtype, torch.float32, torch.float32]
    for own, direct in zip(found, exact, strict=True):
        assert relative_error(own, direct) < tolerance


def test_bf16_weight_gradients_accumulate_in_fp32(monkeypatch):
    """In bf16 a sum of 256 equal parts would stop growing half way."""
    algorithm = dataclasses.replace(ALGORITHMS[torch.bfloat16], tiles_per_chunk=1)
    monkeypatch.setitem(ALGORITHMS, torch.bfloat16, algorithm)
    x = torch.ones(1, 1, 34, 34, dtype=torch.bfloat16)
    weight = torch.zeros(1, 1, 3, 3)
    kernels = transformed_kernels(weight, x.dtype)
    ones = torch.ones(1, 1, 32, 32, dtype=torch.bfloat16)
    _, d_weight, d_bias = convolution_backward(ones, x, weight, kernels, False)
    torch.testing.assert_close(d_weight, torch.full_like(weight, 1024.0))
    assert d_bias.tolist() == [1024]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operators_pass_opcheck(dtype):
    x, weight, bias = (tensor.detach().float() for tensor in inputs(2, 3, 4, 9, 6))
    x = x.to(dtype).requires_grad_()
    arguments = (x, weight, bias, transformed_kernels(weight, dtype))
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(convolution, arguments, test_utils=tests)
    gradient = torch.ones(2, 4, 9, 6, dtype=dtype)
    for needed in (True, False):
        torch.library.opcheck(
            convolution_backward,
            (gradient, x.detach(), weight, arguments[3], needed),
            test_utils=tests,
        )


# When it is used


@pytest.fixture
def calls(monkeypatch):
    """The dtypes of the convolutions that went Winograd's way."""
    seen: list[torch.dtype] = []

    def spy(x, *rest):
        seen.append(x.dtype)
        return convolution(x, *rest)

    monkeypatch.setattr(winograd_training, "convolution", spy)
    return seen


@pytest.fixture
def any_size(monkeypatch):
    monkeypatch.setattr(winograd_training, "MIN_MULTIPLICATIONS", 1)


def test_wide_convolution_uses_winograd_in_training(calls):
    conv = WinogradConv2d(64, 64, 3)
    x = torch.randn(1, 64, 58, 58, requires_grad=True)
    torch.testing.assert_close(conv(x), nn.Conv2d.forward(conv, x), rtol=1e-4, atol=1e-4)
    assert calls == [torch.float32]


@pytest.mark.parametrize(
    ("channels", "side", "gradient"), [(63, 82, True), (64, 56, True), (64, 82, False)]
)
def test_slower_cases_use_the_plain_convolution(calls, channels, side, gradient):
    conv = WinogradConv2d(channels, 64, 3)
    x = torch.randn(1, channels, side, side, requires_grad=gradient)
    assert torch.equal(conv(x), nn.Conv2d.forward(conv, x))
    assert calls == []


@pytest.mark.usefixtures("any_size")
def test_exported_graphs_have_plain_convolutions():
    conv = WinogradConv2d(64, 64, 3)
    x = torch.randn(1, 64, 26, 26, requires_grad=True)
    operators = {str(node.target) for node in torch.export.export(conv, (x,)).graph.nodes}
    assert "aten.conv2d.default" in operators
    assert not any("winograd" in name for name in operators)


@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1}, {"padding": "same"}, {"stride": 2}, {"dilation": 2}, {"groups": 2},
        {"bias": False}, {"kernel_size": 5}, {"padding": 1, "padding_mode": "reflect"},
    ],
    ids=str,
)  # fmt: skip
def test_padding_stride_and_dilation_are_respected(calls, options):
    conv = WinogradConv2d(128, 128, **{"kernel_size": 3} | options)
    x = torch.randn(1, 128, 52, 52, requires_grad=True)
    assert torch.equal(conv(x), nn.Conv2d.forward(conv, x))
    assert calls == []


@pytest.mark.usefixtures("any_size")
def test_fused_optimizer_updates_invalidate_cached_kernels(calls):
    generator = ResnetGenerator(GeneratorConfig(16, 1))
    images = torch.rand(1, 3, 96, 96)
    optimizer = torch.optim.Adam(generator.parameters(), 0.01, fused=True)
    generator(images).mean().backward()
    optimizer.step()
    found = generator(images)
    assert calls
    with torch.no_grad():  # Without gradients it is the plain convolution.
        torch.testing.assert_close(found, generator(images), rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("any_size")
def test_cached_kernels_are_not_in_the_state_dict():
    conv = WinogradConv2d(64, 64, 3)
    conv.caches_kernels = True
    conv(torch.randn(1, 64, 26, 26, requires_grad=True))
    assert conv._kernels is not None
    assert set(conv.state_dict()) == {"weight", "bias"}


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("winograd_bf16", [False, True])
@pytest.mark.parametrize("bf16", [False, True])
def test_bf16_with_amx_uses_direct_convolution(calls, bf16, winograd_bf16):
    config = TrainConfig(
        load_size=64, crop_size=64, base_channels=16, discriminator_channels=4, residual_blocks=1,
        batch_size=2,
    )  # fmt: skip
    model = CycleGAN(config, torch.device("cpu"), bf16, winograd_bf16=winograd_bf16)
    model.step(*torch.rand(2, 2, 3, 64, 64))
    dtype = torch.bfloat16 if bf16 else torch.float32
    assert set(calls) == ({dtype} if winograd_bf16 or not bf16 else set())


@pytest.mark.usefixtures("any_size")
def test_residual_blocks_use_winograd(calls):
    generator = ResnetGenerator(GeneratorConfig(16, 2))
    generator(torch.rand(1, 3, 96, 96))
    assert len(calls) == 4


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-5), (True, 0.02)], ids=["fp32", "bf16"])
def test_training_step_losses_equal_direct_convolution(bf16, tolerance, monkeypatch):
    config = TrainConfig(
        load_size=96, crop_size=96, base_channels=16, discriminator_channels=4, residual_blocks=2
    )
    random = torch.Generator().manual_seed(0)
    real_a, real_b = torch.rand((2, 1, 3, 96, 96), generator=random) * 2 - 1

    def losses():
        return CycleGAN(config, torch.device("cpu"), bf16).step(real_a, real_b).stacked()

    found = losses()
    monkeypatch.setattr(winograd_training, "MIN_CHANNELS", 1000)
    torch.testing.assert_close(found, losses(), rtol=tolerance, atol=tolerance / 10)


@pytest.mark.slow
@pytest.mark.usefixtures("any_size")
def test_training_uses_current_weights(monkeypatch):
    """torch's fused Adam changes weights without their version telling so."""
    config = TrainConfig(
        base_channels=32, residual_blocks=1, discriminator_channels=2, crop_size=96, load_size=96,
        pool_size=0,
    )  # fmt: skip
    random = torch.Generator().manual_seed(0)
    real_a, real_b = torch.rand((2, 1, 3, 96, 96), generator=random) * 2 - 1

    def losses():
        model = CycleGAN(config, torch.device("cpu"), bf16=False)
        model.set_learning_rate(1e-3)
        return torch.stack([model.step(real_a, real_b).stacked() for _ in range(4)])

    found = losses()
    monkeypatch.setattr(winograd_training, "MIN_MULTIPLICATIONS", 10**12)
    direct = losses()
    # Adam makes steps of rounding errors; what stale weights give is off by tenths.
    assert torch.allclose(found, direct, rtol=0.02, atol=0.005)
    assert not torch.allclose(direct[0], direct[-1], rtol=0.05)
