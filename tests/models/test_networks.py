"""The two networks: their sizes, and the same numbers as a textbook makes of them."""

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cyclegan_cli.config import DiscriminatorConfig, GeneratorConfig
from cyclegan_cli.models import networks
from cyclegan_cli.models.networks import (
    MultiScaleDiscriminator,
    PatchDiscriminator,
    ResnetGenerator,
    initialize_weights,
    instance_norm,
)


def noise(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Uniform in [-1, 1]."""
    random = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=random, dtype=dtype) * 2 - 1


def tiny_generator(blocks: int = 2) -> ResnetGenerator:
    return ResnetGenerator(GeneratorConfig(base_channels=4, residual_blocks=blocks))


def tiny_discriminator() -> PatchDiscriminator:
    return PatchDiscriminator(DiscriminatorConfig(base_channels=4))


# Sizes


@pytest.mark.parametrize(("blocks", "count"), [(9, 11_378_179), (6, 7_837_699)])
def test_generator_parameter_count(blocks, count):
    with torch.device("meta"):
        generator = ResnetGenerator(GeneratorConfig(64, blocks))
    assert sum(parameter.numel() for parameter in generator.parameters()) == count


def test_discriminator_parameter_count():
    with torch.device("meta"):
        discriminator = PatchDiscriminator(DiscriminatorConfig(64))
    assert sum(parameter.numel() for parameter in discriminator.parameters()) == 2_764_737


@pytest.mark.parametrize("build", [tiny_generator, tiny_discriminator])
def test_networks_have_no_buffers(build):
    network = build()
    assert list(network.buffers()) == []
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}


def test_second_scale_of_a_discriminator_sees_the_image_at_half_size():
    discriminator = MultiScaleDiscriminator(DiscriminatorConfig(base_channels=4, scales=2))
    initialize_weights(discriminator, torch.Generator().manual_seed(0))
    x = noise(2, 3, 256, 256)
    fine, coarse = discriminator(x)
    assert fine.shape == (2, 1, 30, 30)
    assert coarse.shape == (2, 1, 14, 14)
    halved = x.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5))
    torch.testing.assert_close(coarse, discriminator.scales[1](halved))


@pytest.mark.parametrize(("side", "judgements"), [(32, 2), (70, 6), (128, 14), (256, 30)])
def test_discriminator_output_sizes(side, judgements):
    assert tiny_discriminator()(noise(1, 3, side, side)).shape == (1, 1, judgements, judgements)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (32, 32), (36, 64), (128, 12)])
def test_generator_output_has_the_input_size_and_range(batch, height, width):
    translated = tiny_generator()(noise(batch, 3, height, width))
    assert translated.shape == (batch, 3, height, width)
    assert translated.abs().max() <= 1


# Receptive fields


def test_discriminator_receptive_field_is_70x70(monkeypatch):
    """Without the norm, whose statistics are over the whole image."""
    monkeypatch.setattr(networks, "instance_norm", lambda x: x)
    image = noise(1, 3, 128, 128, dtype=torch.float64).requires_grad_()
    logits = tiny_discriminator().double()(image)
    (gradient,) = torch.autograd.grad(logits[0, 0, 7, 7], image)
    seen = gradient.abs().sum(dim=(0, 1)) > 0
    rows, columns = seen.any(dim=1).nonzero().flatten(), seen.any(dim=0).nonzero().flatten()
    assert (len(rows), len(columns)) == (70, 70)
    assert seen.sum() == 70 * 70


@pytest.mark.parametrize("build", [tiny_generator, tiny_discriminator])
def test_images_of_a_batch_are_independent(build):
    network = build().double()
    images = noise(3, 3, 32, 32, dtype=torch.float64)
    one_by_one = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), one_by_one)


# Instance norm


def written_out_norm(x: Tensor) -> Tensor:
    x = x.double()
    mean = x.mean(dim=(2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=(2, 3), keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_instance_norm_equals_the_formula(batch, layout):
    x = noise(batch, 6, 7, 9, dtype=torch.float64) * torch.arange(1, 7).view(6, 1, 1) + 3
    x = x.contiguous(memory_format=layout)
    torch.testing.assert_close(instance_norm(x), written_out_norm(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("is_affine", [False, True])
@pytest.mark.parametrize("batch", [1, 2])
def test_instance_norm_of_bf16_rounds_only_the_output(batch, is_affine):
    """Far from zero, where a sum of 4096 values in bf16 would stop growing."""
    x = (noise(batch, 4, 64, 64) * 10 + 50).bfloat16()
    expected, affine = written_out_norm(x), ()
    if is_affine:
        affine = scale, shift = noise(4, seed=1).bfloat16(), noise(4, seed=2).bfloat16()
        expected = expected * scale.double().view(4, 1, 1) + shift.double().view(4, 1, 1)
    found = instance_norm(x, *affine)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 2])
def test_eval_mode_does_not_change_the_output(batch):
    generator, image = tiny_generator(), noise(batch, 3, 16, 16)
    assert torch.equal(generator.train()(image), generator.eval()(image))


# First weights


def test_weights_are_initialized_from_normal_002_and_biases_zero():
    generator = ResnetGenerator(GeneratorConfig(base_channels=16, residual_blocks=2))
    initialize_weights(generator, torch.Generator().manual_seed(0))
    for name, tensor in generator.state_dict().items():
        if name.endswith("bias"):
            assert not tensor.any(), name
        else:
            assert tensor.std() == pytest.approx(0.02, rel=0.05), name
            assert tensor.mean().abs() < 4 * 0.02 / tensor.numel() ** 0.5, name
    beyond_two_deviations = generator.trunk[0].second.weight.abs() > 0.04
    assert beyond_two_deviations.float().mean() == pytest.approx(0.0455, abs=0.005)


@pytest.mark.parametrize(("channels", "blocks"), [(16, 6), (64, 9)])
def test_first_weights_without_norms_do_not_saturate_the_output(channels, blocks):
    network = ResnetGenerator(GeneratorConfig(channels, blocks, norms="residual"))
    initialize_weights(network, torch.Generator().manual_seed(0))
    with torch.inference_mode():
        translated = network(noise(1, 3, 64, 64))
    assert 0.1 < float(translated.std()) < 0.7
    assert not any(bias.any() for name, bias in network.named_parameters() if "bias" in name)


def test_output_depends_on_brightness_only_without_norms_outside_of_residual_blocks():
    image = noise(1, 3, 32, 32)
    brighter = image / 2 + 0.5
    changes = {}
    for norms in ("all", "residual"):
        network = ResnetGenerator(GeneratorConfig(8, 2, norms=norms))
        initialize_weights(network, torch.Generator().manual_seed(0))
        with torch.inference_mode():
            changes[norms] = float((network(image) - network(brighter)).abs().mean())
    assert changes["all"] < 1e-3
    assert changes["residual"] > 0.05


def test_affine_norms_are_initialized_to_identity():
    def first(affine):
        network = ResnetGenerator(GeneratorConfig(4, 2, affine_norm=affine))
        initialize_weights(network, torch.Generator().manual_seed(0))
        return network

    assert torch.equal(first(True)(noise(1, 3, 16, 16)), first(False)(noise(1, 3, 16, 16)))


def test_initialization_depends_only_on_the_seed():
    def weights(seed, global_seed):
        torch.manual_seed(global_seed)
        network = tiny_discriminator()
        initialize_weights(network, torch.Generator().manual_seed(seed))
        return torch.cat([parameter.flatten() for parameter in network.parameters()])

    assert torch.equal(weights(5, global_seed=1), weights(5, global_seed=2))
    assert not torch.equal(weights(5, global_seed=1), weights(6, global_seed=1))


# The textbook: the same networks out of torch's own layers, written down independently


class AddToInput(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def textbook_generator(
    c: int, blocks: int, affine: bool = False, channels_in: int = 3, channels_out: int = 3
) -> nn.Sequential:
    def norm(channels: int) -> nn.Module:
        return nn.InstanceNorm2d(channels, affine=affine)

    layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(channels_in, c, 7)]
    layers += [norm(c), nn.ReLU()]
    for wide in (2 * c, 4 * c):
        layers += [nn.Conv2d(wide // 2, wide, 3, 2, 1), norm(wide), nn.ReLU()]
    for _ in range(blocks):
        block: list[nn.Module] = [nn.ReflectionPad2d(1), nn.Conv2d(4 * c, 4 * c, 3)]
        block += [norm(4 * c), nn.ReLU()]
        block += [nn.ReflectionPad2d(1), nn.Conv2d(4 * c, 4 * c, 3), norm(4 * c)]
        layers.append(AddToInput(*block))
    for wide in (2 * c, c):
        layers.append(nn.ConvTranspose2d(2 * wide, wide, 3, 2, 1, output_padding=1))
        layers += [norm(wide), nn.ReLU()]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(c, channels_out, 7), nn.Tanh())


def textbook_discriminator(c: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(3, c, 4, 2, 1), nn.LeakyReLU(0.2)]
    for narrow, wide, stride in ((c, 2 * c, 2), (2 * c, 4 * c, 2), (4 * c, 8 * c, 1)):
        layers.append(nn.Conv2d(narrow, wide, 4, stride, 1))
        layers += [nn.InstanceNorm2d(wide), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(8 * c, 1, 4, 1, 1))


def with_weights_of(ours: nn.Module, textbook: nn.Module) -> nn.Module:
    """Both have the same convolutions in the same order, biases included."""
    pairs = zip(textbook.state_dict(), ours.state_dict().values(), strict=True)
    textbook.load_state_dict(OrderedDict(pairs))
    return textbook


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("blocks", [1, 6])
def test_generator_equals_reference_implementation(batch, blocks):
    ours = tiny_generator(blocks).double()
    textbook = with_weights_of(ours, textbook_generator(4, blocks).double())
    image = noise(batch, 3, 32, 40, dtype=torch.float64)
    torch.testing.assert_close(ours(image), textbook(image), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("batch", [1, 2])
def test_grayscale_affine_generator_equals_reference_implementation(batch):
    config = GeneratorConfig(4, 2, input_channels=1, output_channels=3, affine_norm=True)
    ours = ResnetGenerator(config).double()
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if "norm" in name:
                parameter.copy_(noise(*parameter.shape, dtype=torch.float64, seed=len(name)))
    textbook = with_weights_of(ours, textbook_generator(4, 2, True, 1, 3).double())
    image = noise(batch, 1, 32, 40, dtype=torch.float64)
    torch.testing.assert_close(ours(image), textbook(image), rtol=1e-9, atol=1e-9)


def test_skips_add_feature_maps_of_equal_size():
    network = ResnetGenerator(GeneratorConfig(4, 2, norms="residual", skips=True)).double()
    image = noise(2, 3, 32, 40, dtype=torch.float64)
    w = network.state_dict()

    def convolved(x: Tensor, name: str, stride: int, padding: int) -> Tensor:
        return F.relu(F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride, padding))

    def doubled(x: Tensor, name: str) -> Tensor:
        return F.relu(
            F.conv_transpose2d(x, w[f"{name}.weight"], w[f"{name}.bias"], 2, 1, output_padding=1)
        )

    full = convolved(F.pad(image, [3, 3, 3, 3], mode="reflect"), "stem.conv", 1, 0)
    half = convolved(full, "down.0.conv", 2, 1)
    quarter = network.trunk(convolved(half, "down.1.conv", 2, 1))
    up = doubled(doubled(quarter, "up.0.conv") + half, "up.1.conv") + full
    up = F.pad(up, [3, 3, 3, 3], mode="reflect")
    expected = torch.tanh(F.conv2d(up, w["head.weight"], w["head.bias"]))
    torch.testing.assert_close(network(image), expected, rtol=1e-9, atol=1e-9)


def test_affine_norms_keep_the_other_parameter_names():
    plain = set(tiny_generator().state_dict())
    affine = ResnetGenerator(GeneratorConfig(4, 2, affine_norm=True)).state_dict()
    assert plain < set(affine)
    assert len(affine) == 2 * len(plain) - 2  # All but the last convolution have a norm.
    assert all("norm." in name for name in set(affine) - plain)


@pytest.mark.parametrize("batch", [1, 2])
def test_discriminator_equals_reference_implementation(batch):
    ours = tiny_discriminator().double()
    textbook = with_weights_of(ours, textbook_discriminator(4).double())
    image = noise(batch, 3, 48, 64, dtype=torch.float64)
    torch.testing.assert_close(ours(image), textbook(image), rtol=1e-9, atol=1e-9)


def test_channels_last_does_not_change_the_output():
    generator, image = tiny_generator(), noise(2, 3, 32, 32)
    plain = generator(image)
    generator.to(memory_format=torch.channels_last)
    channels_last = generator(image.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(channels_last, plain, rtol=1e-3, atol=1e-4)
