"""Networks for tests."""

from typing import Any

import torch

from cyclegan_cli.config import GeneratorConfig
from cyclegan_cli.models.networks import ResnetGenerator


def generator(channels: int, blocks: int, seed: int = 0, **others: Any) -> ResnetGenerator:
    """With weights that are far from their start, so that every layer matters."""
    config = GeneratorConfig(channels, blocks, **others)
    network = ResnetGenerator(config).eval().requires_grad_(False)
    random = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.2)
    return network
