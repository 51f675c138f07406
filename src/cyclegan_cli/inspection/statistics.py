"""Statistics of a tensor's elements, for ``cyclegan inspect --weights``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cyclegan_cli.checkpoints.header import TensorInfo
from cyclegan_cli.inspection.summary import Facts

PIECE = 65_536  # Elements that are converted to fp64 at a time.
# Others have no statistics: numpy cannot read them.
NUMPY_DTYPES = frozenset(
    {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}
)

ReadElements = Callable[[str], "NDArray[Any] | None"]


def list_tensors(
    tensors: Mapping[str, TensorInfo], read: ReadElements | None = None
) -> list[Facts]:
    """Describe tensors by name, dtype, shape and statistics.

    Args:
        tensors: Types and shapes by name.
        read: Returns the elements of a tensor, in any shape and dtype; None if they are not read.
            None: of no tensor.
    """
    listed = []
    for name, info in tensors.items():
        elements = read(name) if read and info.dtype in NUMPY_DTYPES else None
        listed.append(
            {
                "name": name,
                "dtype": info.dtype,
                "shape": list(info.shape),
                "statistics": None if elements is None else statistics_of(elements),
            }
        )
    return listed


def statistics_of(elements: NDArray[Any]) -> Facts | None:
    """Return statistics of elements of any shape and dtype; None if there are none.

    Returns:
        ``smallest``, ``largest``, ``mean`` and ``standard_deviation`` of the finite elements (None
        if there are none, or if fp64 overflows); ``zeros`` and ``non_finite`` as fractions of all.
    """
    if elements.size == 0:
        return None
    flat = elements.reshape(-1)
    count, zeros, total, squares = 0, 0, 0.0, 0.0
    smallest, largest = math.inf, -math.inf
    with np.errstate(over="ignore", invalid="ignore"):
        for piece in _finite_pieces(flat):
            count += piece.size
            zeros += piece.size - int(np.count_nonzero(piece))
            total += float(piece.sum())
            smallest = min(smallest, float(piece.min(initial=math.inf)))
            largest = max(largest, float(piece.max(initial=-math.inf)))
        mean = total / count if count else math.nan
        # A second pass, so that a large mean does not cancel a small deviation.
        for piece in _finite_pieces(flat):
            squares += float(np.square(piece - mean).sum())
    values = {
        "smallest": smallest,
        "largest": largest,
        "mean": mean,
        "standard_deviation": math.sqrt(squares / count) if count else math.nan,
    }
    fractions = {"zeros": zeros / flat.size, "non_finite": (flat.size - count) / flat.size}
    return {n: value if math.isfinite(value) else None for n, value in values.items()} | fractions


def _finite_pieces(flat: NDArray[Any]) -> Iterator[NDArray[np.float64]]:
    for start in range(0, flat.size, PIECE):
        piece = flat[start : start + PIECE].astype(np.float64)
        yield piece[np.isfinite(piece)]
