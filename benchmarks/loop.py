"""Seconds per step of ``cyclegan train`` and of a textbook training loop, data loading included.

    python benchmarks/loop.py [--size 128 --channels 32 --blocks 6 --steps 100 --rounds 3]

Implementations alternate, each in its own process with its own data loader, on the same PNG files.
The time of ``cyclegan train`` is read from ``metrics.csv`` of a run with default options, from the
second row on, so that start-up is excluded for both.

- cyclegan: ``cyclegan train``, with the default precision of this machine.
- cyclegan-fp32: with ``--precision fp32``.
- textbook: stock modules, eager, fp32, NCHW, two plain Adams, a ``DataLoader`` with one worker that
  decodes, resizes, crops and flips with Pillow.
"""

from __future__ import annotations

import argparse
import csv
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cyclegan_cli.config import TrainConfig
from cyclegan_cli.models.cyclegan import CycleGAN
from textbook import TextbookCycleGAN

ROWS = 4  # Of metrics.csv; the first one warms up.


def make_images(folder: Path, count: int, size: int) -> None:
    """Write PNGs of coarse and fine noise."""
    numbers = np.random.default_rng(len(folder.name))
    folder.mkdir()
    for i in range(count):
        coarse = Image.fromarray(numbers.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.int16)
        noisy = smooth + numbers.normal(0, 12, smooth.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")


class PlainDataset(Dataset[tuple[Tensor, Tensor]]):
    """Unpaired random crops from two folders, loaded with Pillow."""

    def __init__(self, folders: list[Path], load_size: int, crop_size: int, steps: int) -> None:
        self.files = [sorted(folder.iterdir()) for folder in folders]
        self.load_size, self.crop_size, self.steps = load_size, crop_size, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        first, second = self.files
        return self._read(first[index % len(first)]), self._read(random.choice(second))

    def _read(self, path: Path) -> Tensor:
        image = Image.open(path).convert("RGB")
        image = image.resize((self.load_size, self.load_size), Image.Resampling.BICUBIC)
        left, top = (random.randint(0, self.load_size - self.crop_size) for _ in range(2))
        image = image.crop((left, top, left + self.crop_size, top + self.crop_size))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1


def train_textbook(config: TrainConfig, folders: list[Path], steps: int) -> float:
    """Train, and return the seconds per step without the first quarter of the steps."""
    model = TextbookCycleGAN(CycleGAN(config, torch.device("cpu"), bf16=False))
    dataset = PlainDataset(folders, config.load_size, config.crop_size, steps)
    started = 0.0
    for step, (real_a, real_b) in enumerate(DataLoader(dataset, batch_size=1, num_workers=1)):
        if step == steps // ROWS:
            started = time.perf_counter()
        model.step(real_a, real_b)
    return (time.perf_counter() - started) / (steps - steps // ROWS)


def train_command(folders: list[Path], options: list[str], steps: int, run: Path) -> float:
    """Run ``cyclegan train``, and return the seconds per step from the second row on."""
    command = [
        sys.executable, "-m", "cyclegan_cli", "train", "--domain-a", str(folders[0]),
        "--domain-b", str(folders[1]), "--run-dir", str(run), "--quiet", "--steps", str(steps),
        "--log-every", str(steps // ROWS), *options,
    ]  # fmt: skip
    subprocess.run(command, check=True)
    with (run / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))[1:]
    return statistics.mean(1 / float(row["images_per_second"]) for row in rows)


def main() -> None:
    """Parse arguments, run the benchmark and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", type=int, default=128, help="side of the crops, in pixels")
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--steps", type=int, default=100, help="per turn")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way")
    parser.add_argument("--ways", default="textbook,cyclegan,cyclegan-fp32")
    parser.add_argument("--textbook", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    load_size = arguments.size * 9 // 8
    sizes = {
        "load_size": load_size, "crop_size": arguments.size, "base_channels": arguments.channels,
        "discriminator_channels": arguments.channels, "residual_blocks": arguments.blocks,
        # The textbook's.
        "resampling": "strided", "norms": "all", "lambda_identity": 0.5, "lambda_color": 0.0,
    }  # fmt: skip
    options = [
        text
        for name, value in sizes.items()
        for text in (f"--{name.replace('_', '-')}", str(value))
    ]
    if arguments.textbook:
        folders = [arguments.textbook / "a", arguments.textbook / "bb"]
        print(train_textbook(TrainConfig(**sizes), folders, arguments.steps))
        return
    ways = arguments.ways.split(",")
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name, "a"), Path(name, "bb")]
        for folder in folders:
            make_images(folder, 60, load_size)
        for turn in range(arguments.rounds):
            for way in ways:
                if way == "textbook":
                    command = [sys.executable, __file__, *sys.argv[1:], "--textbook", name]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    found = float(done.stdout)
                else:
                    chosen = ["--precision", "fp32"] if way.endswith("fp32") else []
                    run = Path(name, f"{way}-{turn}")
                    found = train_command(folders, options + chosen, arguments.steps, run)
                seconds[way].append(found)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {sizes}")
    print("| way | s/step | lowest | highest | ratio |")
    print("|---|---|---|---|---|")
    for way, found_seconds in seconds.items():
        median = statistics.median(found_seconds)
        ratio = statistics.median(seconds["textbook"]) / median if "textbook" in seconds else 0
        print(
            f"| {way} | {median:.3f} | {min(found_seconds):.3f} | {max(found_seconds):.3f} "
            f"| {ratio:.2f} |"
        )


if __name__ == "__main__":
    main()
