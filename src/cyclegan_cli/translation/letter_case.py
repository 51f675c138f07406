"""Whether names that differ only in case are one file.

So it is by default on macOS and Windows, and on Linux on drives in the formats of these.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress


def ignores_case(folder: str) -> bool:
    """Whether ``night.jpg`` and ``Night.JPG`` are the same file in this folder.

    Judged by what is in the folder, or in those above it on the same drive: it is looked for under
    its name in the other case. A folder that is still to be made is like the one above it.
    """
    for known in _known_paths(folder):
        above, name = os.path.split(known)
        if name.swapcase() != name:
            with suppress(OSError):
                return os.path.samefile(known, os.path.join(above, name.swapcase()))
            return False  # There is no such file.
    return False


def _known_paths(folder: str) -> Iterator[str]:
    """A file or folder in ``folder``, then existing folders above, as long as the drive is one."""
    folder = os.path.abspath(folder)
    while not os.path.isdir(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.swapcase() != entry.name:
                yield entry.path
                break
    while (above := os.path.dirname(folder)) != folder and not os.path.ismount(folder):
        yield folder
        folder = above
