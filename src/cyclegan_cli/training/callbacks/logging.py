"""CSV tables with one row per step: ``metrics.csv``, ``validation.csv`` and ``kid.csv``."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cyclegan_cli import files
from cyclegan_cli.errors import OutputError
from cyclegan_cli.models.cyclegan import LOSS_NAMES, StepLosses
from cyclegan_cli.training.callbacks.base import IntervalTrigger, ScheduledCallback, TrainingRun
from cyclegan_cli.training.plan import Plan

METRICS_FILE = "metrics.csv"
HEALTH_COLUMN = "health"
# Tables of earlier versions lack these columns; a resumed run leaves the cells empty.
GRADIENT_COLUMNS = ("gradient_norm_generators", "gradient_norm_discriminators", "skipped_steps")
LATER_COLUMNS = ("color_a2b", "color_b2a", *GRADIENT_COLUMNS)
METRICS_COLUMNS = (
    "step", "epoch", "learning_rate", *LOSS_NAMES, *GRADIENT_COLUMNS, "images_per_second",
    "seconds", HEALTH_COLUMN,
)  # fmt: skip
VALIDATION_FILE = "validation.csv"
VALIDATION_COLUMNS = (
    "step", "swd_a2b", "swd_b2a", "cycle_a", "cycle_b", "identity_a", "identity_b",
    "diversity_a2b", "diversity_b2a", "seconds",
)  # fmt: skip


class StepTable:
    """A table whose rows belong to steps. Rows are written at once.

    Args:
        path: The file, which is created if it does not exist.
        columns: Names of the columns, including ``step``.
        steps_done: Rows of later steps are removed: a resumed run writes them again.

    Raises:
        OutputError: The file cannot be written.
    """

    def __init__(self, path: Path, columns: Sequence[str], steps_done: int) -> None:
        self.path = path
        self.columns = columns
        kept = [row for row in read_rows(path, columns) if float(row["step"]) <= steps_done]
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(kept)
        files.write_text(path, text.getvalue())

    def append(self, row: Mapping[str, float | str]) -> None:
        """Append a row.

        Raises:
            OutputError: The file cannot be written.
        """
        text = io.StringIO()
        values = (_cell(name, row[name]) for name in self.columns)
        csv.writer(text, lineterminator="\n").writerow(values)
        try:
            with self.path.open("a", encoding="utf-8", newline="") as stream:
                stream.write(text.getvalue())
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from error


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a table without incomplete rows, which a killed process may leave at the end.

    Args:
        path: The table; a missing file has no rows.
        columns: The columns of a complete row.
    """
    if not path.exists():
        return []
    with path.open(newline="", errors="replace") as stream:
        rows = list(csv.DictReader(stream))
    numbers = [name for name in columns if name != HEALTH_COLUMN and name not in LATER_COLUMNS]
    return [row for row in rows if all(_is_number(row.get(name)) for name in numbers)]


def _cell(name: str, value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.{12 if name == 'step' else 6}g}"


def _is_number(text: str | None) -> bool:
    try:
        float(text or "")
    except ValueError:
        return False
    return True


class LossAccumulator:
    """Sums the losses between two rows of ``metrics.csv`` without waiting for the device.

    Args:
        device: The device of the losses.
        state: Values from :meth:`state_dict`; empty for a new interval.

    Attributes:
        steps: Number of applied steps.
        skipped: Number of steps skipped because a gradient was not finite.
        gradient_norms: Largest gradient norms of the generators and of the discriminators.
    """

    def __init__(self, device: torch.device, state: dict[str, Any]) -> None:
        sums: list[float] = state.get("losses", [])
        # States of earlier versions lack the last ones, the color losses.
        missing = [0.0] * (len(LOSS_NAMES) - len(sums))
        self.sum = torch.tensor([*sums, *missing], device=device)
        self.steps: int = state.get("steps", 0)
        self.skipped: int = state.get("skipped", 0)
        self.gradient_norms: list[float] = state.get("gradient_norms", [0.0, 0.0])
        self.timed_steps = 0
        self.started = time.monotonic()

    def update(self, losses: StepLosses) -> None:
        """Add the losses of a step. They stay on the device."""
        self.timed_steps += 1
        if not losses.is_applied:
            self.skipped += 1
            return
        self.sum += losses.stacked()
        self.steps += 1
        self.gradient_norms = list(map(max, self.gradient_norms, losses.gradient_norms))

    def means(self) -> dict[str, float]:
        """Return the mean of each loss over the applied steps. Waits for the device."""
        means = (self.sum / max(self.steps, 1)).tolist()
        return dict(zip(LOSS_NAMES, means, strict=True))

    def state_dict(self) -> dict[str, Any]:
        return {
            "losses": self.sum.tolist(),
            "steps": self.steps,
            "skipped": self.skipped,
            "gradient_norms": self.gradient_norms,
        }


class CSVLogger(ScheduledCallback):
    """Averages the losses and writes ``metrics.csv`` and ``validation.csv``."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(IntervalTrigger(plan.config.log_every, plan))
        self.losses = LossAccumulator(plan.device, plan.callback_state.get("interval", {}))

    def on_train_begin(self, run: TrainingRun) -> None:
        """Create the tables, or remove the rows that the resumed run will write again."""
        self.losses.started = time.monotonic()
        run.group.on_rank_zero(lambda: self._open(run))

    def _open(self, run: TrainingRun) -> None:
        self.metrics = StepTable(run.run_dir.file(METRICS_FILE), METRICS_COLUMNS, run.step)
        if run.plan.validates:
            path = run.run_dir.file(VALIDATION_FILE)
            self.validation = StepTable(path, VALIDATION_COLUMNS, run.step)

    def on_step_end(self, run: TrainingRun, losses: StepLosses) -> None:
        self.losses.update(losses)

    def on_due(self, run: TrainingRun) -> None:
        run.call("before_results", run)
        if not self.losses.steps:
            return  # All steps were skipped: the row follows the next applied step.
        means = run.group.all_reduce_mean(self.losses.means())
        speed = self.losses.timed_steps / max(time.monotonic() - self.losses.started, 1e-9)
        gradients = (*self.losses.gradient_norms, self.losses.skipped)
        row = {
            "step": run.step,
            "epoch": run.plan.epoch_of(run.step),
            "learning_rate": run.plan.learning_rate_at(run.step - 1),
            **means,
            **dict(zip(GRADIENT_COLUMNS, gradients, strict=True)),
            "images_per_second": speed * run.plan.step_items,
            "seconds": run.seconds,
            "steps": self.losses.steps,
        }
        run.group.on_rank_zero(lambda: run.call("on_log", run, row))
        self.losses = LossAccumulator(run.plan.device, {})

    def on_log(self, run: TrainingRun, row: dict[str, Any]) -> None:
        run.run_dir.check()
        self.metrics.append(row)

    def on_validation(self, run: TrainingRun, row: dict[str, float]) -> None:
        run.run_dir.check()
        self.validation.append(row)

    def state_dict(self, step: int) -> dict[str, Any]:
        return {"interval": self.losses.state_dict()}
