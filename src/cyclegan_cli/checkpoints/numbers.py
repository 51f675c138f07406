"""Tensors' numbers, a piece at a time, out of a file of any kind; with numpy alone.

One tensor at a time is in memory. Files are read, not mapped: a mapped file that another program
cuts short meanwhile would end this one without a word (SIGBUS).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cyclegan_cli.checkpoints.container import (
    TensorInfo,
    count_elements,
    file_size,
    unreadable,
)
from cyclegan_cli.errors import CheckpointError

PIECE = 65_536  # Numbers.
# What is read, and as what; little-endian, as all of these files are. BF16 is the upper half of
# an F32, which numpy does not know.
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4",
    "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "u1",
}  # fmt: skip

Piece = NDArray[np.float64]


@dataclass(frozen=True)
class FileTensor:
    """A tensor's numbers as they lie in the file.

    Attributes:
        numbers: A view of the file's bytes, of the tensor's shape without its sizes of 1.
        dtype: The tensor's type: that of ``numbers`` is U16 for BF16.
    """

    numbers: NDArray[Any]
    dtype: str


def readable(tensor: TensorInfo) -> bool:
    """Whether it is known where a tensor's numbers are, and how to read their type."""
    return tensor.place is not None and tensor.dtype in DTYPES


class NumbersFile:
    """A file whose tensors' numbers are wanted.

    Args:
        path: The file.

    Raises:
        CheckpointError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = file_size(path)
        self._whole = b""

    def tensor(self, info: TensorInfo) -> FileTensor:
        """One of the file's tensors.

        Args:
            info: A :func:`readable` one.

        Raises:
            CheckpointError: It reaches beyond the file, or the file cannot be read.
        """
        assert info.place is not None
        dtype = np.dtype(DTYPES[info.dtype])
        if count_elements(info.shape) == 0:
            return FileTensor(np.zeros(0, dtype), info.dtype)
        strides = info.place.strides or _strides(info.shape)
        reach = 1 + sum((n - 1) * stride for n, stride in zip(info.shape, strides, strict=False))
        content, start = self._read(info, max(reach, 1) * dtype.itemsize)
        kept = [axis for axis, size in enumerate(info.shape) if size > 1]
        try:
            numbers: NDArray[Any] = np.ndarray(
                tuple(info.shape[axis] for axis in kept),
                dtype,
                content,
                start,
                tuple(strides[axis] * dtype.itemsize for axis in kept),
            )
        except (ValueError, TypeError, OverflowError) as error:
            raise self._too_short() from error
        return FileTensor(numbers, info.dtype)

    def _too_short(self) -> CheckpointError:
        return CheckpointError(
            f"{self._path} is damaged: one of its tensors reaches beyond its end"
        )

    def _read(self, info: TensorInfo, length: int) -> tuple[bytes, int]:
        """Bytes of the file that a tensor is in, and where in them it begins."""
        assert info.place is not None
        has_gaps = length > count_elements(info.shape) * np.dtype(DTYPES[info.dtype]).itemsize
        if info.place.start + length > self._size:
            raise self._too_short()
        try:
            if not has_gaps:
                with self._path.open("rb") as stream:
                    stream.seek(info.place.start)
                    return stream.read(length), 0
            # The gaps of many tensors together may be many times the file: that is read once.
            self._whole = self._whole or self._path.read_bytes()
        except OSError as error:
            raise unreadable(self._path, error) from error
        return self._whole, info.place.start


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Those of a tensor without gaps."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return tuple(reversed(strides))


def pieces(*tensors: FileTensor) -> Iterator[tuple[Piece, ...]]:
    """The numbers of tensors of one shape side by side, at most 65,536 of each at a time."""
    if any(tensor.numbers.size == 0 for tensor in tensors):
        return
    walk = np.nditer(
        [tensor.numbers for tensor in tensors],
        ["external_loop", "buffered"],
        buffersize=PIECE,
        order="C",
    )
    for found in walk:
        parts = found if isinstance(found, tuple) else (found,)
        yield tuple(
            _as_fp64(part, tensor.dtype) for part, tensor in zip(parts, tensors, strict=True)
        )


def _as_fp64(piece: NDArray[Any], dtype: str) -> Piece:
    if dtype == "BF16":
        piece = (piece.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(invalid="ignore"):  # Signalling NaNs are NaNs.
        return piece.astype(np.float64)
