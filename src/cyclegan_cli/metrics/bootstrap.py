"""Bootstrap intervals over images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

RESAMPLES = 200
COVERAGE = 0.95


def resample_counts(count: int, seed: int, resamples: int = RESAMPLES) -> Tensor:
    """Draw bootstrap samples of ``count`` images.

    Returns:
        ``[resamples, count]`` fp64: how often each image occurs in each sample.
    """
    drawn = np.random.default_rng(seed).multinomial(count, [1 / count] * count, size=resamples)
    return torch.from_numpy(drawn.astype(np.float64))


def interval(estimate: float, resampled: Tensor) -> tuple[float, float]:
    """Return the 95 % percentile interval, shifted by the bias of the bootstrap.

    A bootstrap sample has repeated images, so its distance to another set is larger on average
    than that of the sample that it is drawn from. The shift removes this bias.

    Args:
        estimate: The statistic of the sample itself.
        resampled: The statistic of each bootstrap sample, ``[R]`` fp64.

    Returns:
        The lower and upper limit.
    """
    resampled = resampled.double()
    resampled = resampled[resampled.isfinite()]  # Not defined for copies of a single image.
    if not len(resampled):
        return estimate, estimate
    tail = (1 - COVERAGE) / 2
    limits = torch.quantile(resampled, torch.tensor([tail, 1 - tail], dtype=torch.float64))
    low, high = (limits + (estimate - resampled.mean())).tolist()
    return low, high


def mean_interval(values: Tensor, seed: int) -> tuple[float, float, float]:
    """Return the mean of one value per image, ``[N]``, and the limits of its 95 % interval."""
    values = values.double()
    mean = float(values.mean())
    resampled = resample_counts(len(values), seed) @ values / len(values)
    return mean, *interval(mean, resampled)
