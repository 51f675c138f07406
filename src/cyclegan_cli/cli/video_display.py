"""The progress of videos that are being translated."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cyclegan_cli.cli import console

if TYPE_CHECKING:
    from rich.progress import Progress

# Between lines of progress where stderr is not a terminal.
SECONDS_PER_LINE = 30.0


class VideoDisplay:
    """Shows frames and the time left: a bar on a terminal, lines elsewhere, JSON on stdout.

    Args:
        json: Whether each frame is printed as JSON.
        quiet: Whether only messages are shown.
    """

    def __init__(self, json: bool, quiet: bool) -> None:
        self.json, self.quiet = json, quiet
        self._progress: Progress | None = None
        self._name = ""
        self._first = self._done = self._frames = 0
        self._began = self._shown = 0.0

    def on_video(self, name: str, done: int, frames: int) -> None:
        """Begin a video."""
        self._name, self._first, self._done, self._frames = name, done, done, frames
        self._began = self._shown = time.monotonic()
        if done and not self.quiet:
            console.info(f"{name}: continuing after {done} frames")
        if not self.quiet and console.stderr().is_terminal:
            self._start_bar()

    def _start_bar(self) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("frames,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console.stderr(),
            transient=True,
        )
        name = self._name.translate(console.CONTROLS)
        self._task = self._progress.add_task(name, total=self._frames or None, completed=self._done)
        self._progress.start()

    def on_frame(self, name: str, index: int, seconds: float, is_cut: bool) -> None:
        """Count a frame."""
        self._done = index + 1
        if self.json:
            console.json_line(
                {"input": name, "frame": index, "time": round(seconds, 6), "cut": is_cut}
            )
        if self._progress is not None:
            self._progress.update(self._task, completed=self._done)
            return
        now = time.monotonic()
        if not self.quiet and now - self._shown >= SECONDS_PER_LINE:
            self._shown = now
            console.info(self._line(now))

    def _line(self, now: float) -> str:
        if not self._frames:
            return f"{self._name}: {self._done} frames"
        per_frame = (now - self._began) / max(self._done - self._first, 1)
        left = console.duration(per_frame * max(self._frames - self._done, 0))
        return f"{self._name}: {self._done} of {self._frames} frames, {left} left"

    def on_video_end(self) -> None:
        """Remove the bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def on_message(self, sentence: str) -> None:
        """Show a warning."""
        console.warn(sentence)
