"""Whether and when a run's networks are compiled."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable

import torch
from torch import Tensor

from cyclegan_cli.config import CompileChoice
from cyclegan_cli.models.cyclegan import CycleGAN, StepLosses

# The first steps choose kernels and fill caches.
WARM_UP_STEPS = 5
WATCHED_STEPS = 20
# What it takes, and what part of a step it saves on a GPU. Estimates, on the careful side.
COMPILE_SECONDS = 120.0
EXPECTED_SAVING = 0.2


def pays(device_type: str, seconds_per_step: float, steps_left: int) -> bool:
    """Whether compiling saves more time than it takes.

    On CPUs it never does: nearly all of a step is convolutions, which are not torch's to compile,
    and what is between them is done by kernels that suit (docs/performance.md).

    Args:
        device_type: ``cuda``, ``cpu`` or ``mps``.
        seconds_per_step: Without compiling.
        steps_left: Steps to come.
    """
    return device_type == "cuda" and (
        steps_left * seconds_per_step * EXPECTED_SAVING > 2 * COMPILE_SECONDS
    )


def has_compiler() -> bool:
    """Whether there is a C++ compiler, by the variable that torch asks or by its usual names."""
    names = (os.environ.get("CXX", ""), "g++", "clang++", "cl")
    return any(name and shutil.which(name) for name in names)


class Compiler:
    """Makes the steps of a run, and decides from the first ones whether to compile.

    Args:
        model: What is trained.
        choice: The option.
        told: Hears what was decided.
        warned: Hears what failed.
    """

    def __init__(
        self,
        model: CycleGAN,
        choice: CompileChoice,
        told: Callable[[str], None],
        warned: Callable[[str], None],
    ) -> None:
        self.model = model
        self.told, self.warned = told, warned
        # None: decided, one way or the other.
        self.undecided: CompileChoice | None = None if choice == "off" else choice
        self.steps = 0
        self.watched_since = 0.0

    def step(self, real_a: Tensor, real_b: Tensor, steps_left: int) -> StepLosses:
        """:meth:`CycleGAN.step`, where due after compiling.

        Args:
            real_a: ``[B, 3, H, W]`` in [-1, 1].
            real_b: Likewise.
            steps_left: Steps to come, this one among them.
        """
        if self.undecided:
            self._decide(real_a, real_b, steps_left)
        self.steps += 1
        return self.model.step(real_a, real_b)

    def _decide(self, real_a: Tensor, real_b: Tensor, steps_left: int) -> None:
        device = real_a.device.type
        if self.undecided == "on":
            self._compile(real_a, real_b, "compiling the networks, which takes a minute or two")
        elif device != "cuda" or not has_compiler():
            self.undecided = None
        elif self.steps == WARM_UP_STEPS:
            self.watched_since = _now(device)
        elif self.steps == WARM_UP_STEPS + WATCHED_STEPS:
            seconds = (_now(device) - self.watched_since) / WATCHED_STEPS
            self.undecided = None
            if pays(device, seconds, steps_left):
                self._compile(
                    real_a,
                    real_b,
                    f"compiling the networks: {steps_left} steps of {seconds:.2g} s are left, "
                    "which repays it",
                )

    def _compile(self, real_a: Tensor, real_b: Tensor, announcement: str) -> None:
        self.undecided = None
        self.told(announcement)
        try:
            self.model.compile(real_a, real_b)
        except Exception as error:  # Whatever compilers and their callers raise.
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            self.warned(f"the networks cannot be compiled here and are used as they are: {reason}")


def _now(device_type: str) -> float:
    """Seconds; all that was asked of the device is done by then."""
    if device_type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic()
