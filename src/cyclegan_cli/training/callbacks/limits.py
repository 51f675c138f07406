"""What ends a training early: signals, the time limit, callbacks and unreadable images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

from cyclegan_cli.data.dataset import Batch
from cyclegan_cli.errors import DataError, InterruptedRunError
from cyclegan_cli.models.cyclegan import StepLosses
from cyclegan_cli.training.callbacks.base import (
    IntervalTrigger,
    ScheduledCallback,
    TrainingCallback,
    TrainingRun,
)
from cyclegan_cli.training.estimate import duration_advice
from cyclegan_cli.training.plan import Plan

# The report of the duration follows after this many steps, or earlier after this time.
NOTICE_STEPS, NOTICE_SECONDS = 20, 60.0

StopRequested = Callable[[], int | None]


class UnreadableImages(TrainingCallback):
    """Warns once about each image that was replaced, or with ``--strict`` ends the training.

    Args:
        strict: Whether to end the training.
        reported: Warnings that have been shown already.
    """

    def __init__(self, strict: bool, reported: Iterable[str] = ()) -> None:
        self.strict = strict
        self.reported = set(reported)

    def on_batch(self, run: TrainingRun, batch: Batch) -> None:
        """Report the images of a batch that could not be read."""
        for sentence in batch.skipped:
            if self.strict:
                run.error = DataError(
                    f"--strict: {sentence}; the run was saved after step {run.step + 1}",
                    f"Repair or remove the image, then resume: {run.resume_command}",
                )
            elif sentence not in self.reported:
                self.reported.add(sentence)
                run.warn(f"{sentence}; another image was used instead")


class DurationNotice(TrainingCallback):
    """Reports once, after the first steps of a session, how long the training takes."""

    def __init__(self) -> None:
        self.steps, self.started = 0, 0.0
        self.is_done = False

    def on_step_end(self, run: TrainingRun, losses: StepLosses) -> None:
        """Measure the steps after the first, which is slower, and report their speed."""
        if self.is_done:
            return
        if self.steps == 0:
            self.started = time.monotonic()
        seconds = time.monotonic() - self.started
        if self.steps == NOTICE_STEPS or (self.steps and seconds > NOTICE_SECONDS):
            self.is_done = True
            run.log(duration_advice(run.plan, run.step, seconds / self.steps))
        self.steps += 1


class Limits(ScheduledCallback):
    """Ends the training after a step, on all ranks together.

    Args:
        plan: The training.
        stop_requested: Returns the number of a signal that asks to stop, or None.
        time_limit: Seconds after which the training is saved and stopped.
    """

    def __init__(
        self, plan: Plan, stop_requested: StopRequested, time_limit: float = math.inf
    ) -> None:
        super().__init__(IntervalTrigger(1, plan))
        self.stop_requested = stop_requested
        self.time_limit = time_limit

    def on_due(self, run: TrainingRun) -> None:
        """Save and end the training if there is a reason to.

        Raises:
            InterruptedRunError: A signal asked to stop.
            DataError: An image cannot be read, and ``--strict`` is set.
        """
        # Only rank 0 has a clock and validates.
        is_rank_zero = run.group.is_rank_zero
        signal_number, out_of_time, stopped, failed = run.group.all_reduce_max(
            [
                self.stop_requested() or 0,
                is_rank_zero and run.session_seconds >= self.time_limit,
                is_rank_zero and bool(run.stop_reason),
                run.error is not None,
            ]
        )
        is_last = run.step == run.plan.total_steps
        if not (signal_number or out_of_time or stopped or failed or is_last):
            return
        run.call("on_stop", run)
        where = f"after step {run.step} of {run.plan.total_steps}"
        if failed:
            raise run.error or run.group.collective_error(
                DataError("another rank found an image that cannot be read")
            )
        if is_last:
            run.status = "finished"
            return
        if signal_number:
            raise run.group.collective_error(
                InterruptedRunError(
                    f"stopped {where}; the run was saved",
                    f"Resume with: {run.resume_command}",
                    signal_number,
                )
            )
        run.status = "stopped"
        if out_of_time:
            run.reason = (
                f"time limit reached {where}; the run was saved; resume with: {run.resume_command}"
            )
        else:
            run.reason = f"stopped {where}; the run was saved; {run.stop_reason}"
        run.log(run.reason)
