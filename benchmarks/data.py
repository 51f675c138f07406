"""Data loading: throughput, waiting time, start-up time, and memory over many steps.

    python benchmarks/data.py [loading] [waiting] [start-up] [steady] [--json FILE]

- loading: training crops a second on one core from 1000×750 JPEGs, no cache. Ways take turns, the
  median round counts. pillow: a textbook loop, all in Pillow. whole: every pixel decoded and
  resized by torch, as cyclegan-cli did at first. reduced: as it does now. kept: from the cache.
- waiting: what share of the time of training steps goes into waiting for the loader, in the first
  pass (nothing kept yet).
- start-up: seconds from the process's start to the begin and the end of the first step, with so
  many files in each of two folders, and the memory that listing one takes.
- steady: resident memory during 2,000 steps of a tiny training.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from PIL import Image

from cyclegan_cli.config import TrainConfig
from cyclegan_cli.data.cache import CachePlan, ImageCache
from cyclegan_cli.data.dataset import UnpairedDataset, loader
from cyclegan_cli.data.decode import decode
from cyclegan_cli.data.folder import list_images
from cyclegan_cli.data.tensors import to_unit_range
from cyclegan_cli.errors import InterruptedRunError
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.runtime.devices import choose_device, choose_precision
from cyclegan_cli.training.domains import Domains
from cyclegan_cli.training.plan import Plan, plan_new
from cyclegan_cli.training.trainer import train
from large_images import image

WIDTH, HEIGHT, LOAD, CROP = 1000, 750, 286, 256
PARTS = ("loading", "waiting", "start-up", "steady")
ENDLESS = 10**9
TINY = {
    "load_size": 36, "crop_size": 32, "base_channels": 2, "residual_blocks": 1,
    "discriminator_channels": 2,
}  # fmt: skip


def make_photos(folder: Path, count: int, quality: int) -> list[Path]:
    """Write photo-like JPEGs: smooth shapes and fine noise."""
    folder.mkdir(parents=True)
    levels = image(WIDTH, HEIGHT)
    paths = [folder / f"{number:03}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        Image.fromarray(np.roll(levels, 37 * number, axis=1)).save(path, quality=quality)
    return paths


# --- loading ---------------------------------------------------------------------------------


def with_pillow(paths: list[Path]) -> Callable[[int], object]:
    """Decode, resize, crop and flip with Pillow."""

    def load(number: int) -> object:
        image = Image.open(paths[number % len(paths)]).convert("RGB")
        image = image.resize((round(WIDTH * LOAD / HEIGHT), LOAD), Image.Resampling.BICUBIC)
        image = image.crop((9, 8, 9 + CROP, 8 + CROP))
        return np.asarray(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))

    return load


def with_whole_images(paths: list[Path]) -> Callable[[int], object]:
    """Decode at full resolution."""

    def load(number: int) -> object:
        levels = torch.from_numpy(decode(paths[number % len(paths)]).on_white(0).copy())
        size = (LOAD, round(WIDTH * LOAD / HEIGHT))
        whole = levels.permute(2, 0, 1).unsqueeze(0)
        resized = F.interpolate(whole, size, mode="bicubic", antialias=True)
        return resized[..., 8 : 8 + CROP, 9 : 9 + CROP].flip(-1)

    return load


def with_dataset(paths: list[Path], cache: ImageCache) -> Callable[[int], object]:
    """The data set of ``cyclegan train``; one of an item's two images."""
    dataset = UnpairedDataset(paths, paths, TrainConfig(load_size=LOAD, crop_size=CROP), cache)
    return lambda number: dataset._crop("a", number, [])


def measure_loading(rounds: int) -> Iterator[dict[str, Any]]:
    """Crops per second of every implementation, for two JPEG qualities."""
    torch.set_num_threads(1)
    for quality in (75, 90):
        with tempfile.TemporaryDirectory() as folder:
            paths = make_photos(Path(folder, "photos"), 40, quality)
            size = statistics.mean(path.stat().st_size for path in paths)
            endless = ImageCache(CachePlan(0, ENDLESS, 0))
            ways = {
                "pillow": with_pillow(paths),
                "whole": with_whole_images(paths),
                "reduced": with_dataset(paths, ImageCache()),
                "kept": with_dataset(paths, endless),
            }
            found = alternate(ways, len(paths), rounds)
        for way, seconds in found.items():
            yield {
                "part": "loading", "way": way, "quality": quality, "bytes": round(size),
                "pictures_per_second": len(paths) / seconds,
            }  # fmt: skip


def alternate(
    ways: dict[str, Callable[[int], object]], count: int, rounds: int
) -> dict[str, float]:
    """Median seconds per round of each implementation, without the first round."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds + 1):
        for way, load in ways.items():
            start = time.perf_counter()
            for number in range(count):
                load(number)
            seconds[way].append(time.perf_counter() - start)
    return {way: statistics.median(found[1:]) for way, found in seconds.items()}


# --- waiting ---------------------------------------------------------------------------------

WAITING = {
    # The paper's training, and the small one that README has for CPUs.
    "256": ({}, 8),
    "64": ({"load_size": 72, "crop_size": 64, "base_channels": 32}, 100),
}


def measure_waiting(device_name: str) -> Iterator[dict[str, Any]]:
    """Fraction of the time spent waiting for data, with the default number of workers."""
    device = choose_device(device_name)
    with tempfile.TemporaryDirectory() as folder:
        paths = make_photos(Path(folder, "photos"), 400, 90)
        for size, (options, steps) in WAITING.items():
            config = TrainConfig(steps=10**6, **options)  # type: ignore[arg-type]
            plan = Plan(config, Path(folder, "run"), Domains(paths, paths, [], []), device)
            dataset = UnpairedDataset(paths, paths, config, ImageCache(plan.cache))
            batches = loader(dataset, 0, steps + 3, plan.workers, device.type == "cuda")
            precision = choose_precision("auto", device)
            model = CycleGAN(config, device, precision == "bf16")
            yield {
                "part": "waiting", "size": int(size), "device": str(device),
                "precision": precision, "threads": plan.workers, **waited(batches, model, 3),
            }  # fmt: skip
            batches.close()


def waited(batches: Iterator[Any], model: CycleGAN, warm_up: int) -> dict[str, float]:
    """Seconds per step, and seconds of them spent waiting for data."""
    waits, steps = [], []
    while True:
        start = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            break
        loaded = time.perf_counter()
        images = (batch.real_a, batch.real_b)
        model.step(*(to_unit_range(levels.to(model.device)) for levels in images))
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        waits.append(loaded - start)
        steps.append(time.perf_counter() - start)
    wait, step = statistics.mean(waits[warm_up:]), statistics.mean(steps[warm_up:])
    return {"seconds_per_step": step, "seconds_waiting": wait, "idle_share": wait / step}


# --- start-up and steady ---------------------------------------------------------------------


class Clock:
    """A watcher that notes when the first step was done, and the memory in use now and then."""

    def __init__(self) -> None:
        self.begin = 0.0
        self.first_step = 0.0
        self.resident: dict[int, int] = {}

    def started(self, plan: Plan) -> None:  # noqa: ARG002
        """Note when."""
        self.begin = time.time()

    def stepped(self, step: int) -> None:
        """Note the first, and memory every 250."""
        if step == 1:
            self.first_step = time.time()
        if step % 250 == 0:
            self.resident[step] = psutil.Process().memory_info().rss

    def measured(self, row: dict[str, float]) -> None:
        """Nothing to note."""

    def validated(self, row: dict[str, float]) -> None:
        """Nothing to note."""

    def sampled(self, step: int, grid: Path) -> None:
        """Nothing to note."""

    def told(self, sentence: str) -> None:
        """Nothing to note."""

    def warned(self, sentence: str) -> None:
        """Should not come."""
        print(sentence, file=sys.stderr)


def run_start_up(folder: Path) -> dict[str, Any]:
    """Run the first step of the paper's training in this process."""
    config = TrainConfig(domain_a=folder / "a", domain_b=folder / "b", run_dir=folder / "run")
    clock = Clock()
    planned = time.time()
    plan = plan_new(config)
    seconds_planning = time.time() - planned
    with suppress(InterruptedRunError):
        train(plan, clock, lambda: 2 if clock.first_step else None)
    process = psutil.Process()
    before = process.memory_info().rss
    images = list_images(folder / "a")
    listing = process.memory_info().rss - before
    return {
        "files": 2 * len(images), "listing_bytes": listing, "seconds_planning": seconds_planning,
        "seconds_to_first_step": clock.begin - process.create_time(),
        "seconds_to_its_end": clock.first_step - process.create_time(),
    }  # fmt: skip


def run_steady(folder: Path) -> dict[str, Any]:
    """Run 2,000 steps of a tiny training in this process."""
    clock = Clock()
    config = TrainConfig(
        domain_a=folder / "a", domain_b=folder / "b", run_dir=folder / "run", steps=2000,
        **TINY,  # type: ignore[arg-type]
    )  # fmt: skip
    train(plan_new(config), clock, lambda: None)
    return {"resident_bytes": clock.resident}


def in_own_process(part: str, folder: Path) -> dict[str, Any]:
    """Run a part of the benchmark in a new process."""
    command = [sys.executable, __file__, "--serve", part, "--folder", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {"part": part, **json.loads(done.stdout)}


def measure_start_up(files: int) -> Iterator[dict[str, Any]]:
    """Time to the first step with many files (links to a few photos)."""
    with tempfile.TemporaryDirectory() as folder:
        photos = make_photos(Path(folder, "photos"), 10, 90)
        for domain in "ab":
            for number in range(files):
                below = Path(folder, domain, f"{number // 1000:04}")
                if number % 1000 == 0:
                    below.mkdir(parents=True)
                os.link(photos[number % 10], below / f"photo_{number:08}.jpg")
        yield in_own_process("start-up", Path(folder))


def measure_steady() -> Iterator[dict[str, Any]]:
    """Memory over several epochs of 150 photos per domain."""
    with tempfile.TemporaryDirectory() as folder:
        for domain in "ab":
            make_photos(Path(folder, domain), 150, 90)
        yield in_own_process("steady", Path(folder))


def main() -> None:
    """Parse arguments, run the benchmark and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all by default")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--files", type=int, default=100_000, help="in each folder, for start-up")
    parser.add_argument("--device", default="cpu", help="for waiting")
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("--serve", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve = {"start-up": run_start_up, "steady": run_steady}[arguments.serve]
        print(json.dumps(serve(arguments.folder)))
        return
    measure: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        "loading": lambda: measure_loading(arguments.rounds),
        "waiting": lambda: measure_waiting(arguments.device),
        "start-up": lambda: measure_start_up(arguments.files),
        "steady": measure_steady,
    }
    rows = []
    for part in arguments.parts or PARTS:
        for row in measure[part]():
            print(json.dumps(row), flush=True)
            rows.append(row)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
