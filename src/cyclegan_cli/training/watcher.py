"""What a training tells whoever follows it."""

from __future__ import annotations

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

    def told(self, sentence: str) -> None:
        """Something is worth knowing."""

    def warned(self, sentence: str) -> None:
        """Something is wrong, and the run goes on."""
