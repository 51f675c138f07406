"""Whether a series of validation distances still falls, with confidence."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Validations in all; the later half of them is tested.
MIN_VALIDATIONS = 20
# Longer series are averaged to this many values.
MAX_VALUES = 32
CONFIDENCE_Z = 1.645  # One-sided, 95 %.
# The autocorrelation of a short series is only roughly known.
MAX_AUTOCORRELATION = 0.8


@dataclass(frozen=True)
class Trend:
    """The trend of the later half of a series.

    Attributes:
        start: Index of its first value in the series.
        count: Number of its values.
        fall: The largest fall from its first to its last value that is compatible with the series
            (95 %, one-sided), relative to its median; 0 if the series rises.
    """

    start: int
    count: int
    fall: float


def trend(values: Sequence[float], steps: Sequence[float] | None = None) -> Trend | None:
    """Return the trend of the later half of a series, or None if it is too short.

    The slope is the median of the slopes between all pairs of values (Theil 1950, Sen 1968); its
    confidence limit follows from the variance of Kendall's S, which is multiplied by
    (1 + r) / (1 - r) for a lag-one autocorrelation r of the residuals.

    Args:
        values: Positive values.
        steps: The step of each, increasing; by default they are equally spaced.
    """
    if len(values) < MIN_VALIDATIONS:
        return None
    start = len(values) // 2
    later = _averaged(values[start:])
    x = _averaged((range(len(values)) if steps is None else steps)[start:])
    count = len(later)
    slopes = sorted(
        (later[j] - later[i]) / (x[j] - x[i]) for i in range(count) for j in range(i + 1, count)
    )
    variance = count * (count - 1) * (2 * count + 5) / 18
    slope = statistics.median(slopes)
    r = _autocorrelation([value - slope * step for step, value in zip(x, later, strict=True)])
    margin = CONFIDENCE_Z * math.sqrt(variance * (1 + r) / (1 - r))
    lowest = slopes[max(0, math.floor((len(slopes) - margin) / 2))]
    fall = max(0.0, -lowest * (x[-1] - x[0]) / statistics.median(later))
    return Trend(start, len(values) - start, fall)


def _averaged(values: Sequence[float]) -> list[float]:
    """Return at most :data:`MAX_VALUES` means of as many consecutive values each."""
    size = math.ceil(len(values) / MAX_VALUES)
    first = len(values) % size  # The oldest values, less than a group.
    return [
        statistics.fmean(values[start : start + size]) for start in range(first, len(values), size)
    ]


def _autocorrelation(values: Sequence[float]) -> float:
    """Return the lag-one autocorrelation of values, in [0, 0.8]."""
    mean = statistics.fmean(values)
    residuals = [value - mean for value in values]
    power = sum(value * value for value in residuals)
    if power == 0:
        return 0.0
    found = sum(a * b for a, b in itertools.pairwise(residuals)) / power
    return min(max(found, 0.0), MAX_AUTOCORRELATION)
