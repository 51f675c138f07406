"""The pictures in a folder, by their names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from cyclegan_cli.data.formats import readable_suffixes
from cyclegan_cli.errors import DataError


def list_pictures(folder: Path) -> list[Path]:
    """All files below ``folder`` whose name ends like a picture's, sorted by relative path.

    Raises:
        DataError: ``folder`` is not a folder that can be listed.
    """
    if not os.path.isdir(folder):
        found = "a file" if os.path.exists(folder) else "nothing"
        raise DataError(f"{folder} is not a folder: found {found}", "Name a folder of pictures.")
    return [folder / path for path in walk_pictures(folder)]


def refuse_folder(error: OSError) -> None:
    """What to do about a folder that cannot be listed: raise a DataError."""
    raise DataError(f"cannot list {error.filename}: {error.strerror}") from error


def walk_pictures(
    folder: Path,
    recursive: bool = True,
    leave_out: str | None = None,
    on_error: Callable[[OSError], None] = refuse_folder,
) -> Iterator[str]:
    """All files below ``folder`` whose name ends like a picture's, sorted by relative path.

    Hidden files and folders are left out: they are other programs' notes, not pictures. Links to
    folders are not followed. In memory are the names in one folder at a time and its parents.

    Args:
        folder: Where to look.
        recursive: Whether the folders below it are searched too.
        leave_out: Real path of a folder below that is not searched.
        on_error: Called with what keeps a folder from being listed; that folder is passed over.

    Yields:
        Paths relative to ``folder``.
    """
    suffixes = tuple(readable_suffixes())
    real = os.path.realpath(folder)

    def walk(below: str) -> Iterator[str]:
        for name in _names(os.path.join(folder, below) if below else str(folder), on_error):
            path = os.path.join(below, name.rstrip("/"))
            if not name.endswith("/"):
                if name.lower().endswith(suffixes):
                    yield path
            elif recursive and os.path.join(real, path) != leave_out:
                yield from walk(path)

    return walk("")


def _names(folder: str, on_error: Callable[[OSError], None]) -> Iterator[str]:
    """What is in a folder; names of folders end with ``/``, which puts their files in order."""
    try:
        with os.scandir(folder) as entries:
            names = [
                f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
                for entry in entries
                if not (entry.name.startswith(".") or (entry.is_symlink() and entry.is_dir()))
            ]
    except OSError as error:
        on_error(error)
        return
    names.sort(reverse=True)
    while names:  # Each is given up as it is handed out.
        yield names.pop()
