r"""Quality of trainings: options beside the defaults and beside a textbook implementation.

    python benchmarks/quality.py --work measured/ --data maps/ --pairs --variants textbook default \
        [--seeds 0 1 2] [--steps 2740 | --seconds 600] [--size 128] [--channels 32]

The data folder has ``train`` and ``test``, each with a folder per domain; with ``--pairs``, equal
file names in ``test`` are true pairs. ``--steps`` compares after equal steps, ``--seconds`` after
equal time; with ``--seconds`` the steps of a variant are chosen by its measured speed, so that
learning rates decay to zero in time. ``textbook`` is the plain method of 2017 (``textbook.py``,
``loop.py``): stock modules in fp32, transposed convolutions, no moving average. All others are
``cyclegan train`` with the options in ``VARIANTS``.

Test images are translated by ``cyclegan translate`` and measured by ``cyclegan inspect --against``.
``--kid SCRIPT`` also runs a script that is called like ``SCRIPT GENERATED REAL`` and prints
``KIDx1000=...``. Runs and measurements lie in the work folder; what is there is not done again.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from cyclegan_cli.checkpoints.header import Direction, ModelInfo
from cyclegan_cli.checkpoints.store import save_generators
from cyclegan_cli.config import TrainConfig
from cyclegan_cli.models.cyclegan import CycleGAN
from loop import PlainDataset
from textbook import TextbookCycleGAN, copy_weights

CLI = [sys.executable, "-m", "cyclegan_cli"]
VARIANTS: dict[str, list[str]] = {
    "default": [],
    "no-skips": ["--no-skips"],
    "all-norms": ["--norms", "all"],
    "no-color": ["--lambda-color", "0"],
    "former-default": ["--norms", "all", "--lambda-identity", "0.5", "--lambda-color", "0"],
    "strided": ["--resampling", "strided"],
    "cut": ["--resampling", "cut"],
    "scales": ["--discriminator-scales", "2"],
    "strided-scales": ["--resampling", "strided", "--discriminator-scales", "2"],
    "no-average": ["--ema", "0"],
    "fp32": ["--precision", "fp32"],
    "identity": ["--lambda-identity", "0.5"],
    "identity-1": ["--lambda-identity", "1"],
    "weak-cycle": ["--lambda-cycle", "5"],
    "batch-2": ["--batch-size", "2"],
}
TEXTBOOK = "textbook"
SPEED_STEPS = 40  # To measure the speed of a variant.
METRICS = ("swd", "l1", "psnr", "kid")
DIRECTIONS: tuple[Direction, Direction] = ("a2b", "b2a")


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        variant: A key of ``VARIANTS``, or ``textbook``.
        seed: Seed of the training.
        folder: Work folder of the run.
        arguments: Of the command line.
    """

    variant: str
    seed: int
    folder: Path
    arguments: argparse.Namespace

    def domains(self, part: str) -> list[Path]:
        """Return the folders of domain A and B, in alphabetical order."""
        data: Path = self.arguments.data
        return sorted(path for path in (data / part).iterdir() if path.is_dir())

    @property
    def model(self) -> Path:
        """The trained model; exists once the run is complete."""
        return self.folder / "final.safetensors"

    def config(self, steps: int) -> TrainConfig:
        """Return the options of the plain method."""
        one = self.arguments
        return TrainConfig(
            load_size=round(one.size * 143 / 128), crop_size=one.size, base_channels=one.channels,
            discriminator_channels=one.discriminator_channels or one.channels,
            residual_blocks=one.blocks, steps=steps,
            seed=self.seed, resampling="strided", norms="all", lambda_identity=0.5,
            lambda_color=0.0, ema=0.0,
        )  # fmt: skip

    def train(self) -> None:
        """Train for the given steps or time, and save the model."""
        self.folder.mkdir(parents=True, exist_ok=True)
        steps = self.arguments.steps
        if self.arguments.seconds:
            measure = _textbook if self.variant == TEXTBOOK else _command
            seconds = measure(self, SPEED_STEPS, self.folder / "speed")
            steps = round(self.arguments.seconds / seconds)
        started = time.monotonic()
        train = _textbook if self.variant == TEXTBOOK else _command
        train(self, steps, self.folder / "run")
        facts = {"steps": steps, "seconds": round(time.monotonic() - started, 1)}
        (self.folder / "facts.json").write_text(json.dumps(facts))
        (self.folder / "run" / "model.safetensors").rename(self.model)

    def measures(self) -> dict[str, float]:
        """Return the metrics of both directions on the test images, cached in a file."""
        cached = self.folder / "measures.json"
        if not cached.exists():
            found: dict[str, float] = json.loads((self.folder / "facts.json").read_text())
            for direction, (source, target) in zip(
                DIRECTIONS, (self.domains("test"), self.domains("test")[::-1]), strict=True
            ):
                found |= self._measure(direction, source, target)
            cached.write_text(json.dumps(found))
        measured: dict[str, float] = json.loads(cached.read_text())
        return measured

    def _measure(self, direction: Direction, source: Path, target: Path) -> dict[str, float]:
        translations = self.folder / direction
        options = ["--checkpoint", str(self.model), "--direction", direction, "--format", "png"]
        command = [*CLI, "translate", str(source), "-o", str(translations), *options, "--quiet"]
        subprocess.run(command, check=True)
        pairs = ["--pairs", str(target)] if self.arguments.pairs else []
        command = [*CLI, "inspect", str(translations), "--against", str(target), *pairs]
        size = self.config(1).load_size
        command += ["--size", str(size), "--no-inception", "--json"]
        document = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        found = {f"swd_{direction}": document["swd"]["translations"]["value"]}
        for name in ("l1", "psnr") if pairs else ():
            found[f"{name}_{direction}"] = document["pairs"][name]["translations"]["value"]
        if self.arguments.kid:
            command = [sys.executable, self.arguments.kid, str(translations), str(target)]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[f"kid_{direction}"] = float(re.findall(r"KIDx1000=(-?[\d.]+)", printed)[0])
        return found


def _command(run: Run, steps: int, folder: Path) -> float:
    """Train by ``cyclegan train``, and return the seconds per step."""
    domain_a, domain_b = run.domains("train")
    config = run.config(steps)
    names = ("load_size", "crop_size", "base_channels", "discriminator_channels", "residual_blocks",
             "steps", "seed")  # fmt: skip
    options = [f"--{name.replace('_', '-')}={getattr(config, name)}" for name in names]
    options += ["--validate-every=0", "--sample-every=0", f"--log-every={SPEED_STEPS // 4}"]
    options += [f"--device={run.arguments.device}", *VARIANTS[run.variant]]
    command = [*CLI, "train", "--domain-a", str(domain_a), "--domain-b", str(domain_b), "--quiet"]
    command += [*options, "--run-dir", str(folder)]
    subprocess.run(command, check=True)
    with (folder / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))[1:]
    return statistics.median(1 / float(row["images_per_second"]) for row in rows)


def _textbook(run: Run, steps: int, folder: Path) -> float:
    """Train by the textbook loop, and return the seconds per step."""
    config = run.config(steps)
    torch.manual_seed(run.seed)
    device = run.arguments.device
    torch.backends.cudnn.benchmark = True
    model = CycleGAN(config, device, bf16=False)
    textbook = TextbookCycleGAN(model)
    dataset = PlainDataset(run.domains("train"), config.load_size, config.crop_size, steps)
    started = 0.0
    for step, (real_a, real_b) in enumerate(DataLoader(dataset, batch_size=1, num_workers=1)):
        if step == min(steps // 4, SPEED_STEPS):
            started, first = time.perf_counter(), step
        rate = config.learning_rate_at(step, steps, steps // 2)
        for optimizer in (textbook.generator_adam, textbook.discriminator_adam):
            for group in optimizer.param_groups:
                group["lr"] = rate
        textbook.step(real_a.to(device), real_b.to(device))
    seconds = (time.perf_counter() - started) / (steps - first)
    copy_weights(textbook.g_a2b, model.generator_a2b)
    copy_weights(textbook.g_b2a, model.generator_b2a)
    folder.mkdir(exist_ok=True)
    generators = {"a2b": model.generator_a2b, "b2a": model.generator_b2a}
    info = ModelInfo("model", config.generator, "a", "b", {"step": steps}, {})
    save_generators(folder / "model.safetensors", generators, info)  # type: ignore[arg-type]
    return seconds


def report(runs: list[Run]) -> str:
    """Format a table: mean and standard deviation over the seeds of each variant."""
    done = [run for run in runs if run.model.exists()]
    columns = [f"{metric}_{direction}" for metric in METRICS for direction in DIRECTIONS]
    present = {name for run in done for name in run.measures()}
    columns = [name for name in ("steps", "seconds", *columns) if name in present]
    lines = [f"| variant | seeds | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for variant in dict.fromkeys(run.variant for run in done):
        found = [run.measures() for run in done if run.variant == variant]
        cells = [_spread([one[name] for one in found]) for name in columns]
        lines.append(f"| {variant} | {len(found)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def main() -> None:
    """Parse arguments, do missing runs, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pairs", action="store_true")
    parser.add_argument("--variants", nargs="+", choices=[TEXTBOOK, *VARIANTS], default=["default"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--steps", type=int, default=2740)
    budget.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--size", type=int, default=128, help="side of the crops, in pixels")
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--discriminator-channels", type=int, help="default: --channels")
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--kid", help="a script that prints the KID of two folders")
    arguments = parser.parse_args()
    budget_name = f"{arguments.seconds:g}s" if arguments.seconds else f"{arguments.steps}"
    runs = [
        Run(variant, seed, arguments.work / f"{variant}-{seed}-{budget_name}", arguments)
        for seed in arguments.seeds  # All variants of a seed first: comparable early on.
        for variant in arguments.variants
    ]

    for run in runs:
        if not run.model.exists():
            print(run.folder.name, flush=True)
            run.train()
        print(json.dumps(run.measures()), flush=True)
    print(report(runs))


if __name__ == "__main__":
    main()
