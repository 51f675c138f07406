"""Run folders with everything that a page of them can show, without a training."""

import dataclasses
import json
from pathlib import Path

import torch

from cyclegan_cli.models.cyclegan import LOSS_NAMES
from cyclegan_cli.training.callbacks.logging import VALIDATION_COLUMNS, VALIDATION_FILE, StepTable
from cyclegan_cli.training.callbacks.samples import GRID_COLUMNS, save_sample_grid
from cyclegan_cli.training.plan import Plan
from cyclegan_cli.training.split import DataSplit
from runs import make_config

METRICS_COLUMNS = ("step", "epoch", "learning_rate", *LOSS_NAMES, "images_per_second", "seconds")


def make_plan(tmp_path: Path) -> Plan:
    """A run of 800 steps; nothing is on disk yet."""
    config = make_config(
        tmp_path, name_a="day", name_b="night", run_dir=tmp_path / "run", steps=800
    )
    images = [Path(f"{i}.png") for i in range(10)]
    (tmp_path / "run").mkdir()
    domains = DataSplit(images, images, images[:2], images[:2])
    return Plan(config, tmp_path / "run", domains, torch.device("cpu"))


def fill(plan: Plan, steps: int = 400) -> None:
    """Rows every 10 steps, samples and measures every 100; the loss is a hundredth of the step."""
    run = plan.run_dir
    metrics = StepTable(run / "metrics.csv", METRICS_COLUMNS, 0)
    validation = StepTable(run / VALIDATION_FILE, VALIDATION_COLUMNS, 0)
    for step in range(10, steps + 1, 10):
        losses = dict.fromkeys(LOSS_NAMES, step / 100)
        metrics.append(
            losses
            | {"step": step, "epoch": step / 10, "learning_rate": 2e-4}
            | {"images_per_second": 2.0, "seconds": step / 2}
        )
        if step % 100 == 0:
            measures = dict.fromkeys(VALIDATION_COLUMNS, 0.5)
            # The best is at step 200.
            distance = 100.0 + abs(step - 200)
            validation.append(measures | {"step": step, "swd_a2b": distance, "swd_b2a": distance})
            write_samples(run, step)


def write_samples(run: Path, step: int) -> None:
    images = {
        name: torch.full((2, 3, 16, 16), (step / 4 if "real" not in name else 30) / 127.5 - 1)
        for name in GRID_COLUMNS
    }
    save_sample_grid(run / "samples" / f"step_{step:08d}.jpg", images)


def write_health(run: Path, *verdicts: dict) -> None:
    (run / "health.json").write_text(
        json.dumps({"schema": 1, "step": 400, "verdicts": list(verdicts)})
    )


def renamed(plan: Plan, name_a: str, name_b: str) -> Plan:
    return dataclasses.replace(
        plan, config=dataclasses.replace(plan.config, name_a=name_a, name_b=name_b)
    )
