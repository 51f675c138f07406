"""Trainings of the smallest networks, and who watches them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from cyclegan_cli.config import TrainConfig

STEPS = 7


class Recorder:
    """A watcher that remembers what it was told."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.rows: list[dict[str, float]] = []
        self.validations: list[dict[str, float]] = []
        self.grids: list[tuple[int, Path]] = []
        self.warnings: list[str] = []
        self.told_of: list[str] = []
        self.starts = 0

    def started(self, plan):
        self.starts += 1

    def stepped(self, step):
        self.steps.append(step)

    def measured(self, row):
        self.rows.append(row)

    def validated(self, row):
        self.validations.append(row)

    def sampled(self, step, grid):
        self.grids.append((step, grid))

    def told(self, sentence):
        self.told_of.append(sentence)

    def warned(self, sentence):
        self.warnings.append(sentence)


class TickingRecorder(Recorder):
    """A recorder with a clock, by which every step takes the same time.

    Args:
        seconds: Of a step.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.now = seconds, 1000.0

    def clock(self) -> float:
        return self.now

    def stepped(self, step):
        super().stepped(step)
        self.now += self.seconds


def never() -> None:
    return None


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
    """Likewise: an end without a word."""
    os._exit(7)


def stop_after(recorder: Recorder, steps: int):
    return lambda: 15 if len(recorder.steps) == steps else None


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
