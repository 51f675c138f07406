"""The lines of ``--verbose`` about versions and the device."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from cyclegan_cli import __version__
from cyclegan_cli.cli import console

if TYPE_CHECKING:
    import torch

    from cyclegan_cli.training.plan import Plan


def show_environment(device: torch.device) -> None:
    """Print versions and the device to stderr."""
    import torch

    where = f"{torch.get_num_threads()} threads"
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    console.info(
        f"cyclegan-cli {__version__}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, on {device} ({where})"
    )


def show_training_setup(plan: Plan) -> None:
    """Where a training computes, and what it keeps and holds out."""
    show_environment(plan.device)
    held_out = len(plan.split.val_a), len(plan.split.val_b)
    console.info(
        f"networks: {plan.config.base_channels} channels, {plan.config.generator_blocks} residual "
        f"blocks, discriminators of {plan.config.discriminator_channels} channels"
    )
    console.info(
        f"{plan.workers} loading threads; images in memory: {plan.cache}; "
        f"held out to measure on: {held_out[0]} + {held_out[1]}"
    )
