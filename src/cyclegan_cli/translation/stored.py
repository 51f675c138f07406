"""Feature maps that are held whole: where, and until when."""

from __future__ import annotations

import math
import mmap
import os
import sys
import tempfile
from contextlib import suppress
from typing import Literal

import torch
from torch import Tensor

from cyclegan_cli.errors import DeviceError

# Where feature maps can be held.
Place = torch.device | Literal["disk"]

# Maps of so many bytes and more are asked of the system by themselves, to be given back in parts.
# Below that the allocator is faster.
BY_ITSELF = 64 * 2**20
# Elsewhere the advice exists, but the memory stays.
CAN_LET_GO = sys.platform == "linux"


class StoredRows:
    """A feature map that is held whole, on the computing device or elsewhere.

    Args:
        whole: ``[1, C, H, W]``, channels-last.
        device: Where rows are wanted.
        held_on: Where ``whole`` is, as :meth:`another` needs to know.
        mapped: The memory of ``whole`` if parts of it can be given back.

    Attributes:
        read_once: Whether rows are read from top to bottom, once: then those above the last that
            were read are let go of, and the next feature map can have their memory.
    """

    def __init__(
        self,
        whole: Tensor,
        device: torch.device,
        held_on: Place | None = None,
        mapped: mmap.mmap | None = None,
    ) -> None:
        self.whole, self.device, self.held_on = whole, device, held_on or device
        self.height = whole.shape[2]
        self.read_once = False
        self._mapped, self._let_go = mapped, 0

    @classmethod
    def empty(cls, height: int, like: Tensor, held_on: Place | None = None) -> StoredRows:
        """Room for ``height`` rows that look like those of ``like``, by default beside it."""
        shape, mapped = (1, height, like.shape[3], like.shape[1]), None
        held_on = held_on or like.device
        size = math.prod(shape) * like.dtype.itemsize
        if held_on == "disk":
            mapped = _temporary_file(size)
        elif held_on.type == "cpu" and size >= BY_ITSELF and CAN_LET_GO:
            mapped = _memory(size)
        if mapped is None:
            whole = torch.empty(shape, dtype=like.dtype, device=held_on)
        else:
            whole = torch.frombuffer(mapped, dtype=like.dtype).view(shape)
        return cls(whole.permute(0, 3, 1, 2), like.device, held_on, mapped)

    def another(self) -> StoredRows:
        """Room for as many rows of the same kind, in the same place."""
        return self.empty(self.height, self.whole[:, :, :1].to(self.device), self.held_on)

    def read(self, top: int, bottom: int) -> Tensor:
        """A view of these rows, or a copy where they are held elsewhere."""
        if self.read_once and self._mapped is not None:
            self._let_go_above(top)
        return self.whole[:, :, top:bottom].to(self.device)

    def write(self, top: int, rows: Tensor) -> None:
        """Put rows in the place of those from ``top`` on."""
        self.whole[:, :, top : top + rows.shape[2]] = rows

    def _let_go_above(self, top: int) -> None:
        assert self._mapped is not None
        end = top * len(self._mapped) // self.height // mmap.PAGESIZE * mmap.PAGESIZE
        if end > self._let_go:
            self._mapped.madvise(mmap.MADV_DONTNEED, self._let_go, end - self._let_go)
            self._let_go = end


def _memory(size: int) -> mmap.mmap:
    """Memory of its own, in large pages if the system has them.

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
