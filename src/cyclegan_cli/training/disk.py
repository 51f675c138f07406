"""How much of the disk a run needs, and whether there is as much."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from cyclegan_cli.checkpoints.locate import STATE_FILE
from cyclegan_cli.config import (
    LEAST_STEPS,
    DiscriminatorConfig,
    GeneratorConfig,
    StepsOrTime,
    duration_seconds,
)
from cyclegan_cli.errors import OutputError
from cyclegan_cli.models.networks import PatchDiscriminator, ResnetGenerator
from cyclegan_cli.training.plan import Plan

FLOAT = 4  # Bytes.
# What a pixel of a sample grid, and a row of the tables, take on an average: to be on the safe
# side of what trainings on photos have left.
BYTES_A_PIXEL = 0.5
BYTES_A_ROW = 250
PAGE = 8_000_000  # index.html grows no larger.
# Of a step, where nobody has measured one yet.
SUPPOSED_SECONDS = 1.0


@dataclass(frozen=True)
class DiskNeed:
    """Bytes.

    Attributes:
        checkpoint: What saving once needs: the state and the model, while the old ones exist.
        run: What the whole run leaves, and needs while it saves, beyond what is there already.
        free: On the disk of the run folder.
    """

    checkpoint: int
    run: int
    free: int

    def warning(self, run_dir: Path) -> str:
        """A sentence where the disk is too small for the whole run; else empty."""
        if self.free >= self.run:
            return ""
        return (
            f"the run needs about {gigabytes(self.run)} on the disk of {run_dir}, "
            f"and {gigabytes(self.free)} are free"
        )

    def refuse_too_little(self, run_dir: Path) -> None:
        """Refuse to begin what could not save once.

        Raises:
            OutputError: The disk is too small for a checkpoint.
        """
        if self.free < self.checkpoint:
            raise OutputError(
                f"a checkpoint in {run_dir} needs {gigabytes(self.checkpoint)}, "
                f"and {gigabytes(self.free)} are free there",
                "Free some space, or name another --run-dir.",
            )


def gigabytes(count: float) -> str:
    """``1.2 GB``, or MB where that is less than one."""
    return f"{count / 1e9:.2g} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def disk_need(plan: Plan, step_seconds: float = SUPPOSED_SECONDS) -> DiskNeed:
    """What a run needs, from its options; and what is free.

    Args:
        plan: The run.
        step_seconds: How long a step takes: it decides how often something is due that is done at
            intervals of time.
    """
    config = plan.config
    with torch.device("meta"):
        generator = ResnetGenerator(GeneratorConfig(config.base_channels, config.generator_blocks))
        discriminator = PatchDiscriminator(DiscriminatorConfig(config.discriminator_channels))
    model = 2 * FLOAT * _parameters(generator)
    trained = model + 2 * FLOAT * _parameters(discriminator)
    pools = 2 * config.pool_size * 3 * config.crop_size**2 * FLOAT
    state = 3 * trained + pools + (model if config.ema else 0)  # Adam has two moments of each.
    kept = config.keep_checkpoints + (1 if plan.validates else 0)
    left = state + model * (1 + kept) + PAGE + _images_and_rows(plan, step_seconds)
    there = _size_of_run(plan.run_dir)
    free = shutil.disk_usage(_nearest_folder(plan.run_dir)).free
    # A new state is written before the old one goes; at first there is none.
    saving = state + (0 if (plan.run_dir / STATE_FILE).exists() else model)
    return DiskNeed(saving, max(0, left - there) + state, free)


def _images_and_rows(plan: Plan, step_seconds: float) -> int:
    config = plan.config
    left = plan.total_steps - plan.first_step

    def times(every: StepsOrTime) -> int:
        if isinstance(every, str):
            every = max(LEAST_STEPS, round((duration_seconds(every) or 0) / step_seconds))
        return math.ceil(left / every) if every else 0

    # Grids of four rows of six images.
    grids = times(config.sample_every) * 24 * config.crop_size**2 * BYTES_A_PIXEL
    rows = (times(config.log_every) + times(config.validate_every)) * BYTES_A_ROW
    return round(grids + rows)


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _size_of_run(folder: Path) -> int:
    return sum(
        os.stat(os.path.join(below, name), follow_symlinks=False).st_size
        for below, _, names in os.walk(folder)
        for name in names
    )


def _nearest_folder(path: Path) -> Path:
    """The folder itself or, where it does not exist yet, the nearest one above it."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())
