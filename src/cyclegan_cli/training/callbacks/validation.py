"""Validation: translations of fixed images, measured at intervals."""

from __future__ import annotations

import time
from typing import Any

from cyclegan_cli.data.dataset import Batch
from cyclegan_cli.training.callbacks.base import IntervalTrigger, ScheduledCallback, TrainingRun
from cyclegan_cli.training.callbacks.limits import StopRequested
from cyclegan_cli.training.plan import Plan
from cyclegan_cli.training.validation import Validator, quality


class Validation(ScheduledCallback):
    """Translates the validation images and measures the results.

    Without a validation set, images of the training set are translated for the health checks.

    Args:
        plan: The training.
        stop_requested: Returns the number of a signal that asks to stop, or None. A validation
            that it interrupts is repeated when the run is resumed.
    """

    def __init__(self, plan: Plan, stop_requested: StopRequested) -> None:
        super().__init__(IntervalTrigger(plan.config.validate_every, plan, "validate"))
        self.stop_requested = stop_requested
        self.validated_step: int = plan.callback_state.get("examined", plan.first_step)

    def setup(self, run: TrainingRun) -> None:
        if run.plan.config.validate_every:
            self.validator = Validator(run.plan)

    def on_batch(self, run: TrainingRun, batch: Batch) -> None:
        """Before the first step, repeat a validation that the last session interrupted."""
        if run.step == run.plan.first_step:
            is_due = run.group.is_rank_zero and self.trigger.is_due(run.step)
            if any(run.group.all_reduce_max([is_due])):
                self.on_due(run)

    def on_due(self, run: TrainingRun) -> None:
        """Validate unless this step has been validated."""
        if self.validated_step == run.step:
            return
        if run.plan.validates:
            run.call("before_results", run)
        run.group.on_rank_zero(lambda: self._validate(run))

    def _validate(self, run: TrainingRun) -> None:
        started = time.monotonic()
        # The last validation is not interrupted; nor is any where other ranks wait.
        can_stop = run.step != run.plan.total_steps and run.plan.env.world_size == 1
        batch = self.validator.translate(
            run.model, self.stop_requested if can_stop else lambda: None
        )
        if batch is None:
            return
        self.validated_step = run.step
        if not batch.is_finite():
            raise run.diverged("a translation is not finite")
        run.call("on_validation_batch", run, batch)
        if run.plan.validates:
            row = {"step": run.step, **quality(batch), "seconds": time.monotonic() - started}
            run.call("on_validation", run, row)
        self.trigger.reset(run.step)

    def state_dict(self, step: int) -> dict[str, Any]:
        return {
            "examined": self.validated_step,
            "since": {"validate": self.trigger.state_dict(step)},
        }
