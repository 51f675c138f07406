"""A generator's layers as feature maps whose rows are computed on demand.

A layer computes rows when they are read, from the rows of its source that they depend on. Only
:class:`~cyclegan_cli.translation.arena.StoredRows` keeps rows in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cyclegan_cli.models.networks import InstanceNorm
from cyclegan_cli.models.normalization import channel_moments, normalize_with
from cyclegan_cli.models.resampling import bilinear_upsample, blur_padded
from cyclegan_cli.translation.arena import StoredRows


class Rows(Protocol):
    """A feature map whose rows can be read.

    Attributes:
        height: Number of rows.
    """

    height: int

    def read(self, top: int, bottom: int) -> Tensor:
        """Return rows ``top`` to ``bottom - 1``, read-only: ``[1, C, bottom - top, W]``."""


def reflected(rows: Tensor, reach: int, above: int, below: int) -> Tensor:
    """Reflection-pad ``[1, C, h, W]`` by ``reach`` columns, and by rows ``above`` and ``below``."""
    sides = [reach, reach, above, below]
    return F.pad(rows, sides, mode="reflect") if any(sides) else rows


Convolution = Callable[[Tensor], Tensor]


class ReflectedConv:
    """A convolution of stride 1 over a reflected input.

    Args:
        source: The input.
        convolve: Maps ``[1, C, h + 2 reach, W + 2 reach]`` to ``[1, C', h, W]``.
        reach: Receptive field in each direction.
    """

    def __init__(self, source: Rows, convolve: Convolution, reach: int) -> None:
        self.source, self.convolve, self.reach = source, convolve, reach
        self.height = source.height

    def read(self, top: int, bottom: int) -> Tensor:
        """Compute rows from ``reach`` more rows on either side."""
        first, last = top - self.reach, bottom + self.reach
        rows = self.source.read(max(first, 0), min(last, self.height))
        return self.convolve(
            reflected(rows, self.reach, max(-first, 0), max(last - self.height, 0))
        )


class DownsamplingConv:
    """A 3×3 convolution of stride 2 with zero padding; the norm after it cancels the bias."""

    def __init__(self, source: Rows, conv: nn.Conv2d) -> None:
        self.source, self.conv = source, conv
        self.height = source.height // 2

    def read(self, top: int, bottom: int) -> Tensor:
        """Compute rows; row t depends on input rows 2t - 1 to 2t + 1."""
        first = 2 * top - 1
        rows = self.source.read(max(first, 0), 2 * bottom)
        if first < 0:
            rows = F.pad(rows, [0, 0, 1, 0])
        return F.conv2d(rows, self.conv.weight, stride=2, padding=(0, 1))


class ZeroPaddedConv:
    """A 3×3 convolution of stride 1 with zero padding; the norm after it cancels the bias."""

    def __init__(self, source: Rows, conv: nn.Conv2d) -> None:
        self.source, self.conv = source, conv
        self.height = source.height

    def read(self, top: int, bottom: int) -> Tensor:
        """Compute rows from one more row on either side."""
        rows = self.source.read(max(top - 1, 0), min(bottom + 1, self.height))
        above, below = int(top == 0), int(bottom == self.height)
        if above or below:
            rows = F.pad(rows, [0, 0, above, below])
        return F.conv2d(rows, self.conv.weight, padding=(0, 1))


class BlurDownsampling:
    """A blur of which every second row and column is kept."""

    def __init__(self, source: Rows) -> None:
        self.source = source
        self.height = source.height // 2

    def read(self, top: int, bottom: int) -> Tensor:
        """Compute rows; row t depends on input rows 2t - 1 to 2t + 1."""
        first = 2 * top - 1
        rows = self.source.read(max(first, 0), 2 * bottom)
        return blur_padded(F.pad(rows, [1, 0, int(first < 0), 0], mode="reflect"), stride=2)


class BilinearUpsampling:
    """Bilinear interpolation to twice the size."""

    def __init__(self, source: Rows) -> None:
        self.source = source
        self.height = source.height * 2

    def read(self, top: int, bottom: int) -> Tensor:
        """Compute rows; row t depends on input rows (t - 1) // 2 and (t + 1) // 2."""
        first = max((top - 1) // 2, 0)
        rows = self.source.read(first, min(bottom // 2 + 1, self.source.height))
        return bilinear_upsample(rows)[:, :, top - 2 * first : bottom - 2 * first]


class UpsamplingConv:
    """The 3×3 transposed convolution of stride 2; the norm after it cancels the bias."""

    def __init__(self, source: Rows, conv: nn.ConvTranspose2d) -> None:
        self.source, self.conv = source, conv
        self.height = source.height * 2

    def read(self, top: int, bottom: int) -> Tensor:
        """Compute rows; input row i contributes to rows 2i - 1 to 2i + 1."""
        first, last = top // 2, (bottom + 1) // 2
        # One more input row, on which the last output row depends.
        rows = self.source.read(first, min(last + 1, self.source.height))
        doubled = F.conv_transpose2d(rows, self.conv.weight, stride=2, padding=1, output_padding=1)
        return doubled[:, :, top - 2 * first : bottom - 2 * first]


@dataclass(frozen=True)
class Norm:
    """Instance norm with the mean and variance of the whole image: ``[C]`` each, fp32."""

    mean: Tensor
    variance: Tensor
    layer: InstanceNorm

    def __call__(self, rows: Tensor) -> Tensor:
        """Normalise ``[1, C, h, W]``; returns the same shape and dtype."""
        return normalize_with(rows, self.mean, self.variance, self.layer.weight, self.layer.bias)


@dataclass(frozen=True)
class Bias:
    """The bias of a convolution that no norm cancels: ``[C]``."""

    bias: Tensor

    def __call__(self, rows: Tensor) -> Tensor:
        """Add the bias to ``[1, C, h, W]``."""
        return rows + self.bias.view(1, -1, 1, 1)


class RunningMoments:
    """Mean and variance, updated strip by strip (Chan et al. 1979, parallel variance)."""

    def __init__(self) -> None:
        self._counts: list[int] = []
        # ``[capacity, 2, C]``. Not one tensor per strip: small tensors that live longer than the
        # large ones around them fragment the heap, which then takes four times as much memory.
        self._moments: Tensor | None = None

    def add(self, rows: Tensor) -> None:
        """Add ``[1, C, h, W]``; computes in fp32."""
        index = len(self._counts)
        if self._moments is None or index == len(self._moments):
            more = torch.empty(max(2 * index, 64), 2, rows.shape[1], device=rows.device)
            if self._moments is not None:
                more[:index] = self._moments
            self._moments = more
        self._moments[index, 0], self._moments[index, 1] = channel_moments(rows)
        self._counts.append(rows.shape[2] * rows.shape[3])

    def finish(self, layer: InstanceNorm) -> Norm:
        """Return the norm of all rows added; combines the strips in fp64."""
        assert self._moments is not None
        counts = self._counts
        mean, within = self._moments[: len(counts)].double().unbind(1)
        weight = (torch.tensor(counts, dtype=torch.float64) / sum(counts)).to(mean.device)[:, None]
        overall = (weight * mean).sum(dim=0)
        variance = (weight * (within + (mean - overall) ** 2)).sum(dim=0)
        mean, variance = overall.float(), variance.float()
        if layer.moments_filter is not None:
            mean, variance = layer.moments_filter(mean, variance)
        return Norm(mean, variance, layer)


class NormalisedReLU:
    """Instance norm and ReLU; mean and variance are computed on construction.

    Args:
        source: The input.
        layer: The norm, with its scale and shift, if any; or the bias, without a norm.
        strip: Rows to compute at once.
        allocate: Allocates memory for the source's rows; None: they are recomputed whenever they
            are read, which takes time instead of memory.
    """

    source: Rows

    def __init__(
        self, source: Rows, layer: InstanceNorm | Bias, strip: int, allocate: Allocate | None
    ) -> None:
        self.source = source
        self.height = source.height
        self.norm: Norm | Bias
        if allocate is not None:
            self.source, self.norm = store(source, layer, strip, allocate)
            return
        if isinstance(layer, Bias):
            self.norm = layer
            return
        moments = RunningMoments()
        for top, bottom in strips(source.height, strip):
            moments.add(source.read(top, bottom))
        self.norm = moments.finish(layer)

    def read(self, top: int, bottom: int) -> Tensor:
        """Normalise rows."""
        return F.relu_(self.norm(self.source.read(top, bottom)))


class SkipConnection:
    """The sum of a feature map and one of equal size before the residual blocks."""

    def __init__(self, source: Rows, skipped: Rows) -> None:
        self.source, self.skipped = source, skipped
        self.height = source.height

    def read(self, top: int, bottom: int) -> Tensor:
        """Add rows."""
        return self.source.read(top, bottom) + self.skipped.read(top, bottom)


# Allocates a feature map of a number of rows like those given.
Allocate = Callable[[int, Tensor], StoredRows]


def store(
    source: Rows, layer: InstanceNorm | Bias, strip: int, allocate: Allocate
) -> tuple[StoredRows, Norm | Bias]:
    """Compute and store a feature map; also return the norm or bias to be applied to it."""
    if isinstance(layer, Bias):
        return store_rows(source, strip, allocate), layer
    moments = RunningMoments()
    return store_rows(source, strip, allocate, moments.add), moments.finish(layer)


def store_rows(
    source: Rows,
    strip: int,
    allocate: Allocate,
    on_rows: Callable[[Tensor], None] = lambda _: None,
) -> StoredRows:
    """Compute and store a feature map.

    Args:
        source: The feature map.
        strip: Rows to compute at once.
        allocate: Allocates its memory.
        on_rows: Called with each strip.
    """
    stored = None
    for top, bottom in strips(source.height, strip):
        rows = source.read(top, bottom)
        on_rows(rows)
        stored = stored or allocate(source.height, rows)
        stored.write(top, rows)
    assert stored is not None
    return stored


def strips(height: int, strip: int) -> Iterator[tuple[int, int]]:
    """Yield ``(top, bottom)`` of consecutive strips of at most ``strip`` rows."""
    for top in range(0, height, strip):
        yield top, min(top + strip, height)
