"""What a training tells whoever follows it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from cyclegan_cli.training.plan import Plan


class Watcher(Protocol):
    """Whoever wants to know how a training goes; the command line's console is one."""

    def started(self, plan: Plan) -> None:
        """The first step is about to be made."""

    def stepped(self, step: int) -> None:
        """So many steps are done."""

    def measured(self, row: dict[str, float]) -> None:
        """A row was added to metrics.csv."""

    def validated(self, row: dict[str, float]) -> None:
        """A row was added to validation.csv."""

    def sampled(self, step: int, grid: Path) -> None:
        """The sample grid of a step was written."""

    def told(self, sentence: str) -> None:
        """Something is worth knowing."""

    def warned(self, sentence: str) -> None:
        """Something is wrong, and the run goes on."""


class Watchers:
    """Several watchers as one.

    Args:
        watchers: Are told everything, in this order.
    """

    def __init__(self, *watchers: Watcher) -> None:
        self.watchers = watchers

    def started(self, plan: Plan) -> None:
        """The first step is about to be made."""
        for watcher in self.watchers:
            watcher.started(plan)

    def stepped(self, step: int) -> None:
        """So many steps are done."""
        for watcher in self.watchers:
            watcher.stepped(step)

    def measured(self, row: dict[str, float]) -> None:
        """A row was added to metrics.csv."""
        for watcher in self.watchers:
            watcher.measured(row)

    def validated(self, row: dict[str, float]) -> None:
        """A row was added to validation.csv."""
        for watcher in self.watchers:
            watcher.validated(row)

    def sampled(self, step: int, grid: Path) -> None:
        """The sample grid of a step was written."""
        for watcher in self.watchers:
            watcher.sampled(step, grid)

    def told(self, sentence: str) -> None:
        """Something is worth knowing."""
        for watcher in self.watchers:
            watcher.told(sentence)

    def warned(self, sentence: str) -> None:
        """Something is wrong, and the run goes on."""
        for watcher in self.watchers:
            watcher.warned(sentence)
