"""Antialiased resampling: equal to its definition, gradients included."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cyclegan_cli.config import GeneratorConfig, Norms, Resampling
from cyclegan_cli.models.networks import ResnetGenerator, initialize_weights
from cyclegan_cli.models.resampling import bilinear_upsample, blur, blur_downsample

SIZES = [(2, 2), (2, 7), (3, 3), (4, 6), (9, 5), (16, 16)]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_blur(x: Tensor, stride: int = 1) -> Tensor:
    """By the definition, one channel at a time."""
    line = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype)
    kernel = (line[:, None] * line / 16)[None, None]
    padded = nn.ReflectionPad2d(1)(x)
    channels = [F.conv2d(channel, kernel, stride=stride) for channel in padded.split(1, dim=1)]
    return torch.cat(channels, dim=1)


def plain_upsample(x: Tensor) -> Tensor:
    """CUT's, one channel at a time: a transposed convolution whose rim is cut off."""
    line = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype)
    kernel = (line[:, None] * line / 16)[None, None]
    padded = nn.ReplicationPad2d(1)(x)
    channels = [
        F.conv_transpose2d(channel, kernel, stride=2, padding=2)[:, :, 1:-1, 1:-1]
        for channel in padded.split(1, dim=1)
    ]
    return torch.cat(channels, dim=1)


KINDS = {
    "blur": (blur, plain_blur),
    "blur_downsample": (blur_downsample, lambda x: plain_blur(x, stride=2)),
    "bilinear_upsample": (bilinear_upsample, plain_upsample),
}


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-14), (torch.float32, 2e-6)])
def test_resampling_and_its_gradient_equal_the_definition(
    kind: str,
    size: tuple[int, int],
    batch: int,
    layout: torch.memory_format,
    dtype: torch.dtype,
    close: float,
) -> None:
    ours, plain = KINDS[kind]
    x = noise(batch, 5, *size).to(dtype).contiguous(memory_format=layout).requires_grad_()
    found, expected = ours(x), plain(x.double())
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=close)
    with torch.no_grad():
        assert torch.equal(ours(x), found)
    weights = noise(*expected.shape, seed=1)
    (found_gradient,) = torch.autograd.grad((found * weights.to(dtype)).sum(), x)
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), x)
    torch.testing.assert_close(found_gradient, expected_gradient, rtol=0, atol=4 * close)


@pytest.mark.parametrize("kind", KINDS)
def test_resampling_is_differentiable_by_finite_differences(kind: str) -> None:
    x = noise(2, 3, 4, 6).requires_grad_()
    assert torch.autograd.gradcheck(KINDS[kind][0], x, fast_mode=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("with_gradient", [False, True])
def test_resampling_of_bf16_rounds_only_the_output(
    kind: str, autocast: bool, with_gradient: bool
) -> None:
    ours, plain = KINDS[kind]
    x = noise(2, 8, 12, 10).bfloat16().contiguous(memory_format=torch.channels_last)
    x.requires_grad_(with_gradient)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = ours(x)
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), plain(x.double()), rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_constants_are_kept(kind: str) -> None:
    assert KINDS[kind][0](torch.full((1, 2, 6, 6), 0.5)).unique().tolist() == [0.5]


def test_blur_removes_every_pattern_of_period_two() -> None:
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(6), indexing="ij")
    for pattern in (rows % 2, columns % 2, (rows + columns) % 2, rows % 2 * (columns % 2)):
        whole = pattern.double().expand(1, 1, 8, 6)
        blurred = blur(whole)
        torch.testing.assert_close(blurred, torch.full_like(whole, float(whole.mean())))


@pytest.mark.parametrize("resampling", ["strided", "blur", "cut"])
def test_generators_have_the_same_parameters_and_no_buffers(resampling: Resampling) -> None:
    plain = ResnetGenerator(GeneratorConfig(4, 2))
    network = ResnetGenerator(GeneratorConfig(4, 2, resampling=resampling))
    names = {name: tensor.numel() for name, tensor in plain.state_dict().items()}
    assert {name: tensor.numel() for name, tensor in network.state_dict().items()} == names
    assert list(network.buffers()) == []


def plain_generator(network: ResnetGenerator) -> nn.Module:
    """The network of plain modules, without the affine norms."""
    resampling = network.config.resampling

    class Apply(nn.Module):
        def __init__(self, function: object) -> None:
            super().__init__()
            self.function = function

        def forward(self, x: Tensor) -> Tensor:
            return self.function(x)  # type: ignore[operator,no-any-return]

    class Residual(nn.Module):
        def __init__(self, *layers: nn.Module) -> None:
            super().__init__()
            self.layers = nn.Sequential(*layers)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.layers(x)  # type: ignore[no-any-return]

    config = network.config
    c = config.base_channels

    def norm(channels: int) -> nn.Module:
        return nn.InstanceNorm2d(channels) if config.norms == "all" else nn.Identity()

    layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(3, c, 7), norm(c), nn.ReLU()]
    for width in (c, 2 * c):
        if resampling == "blur":
            layers.append(Apply(plain_blur))
        stride = 1 if resampling == "cut" else 2
        layers.append(nn.Conv2d(width, 2 * width, 3, stride, 1))
        layers += [norm(2 * width), nn.ReLU()]
        if resampling == "cut":
            layers.append(Apply(lambda x: plain_blur(x, 2)))
    for _ in range(config.residual_blocks):
        first = [nn.ReflectionPad2d(1), nn.Conv2d(4 * c, 4 * c, 3), nn.InstanceNorm2d(4 * c)]
        second = [nn.ReflectionPad2d(1), nn.Conv2d(4 * c, 4 * c, 3), nn.InstanceNorm2d(4 * c)]
        layers.append(Residual(*first, nn.ReLU(), *second))
    for width in (4 * c, 2 * c):
        if resampling == "cut":
            layers += [Apply(plain_upsample), nn.Conv2d(width, width // 2, 3, 1, 1)]
        else:
            layers.append(nn.ConvTranspose2d(width, width // 2, 3, 2, 1, 1))
        if resampling == "blur":
            layers.append(Apply(plain_blur))
        layers += [norm(width // 2), nn.ReLU()]
    layers += [nn.ReflectionPad2d(3), nn.Conv2d(c, 3, 7), nn.Tanh()]
    plain = nn.Sequential(*layers).double()
    weights = [tensor.detach().double() for tensor in network.state_dict().values()]
    for parameter, weight in zip(plain.parameters(), weights, strict=True):
        parameter.data.copy_(weight)
    return plain


@pytest.mark.parametrize("norms", ["all", "residual"])
@pytest.mark.parametrize("resampling", ["strided", "blur", "cut"])
def test_generator_and_its_gradients_equal_plain_modules(
    resampling: Resampling, norms: Norms
) -> None:
    network = ResnetGenerator(GeneratorConfig(4, 2, resampling=resampling, norms=norms)).double()
    initialize_weights(network, torch.Generator().manual_seed(0))
    plain = plain_generator(network)
    images, weights = noise(2, 3, 24, 16).clamp(-1, 1), noise(2, 3, 24, 16, seed=1)
    found, expected = network(images), plain(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for ours, theirs in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("resampling", ["blur", "cut"])
def test_the_smallest_image_passes_in_training_and_inference(resampling: Resampling) -> None:
    network = ResnetGenerator(GeneratorConfig(2, 1, resampling=resampling))
    network(torch.rand(1, 3, 8, 8)).sum().backward()
    with torch.inference_mode():
        assert network(torch.rand(1, 3, 8, 8)).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("resampling", ["blur", "cut"])
def test_repeated_gradients_are_bit_identical(resampling: Resampling) -> None:
    network = ResnetGenerator(GeneratorConfig(8, 1, resampling=resampling))
    network.to(memory_format=torch.channels_last)
    images = noise(2, 3, 32, 32).float().contiguous(memory_format=torch.channels_last)

    def gradients() -> list[Tensor]:
        network.zero_grad()
        network(images).square().sum().backward()
        return [parameter.grad.clone() for parameter in network.parameters()]  # type: ignore[union-attr]

    first, second = gradients(), gradients()
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
