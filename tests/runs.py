"""Trainings of tiny networks, and a callback that records them."""

import os
import signal
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from cyclegan_cli.config import TrainConfig
from cyclegan_cli.errors import InterruptedRunError
from cyclegan_cli.training.callbacks.base import TrainingCallback
from cyclegan_cli.training.plan import plan_new
from cyclegan_cli.training.trainer import train

STEPS = 7


class Recorder(TrainingCallback):
    """Records the calls of its hooks."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.rows: list[dict[str, float]] = []
        self.validations: list[dict[str, float]] = []
        self.grids: list[tuple[int, Path]] = []
        self.warnings: list[str] = []
        self.messages: list[str] = []
        self.starts = 0

    def on_train_begin(self, run):
        self.starts += 1

    def on_step_end(self, run, losses):
        self.steps.append(run.step)

    def on_log(self, run, row):
        self.rows.append(row)

    def on_validation(self, run, row):
        self.validations.append(row)

    def on_samples(self, run, path):
        self.grids.append((run.step, path))

    def on_message(self, message):
        self.messages.append(message)

    def on_warning(self, message):
        self.warnings.append(message)


class ClockRecorder(Recorder):
    """A recorder with a clock that advances by a constant time per step.

    Args:
        seconds: Time per step.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.now = seconds, 1000.0

    def clock(self) -> float:
        return self.now

    def on_step_end(self, run, losses):
        super().on_step_end(run, losses)
        self.now += self.seconds


def make_config(folder: Path, **changes) -> TrainConfig:
    options = {
        "domain_a": folder / "day",
        "domain_b": folder / "night",
        "load_size": 36,
        "crop_size": 32,
        "base_channels": 2,
        "residual_blocks": 1,
        "discriminator_channels": 2,
        "pool_size": 3,
        "steps": STEPS,
        "device": "cpu",
        "precision": "fp32",
        "workers": 0,
        "log_every": 3,
        "sample_every": 4,
        "checkpoint_every": 100,
    }
    return TrainConfig(**(options | changes))


def killed(*_: object) -> None:
    """A process's main function: its end by the system."""
    os.kill(os.getpid(), signal.SIGKILL)


def broken(*_: object) -> None:
    """A process's main function: an exit without a message."""
    os._exit(7)


def stop_after(recorder: Recorder, steps: int):
    return lambda: 15 if len(recorder.steps) == steps else None


def train_until(config: TrainConfig, steps: int) -> Recorder:
    """Start a run that a signal stops after some steps; return what it recorded."""
    recorder = Recorder()
    with pytest.raises(InterruptedRunError):
        train(plan_new(config), [recorder], stop_after(recorder, steps))
    return recorder


Colour = tuple[int, int, int]


def draw_discs(folder: Path, seed: int, disc: Colour, ground: Colour) -> Path:
    """Twenty images of a disc somewhere, 36 pixels wide."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:36, :36]
    for i in range(20):
        centre_y, centre_x, radius = *random.uniform(8, 28, 2), random.uniform(6, 11)
        inside = (y - centre_y) ** 2 + (x - centre_x) ** 2 < radius**2
        pixels = np.where(inside[..., None], np.array(disc), np.array(ground))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def draw_blocks(folder: Path, seed: int) -> Path:
    """Twenty images of dark and bright blocks: their negatives are as likely as they are."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for i in range(20):
        levels = np.repeat([40, 215], 18)
        random.shuffle(levels)
        pixels = levels.reshape(6, 6, 1).repeat(6, 0).repeat(6, 1).repeat(3, 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def load_tensors(path: Path, names: Iterable[str]) -> dict[str, Tensor]:
    """Some tensors of a checkpoint, as they are stored."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in names}
