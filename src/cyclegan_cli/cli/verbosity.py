"""What ``--verbose`` says: with which programs, on what, and how."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

from cyclegan_cli import __version__
from cyclegan_cli.cli import console
from cyclegan_cli.errors import UsageError

if TYPE_CHECKING:
    import torch

    from cyclegan_cli.training.plan import Plan
    from cyclegan_cli.translation.translator import Translator


def refuse_both(verbose: bool, quiet: bool) -> None:
    """Refuse to say more and less at once.

    Raises:
        UsageError: Both are asked for.
    """
    if verbose and quiet:
        raise UsageError("--verbose and --quiet exclude each other", "Give one of them.")


def _say_where(device: torch.device) -> None:
    import torch

    where = f"{torch.get_num_threads()} threads"
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    console.say(
        f"cyclegan-cli {__version__}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, on {device} ({where})"
    )


def say_how_it_translates(translator: Translator, file: Path) -> None:
    """Where a translator computes, with which network, in which precision and memory."""
    from cyclegan_cli.runtime.memory import host_memory_free

    _say_where(translator.device)
    generator = translator.generator.config
    precision = str(next(translator.generator.parameters()).dtype).removeprefix("torch.")
    if translator.options.precision == "tf32":
        precision = "tf32"
    console.say(
        f"{file}: {translator.info.source(translator.direction)} -> {translator.target}, "
        f"{generator.base_channels} channels, {generator.residual_blocks} residual blocks, "
        f"in {precision}"
    )
    limit = translator.options.max_memory
    said = f"limited to {limit / 1e9:.3g} GB" if limit else "as much as is free"
    console.say(f"memory: {said}; {host_memory_free() / 1e9:.3g} GB of this machine's are free")


def say_how_it_trains(plan: Plan) -> None:
    """Where a training computes, and what it keeps and holds out."""
    _say_where(plan.device)
    held_out = len(plan.split.val_a), len(plan.split.val_b)
    console.say(
        f"networks: {plan.config.base_channels} channels, {plan.config.generator_blocks} residual "
        f"blocks, discriminators of {plan.config.discriminator_channels} channels"
    )
    console.say(
        f"{plan.workers} loading threads; images in memory: {plan.cache}; "
        f"held out to measure on: {held_out[0]} + {held_out[1]}"
    )
