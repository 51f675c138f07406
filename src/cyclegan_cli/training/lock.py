"""One process a run folder: a lock that the system takes back when its holder dies."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from cyclegan_cli.errors import OutputError, UsageError

LOCK_FILE = ".lock"


class RunLock:
    """The right to write to a run folder.

    The file stays behind; what counts is the lock that the system holds on it, and that ends with
    the process, however it ends. Loading processes do not inherit it.

    Args:
        folder: The run folder, which exists.

    Raises:
        UsageError: Another process has it.
        OutputError: The file cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.path = path = folder / LOCK_FILE
        try:
            self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {(error.strerror or '').lower()}") from error
        try:
            _take(self.descriptor)
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP):
                return  # A file system without locks: then without.
            self.release()
            raise UsageError(
                f"another training is at work in {folder}",
                "Wait for it or stop it, or name another folder with --run-dir.",
            ) from error

    def is_in_place(self) -> bool:
        """Whether the folder still is the one that was locked: not removed, nor replaced."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.descriptor))
        except OSError:
            return False

    def release(self) -> None:
        """Let others have it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1


if sys.platform == "win32":
    import msvcrt

    def _take(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _take(descriptor: int) -> None:
        # Of the process, not of the open file: forked processes (of compilers, for example), which
        # may outlive a killed trainer for seconds, do not hold it.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
