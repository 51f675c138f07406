"""When to record CUDA graphs, and when to compile the networks with ``torch.compile``."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable

import torch
from torch import Tensor

from cyclegan_cli.config import CompileChoice
from cyclegan_cli.models.cyclegan import CycleGAN, StepLosses

# The first steps select kernels and fill caches.
WARM_UP_STEPS = 5
TIMED_STEPS = 20
# Conservative estimates of the compile time and of the fraction of a step saved on a GPU.
COMPILE_SECONDS = 120.0
EXPECTED_SAVING = 0.2


def compiling_saves_time(device_type: str, seconds_per_step: float, steps_left: int) -> bool:
    """Return whether compiling saves more time than it takes.

    On CPUs it never does: nearly all of a step is convolutions, which torch does not compile
    (docs/performance.md).

    Args:
        device_type: ``cuda``, ``cpu`` or ``mps``.
        seconds_per_step: Time per step without compiling.
        steps_left: Number of remaining steps.
    """
    return device_type == "cuda" and (
        steps_left * seconds_per_step * EXPECTED_SAVING > 2 * COMPILE_SECONDS
    )


def has_compiler() -> bool:
    """Return whether a C++ compiler is found, in $CXX as by torch or by its usual names."""
    names = (os.environ.get("CXX", ""), "g++", "clang++", "cl")
    return any(name and shutil.which(name) for name in names)


class Compiler:
    """Runs training steps: as CUDA graphs on a single GPU, and with compiled networks.

    ``auto`` decides from the first steps whether to compile; ``off`` does neither.

    Args:
        model: The model.
        choice: The option ``--compile``.
        on_message: Called when the networks are compiled.
        on_warning: Called when compiling or recording fails.
    """

    def __init__(
        self,
        model: CycleGAN,
        choice: CompileChoice,
        on_message: Callable[[str], None],
        on_warning: Callable[[str], None],
    ) -> None:
        self.model = model
        self.on_message, self.on_warning = on_message, on_warning
        # None once decided.
        self.undecided: CompileChoice | None = None if choice == "off" else choice
        self.steps = 0
        self.timed_since = 0.0

    def step(self, real_a: Tensor, real_b: Tensor, steps_left: int) -> StepLosses:
        """Run :meth:`CycleGAN.step`, after compiling if it is time to.

        Args:
            real_a: ``[B, 3, H, W]`` in [-1, 1].
            real_b: ``[B, 3, H, W]`` in [-1, 1].
            steps_left: Number of remaining steps, including this one.
        """
        if self.undecided:
            self._decide(real_a, real_b, steps_left)
        self.steps += 1
        return self.model.step(real_a, real_b)

    def _decide(self, real_a: Tensor, real_b: Tensor, steps_left: int) -> None:
        device = real_a.device.type
        if self.undecided == "on":
            self._compile(real_a, real_b, "compiling the networks, which takes a minute or two")
        elif self.steps == 0:
            self._record(real_a, real_b)
        elif device != "cuda" or not has_compiler():
            self.undecided = None
        elif self.steps == WARM_UP_STEPS:
            self.timed_since = _now(device)
        elif self.steps == WARM_UP_STEPS + TIMED_STEPS:
            seconds = (_now(device) - self.timed_since) / TIMED_STEPS
            self.undecided = None
            if compiling_saves_time(device, seconds, steps_left):
                self._compile(
                    real_a,
                    real_b,
                    f"compiling the networks: {steps_left} steps of {seconds:.2g} s are left, "
                    "which makes up for it",
                )

    def _compile(self, real_a: Tensor, real_b: Tensor, announcement: str) -> None:
        self.undecided = None
        self.on_message(announcement)
        try:
            self.model.compile(real_a, real_b)
        except Exception as error:  # Compilers raise all kinds of errors.
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            self.on_warning(
                f"the networks cannot be compiled and run without compilation: {reason}"
            )
        self._record(real_a, real_b)

    def _record(self, real_a: Tensor, real_b: Tensor) -> None:
        """Record the step as CUDA graphs where that is possible."""
        if not self.model.is_recordable:
            return
        try:
            self.model.record_graphs(real_a, real_b)
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            self.on_warning(f"the training runs without CUDA graphs, more slowly: {reason}")


def _now(device_type: str) -> float:
    """Return the time after synchronizing with the device."""
    if device_type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic()
