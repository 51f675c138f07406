"""The progress display of ``cyclegan translate`` for an image that takes long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cyclegan_cli.cli import console
from cyclegan_cli.translation.progress import TranslationObserver

if TYPE_CHECKING:
    from rich.progress import Progress

# An image has a display from then on.
FIRST_SECONDS = 10.0
# Between two lines, where the display is not a terminal.
LINE_SECONDS = 60.0


class ImageProgress(TranslationObserver):
    """Shows messages about images, and the progress of those that take long.

    Args:
        quiet: Whether nothing is shown.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Progress | None = None
        self._started = self._next = 0.0
        self._done = 1.0

    def on_message(self, message: str) -> None:
        """Print a sentence about the next image."""
        if not self._quiet:
            console.info(message)

    def on_progress(self, width: int, height: int, done: float) -> None:
        """Show the fraction that is done, as a bar in a terminal, else as lines."""
        now = time.monotonic()
        if done < self._done:  # Another image.
            self.close()
            self._started, self._next = now, now + FIRST_SECONDS
        self._done = done
        if self._quiet or now < self._next:
            return
        subject = f"translating {width}x{height} pixels"
        if console.stderr().is_terminal:
            self._show_bar(subject, done)
        elif done < 1:
            left = console.duration((now - self._started) * (1 / done - 1))
            console.info(f"{subject}: {done:.0%}, {left} left")
            self._next = now + LINE_SECONDS

    def _show_bar(self, subject: str, done: float) -> None:
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
                console=console.stderr(),
                transient=True,
            )
            self._bar.add_task(subject, total=1.0)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done)

    def close(self) -> None:
        """Remove the display of an image."""
        self._done = 1.0
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
