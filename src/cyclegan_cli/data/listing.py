"""The images in a folder, by their names."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from cyclegan_cli.data.formats import readable_suffixes
from cyclegan_cli.data.passed_over import PassedOver
from cyclegan_cli.errors import DataError

# Folders of thumbnails and deleted files that network drives (Synology, QNAP) and Windows keep.
FOLDERS_OF_SYSTEMS = frozenset({"@eaDir", "#recycle", "@Recycle", "@__thumb", "$RECYCLE.BIN"})


def list_images(folder: Path, passed_over: PassedOver | None = None) -> list[Path]:
    """All files below ``folder`` whose name ends like an image's, sorted by relative path.

    Args:
        folder: Where to look.
        passed_over: Counts the image files among all others.

    Raises:
        DataError: ``folder`` is not a folder that can be listed.
    """
    if not os.path.isdir(folder):
        found = "a file" if os.path.exists(folder) else "nothing"
        raise DataError(f"{folder} is not a folder: found {found}", "Name a folder of images.")
    return [folder / path for path in walk_images(folder, passed_over=passed_over)]


def refuse_folder(error: OSError) -> None:
    """What to do about a folder that cannot be listed: raise a DataError."""
    raise DataError(f"cannot list {error.filename}: {error.strerror}") from error


def walk_images(
    folder: Path,
    recursive: bool = True,
    leave_out: str | None = None,
    on_error: Callable[[OSError], None] = refuse_folder,
    unlistable: bool = False,
    passed_over: PassedOver | None = None,
) -> Iterator[str]:
    """All files below ``folder`` whose name ends like an image's, sorted by relative path.

    Hidden files and folders are left out, and those of network drives: they are other programs'
    notes, not images. Links to folders are not followed, nor are run folders below it searched,
    nor anything but files (pipes, sockets, devices) yielded. In memory are the names in one folder
    at a time and its parents.

    Args:
        folder: Where to look.
        recursive: Whether the folders below it are searched too.
        leave_out: Real path of a folder below that is not searched.
        on_error: Called with what keeps a folder from being listed; that folder is passed over.
        unlistable: Whether a folder below that cannot be listed is yielded like an image, for
            its reading to fail, instead.
        passed_over: Counts the image files among all others.

    Yields:
        Paths relative to ``folder``.
    """
    suffixes = tuple(readable_suffixes())
    real = os.path.realpath(folder)

    def walk(below: str) -> Iterator[str]:
        try:
            names = _names(os.path.join(folder, below) if below else str(folder))
        except OSError as error:
            if below and unlistable:
                yield below
            else:
                on_error(error)
            return
        if below and _is_run(names):
            return
        while names:  # Each is given up as it is handed out.
            name = names.pop()
            path = os.path.join(below, name.rstrip("/"))
            if not name.endswith("/"):
                if name.lower().endswith(suffixes):
                    yield path
                elif passed_over:
                    passed_over.add(os.path.join(folder, path))
            elif recursive and os.path.join(real, path) != leave_out:
                yield from walk(path)

    return walk("")


# A folder with two of these is a run's: the sample grids in it are no images to learn from. One
# alone may be another program's: many call their weights model.safetensors.
RUN_NAMES = frozenset(
    {"config.toml", "health.json", "metrics.csv", "model.safetensors", "samples/",
     "state.safetensors"}
)  # fmt: skip


def _is_run(names: list[str]) -> bool:
    """Whether a folder with these names in it is one that a training writes to."""
    return len(RUN_NAMES.intersection(names)) > 1


def _names(folder: str) -> list[str]:
    """What is in a folder, last first; names of folders end with ``/``, which orders their files.

    Raises:
        OSError: It cannot be listed.
    """
    with os.scandir(folder) as entries:
        names = [
            f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
            for entry in entries
            if not (entry.name.startswith(".") or _is_left_out(entry))
        ]
    names.sort(reverse=True)
    return names


def _is_left_out(entry: os.DirEntry[str]) -> bool:
    """Whether it is a link to a folder, a network drive's own, a pipe, socket or device."""
    try:
        if entry.name in FOLDERS_OF_SYSTEMS and entry.is_dir():
            return True
        if entry.is_file() or entry.is_dir(follow_symlinks=False):
            return False
        return stat.S_IFMT(entry.stat().st_mode) != stat.S_IFREG
    except OSError:
        return False  # It leads nowhere, or where we may not look: reading it will tell.
