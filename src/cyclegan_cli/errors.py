"""Every error that a user can cause, each with the exit code of the command that meets it.

    CycleGANError                (never raised itself)
    ├── UsageError          2    an option or argument makes no sense
    ├── DataError           3    an image or folder cannot be read or used
    │   ├── OutputError          ... or cannot be written (no permission, disk full)
    │   └── DivergedError        ... or the training on it left the finite numbers
    ├── CheckpointError     4    no checkpoint, or not one of ours, or a damaged one
    │   └── ExportError          ... or one whose exported form is not the same network
    ├── DeviceError         5    the device is missing or its memory is too small
    ├── SomeFailedError     6    some inputs failed, everything else is written
    └── InterruptedRunError 130  Ctrl-C (143 for SIGTERM); what was done is saved

The command line catches the root class once, prints ``error:`` and ``hint:`` and exits with
``exit_code``. Anything else that escapes is a bug and exits with 1.
"""

from __future__ import annotations

from typing import ClassVar


class CycleGANError(Exception):
    """The root of all errors that are not bugs.

    Args:
        message: One sentence that names the option or file and says what was found.
        hint: What the user can do about it; empty where nothing useful can be said.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type[CycleGANError], tuple[str, str]]:
        # In a pool of processes, which Python programs may have, errors travel pickled.
        return type(self), (self.message, self.hint)


class UsageError(CycleGANError):
    """An option or argument that makes no sense."""

    exit_code = 2


class DataError(CycleGANError):
    """An image or a folder of images that cannot be read or used."""

    exit_code = 3


class OutputError(DataError):
    """A file that cannot be written: no permission, disk full, name taken by a folder."""


class DivergedError(DataError):
    """A training whose losses are no longer finite."""


class CheckpointError(CycleGANError):
    """No checkpoint, a foreign or damaged one, or one of another architecture."""

    exit_code = 4


class ExportError(CheckpointError):
    """A model whose exported form does not compute the same."""


class DeviceError(CycleGANError):
    """A device that is missing or whose memory is too small."""

    exit_code = 5


class SomeFailedError(CycleGANError):
    """Some inputs failed; everything else is written."""

    exit_code = 6


class InterruptedRunError(CycleGANError):
    """A run that was asked to stop and did so in good order.

    Args:
        message: What was saved.
        hint: How to go on.
        signal_number: 2 (SIGINT), 15 (SIGTERM) or another that asked; the exit code is 128 more,
            as shells have it.
    """

    def __init__(self, message: str, hint: str = "", signal_number: int = 2) -> None:
        super().__init__(message, hint)
        self.signal_number = signal_number

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.signal_number

    def __reduce__(self) -> tuple[type[CycleGANError], tuple[str, str, int]]:  # type: ignore[override]
        return type(self), (self.message, self.hint, self.signal_number)
