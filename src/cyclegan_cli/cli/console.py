"""Everything that is printed: progress, tables, JSON lines, errors. No other file prints.

Results go to stdout; progress, warnings and errors to stderr.
"""

from __future__ import annotations

import errno
import functools
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, TextIO, cast

import typer

from cyclegan_cli.errors import CycleGANError, DataError, DeviceError, OutputError, UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from cyclegan_cli.training.plan import Plan


# What files and their names say must not move the cursor, colour the screen or forge lines.
CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
CONTROLS_IN_CELLS = {code: text for code, text in CONTROLS.items() if code != ord("\n")}


@functools.cache
def stderr() -> Console:
    """The console for progress, warnings and errors."""
    from rich.console import Console

    stream = _Unfailing(sys.stderr) if sys.stderr else None  # None: it is closed.
    return Console(
        file=cast("IO[str] | None", stream),
        stderr=True,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
    )


class _Unfailing:
    """A stream that takes everything: the work goes on when nobody listens, or a log is full."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write to the stream, or nowhere."""
        with self._or_nowhere():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, if it can be."""
        with self._or_nowhere():
            self._stream.flush()

    @contextmanager
    def _or_nowhere(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            with suppress(OSError, ValueError):
                _discard(self._stream)


def say(sentence: str) -> None:
    """A line for people, on stderr."""
    stderr().print(sentence.translate(CONTROLS))


def result(line: str) -> None:
    """A line of the answer, on stdout."""
    _write(line.translate(CONTROLS) + "\n")


def warn(sentence: str) -> None:
    """A warning, on stderr."""
    stderr().print(f"warning: {sentence.translate(CONTROLS)}", style="yellow")


def json_line(document: Mapping[str, Any]) -> None:
    """One JSON object on one line of stdout, flushed at once."""
    # File names that are not UTF-8 come out as the escapes that json makes of them.
    _write(json.dumps(document, allow_nan=False) + "\n")


def table(title: str, rows: Iterable[tuple[str, str]]) -> None:
    """A table of names and values, on stdout."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    drawn = Table(box=box.SIMPLE, show_header=False)
    drawn.add_column(style="bold")
    drawn.add_column(overflow="fold")
    for name, value in rows:
        drawn.add_row(name.translate(CONTROLS), value.translate(CONTROLS_IN_CELLS))
    text = io.StringIO()
    stdout = Console(file=text, highlight=False, markup=False, emoji=False)
    stdout.print(drawn)
    _write(f"{title.translate(CONTROLS)}\n{text.getvalue()}")


def binary_stdout() -> BinaryIO:
    """Stdout, for the bytes of an image.

    Raises:
        UsageError: It is a terminal, or closed.
    """
    if sys.stdout is None:
        raise UsageError("-o -: standard output is closed", "Name a file with -o.")
    if sys.stdout.isatty():
        raise UsageError(
            "an image is no text to be shown on a terminal",
            "Send standard output to a file or another program, or name a file with -o.",
        )
    return sys.stdout.buffer


def _write(text: str) -> None:
    """Write to stdout at once.

    Raises:
        BrokenPipeError: Whoever reads has had enough.
        OutputError: It cannot be written, on a full disk for example.
    """
    if sys.stdout is None:  # Closed by the caller, who does not want the answer.
        return
    encoding = sys.stdout.encoding
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
        raise
    except OSError as error:
        _discard(sys.stdout)
        raise OutputError(f"cannot write to standard output: {error.strerror}") from error


def _discard(stream: TextIO) -> None:
    """Keep the interpreter from trying again, at its end, to write what could not be written."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, stream.fileno())
    finally:
        os.close(nowhere)


# What the system's loader says of a library that does not fit into the memory that is allowed.
NO_ROOM_FOR_LIBRARY = re.compile("failed to map segment|cannot allocate memory", re.IGNORECASE)


def reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command: our errors become two lines on stderr and their exit code."""

    @functools.wraps(command)
    def reporting(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except CycleGANError as error:
            show_error(error)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            say("interrupted")
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # Whoever read our output has had enough, as `| head` does: what shells call SIGPIPE.
            raise typer.Exit(141) from None
        except (ImportError, MemoryError) as error:
            if isinstance(error, ImportError) and not NO_ROOM_FOR_LIBRARY.search(str(error)):
                raise
            show_error(
                DeviceError("not enough memory to begin with", "Raise the limit: ulimit -v.")
            )
            raise typer.Exit(DeviceError.exit_code) from None
        except OSError as error:
            if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM):
                raise
            reason = (error.strerror or "").lower()
            show_error(DataError(f"cannot use {error.filename}: {reason}"))
            raise typer.Exit(DataError.exit_code) from None

    return reporting


def show_error(error: CycleGANError) -> None:
    """``error:`` and ``hint:`` on stderr."""
    stderr().print(f"error: {error.message.translate(CONTROLS)}", style="bold red")
    if error.hint:
        stderr().print(f"hint: {error.hint.translate(CONTROLS)}")


def duration(seconds: float) -> str:
    """``3725`` to ``1:02:05``."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}"


def _losses(row: Mapping[str, float]) -> str:
    """The losses of a metrics row, both directions added up, for a line of text."""
    pairs = {
        "adversarial": row["adversarial_a2b"] + row["adversarial_b2a"],
        "cycle": row["cycle_a"] + row["cycle_b"],
        "identity": row["identity_a"] + row["identity_b"],
        "discriminators": row["discriminator_a"] + row["discriminator_b"],
    }
    return "  ".join(f"{name} {value:.3f}" for name, value in pairs.items())


class QuietTraining:
    """Shows nothing of a training but its warnings."""

    plan: Plan

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
        warn(sentence)

    def __enter__(self) -> QuietTraining:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


class SpokenTraining(QuietTraining):
    """Says in words what is worth knowing."""

    def validated(self, row: dict[str, float]) -> None:
        """Say how near the translations are to their domains."""
        say(
            f"step {row['step']:.0f}: distance to the target domain (SWD) "
            f"{row['swd_a2b']:.0f} {self.plan.name_a} -> {self.plan.name_b}, "
            f"{row['swd_b2a']:.0f} {self.plan.name_b} -> {self.plan.name_a}"
        )

    def told(self, sentence: str) -> None:
        """Say it."""
        say(sentence)


class TrainingLines(SpokenTraining):
    """A line of text an interval, for logs and dumb terminals."""

    def started(self, plan: Plan) -> None:
        """Say what is about to happen."""
        self.plan = plan
        _say_what_begins(plan)

    def measured(self, row: dict[str, float]) -> None:
        """Print a row as a line."""
        left = (self.plan.total_steps - row["step"]) * self.plan.step_items
        say(
            f"step {row['step']:.0f}/{self.plan.total_steps}  epoch {row['epoch']:.2f}  "
            f"{row['images_per_second']:.2f} images/s  "
            f"{duration(left / row['images_per_second'])} left  {_losses(row)}"
        )


class TrainingBar(SpokenTraining):
    """A progress bar, for terminals."""

    def started(self, plan: Plan) -> None:
        """Draw the bar."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self.plan = plan
        _say_what_begins(plan)
        self.bar: Progress = Progress(
            TextColumn("epoch {task.fields[epoch]:.2f}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[losses]}"),
            console=stderr(),
        )
        self.task: TaskID = self.bar.add_task(
            "", total=plan.total_steps, completed=plan.first_step, epoch=0.0, rate="", losses=""
        )
        self.bar.start()

    def stepped(self, step: int) -> None:
        """Move the bar."""
        self.bar.update(self.task, completed=step, epoch=self.plan.epoch_of(step))

    def measured(self, row: dict[str, float]) -> None:
        """Show the new losses."""
        rate = f"{row['images_per_second']:.1f} images/s"
        self.bar.update(self.task, rate=rate, losses=_losses(row))

    def __exit__(self, *exception: object) -> None:
        if hasattr(self, "bar"):
            self.bar.stop()


def _say_what_begins(plan: Plan) -> None:
    from cyclegan_cli.training.page.run_page import PAGE_FILE

    begins = f"from step {plan.first_step} " if plan.first_step else ""
    say(
        f"training {plan.name_a} <-> {plan.name_b} {begins}to step {plan.total_steps} "
        f"on {plan.device} in {plan.config.precision}: {len(plan.images_a)} + "
        f"{len(plan.images_b)} images, into {plan.run_dir}"
    )
    if plan.env.world_size > 1:
        say(
            f"{plan.env.world_size} processes, each with batches of {plan.config.batch_size}: "
            f"{plan.step_items} images of each domain a step"
        )
    say(f"watch it in a browser: {plan.run_dir / PAGE_FILE}")


def training_watcher(quiet: bool) -> QuietTraining:
    """A bar on a terminal, lines elsewhere, next to nothing if ``quiet``."""
    if quiet:
        return QuietTraining()
    return TrainingBar() if stderr().is_terminal else TrainingLines()
