"""Output to the terminal: messages, tables, JSON lines and errors. No other module prints.

Results go to stdout; messages, warnings and errors to stderr.
"""

from __future__ import annotations

import errno
import functools
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, BinaryIO, TextIO, cast

import typer

from cyclegan_cli.errors import CycleGANError, DataError, DeviceError, OutputError, UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# File names and metadata must not move the cursor, color the screen or forge lines.
CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
CONTROLS_IN_CELLS = {code: text for code, text in CONTROLS.items() if code != ord("\n")}


@functools.cache
def stderr() -> Console:
    """Return the console for messages, warnings and errors."""
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
    """A stream that ignores write errors: work continues when a pipe is closed or a disk full."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write to the stream, ignoring errors."""
        with self._or_nowhere():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, ignoring errors."""
        with self._or_nowhere():
            self._stream.flush()

    @contextmanager
    def _or_nowhere(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            with suppress(OSError, ValueError):
                _discard(self._stream)


def info(sentence: str) -> None:
    """Print a message to stderr."""
    stderr().print(sentence.translate(CONTROLS))


def result(line: str) -> None:
    """Print a line of the result to stdout."""
    _write(line.translate(CONTROLS) + "\n")


def warn(sentence: str) -> None:
    """Print a warning to stderr."""
    stderr().print(f"warning: {sentence.translate(CONTROLS)}", style="yellow")


def json_line(document: Mapping[str, Any]) -> None:
    """Print a JSON object on one line of stdout, and flush it."""
    # json writes file names that are not UTF-8 as escapes.
    _write(json.dumps(document, allow_nan=False) + "\n")


def table(title: str, rows: Iterable[tuple[str, str]]) -> None:
    """Print a table of names and values to stdout."""
    from rich import box
    from rich.table import Table

    drawn = Table(box=box.SIMPLE, show_header=False)
    drawn.add_column(style="bold")
    drawn.add_column(overflow="fold")
    for name, value in rows:
        drawn.add_row(name.translate(CONTROLS), value.translate(CONTROLS_IN_CELLS))
    _draw(title, drawn)


def grid(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table with a header to stdout; the first column holds the names of the rows."""
    from rich import box
    from rich.table import Table

    drawn = Table(box=box.SIMPLE)
    for index, name in enumerate(header):
        drawn.add_column(name.translate(CONTROLS), style=None if index else "bold", overflow="fold")
    for row in rows:
        drawn.add_row(*(cell.translate(CONTROLS_IN_CELLS) for cell in row))
    _draw(title, drawn)


def _draw(title: str, drawn: Table) -> None:
    from rich.console import Console

    text = io.StringIO()
    stdout = Console(file=text, highlight=False, markup=False, emoji=False)
    stdout.print(drawn)
    _write(f"{title.translate(CONTROLS)}\n{text.getvalue()}")


def binary_stdout() -> BinaryIO:
    """Return stdout for the bytes of an image.

    Raises:
        UsageError: Stdout is a terminal, or closed.
    """
    if sys.stdout is None:
        raise UsageError("-o -: standard output is closed", "Name a file with -o.")
    if sys.stdout.isatty():
        raise UsageError(
            "refusing to write image data to a terminal",
            "Redirect standard output to a file or another program, or name a file with -o.",
        )
    return sys.stdout.buffer


def _write(text: str) -> None:
    """Write to stdout and flush it.

    Raises:
        BrokenPipeError: The reader has closed the pipe.
        OutputError: Stdout cannot be written, for example on a full disk.
    """
    if sys.stdout is None:  # Closed by the caller.
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
    """Redirect a stream to the null device, so that the interpreter does not flush it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, stream.fileno())
    finally:
        os.close(nowhere)


# Errors of the dynamic loader when a library does not fit into the memory limit.
LIBRARY_MEMORY_ERROR = re.compile("failed to map segment|cannot allocate memory", re.IGNORECASE)


def reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command to print errors to stderr and exit with their exit code."""

    @functools.wraps(command)
    def reporting(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except CycleGANError as error:
            show_error(error)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            info("interrupted")
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # The reader has closed the pipe, as `| head` does: the exit code for SIGPIPE.
            raise typer.Exit(141) from None
        except (ImportError, MemoryError) as error:
            if isinstance(error, ImportError) and not LIBRARY_MEMORY_ERROR.search(str(error)):
                raise
            show_error(DeviceError("not enough memory to start", "Raise the limit: ulimit -v."))
            raise typer.Exit(DeviceError.exit_code) from None
        except OSError as error:
            if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM):
                raise
            reason = (error.strerror or "").lower()
            show_error(DataError(f"cannot use {error.filename}: {reason}"))
            raise typer.Exit(DataError.exit_code) from None

    return reporting


def show_error(error: CycleGANError) -> None:
    """Print an error and its hint to stderr."""
    stderr().print(f"error: {error.message.translate(CONTROLS)}", style="bold red")
    if error.hint:
        stderr().print(f"hint: {error.hint.translate(CONTROLS)}")


def duration(seconds: float) -> str:
    """Format seconds as ``1:02:05``."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}"
