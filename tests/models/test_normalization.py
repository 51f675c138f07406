"""Instance norm passes on no rounding noise: neither of constant maps nor of their gradients."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cyclegan_cli.config import GeneratorConfig, TrainConfig
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.models.networks import ResnetGenerator, initialize_weights
from cyclegan_cli.models.normalization import CONSTANT_BELOW, NO_GRADIENT_BELOW, instance_norm

SIZE = 64


def colour(red: float, green: float, blue: float) -> Tensor:
    return (
        torch.tensor([red, green, blue], dtype=torch.float32)
        .view(1, 3, 1, 1)
        .expand(1, 3, SIZE, SIZE)
        .clone()
    )


def textured(seed: int) -> Tensor:
    """Large and small structures, as photos have."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 6, generator=random) * 2 - 1
    smooth = torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic")
    return (smooth + 0.2 * torch.randn(1, 3, SIZE, SIZE, generator=random)).clamp(-1, 1)


def one_pixel() -> Tensor:
    image = colour(-0.76, -0.53, 0.57)
    image[..., SIZE // 3, SIZE // 2] = 0.5
    return image


def faint_gradient() -> Tensor:
    return colour(-0.76, -0.53, 0.57) + torch.linspace(0, 0.03, SIZE)


def half_white() -> Tensor:
    image = textured(7)
    image[..., SIZE // 2 :] = 1.0
    return image


UNIFORM = {
    "white": colour(1, 1, 1),
    "black": colour(-1, -1, -1),
    "blue": colour(-0.76, -0.53, 0.57),
    "grey": colour(1 / 255, 1 / 255, 1 / 255),
}
LOW_VARIANCE = UNIFORM | {
    "one pixel": one_pixel(),
    "faint gradient": faint_gradient(),
    "half white": half_white(),
    "one 8-bit step of noise": colour(0.1, 0.1, 0.1) + (textured(3) > 0) * (2 / 255),
}


def gradient_norms(model: CycleGAN, real_a: Tensor, real_b: Tensor) -> list[float]:
    """Of both generators and of both discriminators."""
    model._pass(real_a, real_b)
    return [
        float(torch.cat([p.grad.flatten() for p in network.parameters()]).norm())
        for network in model.networks().values()
    ]


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    ("channels", "blocks", "batch"), [(8, 6, 1), (8, 9, 4), (32, 6, 1)], ids=str
)
@pytest.mark.parametrize("kind", LOW_VARIANCE)
@pytest.mark.slow
def test_low_variance_images_do_not_amplify_gradients(kind, channels, blocks, batch, bf16):
    check_gradients(kind, channels, blocks, batch, bf16, "all", 5)


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("kind", LOW_VARIANCE)
@pytest.mark.slow
def test_low_variance_images_do_not_amplify_gradients_without_outer_norms(kind, bf16):
    """All pixels of a constant image move the weights in the same direction: 5.5 times."""
    check_gradients(kind, 8, 6, 1, bf16, "residual", 10)


def check_gradients(kind, channels, blocks, batch, bf16, norms, bound):
    config = TrainConfig(
        crop_size=SIZE, load_size=SIZE, base_channels=channels, discriminator_channels=channels,
        residual_blocks=blocks, batch_size=batch, norms=norms,
    )  # fmt: skip
    model = CycleGAN(config, torch.device("cpu"), bf16)
    others = torch.cat([textured(seed) for seed in range(batch)])
    ordinary = gradient_norms(model, others, others.flip(3))
    low = others.clone()
    low[0] = LOW_VARIANCE[kind][0]
    for pair in ((low, others), (others, low)):
        found = gradient_norms(model, *pair)
        assert all(norm < bound * usual for norm, usual in zip(found, ordinary, strict=True)), found


def trained_generator() -> ResnetGenerator:
    """Random weights, with biases as large as those of a trained network."""
    generator = ResnetGenerator(GeneratorConfig(16, 3))
    random = torch.Generator().manual_seed(0)
    initialize_weights(generator, random)
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1, generator=random)
    return generator


@pytest.mark.parametrize("name", UNIFORM)
def test_uniform_image_output_equals_exact_arithmetic(name):
    """All norms are zero, so only the last bias is left."""
    generator = trained_generator()
    expected = torch.tanh(generator.head.bias).detach().view(1, 3, 1, 1).expand(1, 3, SIZE, SIZE)
    image = UNIFORM[name]
    ways: dict[str, Callable[[], Tensor]] = {
        "training": lambda: generator(image.clone().requires_grad_()),
        "batch": lambda: generator(torch.cat([textured(0), image]))[1:],
        "inference": lambda: torch.no_grad()(generator)(image),
    }
    for way, run in ways.items():
        torch.testing.assert_close(
            run().detach(), expected, rtol=0, atol=1e-6, msg=lambda text, way=way: f"{way}: {text}"
        )
    double = copy.deepcopy(generator).double()(image.double())
    torch.testing.assert_close(double.float().detach(), expected, rtol=0, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = generator(image.clone().requires_grad_())
    torch.testing.assert_close(coarse.detach().float(), expected, rtol=0, atol=5e-3)


def noise_of_variance(variance: float) -> Tensor:
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 1, 16, 16, generator=random, dtype=torch.float64)
    noise = (noise - noise.mean()) / noise.std(correction=0)
    return (noise * variance**0.5).float().requires_grad_()


@pytest.mark.parametrize("variance", [0.0, CONSTANT_BELOW / 2])
def test_variance_below_rounding_error_gives_zero(variance):
    x = noise_of_variance(variance)
    found = instance_norm(x)
    assert torch.equal(found, torch.zeros_like(found))
    assert torch.equal(instance_norm(x, torch.tensor([2.0]), torch.tensor([0.5]))[0, 0, 0, :1],
                       torch.tensor([0.5]))  # fmt: skip


def test_small_variance_is_normalized_exactly():
    x = noise_of_variance(CONSTANT_BELOW * 2)
    expected = torch.nn.functional.instance_norm(x)
    torch.testing.assert_close(instance_norm(x), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("factor", "passes"), [(0.5, False), (2.0, True)])
def test_gradient_passes_where_there_is_variance(factor, passes):
    x = noise_of_variance(NO_GRADIENT_BELOW * factor)
    (gradient,) = torch.autograd.grad((instance_norm(x) * torch.arange(16.0)).sum(), x)
    assert bool(gradient.any()) is passes


@pytest.mark.parametrize("batch", [1, 3])
def test_gradients_equal_torch_instance_norm(batch):
    random = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 4, 12, 10, generator=random).requires_grad_()
    scale, shift = (torch.randn(4, generator=random).requires_grad_() for _ in range(2))
    weights = torch.randn(batch, 4, 12, 10, generator=random)
    inputs = (x, scale, shift)
    found = torch.autograd.grad((instance_norm(*inputs) * weights).sum(), inputs)
    expected = torch.autograd.grad(
        (torch.nn.functional.instance_norm(x, weight=scale, bias=shift) * weights).sum(), inputs
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [0.1, 1.7, -33.3])
def test_large_constant_map_is_zero_despite_rounded_mean(value, dtype):
    x = torch.full((1, 8, 256, 256), value, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    found = instance_norm(x)
    assert not found.any()
    assert not torch.autograd.grad(found.float().sum(), x)[0].any()
