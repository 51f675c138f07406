"""The progress display of ``cyclegan train``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from cyclegan_cli.cli import console
from cyclegan_cli.models.cyclegan import StepLosses
from cyclegan_cli.training.callbacks.base import TrainingCallback, TrainingRun
from cyclegan_cli.training.report.page import PAGE_FILE


class WarningDisplay(TrainingCallback):
    """Shows only warnings, for ``--quiet``."""

    def on_warning(self, message: str) -> None:
        console.warn(message)


class LineDisplay(WarningDisplay):
    """Prints a line per row of ``metrics.csv``, for logs and simple terminals."""

    def on_train_begin(self, run: TrainingRun) -> None:
        plan = run.plan
        start = f"from step {plan.first_step} " if plan.first_step else ""
        console.info(
            f"training {plan.name_a} <-> {plan.name_b} {start}to step {plan.total_steps} "
            f"on {plan.device} in {plan.config.precision}: {len(plan.images_a)} + "
            f"{len(plan.images_b)} images, into {plan.run_dir}"
        )
        if plan.env.world_size > 1:
            console.info(
                f"{plan.env.world_size} processes with a batch size of {plan.config.batch_size} "
                f"each: {plan.step_items} images of each domain per step"
            )
        console.info(f"report: {plan.run_dir / PAGE_FILE}")

    def on_log(self, run: TrainingRun, row: dict[str, Any]) -> None:
        total = run.plan.total_steps
        remaining = (total - row["step"]) * run.plan.step_items / row["images_per_second"]
        console.info(
            f"step {row['step']}/{total}  epoch {row['epoch']:.2f}  "
            f"{row['images_per_second']:.2f} images/s  "
            f"{console.duration(remaining)} left  {_losses(row)}"
        )

    def on_validation(self, run: TrainingRun, row: dict[str, float]) -> None:
        plan = run.plan
        console.info(
            f"step {run.step}: distance to the target domain (SWD) "
            f"{row['swd_a2b']:.0f} {plan.name_a} -> {plan.name_b}, "
            f"{row['swd_b2a']:.0f} {plan.name_b} -> {plan.name_a}"
        )

    def on_message(self, message: str) -> None:
        console.info(message)


class BarDisplay(LineDisplay):
    """Draws a progress bar, for terminals."""

    bar: Progress | None = None

    def on_train_begin(self, run: TrainingRun) -> None:
        super().on_train_begin(run)
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]:.2f}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[losses]}"),
            console=console.stderr(),
        )
        self.task = self.bar.add_task(
            "", total=run.plan.total_steps, completed=run.step, epoch=0.0, rate="", losses=""
        )
        self.bar.start()

    def on_step_end(self, run: TrainingRun, losses: StepLosses) -> None:
        assert self.bar
        self.bar.update(self.task, completed=run.step, epoch=run.plan.epoch_of(run.step))

    def on_log(self, run: TrainingRun, row: dict[str, Any]) -> None:
        assert self.bar
        rate = f"{row['images_per_second']:.1f} images/s"
        self.bar.update(self.task, rate=rate, losses=_losses(row))

    def close(self, run: TrainingRun) -> None:
        if self.bar:
            self.bar.stop()


def training_progress(quiet: bool) -> TrainingCallback:
    """Return a bar for terminals, lines elsewhere, and warnings alone if ``quiet``."""
    if quiet:
        return WarningDisplay()
    return BarDisplay() if console.stderr().is_terminal else LineDisplay()


def _losses(row: Mapping[str, float]) -> str:
    """Format the losses, summed over both directions, without those that are disabled."""
    sums = {
        "adversarial": row["adversarial_a2b"] + row["adversarial_b2a"],
        "cycle": row["cycle_a"] + row["cycle_b"],
        "identity": row["identity_a"] + row["identity_b"],
        "color": row["color_a2b"] + row["color_b2a"],
        "discriminators": row["discriminator_a"] + row["discriminator_b"],
    }
    return "  ".join(f"{name} {value:.3f}" for name, value in sums.items() if value)
