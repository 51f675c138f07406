"""What a network sees and what it costs: arithmetic from its configuration alone."""

from __future__ import annotations

from cyclegan_cli.config import DiscriminatorConfig, GeneratorConfig
from cyclegan_cli.inspection.summary import Facts
from cyclegan_cli.models.shapes import (
    activation_bytes,
    discriminator_flops,
    discriminator_layers,
    generator_flops,
    generator_layers,
    receptive_field,
)

MEGAPIXEL = (1000, 1000)


def generator_facts(config: GeneratorConfig) -> Facts:
    """Receptive field in pixels; GFLOP and MB (fp32) of a megapixel translated whole."""
    return {
        "receptive_field": receptive_field(generator_layers(config)),
        "gflop_per_megapixel": round(generator_flops(config, *MEGAPIXEL) / 1e9, 1),
        "memory_mb_per_megapixel": round(activation_bytes(config, *MEGAPIXEL) / 1e6, 1),
    }


def discriminator_facts(config: DiscriminatorConfig) -> Facts:
    """The patch that a judgement sees, and GFLOP of judging a megapixel."""
    return {
        "receptive_field": receptive_field(discriminator_layers(config)),
        "gflop_per_megapixel": round(discriminator_flops(config, *MEGAPIXEL) / 1e9, 1),
    }
