"""Average the statistics of instance norms over the frames of a video.

Instance norm divides by the standard deviation of each feature map of a frame. Whatever enters or
leaves the frame changes these statistics, and with them the brightness and colors of everything
else: the output flickers. Here the statistics of a frame are replaced by averages over frames.

The averages are taken layer by layer within one forward pass: a layer normalizes with the average,
so the layers after it, and their statistics, already depend on averages of the layers before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cyclegan_cli.data.image import LUMA, PixelArray
from cyclegan_cli.models.networks import InstanceNorm

HISTOGRAM_BINS = 32
HISTOGRAM_PIXELS = 1 << 16  # More pixels are subsampled.
CUT_ABOVE = 0.4  # Of the total variation distance of histograms, which is in [0, 1].

Moments = list[np.ndarray[Any, np.dtype[np.float32]]]  # [2, C]: mean and variance, of each norm.


class NormStatistics:
    """The statistics of all instance norms of a generator, averaged over frames.

    Outside the contexts of its methods, the generator is unchanged.

    Args:
        generator: The generator.
    """

    def __init__(self, generator: nn.Module) -> None:
        self._norms = [m for m in generator.modules() if isinstance(m, InstanceNorm)]
        self._averages: list[Tensor | None] = [None] * len(self._norms)

    def reset(self) -> None:
        """Forget all frames."""
        self._averages = [None] * len(self._norms)

    @property
    def moments(self) -> Moments:
        """The averages; empty before the first frame."""
        return [one.cpu().numpy() for one in self._averages if one is not None]

    @moments.setter
    def moments(self, moments: Sequence[np.ndarray[Any, np.dtype[np.float32]]]) -> None:
        self.reset()
        for index, one in enumerate(moments):
            norm = self._norms[index]
            device = norm.weight.device if norm.weight is not None else None
            self._averages[index] = torch.tensor(one, dtype=torch.float32, device=device)

    @contextmanager
    def exponential(self, smoothing: float) -> Iterator[None]:
        """Normalize with exponential averages, which each frame updates.

        Args:
            smoothing: The share of the previous average in the next one, in [0, 1].
        """

        def update(index: int, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
            current = torch.stack((mean, variance))
            old = self._averages[index]
            new = current if old is None else current.lerp(old.to(current.device), smoothing)
            self._averages[index] = new
            return new[0], new[1]

        with self._filtered(update):
            yield

    @contextmanager
    def fixed(self) -> Iterator[None]:
        """Normalize with the averages as they are."""

        def replace(index: int, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
            average = self._averages[index]
            if average is None:
                return mean, variance
            new_mean, new_variance = average.to(mean.device).unbind()
            return new_mean, new_variance

        with self._filtered(replace):
            yield

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """Compute the means over all frames translated in this context, which are unchanged."""
        sums: list[Tensor | None] = [None] * len(self._norms)
        counts = [0] * len(self._norms)

        def gather(index: int, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
            current, total = torch.stack((mean, variance)).double(), sums[index]
            sums[index] = current if total is None else total + current
            counts[index] += 1
            return mean, variance

        with self._filtered(gather):
            yield
        self._averages = [
            None if total is None else (total / count).float()
            for total, count in zip(sums, counts, strict=True)
        ]

    @contextmanager
    def _filtered(self, function: Any) -> Iterator[None]:
        for index, norm in enumerate(self._norms):
            norm.moments_filter = partial(function, index)
        try:
            yield
        finally:
            for norm in self._norms:
                norm.moments_filter = None


class CutDetector:
    """Finds scene cuts by the distance between the luma histograms of neighboring frames."""

    def __init__(self) -> None:
        self.histogram: np.ndarray[Any, np.dtype[np.float64]] | None = None

    def is_cut(self, pixels: PixelArray) -> bool:
        """Add a frame; return whether it is the first or begins another scene.

        Args:
            pixels: ``[H, W, 3]`` uint8 or uint16.
        """
        previous, self.histogram = self.histogram, luma_histogram(pixels)
        return previous is None or cut_distance(previous, self.histogram) > CUT_ABOVE


def luma_histogram(pixels: PixelArray) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the shares of pixels in bins of equal width of luma: ``[HISTOGRAM_BINS]``."""
    step = max(int((pixels.shape[0] * pixels.shape[1] / HISTOGRAM_PIXELS) ** 0.5), 1)
    luma = pixels[::step, ::step] @ np.array(LUMA, dtype=np.float32)
    highest = float(np.iinfo(pixels.dtype).max) + 1
    bins = (luma * (HISTOGRAM_BINS / highest)).astype(np.intp).ravel()
    counts = np.bincount(bins, minlength=HISTOGRAM_BINS)
    return counts / counts.sum()


def cut_distance(
    first: np.ndarray[Any, np.dtype[np.float64]], second: np.ndarray[Any, np.dtype[np.float64]]
) -> float:
    """Return the total variation distance of two histograms: 0 if equal, 1 if disjoint.

    Neighboring bins are averaged first, so that a small change of brightness is a small distance.
    """
    kernel = np.array([0.25, 0.5, 0.25])
    difference = np.convolve(np.pad(first - second, 1, mode="edge"), kernel, mode="valid")
    return float(np.abs(difference).sum() / 2)
