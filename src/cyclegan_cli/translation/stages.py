"""The layers of a generator as feature maps of which any rows can be had.

A stage computes rows when they are read, from the rows of its source that they depend on. What
has to be kept is kept by :class:`~cyclegan_cli.translation.stored.StoredRows` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cyclegan_cli.models.networks import InstanceNorm
from cyclegan_cli.models.normalization import CONSTANT_BELOW, EPSILON, refine_moments
from cyclegan_cli.translation.stored import StoredRows


class Rows(Protocol):
    """A feature map of which any rows can be had.

    Attributes:
        height: Rows in all.
    """

    height: int

    def read(self, top: int, bottom: int) -> Tensor:
        """Rows ``top`` to ``bottom - 1``: ``[1, C, bottom - top, W]``; not to be changed."""


def reflected(rows: Tensor, reach: int, above: int, below: int) -> Tensor:
    """Continue rows as mirrors would: ``reach`` columns at both sides, so many rows at the ends."""
    sides = [reach, reach, above, below]
    return F.pad(rows, sides, mode="reflect") if any(sides) else rows


Convolution = Callable[[Tensor], Tensor]


class ReflectedConv:
    """A convolution of stride 1 over a reflected input.

    Args:
        source: Its input.
        convolve: ``[1, C, h + 2 reach, W + 2 reach]`` to ``[1, C', h, W]``.
        reach: How far a result sees in each direction.
    """

    def __init__(self, source: Rows, convolve: Convolution, reach: int) -> None:
        self.source, self.convolve, self.reach = source, convolve, reach
        self.height = source.height

    def read(self, top: int, bottom: int) -> Tensor:
        """Compute these rows from ``reach`` more at either side."""
        first, last = top - self.reach, bottom + self.reach
        rows = self.source.read(max(first, 0), min(last, self.height))
        return self.convolve(
            reflected(rows, self.reach, max(-first, 0), max(last - self.height, 0))
        )


class HalvingConv:
    """A 3×3 convolution of stride 2, padded with zeros; its bias is left to the norm behind it."""

    def __init__(self, source: Rows, conv: nn.Conv2d) -> None:
        self.source, self.conv = source, conv
        self.height = source.height // 2

    def read(self, top: int, bottom: int) -> Tensor:
        """Row t sees the input's rows 2t - 1 to 2t + 1."""
        first = 2 * top - 1
        rows = self.source.read(max(first, 0), 2 * bottom)
        if first < 0:
            rows = F.pad(rows, [0, 0, 1, 0])
        return F.conv2d(rows, self.conv.weight, stride=2, padding=(0, 1))


class DoublingConv:
    """The 3×3 transposed convolution of stride 2; its bias is left to the norm behind it."""

    def __init__(self, source: Rows, conv: nn.ConvTranspose2d) -> None:
        self.source, self.conv = source, conv
        self.height = source.height * 2

    def read(self, top: int, bottom: int) -> Tensor:
        """Input row i adds to the rows 2i - 1 to 2i + 1."""
        first, last = top // 2, (bottom + 1) // 2
        # One input row more than it doubles to: its upper neighbour's last row needs it.
        rows = self.source.read(first, min(last + 1, self.source.height))
        doubled = F.conv_transpose2d(rows, self.conv.weight, stride=2, padding=1, output_padding=1)
        return doubled[:, :, top - 2 * first : bottom - 2 * first]


@dataclass(frozen=True)
class Norm:
    """Instance norm with the mean and variance of a whole image: ``[C]`` each, fp32."""

    mean: Tensor
    variance: Tensor
    layer: InstanceNorm

    def __call__(self, rows: Tensor) -> Tensor:
        """Normalise ``[1, C, h, W]``; the same shape and dtype."""
        scale, shift = (
            None if p is None else p.float() for p in (self.layer.weight, self.layer.bias)
        )
        return F.batch_norm(rows, self.mean, self.variance, scale, shift, eps=EPSILON)


class Gathering:
    """Mean and variance in the making, strip by strip (Chan et al. 1979, parallel variance)."""

    def __init__(self) -> None:
        self._counts: list[int] = []
        # ``[strips, 2, C]``, with room for more. Not a tensor for each strip: small ones that stay
        # between large ones that go break the heap into pieces, which then takes four times as
        # much memory.
        self._moments: Tensor | None = None

    def add(self, rows: Tensor) -> None:
        """Take ``[1, C, h, W]`` into account: in fp32 within the rows."""
        place = len(self._counts)
        if self._moments is None or place == len(self._moments):
            more = torch.empty(max(2 * place, 64), 2, rows.shape[1], device=rows.device)
            if self._moments is not None:
                more[:place] = self._moments
            self._moments = more
        self._moments[place, 0], self._moments[place, 1] = _moments(rows)
        self._counts.append(rows.shape[2] * rows.shape[3])

    def finish(self, layer: InstanceNorm) -> Norm:
        """The norm of all that was added; in fp64 between strips."""
        assert self._moments is not None
        counts = self._counts
        mean, within = self._moments[: len(counts)].double().unbind(1)
        share = (torch.tensor(counts, dtype=torch.float64) / sum(counts)).to(mean.device)[:, None]
        overall = (share * mean).sum(dim=0)
        variance = (share * (within + (mean - overall) ** 2)).sum(dim=0)
        # As models.normalization does: what divides by infinity is zero.
        variance = torch.where(variance < CONSTANT_BELOW, torch.inf, variance)
        return Norm(overall.float(), variance.float(), layer)


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of every channel: ``[C]`` each, fp32."""
    if rows.device.type == "cpu":
        # What batch norm gathers in training: ten times as fast as means and squares one by one.
        # The statistics that it would update make it compute in fp32 for bf16 rows, too.
        old = torch.zeros(rows.shape[1])
        mean, variance = torch.batch_norm_update_stats(rows, old, old.clone(), 0.0)
        refine_moments(rows, mean, variance)
        return mean, variance
    pixels = rows[0].flatten(1).float()
    variance, mean = torch.var_mean(pixels, dim=1, correction=0)
    return mean, variance


class NormalisedReLU:
    """Instance norm and ReLU of rows whose mean and variance are gathered beforehand.

    Args:
        source: The layer before it.
        layer: The norm's own scale and shift, if any.
        strip: Rows to work on at once.
        room: Where to hold the source's rows, which costs memory; None: they are computed again
            whenever they are read, which costs time.
    """

    source: Rows

    def __init__(self, source: Rows, layer: InstanceNorm, strip: int, room: Room | None) -> None:
        self.source = source
        self.height = source.height
        if room is not None:
            self.source, self.norm = store(source, layer, strip, room)
            return
        gathering = Gathering()
        for top, bottom in strips(source.height, strip):
            gathering.add(source.read(top, bottom))
        self.norm = gathering.finish(layer)

    def read(self, top: int, bottom: int) -> Tensor:
        """Normalise these rows."""
        return F.relu_(self.norm(self.source.read(top, bottom)))


# Makes room for a feature map of so many rows that look like those given.
Room = Callable[[int, Tensor], StoredRows]


def store(source: Rows, layer: InstanceNorm, strip: int, room: Room) -> tuple[StoredRows, Norm]:
    """Compute a feature map whole, before its norm, and gather that on the way."""
    gathering, stored = Gathering(), None
    for top, bottom in strips(source.height, strip):
        rows = source.read(top, bottom)
        gathering.add(rows)
        stored = stored or room(source.height, rows)
        stored.write(top, rows)
    assert stored is not None
    return stored, gathering.finish(layer)


def strips(height: int, strip: int) -> Iterator[tuple[int, int]]:
    """Cut ``height`` rows into strips of at most ``strip``: ``(top, bottom)`` of each."""
    for top in range(0, height, strip):
        yield top, min(top + strip, height)
