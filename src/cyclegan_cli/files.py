"""Whole files or none.

Whoever leaves a file on disk does it through this module: the content goes to a temporary file
in the target folder, is flushed to the disk, and then takes the target's name in one rename. A
process that is killed at any moment leaves either the old file or the new one, and at worst a
hidden temporary file that nothing reads.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cyclegan_cli.errors import OutputError

TEMPORARY_PREFIX = ".cyclegan-"
TEMPORARY_SUFFIX = ".tmp"
# What file systems answer that do not offer to change permissions or to flush: SMB shares, object
# stores, FUSE. A full or failing disk answers otherwise.
NOT_OFFERED = frozenset(
    {errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
)
_in_flight: set[Path] = set()


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; it becomes ``target``, or is removed on an error.

    Links are followed: the file that they point to is replaced. The caller may create or
    overwrite the file at the yielded path in any way. Missing parent folders are created.
    Permissions are those of the file that is replaced, or follow the process's umask, as for any
    newly created file; where the file system sets its own, they are that.

    Raises:
        OutputError: The file could not be written (the reason is in the message). What the caller
            raises of something else, another file or a connection, passes as it is.
    """
    named = target  # As messages call it.
    with _as_output_error(named):
        # Not Path.resolve: of links in a circle it raises what is no OSError.
        target = Path(os.path.realpath(target))
        if target.exists() and not target.is_file():
            raise OSError(errno.EEXIST, "something that is not a file has this name")
        target.parent.mkdir(parents=True, exist_ok=True)
        # A short name of its own: the target's name may already be as long as names can be.
        temporary = target.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
        _in_flight.add(temporary)
    try:
        with _as_output_error(named):
            mode = _create(temporary, target)
        with _as_output_error(named, temporary):
            yield temporary
        with _as_output_error(named):
            _flush(temporary, os.O_RDWR)
            # Writers that put a file of their own in this place choose their own permissions.
            _set_mode(temporary, mode)
            os.replace(temporary, target)
            _flush(target.parent, os.O_RDONLY)  # So that the rename lasts.
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        _in_flight.discard(temporary)


def is_temporary(name: str) -> bool:
    """Whether a file's name is one that :func:`atomic_path` gives while it writes."""
    return name.startswith(TEMPORARY_PREFIX) and name.endswith(TEMPORARY_SUFFIX)


def abandon_writes() -> None:
    """Remove the files that this process is writing, whose threads will never come to an end."""
    for temporary in list(_in_flight):
        with suppress(OSError):
            temporary.unlink()


def write_bytes(target: Path, content: bytes) -> None:
    """Write ``content`` as the whole of ``target``, or leave ``target`` as it was.

    Raises:
        OutputError: The file could not be written.
    """
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def write_text(target: Path, content: str) -> None:
    """Write ``content`` (as UTF-8) as the whole of ``target``, or leave ``target`` as it was.

    Raises:
        OutputError: The file could not be written.
    """
    write_bytes(target, content.encode())


def is_lfs_pointer(head: bytes) -> bool:
    """Whether a file that begins so is a note of Git LFS on where the file itself is."""
    return head.startswith(b"version https://git-lfs.github.com/spec/")


def make_folder(folder: Path) -> None:
    """Create ``folder`` and its parents where they are missing.

    Raises:
        OutputError: It could not be created.
    """
    with _as_output_error(folder):
        folder.mkdir(parents=True, exist_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a killed process left in ``folder``.

    Only for folders that a single process writes to: another one's file in flight looks the same.
    """
    # The second kind is what the safetensors library writes to before it renames.
    for pattern in (f"{TEMPORARY_PREFIX}*{TEMPORARY_SUFFIX}", ".tmp??????"):
        for leftover in folder.glob(pattern):
            with suppress(OSError):
                leftover.unlink()


def _create(path: Path, target: Path) -> int:
    """Create an empty file; returns the permissions that it is to have in place of ``target``."""
    replaced = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
    # Nobody may look in meanwhile who may not look at the old file.
    wanted = 0o666 if replaced is None else replaced | stat.S_IRUSR | stat.S_IWUSR
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, wanted)
    try:
        created = stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
    return created if replaced is None else replaced


def _set_mode(path: Path, mode: int) -> None:
    """Give a file its permissions, if they are others and the file system lets it have them."""
    if stat.S_IMODE(path.stat().st_mode) == mode:
        return
    try:
        path.chmod(mode)
    except OSError as error:
        if error.errno not in NOT_OFFERED:
            raise


def _flush(path: Path, flags: int) -> None:
    """Have the system write a file or folder out to the disk, where it can."""
    try:
        descriptor = os.open(path, flags)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # Windows opens no folders.
        if error.errno not in NOT_OFFERED:
            raise


@contextmanager
def _as_output_error(target: Path, temporary: Path | None = None) -> Iterator[None]:
    """Turn the system's errors into ours: all, or those of a caller who writes ``temporary``."""
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
    """Whether an error can come from writing a file: writes to an open one name none."""
    if error.errno is None or isinstance(error, (ConnectionError, TimeoutError)):
        return False
    return error.filename is None or os.path.dirname(str(error.filename)) == str(temporary.parent)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or the error that caused it, says that no more can be written at all."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False
