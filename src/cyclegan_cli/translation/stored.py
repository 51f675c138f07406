"""Feature maps that are held whole: in which memory, and where in it."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from contextlib import suppress
from typing import Literal

import torch
from torch import Tensor

from cyclegan_cli.errors import DeviceError

# Where feature maps can be held.
Place = torch.device | Literal["disk"]

# So much memory is kept for the next image, in bytes: asking the system for it costs more than
# a tenth of the time of a small one. More is given back.
KEPT = 2**30


class StoredRows:
    """A feature map that is held whole, on the computing device or elsewhere.

    Args:
        whole: ``[1, C, H, W]``, channels-last.
        device: Where rows are wanted.
    """

    def __init__(self, whole: Tensor, device: torch.device) -> None:
        self.whole, self.device = whole, device
        self.height = whole.shape[2]

    def read(self, top: int, bottom: int) -> Tensor:
        """A view of these rows, or a copy where they are held elsewhere."""
        return self.whole[:, :, top:bottom].to(self.device)

    def write(self, top: int, rows: Tensor) -> None:
        """Put rows in the place of those from ``top`` on."""
        self.whole[:, :, top : top + rows.shape[2]] = rows


class Space:
    """One piece of memory for all feature maps of an image.

    Down to the trunk each map has half the numbers of the one before, and rows of as many; up from
    it, twice. So a map can be written from top to bottom into the memory of the one that it is
    computed from, behind the rows that are read: a smaller one from the beginning on, a larger one
    if its source lies at the end.

    Attributes:
        place: Where it is; None: where rows are computed.
    """

    def __init__(self) -> None:
        self.place: Place | None = None
        self._memory: Tensor | None = None
        self._size = 0  # Numbers of the present image's largest map.

    @property
    def held(self) -> int:
        """Bytes of memory that it has."""
        return 0 if self._memory is None else self._memory.nbytes

    def begin(self, place: Place | None) -> None:
        """Make room for an image, whose first map is the largest."""
        if place != self.place:
            self._memory = None
        self.place, self._size = place, 0

    def end(self) -> None:
        """The image is done: give memory back, unless it is the host's and not much."""
        memory = self._memory
        on_host = self.place is None and memory is not None and memory.device.type == "cpu"
        if not on_host or self.held > KEPT:
            self._memory = None

    def first(self, height: int, like: Tensor) -> StoredRows:
        """Room at the beginning for ``height`` rows that look like those of ``like``."""
        return self._map(height, like, at_end=False)

    def last(self, height: int, like: Tensor) -> StoredRows:
        """Room at the end."""
        return self._map(height, like, at_end=True)

    def _map(self, height: int, like: Tensor, at_end: bool) -> StoredRows:
        shape = (1, height, like.shape[3], like.shape[1])
        size = math.prod(shape)
        self._size = self._size or size
        memory = self._memory
        if memory is None or len(memory) < self._size or memory.dtype != like.dtype:
            self._memory = None  # Before there is more.
            self._memory = memory = _memory(self._size, like.dtype, self.place or like.device)
        begin = self._size - size if at_end else 0
        whole = memory[begin : begin + size].view(shape).permute(0, 3, 1, 2)
        return StoredRows(whole, like.device)


def _memory(size: int, dtype: torch.dtype, place: Place) -> Tensor:
    """Memory for so many numbers.

    Raises:
        MemoryError: There is not so much.
        DeviceError: The folder for temporary files has too little room.
    """
    if place == "disk":
        return torch.frombuffer(_temporary_file(size * dtype.itemsize), dtype=dtype)
    if place.type == "cpu" and hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.frombuffer(_large_pages(size * dtype.itemsize), dtype=dtype)
    return torch.empty(size, dtype=dtype, device=place)


def _large_pages(size: int) -> mmap.mmap:
    """Memory in large pages if the system has them, which it hands out several times as fast.

    Raises:
        MemoryError: There is not so much.
    """
    try:
        mapped = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"{size} bytes") from error
    with suppress(OSError):  # A kernel without them.
        mapped.madvise(mmap.MADV_HUGEPAGE)
    return mapped


def _temporary_file(size: int) -> mmap.mmap:
    """Memory that is a file's: the system may write it out when memory is short.

    Raises:
        DeviceError: The folder for temporary files has too little room.
    """
    folder = tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile() as file:
            # Now, as a full disk would kill the process later.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            return mmap.mmap(file.fileno(), size)
    except OSError as error:
        reason = (error.strerror or "").lower()
        # Not "from error": there may well be room for what is translated.
        raise DeviceError(
            f"cannot hold {size / 1e9:.1f} GB in {folder}: {reason}",
            "Name a folder with more room with the environment variable TMPDIR.",
        ) from None
