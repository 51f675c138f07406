"""The HTML report of a run."""

from __future__ import annotations

from cyclegan_cli.training.callbacks.base import IntervalTrigger, ScheduledCallback, TrainingRun
from cyclegan_cli.training.plan import Plan
from cyclegan_cli.training.report.page import RunPage


class Report(ScheduledCallback):
    """Writes ``index.html`` at the start, with each sample grid, and at the end.

    Args:
        plan: The training.
        trigger: The trigger of the sample grids.
    """

    def __init__(self, plan: Plan, trigger: IntervalTrigger) -> None:
        super().__init__(trigger)
        self.page = RunPage(plan)

    def on_train_begin(self, run: TrainingRun) -> None:
        self.on_due(run)

    def on_due(self, run: TrainingRun) -> None:
        run.group.on_rank_zero(lambda: self.on_train_end(run))

    def on_train_end(self, run: TrainingRun) -> None:
        """Write the page with the final status."""
        run.run_dir.check()
        self.page.write(run.step, run.status, run.reason)
