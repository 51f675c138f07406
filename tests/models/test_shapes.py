"""The arithmetic of the networks, against the networks and against known numbers."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cyclegan_cli.config import DiscriminatorConfig, GeneratorConfig, Resampling
from cyclegan_cli.models.networks import PatchDiscriminator, ResnetGenerator
from cyclegan_cli.models.shapes import (
    activation_bytes,
    discriminator_flops,
    discriminator_layers,
    generator_flops,
    generator_layers,
    generator_shapes,
    receptive_field,
)

CONFIGS = [
    GeneratorConfig(64, 9),
    GeneratorConfig(64, 6),
    GeneratorConfig(5, 1),
    GeneratorConfig(4, 2, input_channels=1, output_channels=3, affine_norm=True),
    GeneratorConfig(64, 6, resampling="blur"),
    GeneratorConfig(5, 1, affine_norm=True, resampling="blur"),
    GeneratorConfig(64, 6, resampling="cut"),
    GeneratorConfig(5, 1, resampling="blur", norms="residual"),
    GeneratorConfig(5, 1, affine_norm=True, resampling="cut"),
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_shapes_equal_the_parameters_of_the_network(config):
    with torch.device("meta"):
        state = ResnetGenerator(config).state_dict()
    assert generator_shapes(config) == {name: tuple(t.shape) for name, t in state.items()}


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_flops_equal_torch_flop_counter(config):
    with torch.device("meta"):
        network, image = ResnetGenerator(config), torch.zeros(1, config.input_channels, 64, 96)
    with FlopCounterMode(display=False) as counter:
        network(image)
    assert generator_flops(config, 64, 96) == counter.get_total_flops()


def test_generator_flops_at_256_pixels():
    assert generator_flops(GeneratorConfig(), 256, 256) == pytest.approx(99.1e9, rel=0.005)


def test_discriminator_flops_and_receptive_field():
    config = DiscriminatorConfig()
    assert discriminator_flops(config, 256, 256) == pytest.approx(6.3e9, rel=0.01)
    assert receptive_field(discriminator_layers(config)) == 70
    with torch.device("meta"):
        network, image = PatchDiscriminator(config), torch.zeros(1, 3, 256, 256)
    with FlopCounterMode(display=False) as counter:
        network(image)
    assert discriminator_flops(config, 256, 256) == counter.get_total_flops()


@pytest.mark.parametrize("resampling", ["strided", "blur", "cut"])
@pytest.mark.parametrize("blocks", [1, 2])
def test_receptive_field_equals_the_extent_of_gradients(
    blocks: int, resampling: Resampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the norms, whose statistics are over the whole image."""
    monkeypatch.setattr("cyclegan_cli.models.networks.instance_norm", lambda x, *_: x)
    config = GeneratorConfig(2, blocks, resampling=resampling)
    network = ResnetGenerator(config).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_().add_(0.01)  # Nothing cancels out, no ReLU is closed.
            parameter.div_(parameter.numel())
    image = torch.rand(1, 3, 128, 128, dtype=torch.float64, requires_grad=True)
    widest = 0
    for row in range(60, 64):  # The field of a pixel depends on its place among four.
        (gradient,) = torch.autograd.grad(network(image)[0, 0, row, 64], image)
        rows = (gradient.abs().sum(dim=(0, 1, 3)) > 0).nonzero().flatten()
        widest = max(widest, int(rows[-1] - rows[0]) + 1)
    assert receptive_field(generator_layers(config)) == widest


def test_activation_memory_grows_with_image_and_width():
    one = activation_bytes(GeneratorConfig(), 1000, 1000)
    assert activation_bytes(GeneratorConfig(), 2000, 1000) == 2 * one
    # 64 channels of a megapixel twice, and 128 of a quarter of one: 160 million numbers.
    assert one == 4 * 160_000_000
