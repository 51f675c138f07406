"""Average the statistics of instance norms over the frames of a video.

Instance norm divides by the standard deviation of each feature map of a frame. Whatever enters or
leaves the frame changes these statistics, and with them the brightness and colors of everything
else: the output flickers. Here the statistics of a frame are replaced by averages over frames.

The averages are taken layer by layer within one forward pass: a layer normalizes with the average,
so the layers after it, and their statistics, already depend on averages of the layers before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cyclegan_cli.data.image import LUMA, PixelArray
from cyclegan_cli.models.networks import InstanceNorm

HISTOGRAM_BINS = 32
QUARTERS = 2  # Rows and columns of parts of a frame, each with its histogram.
HISTOGRAM_PIXELS = 1 << 16  # More pixels are subsampled.
# Of 95 % of pairs of unrelated photos the distance is larger than 0.33; fast motion over one photo
# reaches 0.15 (benchmarks/film_flicker.py).
CUT_ABOVE = 0.25
Histogram = np.ndarray[Any, np.dtype[np.float64]]
# Frames of a shot of which the statistics are averaged.
FRAMES_PER_SHOT = 8

Moments = np.ndarray[Any, np.dtype[np.float32]]  # Mean and variance: [2, channels of all norms].
Function = Callable[[int, Tensor], Tensor]


class NormStatistics:
    """The statistics of all instance norms of a generator, averaged over frames.

    Outside the contexts of its methods, the generator is unchanged.

    Args:
        generator: The generator.
    """

    def __init__(self, generator: nn.Module) -> None:
        self._norms = [m for m in generator.modules() if isinstance(m, InstanceNorm)]
        self.reset()

    def reset(self) -> None:
        """Forget all frames."""
        self._averages: list[Tensor | None] = [None] * len(self._norms)  # [2, C] each.
        self._counts = [0] * len(self._norms)

    @property
    def moments(self) -> Moments | None:
        """The averages; None before the first frame."""
        known = [average for average in self._averages if average is not None]
        return torch.cat(known, dim=1).cpu().numpy() if len(known) == len(self._norms) else None

    @moments.setter
    def moments(self, moments: Moments | None) -> None:
        self.reset()
        if moments is not None:
            sizes = [norm.channels for norm in self._norms]
            self._averages = list(torch.split(torch.from_numpy(moments.copy()), sizes, dim=1))

    @contextmanager
    def exponential(self, smoothing: float) -> Iterator[None]:
        """Normalize with exponential averages, which each frame updates.

        Args:
            smoothing: The share of the previous average in the next one, in [0, 1].
        """

        def update(index: int, current: Tensor) -> Tensor:
            old = self._averages[index]
            new = current if old is None else current.lerp(old.to(current.device), smoothing)
            self._averages[index] = new
            return new

        with self._filtered(update):
            yield

    @contextmanager
    def fixed(self) -> Iterator[None]:
        """Normalize with the averages as they are, or with those of a frame if there are none."""

        def replace(index: int, current: Tensor) -> Tensor:
            average = self._averages[index]
            if average is None:
                return current
            self._averages[index] = average = average.to(current.device)  # Copied only once.
            return average

        with self._filtered(replace):
            yield

    @contextmanager
    def accumulating(self) -> Iterator[None]:
        """Add frames to the averages, all with the same weight; they are normalized as always."""

        def add(index: int, current: Tensor) -> Tensor:
            old, self._counts[index] = self._averages[index], self._counts[index] + 1
            share = 1 / self._counts[index]
            self._averages[index] = current if old is None else old.lerp(current, share)
            return current

        with self._filtered(add):
            yield

    @contextmanager
    def _filtered(self, function: Function) -> Iterator[None]:
        """Let ``function`` replace the ``[2, C]`` moments of each norm, by its index."""

        def moments_filter(index: int, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
            new_mean, new_variance = function(index, torch.stack((mean, variance))).unbind()
            return new_mean, new_variance

        for index, norm in enumerate(self._norms):
            norm.moments_filter = partial(moments_filter, index)
        try:
            yield
        finally:
            for norm in self._norms:
                norm.moments_filter = None


class CutDetector:
    """Finds scene cuts by the distance between the luma histograms of neighboring frames."""

    def __init__(self) -> None:
        self.histogram: Histogram | None = None

    def is_cut(self, pixels: PixelArray) -> bool:
        """Add a frame; return whether it is the first or begins another scene.

        Args:
            pixels: ``[H, W, 3]`` uint8 or uint16.
        """
        previous, self.histogram = self.histogram, luma_histogram(pixels)
        return previous is None or cut_distance(previous, self.histogram) > CUT_ABOVE


def luma_histogram(pixels: PixelArray) -> Histogram:
    """Return the shares of pixels by luma in each quarter of a frame.

    Args:
        pixels: ``[H, W, 3]`` uint8 or uint16.

    Returns:
        ``[QUARTERS², HISTOGRAM_BINS]``; each row has the sum 1.
    """
    step = max(int((pixels.shape[0] * pixels.shape[1] / HISTOGRAM_PIXELS) ** 0.5), 1)
    luma = pixels[::step, ::step] @ np.array(LUMA, dtype=np.float32)
    highest = float(np.iinfo(pixels.dtype).max) + 1
    bins = (luma * (HISTOGRAM_BINS / highest)).astype(np.intp)
    parts = [
        part.ravel()
        for rows in np.array_split(bins, QUARTERS, axis=0)
        for part in np.array_split(rows, QUARTERS, axis=1)
    ]
    return np.stack(
        [np.bincount(one, minlength=HISTOGRAM_BINS) / max(len(one), 1) for one in parts]
    )


def cut_distance(first: Histogram, second: Histogram) -> float:
    """Return the total variation distance of histograms: 0 if equal, 1 if disjoint.

    Neighboring bins are averaged first, so that a small change of brightness is a small distance.

    Args:
        first: ``[parts, bins]``.
        second: Likewise.
    """
    padded = np.pad(first - second, ((0, 0), (1, 1)), mode="edge")
    smooth = 0.25 * padded[:, :-2] + 0.5 * padded[:, 1:-1] + 0.25 * padded[:, 2:]
    return float(np.abs(smooth).sum(axis=1).mean() / 2)


def sample_shot(start: int, end: int) -> list[int]:
    """Return at most ``FRAMES_PER_SHOT`` indices spread evenly from ``start`` to ``end - 1``."""
    count = min(end - start, FRAMES_PER_SHOT)
    return [start + (2 * number + 1) * (end - start) // (2 * count) for number in range(count)]
