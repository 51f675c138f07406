"""Memory for whole feature maps: on the device, in host memory or in a temporary file."""

from __future__ import annotations

import math
import mmap
import shutil
import tempfile
from contextlib import suppress
from typing import Literal

import torch
from torch import Tensor

from cyclegan_cli import files
from cyclegan_cli.errors import DeviceError

# Memory that can hold feature maps.
Location = torch.device | Literal["disk"]

# Up to this many bytes are kept for the next image: allocating them anew costs more than a tenth
# of the time of a small image. Larger buffers are freed.
KEEP_BYTES = 2**30
MORE_DISK = "Set TMPDIR to a folder with more free space."


class StoredRows:
    """A feature map in memory, on the computing device or elsewhere.

    Args:
        whole: ``[1, C, H, W]``, channels-last.
        device: The device to which rows are read.
    """

    def __init__(self, whole: Tensor, device: torch.device) -> None:
        self.whole, self.device = whole, device
        self.height = whole.shape[2]

    def read(self, top: int, bottom: int) -> Tensor:
        """Return rows ``[1, C, bottom - top, W]``: a view, or a copy if they are elsewhere."""
        return self.whole[:, :, top:bottom].to(self.device)

    def write(self, top: int, rows: Tensor) -> None:
        """Overwrite the rows from ``top`` on with ``[1, C, h, W]``."""
        self.whole[:, :, top : top + rows.shape[2]] = rows


class FeatureMapArena:
    """One buffer for all feature maps of an image.

    Down to the trunk each map has half the elements of its source, in rows of the same number of
    elements; after the trunk, twice as many. A map can therefore be written from top to bottom
    into the memory of its source, behind the rows that are being read: a smaller map at the start
    of the buffer, a larger one if its source is at the end.

    Attributes:
        location: The memory; None: that of the computing device.
    """

    def __init__(self) -> None:
        self.location: Location | None = None
        self._buffer: Tensor | None = None
        self._size = 0  # Elements of the current image's largest map.

    @property
    def nbytes(self) -> int:
        """Size of the buffer in bytes."""
        return 0 if self._buffer is None else self._buffer.nbytes

    def begin(self, location: Location | None) -> None:
        """Prepare for an image, whose first map is the largest."""
        if location != self.location:
            self._buffer = None
        self.location, self._size = location, 0

    def reserve(self, size: int, like: Tensor) -> None:
        """Allocate the buffer for maps of at most ``size`` elements like those of ``like``.

        Raises:
            DeviceError: The folder for temporary files has too little space.
        """
        self._buffer = None
        self._buffer = _new_buffer(size, like.dtype, self.location or like.device)

    def end(self) -> None:
        """Free the buffer, unless it is small and in host memory."""
        buffer = self._buffer
        on_host = self.location is None and buffer is not None and buffer.device.type == "cpu"
        if not on_host or self.nbytes > KEEP_BYTES:
            self._buffer = None

    def allocate_first(self, height: int, like: Tensor) -> StoredRows:
        """Allocate ``height`` rows like those of ``like`` at the start of the buffer."""
        return self._allocate(height, like, at_end=False)

    def allocate_last(self, height: int, like: Tensor) -> StoredRows:
        """Allocate ``height`` rows like those of ``like`` at the end of the buffer."""
        return self._allocate(height, like, at_end=True)

    def _allocate(self, height: int, like: Tensor, at_end: bool) -> StoredRows:
        shape = (1, height, like.shape[3], like.shape[1])
        size = math.prod(shape)
        self._size = self._size or size
        buffer = self._buffer
        if buffer is None or len(buffer) < self._size or buffer.dtype != like.dtype:
            self._buffer = None  # Free the old buffer before the new one is allocated.
            self._buffer = buffer = _new_buffer(
                self._size, like.dtype, self.location or like.device
            )
        begin = self._size - size if at_end else 0
        whole = buffer[begin : begin + size].view(shape).permute(0, 3, 1, 2)
        return StoredRows(whole, like.device)


def _new_buffer(size: int, dtype: torch.dtype, location: Location) -> Tensor:
    """Return an uninitialized tensor ``[size]``.

    Raises:
        MemoryError: There is not enough memory.
        DeviceError: The folder for temporary files has too little space.
    """
    if location == "disk":
        return torch.frombuffer(_temporary_file(size * dtype.itemsize), dtype=dtype)
    if location.type == "cpu" and hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.frombuffer(_large_pages(size * dtype.itemsize), dtype=dtype)
    return torch.empty(size, dtype=dtype, device=location)


def _large_pages(size: int) -> mmap.mmap:
    """Map memory in huge pages if possible, which is several times as fast to allocate.

    Raises:
        MemoryError: There is not enough memory.
    """
    try:
        mapped = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"{size} bytes") from error
    with suppress(OSError):  # The kernel does not support them.
        mapped.madvise(mmap.MADV_HUGEPAGE)
    return mapped


def _temporary_file(size: int) -> mmap.mmap:
    """Map a temporary file, which the operating system may write out when memory is short.

    Raises:
        DeviceError: The folder for temporary files has too little space.
    """
    folder = tempfile.gettempdir()
    # More than there is would fill the disk before it fails.
    if (free := shutil.disk_usage(folder).free) < size:
        raise DeviceError(
            f"the feature maps need {size / 1e9:.3g} GB in {folder}, where {free / 1e9:.3g} GB are "
            "free",
            MORE_DISK,
        )
    try:
        with tempfile.TemporaryFile() as file:
            files.reserve(file, size)
            return mmap.mmap(file.fileno(), size)
    except OSError as error:
        reason = (error.strerror or "").lower()
        # Not "from error": the disk of the outputs may have space left.
        raise DeviceError(
            f"cannot hold {size / 1e9:.1f} GB in {folder}: {reason}",
            MORE_DISK,
        ) from None
