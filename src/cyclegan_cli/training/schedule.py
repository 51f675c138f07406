"""When something that is done at intervals, of steps or of time, is due."""

from __future__ import annotations

from time import monotonic
from typing import Any

from cyclegan_cli.config import LEAST_STEPS, StepsOrTime, duration_seconds


class Schedule:
    """The clock of one thing that is done at intervals.

    An interval of time begins when the last time's work ended, and has at least ``LEAST_STEPS``
    steps: however slow the work or the steps, a run is mostly training.

    Args:
        interval: Steps, or a duration; 0 is never.
        step: Steps done already.
        total_steps: Of the whole run; at its end all is due.
        remembered: What :meth:`state` gave; empty for a new run.
    """

    def __init__(
        self, interval: StepsOrTime, step: int, total_steps: int, remembered: dict[str, Any]
    ) -> None:
        self.interval = interval
        self.seconds = (duration_seconds(interval) or 0.0) if isinstance(interval, str) else 0.0
        self.total_steps = total_steps
        self.last: int = step - remembered.get("steps", 0)
        self.seconds_before: float = remembered.get("seconds", 0.0)
        self.started = monotonic()

    def start_clock(self) -> None:
        """Time counts from now on."""
        self.started = monotonic()

    def is_due(self, step: int) -> bool:
        """Whether it is to be done after step ``step``."""
        if self.interval == 0:
            return False
        if step == self.total_steps:
            return True
        if isinstance(self.interval, int):
            return step % self.interval == 0
        return step - self.last >= LEAST_STEPS and self._elapsed() >= self.seconds

    def done(self, step: int) -> None:
        """It has been done; the next interval begins."""
        self.last, self.seconds_before, self.started = step, 0.0, monotonic()

    def state(self, step: int) -> dict[str, Any]:
        """What a resumed run has to know, as plain values; nothing of intervals of steps."""
        if isinstance(self.interval, int):
            return {}
        return {"steps": step - self.last, "seconds": round(self._elapsed(), 3)}

    def _elapsed(self) -> float:
        return self.seconds_before + monotonic() - self.started
