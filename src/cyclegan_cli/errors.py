"""Exceptions with their exit codes.

    CycleGANError                (base class)
    ├── UsageError          2    invalid option or argument
    ├── DataError           3    an image or folder cannot be read or used
    │   ├── OutputError          ... or cannot be written (no permission, disk full)
    │   └── DivergedError        ... or the losses of a training are not finite
    ├── CheckpointError     4    a checkpoint is missing, damaged or unsupported
    │   └── ExportError          ... or an exported model does not match its network
    ├── DeviceError         5    the device is missing or its memory is too small
    ├── SomeFailedError     6    some inputs failed, everything else is written
    └── InterruptedRunError 130  Ctrl-C (143 for SIGTERM); completed work is saved

The command line catches the base class, prints ``error:`` and ``hint:`` and exits with
``exit_code``. Any other exception is a bug and exits with 1.
"""

from __future__ import annotations

from typing import ClassVar


class CycleGANError(Exception):
    """Base class of all expected errors.

    Args:
        message: One sentence that names the option or file and what was found.
        hint: Suggested remedy; may be empty.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type[CycleGANError], tuple[str, str]]:
        # Process pools pickle exceptions.
        return type(self), (self.message, self.hint)


class UsageError(CycleGANError):
    """Invalid option or argument."""

    exit_code = 2


class DataError(CycleGANError):
    """An image or folder cannot be read or used."""

    exit_code = 3


class OutputError(DataError):
    """A file cannot be written: no permission, disk full, or the name is that of a folder."""


class DivergedError(DataError):
    """The losses of a training are no longer finite."""


class CheckpointError(CycleGANError):
    """A checkpoint is missing, damaged, unsupported or of another architecture."""

    exit_code = 4


class ExportError(CheckpointError):
    """An exported model does not match its network."""


class DeviceError(CycleGANError):
    """A device is missing or its memory is too small."""

    exit_code = 5


class SomeFailedError(CycleGANError):
    """Some inputs failed; all others were processed."""

    exit_code = 6


class InterruptedRunError(CycleGANError):
    """A command was interrupted by a signal, after saving its work.

    Args:
        message: What was saved.
        hint: How to continue.
        signal_number: Number of the signal, e.g. 2 (SIGINT) or 15 (SIGTERM); the exit code is 128
            plus this number.
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
