r"""Effect of options on quality: equal trainings with and without an option, over several seeds.

    python benchmarks/quality.py --work measured/ --emoji DIR --day2night DIR \
        --variants default [...] --seeds 0 1 2 [--minutes 5]

Each data folder has ``train/A``, ``train/B``, ``test/A`` and ``test/B``; equal file names in the
test folders of ``--emoji`` are true pairs. A variant is a set of options, see ``VARIANTS``. Every
run lies in the work folder and is judged twice on (150 of) the test images: with the weights as
trained and with their moving average (one training has both).

Whatever is there already is not done again, and ``--minutes`` ends in good order after so long:
run the command again until it prints the table alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cyclegan_cli.checkpoints.header import Direction
from cyclegan_cli.checkpoints.store import load_generator
from cyclegan_cli.data.folder import list_images
from cyclegan_cli.data.tensors import to_pixel_values
from cyclegan_cli.metrics.distances import sliced_wasserstein_distance
from cyclegan_cli.metrics.loading import load_squares
from cyclegan_cli.metrics.paired import l1

VARIANTS: dict[str, list[str]] = {
    "default": [],
    "fp32": ["--precision", "fp32"],
}
COMMON = [
    "--base-channels", "16", "--discriminator-channels", "32", "--residual-blocks", "6",
    "--ema", "0.999", "--validate-every", "0", "--sample-every", "0", "--checkpoint-every", "1000",
]  # fmt: skip
WEIGHTS = {"trained": "state.safetensors", "averaged": "model.safetensors"}
BATCH = 8
PROJECTIONS = 128
MOST_IMAGES = 150


@dataclass(frozen=True)
class Data:
    """A pair of domains and its training options.

    Attributes:
        name: For the table.
        folder: With ``train`` and ``test``, each with two domains.
        crop: Side of the crops, and of the images that are judged.
        load: Short side that images are resized to.
        steps: Of every run.
        pairs: Whether equal file names are true pairs.
    """

    name: str
    folder: Path
    crop: int
    load: int
    steps: int
    pairs: bool

    def domains(self, part: str) -> list[Path]:
        """The folders of domain A and B, in alphabetical order."""
        return sorted(path for path in (self.folder / part).iterdir() if path.is_dir())


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        data: What it is trained on.
        variant: A key of ``VARIANTS``.
        seed: Of everything random.
        folder: Its run folder.
    """

    data: Data
    variant: str
    seed: int
    folder: Path

    def command(self, arguments: argparse.Namespace, seconds: float) -> list[str]:
        """Start or resume."""
        cli = [sys.executable, "-m", "cyclegan_cli", "train", "--time-limit", f"{seconds:.0f}"]
        if (self.folder / "state.safetensors").exists():
            return [*cli, "--resume", str(self.folder)]
        domain_a, domain_b = self.data.domains("train")
        return [
            *cli, "--domain-a", str(domain_a), "--domain-b", str(domain_b),
            "--load-size", str(self.data.load), "--crop-size", str(self.data.crop),
            "--steps", str(self.data.steps), "--seed", str(self.seed), *COMMON,
            "--device", arguments.device, "--run-dir", str(self.folder), *VARIANTS[self.variant],
        ]  # fmt: skip

    def is_done(self) -> bool:
        """Whether the run is complete."""
        model = self.folder / "model.safetensors"
        if not model.exists():
            return False
        _, info = load_generator(model, "a2b")
        return bool(info.training["step"] == self.data.steps)


def judged(run: Run, device: str) -> dict[str, dict[str, float]]:
    """Metrics of a finished run by kind of weights, cached in a file beside it."""
    kept = run.folder / "judged.json"
    if not kept.exists():
        images = [
            load_squares(list_images(folder)[:MOST_IMAGES], run.data.crop).to(device)
            for folder in run.data.domains("test")
        ]
        measures = {
            weights: _measures(run, run.folder / file, images) for weights, file in WEIGHTS.items()
        }
        kept.write_text(json.dumps(measures))
    found: dict[str, dict[str, float]] = json.loads(kept.read_text())
    return found


def _measures(run: Run, checkpoint: Path, images: list[Tensor]) -> dict[str, float]:
    measures = {}
    directions: list[tuple[Direction, Tensor, Tensor]] = [
        ("a2b", images[0], images[1]), ("b2a", images[1], images[0])
    ]  # fmt: skip
    for direction, source, target in directions:
        generator, _ = load_generator(checkpoint, direction)
        generator.to(source.device)
        with torch.inference_mode():
            batches = torch.split(source, BATCH)
            translated = torch.cat([generator(batch) for batch in batches])
        levels = sliced_wasserstein_distance(translated, target, projections=PROJECTIONS)
        measures[f"swd_{direction}"] = statistics.mean(levels)
        measures[f"finest_{direction}"] = levels[0]
        if run.data.pairs:
            pixels, truth = to_pixel_values(translated), to_pixel_values(target)
            measures[f"l1_{direction}"] = float(l1(pixels, truth).mean())
    return measures


def report(runs: list[Run], device: str) -> str:
    """Format a table of means and standard deviations over the seeds of finished runs."""
    rows: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    for run in runs:
        if run.is_done():
            for weights, measures in judged(run, device).items():
                rows.setdefault((run.data.name, run.variant, weights), []).append(measures)
    lines = ["| data | variant | weights | seeds | swd A→B | swd B→A | finest level A→B | B→A "
             "| L1 A→B | L1 B→A |", "|---" * 10 + "|"]  # fmt: skip
    names = ("swd_a2b", "swd_b2a", "finest_a2b", "finest_b2a", "l1_a2b", "l1_b2a")
    for key, found in rows.items():
        cells = [_spread([one[name] for one in found if name in one]) for name in names]
        lines.append(f"| {' | '.join((*key, str(len(found)), *cells))} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


def main() -> None:
    """Parse arguments, train missing runs, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--emoji", type=Path)
    parser.add_argument("--day2night", type=Path)
    parser.add_argument("--emoji-steps", type=int, default=3000)
    parser.add_argument("--day2night-steps", type=int, default=1000)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["default"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=float, default=1e6)
    arguments = parser.parse_args()
    deadline = time.monotonic() + 60 * arguments.minutes
    sets = [
        Data("emoji", arguments.emoji, 64, 68, arguments.emoji_steps, True),
        Data("day2night", arguments.day2night, 64, 72, arguments.day2night_steps, False),
    ]
    runs = [
        Run(data, variant, seed, arguments.work / f"{data.name}-{variant}-{seed}-{data.steps}")
        for seed in arguments.seeds  # All variants of a seed first: comparable early on.
        for data in sets
        if data.folder
        for variant in arguments.variants
    ]
    for run in runs:
        seconds = deadline - time.monotonic()
        if not run.is_done() and seconds > 1:
            print(f"{run.folder.name}", flush=True)
            subprocess.run([*run.command(arguments, seconds), "--quiet"], check=True)
    print(f"{sum(run.is_done() for run in runs)} of {len(runs)} runs are done")
    print(report(runs, arguments.device))


if __name__ == "__main__":
    main()
