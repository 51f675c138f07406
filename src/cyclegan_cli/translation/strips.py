"""The generator over a picture of any size, in bounded memory, with the whole picture's pixels.

Instance norm averages over the whole picture, so a picture cannot be cut into tiles: every tile
would have its own averages, and so its own colours. Here the *layers* are walked through one
after the other instead, each in horizontal strips with the halo that its convolution needs:

1. Every norm gathers its mean and variance over all strips before anything that depends on them
   is computed.
2. At full and at half resolution nothing is kept. Those layers are cheap, and whoever needs rows
   of theirs computes them again: 12 % more arithmetic than the network untiled.
3. The trunk, at a quarter of the resolution, holds two feature maps whole and works in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cyclegan_cli.models.networks import (
    INSTANCE_NORM_EPSILON,
    InstanceNorm,
    ResidualBlock,
    ResnetGenerator,
)


class Rows(Protocol):
    """A feature map of which any rows can be had.

    Attributes:
        height: Rows in all.
    """

    height: int

    def read(self, top: int, bottom: int) -> Tensor:
        """Rows ``top`` to ``bottom - 1``: ``[1, C, bottom - top, W]``."""


class StoredRows:
    """A feature map that is held whole: ``[1, C, H, W]``."""

    def __init__(self, whole: Tensor) -> None:
        self.whole = whole
        self.height = whole.shape[2]

    def read(self, top: int, bottom: int) -> Tensor:
        """A view of these rows."""
        return self.whole[:, :, top:bottom]


class ReflectedConv:
    """A convolution of stride 1 over a reflected input, without padding of its own."""

    def __init__(self, source: Rows, conv: nn.Conv2d) -> None:
        self.source, self.conv = source, conv
        self.height = source.height
        self.reach = conv.kernel_size[0] // 2

    def read(self, top: int, bottom: int) -> Tensor:
        """Compute these rows from ``reach`` more at either side."""
        first, last = top - self.reach, bottom + self.reach
        rows = self.source.read(max(first, 0), min(last, self.height))
        above, below = max(-first, 0), max(last - self.height, 0)
        padded = F.pad(rows, [self.reach, self.reach, above, below], mode="reflect")
        return self.conv(padded)  # type: ignore[no-any-return]


class HalvingConv:
    """A 3×3 convolution of stride 2, padded with zeros."""

    def __init__(self, source: Rows, conv: nn.Conv2d) -> None:
        self.source, self.conv = source, conv
        self.height = source.height // 2

    def read(self, top: int, bottom: int) -> Tensor:
        """Row t sees the input's rows 2t - 1 to 2t + 1."""
        first = 2 * top - 1
        rows = self.source.read(max(first, 0), 2 * bottom)
        if first < 0:
            rows = F.pad(rows, [0, 0, 1, 0])
        return F.conv2d(rows, self.conv.weight, self.conv.bias, stride=2, padding=(0, 1))


class DoublingConv:
    """The 3×3 transposed convolution of stride 2."""

    def __init__(self, source: Rows, conv: nn.ConvTranspose2d) -> None:
        self.source, self.conv = source, conv
        self.height = source.height * 2

    def read(self, top: int, bottom: int) -> Tensor:
        """Input row i adds to the rows 2i - 1 to 2i + 1."""
        first, last = top // 2, (bottom + 1) // 2
        # One input row more than it doubles to: its upper neighbour's last row needs it.
        rows = self.conv(self.source.read(first, min(last + 1, self.source.height)))
        return rows[:, :, top - 2 * first : bottom - 2 * first]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Statistics:
    """Mean and variance of every channel over a whole picture: ``[C]`` each, fp32."""

    mean: Tensor
    variance: Tensor

    def normalise(self, rows: Tensor, norm: InstanceNorm) -> Tensor:
        """Instance norm with the whole picture's statistics: the same shape and dtype."""
        scale, shift = (None if p is None else p.float() for p in (norm.weight, norm.bias))
        return F.batch_norm(rows, self.mean, self.variance, scale, shift, eps=INSTANCE_NORM_EPSILON)


class Gathering:
    """Statistics in the making, strip by strip (Chan et al. 1979, parallel variance)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros((), dtype=torch.float64)
        self.squares = self.mean  # Sum of squared differences from the mean.

    def add(self, rows: Tensor) -> None:
        """Take ``[1, C, h, W]`` into account."""
        pixels = rows[0].permute(1, 2, 0).reshape(-1, rows.shape[1]).float()
        count, mean = len(pixels), pixels.mean(dim=0)
        squares = (pixels - mean).square_().sum(dim=0).double()
        mean, total = mean.double(), self.count + count
        difference = mean - self.mean
        self.squares = self.squares + squares + difference**2 * (self.count * count / total)
        self.mean = self.mean + difference * (count / total)
        self.count = total

    def finish(self) -> Statistics:
        """The statistics of all that was added."""
        return Statistics(self.mean.float(), (self.squares / self.count).float())


class NormalisedReLU:
    """Instance norm and ReLU of rows whose statistics are gathered beforehand."""

    def __init__(self, source: Rows, norm: InstanceNorm, strip: int) -> None:
        self.source, self.norm = source, norm
        self.height = source.height
        gathering = Gathering()
        for top, bottom in strips(source.height, strip):
            gathering.add(source.read(top, bottom))
        self.statistics = gathering.finish()

    def read(self, top: int, bottom: int) -> Tensor:
        """Compute these rows of the source again, and normalise them."""
        return F.relu_(self.statistics.normalise(self.source.read(top, bottom), self.norm))


def strips(height: int, strip: int) -> Iterator[tuple[int, int]]:
    """Cut ``height`` rows into strips of at most ``strip``: ``(top, bottom)`` of each."""
    for top in range(0, height, strip):
        yield top, min(top + strip, height)


@torch.inference_mode()
def translate_in_strips(generator: ResnetGenerator, picture: Tensor, strip: int) -> Tensor:
    """What ``generator(picture)`` returns, in bounded memory.

    Args:
        generator: In inference mode, fp32 or bf16, on any device.
        picture: ``[1, input_channels, H, W]`` in [-1, 1], of the generator's dtype and on its
            device; H and W multiples of 4, at least 8.
        strip: Rows of the trunk to work on at once, each of four picture rows.

    Returns:
        ``[1, output_channels, H, W]`` in [-1, 1], of the same dtype.
    """
    stem, (down_1, down_2), (up_1, up_2) = generator.stem, generator.down, generator.up
    full = NormalisedReLU(ReflectedConv(StoredRows(picture), _conv(stem)), stem.norm, 4 * strip)
    half = NormalisedReLU(HalvingConv(full, _conv(down_1)), _norm(down_1), 2 * strip)
    trunk = StoredRows(_trunk(generator, HalvingConv(half, _conv(down_2)), strip))
    half = NormalisedReLU(DoublingConv(trunk, _conv(up_1)), _norm(up_1), 2 * strip)
    full = NormalisedReLU(DoublingConv(half, _conv(up_2)), _norm(up_2), 4 * strip)
    head = ReflectedConv(full, generator.head)
    shape = (1, generator.config.output_channels, *picture.shape[2:])
    translated = torch.empty(shape, dtype=picture.dtype, device=picture.device)
    for top, bottom in strips(head.height, 4 * strip):
        translated[:, :, top:bottom] = torch.tanh(head.read(top, bottom))
    return translated


def _conv(stage: nn.Module) -> Any:
    """The convolution of a stage of the generator."""
    return stage.conv


def _norm(stage: nn.Module) -> Any:
    """The norm of a stage of the generator."""
    return stage.norm


def _trunk(generator: ResnetGenerator, source: Rows, strip: int) -> Tensor:
    """All residual blocks over a quarter-resolution feature map: ``[1, 4 c, H / 4, W / 4]``."""
    x, statistics = _store(source, strip)
    norm = _norm(generator.down[1])
    for top, bottom in strips(source.height, strip):
        x[:, :, top:bottom] = F.relu_(statistics.normalise(x[:, :, top:bottom], norm))
    work = torch.empty_like(x)
    for block in generator.trunk:
        assert isinstance(block, ResidualBlock)
        _add_residual(x, work, block, strip)
    return x


def _store(source: Rows, strip: int, into: Tensor | None = None) -> tuple[Tensor, Statistics]:
    """Compute a feature map whole, before its norm, and gather its statistics on the way."""
    gathering = Gathering()
    for top, bottom in strips(source.height, strip):
        rows = source.read(top, bottom)
        if into is None:
            shape = (1, rows.shape[1], source.height, rows.shape[3])
            into = torch.empty(
                shape, dtype=rows.dtype, device=rows.device, memory_format=memory_format_of(rows)
            )
        into[:, :, top:bottom] = rows
        gathering.add(rows)
    assert into is not None
    return into, gathering.finish()


def _add_residual(x: Tensor, work: Tensor, block: ResidualBlock, strip: int) -> None:
    """``x += block's residual``, with ``work`` for what lies between."""
    _, statistics = _store(ReflectedConv(StoredRows(x), _conv(block.first)), strip, into=work)
    for top, bottom in strips(x.shape[2], strip):
        rows = statistics.normalise(work[:, :, top:bottom], block.first.norm)
        work[:, :, top:bottom] = F.relu_(rows)
    statistics = _convolve_in_place(work, block.second, strip)
    for top, bottom in strips(x.shape[2], strip):
        x[:, :, top:bottom] += statistics.normalise(work[:, :, top:bottom], block.norm)


def _convolve_in_place(x: Tensor, conv: nn.Conv2d, strip: int) -> Statistics:
    """Replace a feature map by its reflected 3×3 convolution; returns the result's statistics."""
    gathering = Gathering()
    height = x.shape[2]
    above = x[:, :, :0]  # The row above a strip, as it was before the strip above replaced it.
    for top, bottom in strips(height, strip):
        rows = torch.cat([above, x[:, :, top : bottom + 1]], dim=2)
        padded = F.pad(rows, [1, 1, int(top == 0), int(bottom == height)], mode="reflect")
        above = x[:, :, bottom - 1 : bottom].clone()
        result = conv(padded)
        x[:, :, top:bottom] = result
        gathering.add(result)
    return gathering.finish()


def memory_format_of(x: Tensor) -> torch.memory_format:
    """Channels-last or contiguous, whichever ``x`` is."""
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format
