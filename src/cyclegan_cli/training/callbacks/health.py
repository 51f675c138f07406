"""Health checks during a training: warnings, ``health.json`` and skipped steps."""

from __future__ import annotations

import json
from typing import Any

from cyclegan_cli import files
from cyclegan_cli.checkpoints.locate import HEALTH_FILE
from cyclegan_cli.models.cyclegan import LOSS_NAMES, StepLosses
from cyclegan_cli.training.callbacks.base import TrainingCallback, TrainingRun
from cyclegan_cli.training.health import Change, HealthMonitor
from cyclegan_cli.training.plan import Plan
from cyclegan_cli.training.tables import HEALTH_COLUMN, LATER_COLUMNS
from cyclegan_cli.training.validation import ValidationBatch

# The training does not recover from this many consecutive steps with non-finite gradients.
MAX_CONSECUTIVE_SKIPS = 10
NETWORKS = ("generators", "discriminators")


class Health(TrainingCallback):
    """Reports known failures of the method, and ends a training that has diverged."""

    def __init__(self, plan: Plan) -> None:
        state = plan.callback_state
        self.monitor = HealthMonitor(plan, state.get("monitor", {}))
        self.skipped: int = state.get("skipped", 0)
        self.consecutive_skips: int = state.get("skipped_in_a_row", 0)

    def on_train_begin(self, run: TrainingRun) -> None:
        """Write ``health.json``, without the verdicts on steps that a crash has undone."""
        run.group.on_rank_zero(lambda: self._write(run))

    def on_step_end(self, run: TrainingRun, losses: StepLosses) -> None:
        """Count skipped steps: single ones are harmless, many in a row are not.

        Raises:
            DivergedError: Too many consecutive steps were skipped.
        """
        if losses.is_applied:
            self.consecutive_skips = 0
            return
        self.skipped += 1
        self.consecutive_skips += 1
        if self.consecutive_skips == MAX_CONSECUTIVE_SKIPS:
            raise run.diverged(f"the gradients of {self.consecutive_skips} steps are not finite")
        if self.skipped > 1 and self.skipped.bit_count() == 1:  # 2, 4, 8 ...
            run.warn(
                f"step {run.step}: the gradients are not finite, and the step is skipped; "
                f"{self.skipped} steps so far. If the number keeps growing, resume with "
                "--precision fp32 or a lower --learning-rate"
            )

    def on_log(self, run: TrainingRun, row: dict[str, Any]) -> None:
        """Check losses, gradients and updates, and add the result to the row."""
        losses = {name: row[name] for name in LOSS_NAMES}
        norms = dict(zip(NETWORKS, (row[name] for name in LATER_COLUMNS), strict=False))
        sizes = dict(zip(NETWORKS, run.model.update_sizes(), strict=True))
        self._report(
            run,
            self.monitor.check_losses(run.step, losses, row["steps"]),
            self.monitor.check_gradients(run.step, norms),
            self.monitor.check_updates(run.step, sizes, row["learning_rate"]),
        )
        row[HEALTH_COLUMN] = self.monitor.summary

    def on_validation_batch(self, run: TrainingRun, batch: ValidationBatch) -> None:
        self._report(run, self.monitor.check_translations(run.step, batch))

    def on_diverged(self, run: TrainingRun, reason: str, hint: str) -> None:
        """Record that values are not finite."""
        self.monitor.add_non_finite(run.step, reason, hint)
        if run.group.is_rank_zero:
            self._write(run)

    def state_dict(self, step: int) -> dict[str, Any]:
        return {
            "monitor": self.monitor.state_dict(),
            "skipped": self.skipped,
            "skipped_in_a_row": self.consecutive_skips,
        }

    def _report(self, run: TrainingRun, *changes: Change) -> None:
        for change in changes:
            for verdict in change.found:
                run.warn(f"{verdict.sentence}. {verdict.advice}")
            for verdict in change.over:
                run.log(f"step {run.step}: resolved: {verdict.sentence}")
        self._write(run)

    def _write(self, run: TrainingRun) -> None:
        document = self.monitor.document(run.step)
        files.write_text(run.run_dir.file(HEALTH_FILE), json.dumps(document, indent=1) + "\n")
