"""Callbacks: everything that happens beside the training steps."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Literal

from cyclegan_cli.checkpoints.locate import STATE_FILE
from cyclegan_cli.config import LEAST_STEPS, StepsOrTime, duration_seconds
from cyclegan_cli.data.dataset import Batch
from cyclegan_cli.errors import CycleGANError, DivergedError
from cyclegan_cli.models.cyclegan import CycleGAN, StepLosses
from cyclegan_cli.training.distributed import ProcessGroup
from cyclegan_cli.training.plan import Plan
from cyclegan_cli.training.run_dir import RunDirectory
from cyclegan_cli.training.validation import ValidationBatch

TrainingStatus = Literal["training", "finished", "stopped", "failed"]


class TrainingCallback:
    """Base class for callbacks. Every hook does nothing by default.

    Override the hooks you need and pass instances to
    :func:`cyclegan_cli.training.trainer.train`::

        class StopAtLowCycleLoss(TrainingCallback):
            def on_log(self, run, row):
                print(run.step, row["cycle_a"])
                if row["cycle_a"] < 0.05:
                    run.stop("the cycle loss is low enough")

        config = TrainConfig(domain_a=Path("day"), domain_b=Path("night"))
        train(config, callbacks=[StopAtLowCycleLoss()])

    Hooks read ``run.step``, ``run.model`` and ``run.plan``. An exception that a hook raises ends
    the training. Under torchrun, callbacks passed to ``train`` are called on rank 0 only.
    """

    def setup(self, run: TrainingRun) -> None:
        """Called on rank 0 before the run folder is created, to load what is needed."""

    def on_train_begin(self, run: TrainingRun) -> None:
        """Called once before the first step of this session."""

    def on_batch(self, run: TrainingRun, batch: Batch) -> None:
        """Called before each step with its batch."""

    def on_step_end(self, run: TrainingRun, losses: StepLosses) -> None:
        """Called after each step. Reading a loss waits for the device."""

    def before_results(self, run: TrainingRun) -> None:
        """Called before log rows, samples or validation results are written."""

    def on_log(self, run: TrainingRun, row: dict[str, Any]) -> None:
        """Called on rank 0 with each new row of ``metrics.csv``."""

    def on_samples(self, run: TrainingRun, path: Path) -> None:
        """Called on rank 0 when a sample grid has been written."""

    def on_validation_batch(self, run: TrainingRun, batch: ValidationBatch) -> None:
        """Called on rank 0 with the translated validation images."""

    def on_validation(self, run: TrainingRun, row: dict[str, float]) -> None:
        """Called on rank 0 with each new row of ``validation.csv``."""

    def on_diverged(self, run: TrainingRun, reason: str, hint: str) -> None:
        """Called before the training fails because values are not finite."""

    def on_message(self, message: str) -> None:
        """Called on rank 0 with information for the user."""

    def on_warning(self, message: str) -> None:
        """Called on rank 0 with a problem that does not end the training."""

    def on_stop(self, run: TrainingRun) -> None:
        """Called after the last step of this session, to save the run."""

    def on_train_end(self, run: TrainingRun) -> None:
        """Called on rank 0 after the training, successful or not: see ``run.status``."""

    def close(self, run: TrainingRun) -> None:
        """Release resources. Called last, whatever ended the training."""

    def state_dict(self, step: int) -> dict[str, Any]:
        """Return plain values for the checkpoint, from which a resumed run continues."""
        return {}


class ScheduledCallback(TrainingCallback):
    """A built-in callback with work at intervals, in which all ranks take part.

    Args:
        trigger: Decides after which steps :meth:`on_due` is called. The clock of rank 0 decides
            for all ranks.
    """

    def __init__(self, trigger: IntervalTrigger) -> None:
        self.trigger = trigger

    def on_due(self, run: TrainingRun) -> None:
        """Do the work."""
        raise NotImplementedError


class IntervalTrigger:
    """Decides when periodic work is due, by steps or by time.

    A time interval starts when the previous work ended and lasts at least ``LEAST_STEPS`` steps,
    so that slow work or slow steps leave most of the time to training.

    Args:
        interval: Steps or a duration; 0 is never.
        plan: The training; at its last step everything is due.
        name: Key of the trigger's state in the checkpoint.
    """

    def __init__(self, interval: StepsOrTime, plan: Plan, name: str = "") -> None:
        state = plan.callback_state.get("since", {}).get(name, {})
        self.interval = interval
        self.seconds = (duration_seconds(interval) or 0.0) if isinstance(interval, str) else 0.0
        self.total_steps = plan.total_steps
        self.last: int = plan.first_step - state.get("steps", 0)
        self.seconds_before: float = state.get("seconds", 0.0)
        self.started = monotonic()

    def start_clock(self) -> None:
        """Start counting time."""
        self.started = monotonic()

    def is_due(self, step: int) -> bool:
        """Return whether the work is due after ``step`` steps."""
        if self.interval == 0:
            return False
        if step == self.total_steps:
            return True
        if isinstance(self.interval, int):
            return step % self.interval == 0
        return step - self.last >= LEAST_STEPS and self._elapsed() >= self.seconds

    def reset(self, step: int) -> None:
        """Start the next interval after ``step`` steps."""
        self.last, self.seconds_before, self.started = step, 0.0, monotonic()

    def state_dict(self, step: int) -> dict[str, Any]:
        """Return plain values for the checkpoint; empty for intervals in steps."""
        if isinstance(self.interval, int):
            return {}
        return {"steps": step - self.last, "seconds": round(self._elapsed(), 3)}

    def _elapsed(self) -> float:
        return self.seconds_before + monotonic() - self.started


class TrainingRun:
    """A training in progress, as callbacks see it.

    Args:
        plan: The resolved options, images and device.
        model: The networks and optimizers.
        callbacks: All callbacks, called in this order.
        group: The ranks that train together.

    Attributes:
        step: Number of steps done.
        status: ``training`` until the last step of the session.
        reason: Why the training stopped or failed.
        error: Raised after this step, once the run is saved. Any rank may set it.
        run_dir: The run folder; open on rank 0 only.
    """

    def __init__(
        self,
        plan: Plan,
        model: CycleGAN,
        callbacks: Sequence[TrainingCallback],
        group: ProcessGroup,
    ) -> None:
        self.plan, self.model, self.callbacks, self.group = plan, model, callbacks, group
        self.step = plan.first_step
        self.status: TrainingStatus = "training"
        self.reason = ""
        self.stop_reason = ""
        self.error: CycleGANError | None = None
        self.run_dir = RunDirectory(plan.run_dir)
        self.started = time.monotonic()

    @property
    def session_seconds(self) -> float:
        """Seconds trained in this session."""
        return time.monotonic() - self.started

    @property
    def seconds(self) -> float:
        """Seconds trained in all sessions of the run."""
        return (self.plan.resumed.seconds if self.plan.resumed else 0.0) + self.session_seconds

    @property
    def resume_command(self) -> str:
        """The shell command that resumes the run."""
        return shlex.join(["cyclegan", "train", "--resume", str(self.plan.run_dir)])

    def start_clocks(self) -> None:
        """Start counting time for the speed, the time limit and intervals of time."""
        self.started = time.monotonic()
        for callback in self.callbacks:
            if isinstance(callback, ScheduledCallback):
                callback.trigger.start_clock()

    def call(self, hook: str, *arguments: Any) -> None:
        """Call a hook of all callbacks."""
        for callback in self.callbacks:
            getattr(callback, hook)(*arguments)

    def log(self, message: str) -> None:
        """Pass information for the user to all callbacks."""
        self.call("on_message", message)

    def warn(self, message: str) -> None:
        """Pass a warning to all callbacks."""
        self.call("on_warning", message)

    def stop(self, reason: str) -> None:
        """Save the run and end the training after this step. Takes effect on rank 0."""
        self.stop_reason = reason

    def diverged(self, reason: str) -> CycleGANError:
        """Return the error to raise on every rank when values are not finite."""
        options = f"--learning-rate {self.plan.config.learning_rate / 2:g} --precision fp32"
        if (self.plan.run_dir / STATE_FILE).exists():
            kept = "; the previous checkpoint is kept"
            hint = f"Resume from it with a lower learning rate: {self.resume_command} {options}"
        else:
            kept, hint = "", f"Start again with a lower learning rate: {options}"
        self.call("on_diverged", self, reason, hint)
        error = DivergedError(f"{reason} at step {self.step}{kept}", hint)
        return self.group.collective_error(error)
