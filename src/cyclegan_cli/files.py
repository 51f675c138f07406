"""Atomic writes.

Content is written to a temporary file in the target folder, flushed to disk, and renamed to the
target. A process that is killed at any time leaves either the old file or the new one, and at worst
a hidden temporary file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cyclegan_cli.errors import OutputError

TEMPORARY_PREFIX = ".cyclegan-"
TEMPORARY_SUFFIX = ".tmp"
# Errors of file systems that do not support chmod or fsync: SMB shares, object stores, FUSE. A full
# or failing disk has other errors.
UNSUPPORTED_ERRORS = frozenset(
    {errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
)
ZEROS_BYTES = 2**20  # That are written at once.
_in_flight: set[Path] = set()


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to ``target``, or removed on an error.

    Symbolic links are followed. The caller may create or overwrite the file at the yielded path.
    Missing parent folders are created. Permissions of a replaced file are kept; those of a new file
    follow the umask.

    Raises:
        OutputError: The file cannot be written. Exceptions of the body that concern other files
            pass through.
    """
    named = target  # For error messages.
    with _as_output_error(named):
        # Path.resolve raises a RuntimeError for circular links.
        target = Path(os.path.realpath(target))
        if target.exists() and not target.is_file():
            raise OSError(errno.EEXIST, "it exists and is not a regular file")
        target.parent.mkdir(parents=True, exist_ok=True)
        # A short name, as the name of the target may have the maximum length.
        temporary = target.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
        _in_flight.add(temporary)
    try:
        with _as_output_error(named):
            mode = _create(temporary, target)
        with _as_output_error(named, temporary):
            yield temporary
        with _as_output_error(named):
            _flush(temporary, os.O_RDWR)
            # Writers that replace the temporary file change its permissions.
            _set_mode(temporary, mode)
            os.replace(temporary, target)
            _flush(target.parent, os.O_RDONLY)  # Makes the rename durable.
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        _in_flight.discard(temporary)


def is_temporary(name: str) -> bool:
    """Whether a name is that of a temporary file of :func:`atomic_path`."""
    return name.startswith(TEMPORARY_PREFIX) and name.endswith(TEMPORARY_SUFFIX)


def abandon_writes() -> None:
    """Remove the temporary files of this process, before it exits with unfinished threads."""
    for temporary in list(_in_flight):
        with suppress(OSError):
            temporary.unlink()


def reserve(file: BinaryIO, size: int) -> None:
    """Reserve space for an empty file before it is mapped into memory.

    Writing to a map of a file for which the disk has no space ends the process.

    Args:
        file: The file, unbuffered or flushed.
        size: Its new size in bytes.

    Raises:
        OSError: There is too little space.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    file.writelines(bytes(min(ZEROS_BYTES, size - start)) for start in range(0, size, ZEROS_BYTES))
    file.flush()


def lock_file(path: Path) -> int:
    """Create a file and lock it, so that no other process can.

    The system releases the lock when the process ends. The file remains.

    Args:
        path: The file.

    Returns:
        A descriptor; closing it releases the lock.

    Raises:
        BlockingIOError: Another process holds the lock.
        OSError: The file cannot be created.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _lock(descriptor)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
            os.close(descriptor)
            raise BlockingIOError(error.errno, error.strerror, str(path)) from error
        # The file system has no locks.
    return descriptor


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        # POSIX locks belong to the process: forked children (of compilers, for example), which may
        # outlive a killed training for seconds, do not hold them.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def write_bytes(target: Path, content: bytes) -> None:
    """Write ``content`` to ``target`` atomically.

    Raises:
        OutputError: The file cannot be written.
    """
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def write_content(target: Path | BinaryIO, content: bytes, name: str) -> None:
    """Write ``content`` to a file, atomically, or to a stream.

    Args:
        target: The file or stream.
        content: All of its content.
        name: Name of the stream, for error messages.

    Raises:
        OutputError: It cannot be written.
        BrokenPipeError: The reader of the stream has closed the pipe.
    """
    if isinstance(target, Path):
        write_bytes(target, content)
        return
    try:
        target.write(content)
        target.flush()
    except BrokenPipeError:
        raise  # The command line handles that.
    except OSError as error:
        raise OutputError(f"cannot write {name}: {(error.strerror or '').lower()}") from error


def write_text(target: Path, content: str) -> None:
    """Write ``content`` to ``target`` atomically, encoded as UTF-8.

    Raises:
        OutputError: The file cannot be written.
    """
    write_bytes(target, content.encode())


def sha256_of(path: Path) -> str:
    """Return the SHA-256 digest of a file, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_lfs_pointer(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is a Git LFS pointer."""
    return head.startswith(b"version https://git-lfs.github.com/spec/")


def make_folder(folder: Path) -> None:
    """Create ``folder`` and its parents if missing.

    Raises:
        OutputError: The folder cannot be created.
    """
    with _as_output_error(folder):
        folder.mkdir(parents=True, exist_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of killed processes from ``folder``.

    No other process may be writing to the folder.
    """
    # The second pattern is that of the safetensors library.
    for pattern in (f"{TEMPORARY_PREFIX}*{TEMPORARY_SUFFIX}", ".tmp??????"):
        for leftover in folder.glob(pattern):
            with suppress(OSError):
                leftover.unlink()


def _create(path: Path, target: Path) -> int:
    """Create an empty file; returns the permissions of the final file."""
    replaced = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
    # The temporary file must not be more readable than the replaced file.
    wanted = 0o666 if replaced is None else replaced | stat.S_IRUSR | stat.S_IWUSR
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, wanted)
    try:
        created = stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
    return created if replaced is None else replaced


def _set_mode(path: Path, mode: int) -> None:
    """Set permissions, if they differ and the file system supports it."""
    if stat.S_IMODE(path.stat().st_mode) == mode:
        return
    try:
        path.chmod(mode)
    except OSError as error:
        if error.errno not in UNSUPPORTED_ERRORS:
            raise


def _flush(path: Path, flags: int) -> None:
    """Flush a file or folder to disk, if supported."""
    try:
        descriptor = os.open(path, flags)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # Windows cannot open folders.
        if error.errno not in UNSUPPORTED_ERRORS:
            raise


@contextmanager
def _as_output_error(target: Path, temporary: Path | None = None) -> Iterator[None]:
    """Convert OSError to OutputError: all, or only those of writing ``temporary``."""
    try:
        yield
    except OSError as error:
        if temporary and not _is_of(error, temporary):
            raise
        hint = "Free some space and run the command again." if is_disk_full(error) else ""
        reason = (error.strerror or str(error)).lower()
        if isinstance(error, FileExistsError) and error.filename:
            reason = f"{error.filename} is a file, not a folder"
        raise OutputError(f"cannot write {target}: {reason}", hint) from error


def _is_of(error: OSError, temporary: Path) -> bool:
    """Whether an error can come from writing to ``temporary``."""
    if error.errno is None or isinstance(error, (ConnectionError, TimeoutError)):
        return False
    return error.filename is None or os.path.dirname(str(error.filename)) == str(temporary.parent)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error or its cause is a full disk or an exceeded quota."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False
