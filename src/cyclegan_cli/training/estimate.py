"""Estimates for a training: memory and time, measured by a few steps, and disk space."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import os
import shutil
import signal
import statistics
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cyclegan_cli.checkpoints.header import BOTH_DIRECTIONS
from cyclegan_cli.checkpoints.locate import STATE_FILE
from cyclegan_cli.config import (
    LEAST_STEPS,
    RECIPES,
    CompileChoice,
    StepsOrTime,
    TrainConfig,
    duration_seconds,
)
from cyclegan_cli.data.dataset import UnpairedDataset, loader
from cyclegan_cli.data.tensors import to_unit_range
from cyclegan_cli.errors import CycleGANError, DeviceError, OutputError
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.models.networks import ResnetGenerator, build_discriminator
from cyclegan_cli.models.shapes import step_flops
from cyclegan_cli.runtime.devices import has_amx, set_fp32_precision
from cyclegan_cli.runtime.memory import memory_errors, peak_memory
from cyclegan_cli.training.compiling import compile_and_capture
from cyclegan_cli.training.plan import Plan
from cyclegan_cli.training.validation import BATCH_SIZE

LESS_MEMORY = (
    "Lower --batch-size, --crop-size or --base-channels, or use --cache none or, on a GPU, "
    "--compile off."
)
# The first step allocates the moments of Adam and selects kernels: its memory counts, its time does
# not.
MIN_STEPS, MAX_STEPS, ENOUGH_SECONDS = 2, 10, 3.0

FLOAT_BYTES = 4
# Conservative averages for a pixel of a sample grid and a row of the tables.
BYTES_PER_PIXEL = 0.5
BYTES_PER_ROW = 250
MAX_REPORT_BYTES = 8_000_000
DAY = 24 * 3600
# FLOP/s of the networks of --recipe cpu, relative to the defaults' (docs/performance.md).
SMALL_NETWORK_EFFICIENCY = 0.45
DEFAULT_STEP_SECONDS = 1.0  # Before a step has been measured.


@dataclass(frozen=True)
class StepCost:
    """The measured cost of training steps.

    Attributes:
        memory: Peak memory in bytes: of the process, or on a GPU of its device memory.
        seconds: Median time of a step.
        steps: Number of measured steps.
    """

    memory: int
    seconds: float
    steps: int


def measure_steps(plan: Plan) -> StepCost:
    """Measure a few steps on the first images of the run. Nothing is written.

    The steps run in a process of their own, whose memory is theirs alone and which the system may
    kill if they need too much.

    Raises:
        DataError: No image of a domain can be read.
        DeviceError: The steps do not fit into memory.
    """
    dataset = UnpairedDataset(plan.images_a, plan.images_b, plan.config, formats=plan.formats)
    [batch] = loader(dataset, plan.first_item, 1, 0, pin_memory=False)
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    images = batch.real_a.numpy(), batch.real_b.numpy()
    process = context.Process(
        target=_measure, args=(sender, plan.config, str(plan.device), plan.bf16, images)
    )
    process.start()
    sender.close()  # The copy of this process: the pipe ends with the other process.
    try:
        found = receiver.recv()
    except EOFError:
        process.join()
        raise _exit_error(process.exitcode) from None
    finally:
        process.kill()
        process.join()
    if isinstance(found, CycleGANError):
        raise found
    return StepCost(**found)


def _exit_error(exit_code: int | None) -> CycleGANError:
    if hasattr(signal, "SIGKILL") and exit_code == -signal.SIGKILL:  # Windows has none.
        return DeviceError(
            "training: not enough memory: the system killed a step of this size", LESS_MEMORY
        )
    return DeviceError(f"training: the process of the first step ended with exit code {exit_code}")


def _measure(
    sender: Connection, config: TrainConfig, device: str, bf16: bool, images: tuple[Any, Any]
) -> None:
    """Run steps and send their cost: the main function of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent process handles Ctrl-C.
    try:
        with memory_errors("training", LESS_MEMORY):
            found: Any = vars(_run_steps(config, torch.device(device), bf16, images))
    except CycleGANError as error:
        found = error
    sender.send(found)


def _run_steps(
    config: TrainConfig, device: torch.device, bf16: bool, images: tuple[Any, Any]
) -> StepCost:
    torch.backends.cudnn.benchmark = True
    set_fp32_precision(config.precision)
    model = CycleGAN(config, device, bf16, winograd_bf16=not has_amx())
    pixels = [torch.from_numpy(domain) for domain in images]
    model.may_lack_data = (pixels[0].is_floating_point(), pixels[1].is_floating_point())
    # Without torch.compile, which takes longer than all steps here.
    choice: CompileChoice = "off" if config.compile == "off" else "auto"
    real_a, real_b = (to_unit_range(real.to(device)) for real in pixels)
    compile_and_capture(model, choice, real_a, real_b)
    seconds: list[float] = []
    while len(seconds) < MIN_STEPS or (len(seconds) < MAX_STEPS and sum(seconds) < ENOUGH_SECONDS):
        before = time.perf_counter()
        real_a, real_b = (to_unit_range(real.to(device)) for real in pixels)
        losses = model.step(real_a, real_b)
        if model.averages:
            model.averages.update(len(seconds) + 1)
        losses.stacked().tolist()  # Waits for the device.
        seconds.append(time.perf_counter() - before)
    on_gpu = device.type == "cuda"
    if on_gpu:  # CUDA graphs do not share their memory with validation.
        shapes = (
            (BATCH_SIZE, config.channels(domain), config.crop_size, config.crop_size)
            for domain in "ab"
        )
        real_a, real_b = (torch.zeros(shape, device=device) for shape in shapes)
        model.translate_and_reconstruct(real_a, real_b)
    memory = torch.cuda.max_memory_reserved(device) if on_gpu else peak_memory()
    return StepCost(memory, statistics.median(seconds[1:]), len(seconds))


def duration_advice(plan: Plan, step: int, step_seconds: float) -> str:
    """Return how long the rest of a training takes and, if over a day, a faster recipe.

    Args:
        plan: The training.
        step: Number of steps done.
        step_seconds: Measured time per step.
    """
    left = (plan.total_steps - step) * step_seconds
    text = f"the training ends in {about(left)}, at {step_seconds:.2g} s per step"
    small = dataclasses.replace(plan.config, **{"decay_steps": None} | RECIPES["cpu"])
    relative = step_flops(small) / step_flops(plan.config) / SMALL_NETWORK_EFFICIENCY
    faster = small.total_steps(plan.epoch_items) * step_seconds * relative
    if left < DAY or faster > left / 4:
        return text
    return (
        f"{text}; --recipe cpu takes {about(faster)}: {small.steps:,} steps at "
        f"{small.crop_size} pixels with {small.base_channels} channels, with less detail"
    )


def about(seconds: float) -> str:
    """Format a duration in its largest unit: ``about 3 hours``."""
    for unit, length in (("day", DAY), ("hour", 3600), ("minute", 60)):
        if seconds >= 1.5 * length:
            return f"about {seconds / length:.0f} {unit}s"
    return "about a minute"


@dataclass(frozen=True)
class DiskSpace:
    """Disk space in bytes.

    Attributes:
        checkpoint: Needed to save a checkpoint while the previous one exists.
        run: Needed by the whole run in addition to its present files.
        free: Free on the disk of the run folder.
    """

    checkpoint: int
    run: int
    free: int

    def warning(self, run_dir: Path) -> str:
        """Return a warning if the disk is too small for the whole run, else an empty string."""
        if self.free >= self.run:
            return ""
        return (
            f"the run needs about {gigabytes(self.run)} on the disk of {run_dir}, "
            f"and {gigabytes(self.free)} are free"
        )

    def check(self, run_dir: Path) -> None:
        """Check that a checkpoint can be saved.

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
    """Format bytes as ``1.2 GB``, or as MB below 1 GB."""
    return f"{count / 1e9:.2g} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def disk_space(plan: Plan, step_seconds: float = DEFAULT_STEP_SECONDS) -> DiskSpace:
    """Estimate the disk space of a run from its options.

    Args:
        plan: The training.
        step_seconds: Time per step, which converts intervals of time to steps.
    """
    config = plan.config
    with torch.device("meta"):
        generators = [ResnetGenerator(config.generator_config(one)) for one in BOTH_DIRECTIONS]
        discriminators = [build_discriminator(config.discriminator_config(d)) for d in "ab"]
    model = FLOAT_BYTES * sum(map(_parameters, generators))
    trained = model + FLOAT_BYTES * sum(map(_parameters, discriminators))
    channels = config.channels("a") + config.channels("b")
    pools = config.pool_size * channels * config.crop_size**2 * FLOAT_BYTES
    state = 3 * trained + pools + (model if config.ema else 0)  # Adam has two moments of each.
    kept = config.keep_checkpoints + (1 if plan.validates else 0)
    left = state + model * (1 + kept) + MAX_REPORT_BYTES + _images_and_rows(plan, step_seconds)
    present = _size_of_run(plan.run_dir)
    free = shutil.disk_usage(_nearest_folder(plan.run_dir)).free
    # A new state is written before the old one is removed; at first there is none.
    saving = state + (0 if (plan.run_dir / STATE_FILE).exists() else model)
    return DiskSpace(saving, max(0, left - present) + state, free)


def _images_and_rows(plan: Plan, step_seconds: float) -> int:
    config = plan.config
    left = plan.total_steps - plan.first_step

    def times(every: StepsOrTime) -> int:
        if isinstance(every, str):
            every = max(LEAST_STEPS, round((duration_seconds(every) or 0) / step_seconds))
        return math.ceil(left / every) if every else 0

    # Grids of four rows of six images.
    grids = times(config.sample_every) * 24 * config.crop_size**2 * BYTES_PER_PIXEL
    rows = (times(config.log_every) + times(config.validate_every)) * BYTES_PER_ROW
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
    """Return the nearest existing folder: the path itself or one of its parents."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())
