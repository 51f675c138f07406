"""The pictures in a folder, by their names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cyclegan_cli.data.formats import readable_suffixes
from cyclegan_cli.errors import DataError


def list_pictures(folder: Path) -> list[Path]:
    """All files below ``folder`` whose name ends like a picture's, sorted by relative path.

    Hidden files and folders are left out: they are other programs' notes, not pictures.

    Raises:
        DataError: ``folder`` is not a folder that can be listed.
    """
    if not os.path.isdir(folder):
        found = "a file" if os.path.exists(folder) else "nothing"
        raise DataError(f"{folder} is not a folder: found {found}", "Name a folder of pictures.")
    suffixes = readable_suffixes()
    found_paths = (path for path in _walk(folder) if path.suffix.lower() in suffixes)
    return sorted(found_paths, key=lambda path: path.relative_to(folder).as_posix())


def _walk(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise DataError(f"cannot list {error.filename}: {error.strerror}") from error

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith("."))
