"""What the numbers of a tensor are like, in one pass over them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from cyclegan_cli.checkpoints.container import TensorInfo
from cyclegan_cli.checkpoints.numbers import NumbersFile, Piece, pieces, readable
from cyclegan_cli.inspection.summary import Facts


def statistics_of(path: Path, tensors: Mapping[str, TensorInfo]) -> dict[str, Facts | None]:
    """Statistics of a file's tensors by their names; None where numbers are not read.

    Raises:
        CheckpointError: The file cannot be read, or a tensor reaches beyond its end.
    """
    wanted = {name: tensor for name, tensor in tensors.items() if readable(tensor)}
    found: dict[str, Facts | None] = dict.fromkeys(tensors)
    if wanted:
        file = NumbersFile(path)
        for name, tensor in wanted.items():
            found[name] = summed_up(piece for (piece,) in pieces(file.tensor(tensor)))
    return found


def summed_up(numbers: Iterable[Piece]) -> Facts | None:
    """Statistics of numbers that come in pieces; None if there are none.

    Mean and deviation are merged piece by piece (Chan, Golub and LeVeque 1979), so that large
    means do not swallow small deviations.

    Returns:
        ``smallest``, ``largest``, ``mean`` and ``standard_deviation`` of the finite ones (None
        where there are none, or beyond fp64); ``zeros`` and ``non_finite``, shares of all.
    """
    count, finite, zeros = 0, 0, 0
    smallest, largest, mean, squares = math.inf, -math.inf, 0.0, 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for piece in numbers:
            count += piece.size
            zeros += piece.size - int(np.count_nonzero(piece))
            kept = piece[np.isfinite(piece)]
            if kept.size == 0:
                continue
            smallest = min(smallest, float(kept.min()))
            largest = max(largest, float(kept.max()))
            own = float(kept.mean())
            step, share = own - mean, kept.size / (finite + kept.size)
            squares += float(np.square(kept - own).sum()) + step * step * finite * share
            mean += step * share
            finite += kept.size
    if count == 0:
        return None
    deviation = math.sqrt(squares / finite) if finite else math.nan
    values = {
        "smallest": smallest,
        "largest": largest,
        "mean": mean if finite else math.nan,
        "standard_deviation": deviation,
    }
    shares = {"zeros": zeros / count, "non_finite": (count - finite) / count}
    return {n: value if math.isfinite(value) else None for n, value in values.items()} | shares
