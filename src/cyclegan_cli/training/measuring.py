"""What a training's step takes: memory and seconds, measured by making a few.

The steps are made in a process of their own. What it takes is then all there is to count, and a
step that is too large for the machine ends that process, not this one.
"""

from __future__ import annotations

import multiprocessing
import signal
import statistics
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from cyclegan_cli.config import TrainConfig
from cyclegan_cli.data.dataset import UnpairedDataset, loader
from cyclegan_cli.data.tensors import to_unit_range
from cyclegan_cli.errors import CycleGANError, DeviceError
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.runtime.devices import has_amx, set_fp32_precision
from cyclegan_cli.runtime.memory import memory_errors, peak_memory
from cyclegan_cli.runtime.threads import limit_openmp_spin
from cyclegan_cli.training.plan import Plan

LESS_MEMORY = "Lower --batch-size, --crop-size or --base-channels, or use --cache none."
# The first step allocates what later ones use again, Adam's moments for example, and chooses
# kernels: its memory counts, its time does not.
FEWEST_STEPS, MOST_STEPS, ENOUGH_SECONDS = 2, 10, 3.0


@dataclass(frozen=True)
class Measured:
    """What steps took.

    Attributes:
        memory: Bytes at their peak; of the process, or on a GPU of its memory there.
        seconds: Of one step, the median.
        steps: How many were made.
    """

    memory: int
    seconds: float
    steps: int


def measure_steps(plan: Plan) -> Measured:
    """Make a few steps on the run's first images. Nothing is written.

    Raises:
        DataError: No image of a domain can be read.
        DeviceError: They do not fit into memory.
    """
    dataset = UnpairedDataset(plan.images_a, plan.images_b, plan.config)
    [batch] = loader(dataset, plan.first_item, 1, 0, pin_memory=False)
    context = multiprocessing.get_context("spawn")
    answers, answer = context.Pipe(duplex=False)
    images = batch.real_a.numpy(), batch.real_b.numpy()
    process = context.Process(
        target=_answer, args=(answer, plan.config, str(plan.device), plan.bf16, images)
    )
    process.start()
    answer.close()  # Ours: when the process ends, so does the pipe.
    try:
        found = answers.recv()
    except EOFError:
        process.join()
        raise _died(process.exitcode) from None
    finally:
        process.kill()
        process.join()
    if isinstance(found, CycleGANError):
        raise found
    return Measured(**found)


def _died(exit_code: int | None) -> CycleGANError:
    if hasattr(signal, "SIGKILL") and exit_code == -signal.SIGKILL:  # Windows has none.
        return DeviceError(
            "training: not enough memory: the system has killed a step of this size", LESS_MEMORY
        )
    return DeviceError(f"training: a first step has ended its process with exit code {exit_code}")


def _answer(
    answer: Connection, config: TrainConfig, device: str, bf16: bool, images: tuple[Any, Any]
) -> None:
    """Make steps and send what they took; the process's main function."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is answered by who waits for us.
    try:
        with memory_errors("training", LESS_MEMORY), limit_openmp_spin():
            found: Any = vars(_make_steps(config, torch.device(device), bf16, images))
    except CycleGANError as error:
        found = error
    answer.send(found)


def _make_steps(
    config: TrainConfig, device: torch.device, bf16: bool, images: tuple[Any, Any]
) -> Measured:
    torch.backends.cudnn.benchmark = True
    set_fp32_precision(config.precision)
    model = CycleGAN(config, device, bf16, winograd_bf16=not has_amx())
    levels = [torch.from_numpy(domain) for domain in images]
    seconds: list[float] = []
    while len(seconds) < FEWEST_STEPS or (
        len(seconds) < MOST_STEPS and sum(seconds) < ENOUGH_SECONDS
    ):
        before = time.perf_counter()
        real_a, real_b = (to_unit_range(real.to(device)) for real in levels)
        losses = model.step(real_a, real_b)
        if model.averages:
            model.averages.update(len(seconds) + 1)
        losses.stacked().tolist()  # Waits for the device.
        seconds.append(time.perf_counter() - before)
    on_gpu = device.type == "cuda"
    memory = torch.cuda.max_memory_reserved(device) if on_gpu else peak_memory()
    return Measured(memory, statistics.median(seconds[1:]), len(seconds))
