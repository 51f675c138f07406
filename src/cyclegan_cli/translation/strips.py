"""The generator over an image of any size, in bounded memory, with the whole image's pixels.

Instance norm averages over the whole image, so an image cannot be cut into tiles: every tile
would have its own averages, and so its own colours. Here the *layers* are walked through one
after the other instead, each in horizontal strips with the halo that its convolution needs:

1. Every norm gathers its mean and variance over all strips before anything that depends on them
   is computed.
2. At full resolution nothing need be kept: whoever needs rows computes them again, unless there
   is memory for them.
3. The trunk, at a quarter of the resolution, holds two feature maps whole and works in place.
   Before and behind it, the map at half resolution is in that same memory.

A strip stays in the processor's cache from one operation to the next, a whole image does not:
this is faster than the network as it is written down, also where memory is no concern. Biases are
left out before norms, which subtract them again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cyclegan_cli.models import winograd
from cyclegan_cli.models.networks import ResidualBlock, ResnetGenerator
from cyclegan_cli.models.winograd import WinogradConv, Workspace
from cyclegan_cli.runtime.devices import has_amx
from cyclegan_cli.translation.stages import (
    Convolution,
    DoublingConv,
    Gathering,
    HalvingConv,
    Norm,
    NormalisedReLU,
    ReflectedConv,
    Rows,
    reflected,
    store,
    strips,
)
from cyclegan_cli.translation.stored import Place, Space, StoredRows

Sink = Callable[[int, Tensor], None]


@dataclass(frozen=True)
class StripPlan:
    """How an image is worked on.

    Attributes:
        rows: Rows of the trunk to work on at once, each of four image rows.
        keep_full: Whether the feature maps at full resolution are held, rather than computed
            again by whoever reads them.
        held_on: Where feature maps are held: another device, or ``disk``; None: where they are
            computed.
    """

    rows: int
    keep_full: bool = False
    held_on: Place | None = None


class StripGenerator:
    """A generator that works in strips.

    Args:
        generator: In inference mode, on any device; it is taken over.
        dtype: What it is to compute in; None: the generator's own.
        winograd: Whether it may convolve by Winograd's algorithm, where that is faster.

    Attributes:
        generator: The network, channels-last, in that number format.
        is_winograd: Whether that algorithm is used.
    """

    def __init__(
        self, generator: ResnetGenerator, dtype: torch.dtype | None = None, winograd: bool = True
    ) -> None:
        dtype = dtype or generator.head.weight.dtype
        workspace = Workspace(dtype) if winograd and _has_fast_winograd(dtype) else None
        # Before the weights are rounded.
        self.blocks = [_Block(block, workspace) for block in generator.trunk]
        self.is_winograd = any(isinstance(block.first, WinogradConv) for block in self.blocks)
        generator.to(dtype)
        self.generator = generator.to(memory_format=torch.channels_last)
        self.head = _head(generator.head)
        self.space = Space()
        self.lock = threading.Lock()  # Space and workspace serve one image at a time.

    @torch.inference_mode()
    def translate(self, image: Rows, plan: StripPlan, sink: Sink) -> None:
        """Hand the translation of an image to ``sink``, strip by strip.

        Args:
            image: ``[1, input_channels, H, W]`` in [-1, 1], of the generator's dtype and on its
                device; H and W multiples of 4, at least 8.
            plan: How.
            sink: Is called with a row's number and ``[1, output_channels, h, W]`` in [-1, 1], the
                rows from there on; from top to bottom.
        """
        with self.lock:
            self.space.begin(plan.held_on)
            try:
                trunk = self._trunk(self._down(image, plan), plan)
                head = self._up(trunk, plan)
                for top, bottom in strips(head.height, 4 * plan.rows):
                    sink(top, torch.tanh(head.read(top, bottom)))
            finally:
                self.space.end()

    def _down(self, image: Rows, plan: StripPlan) -> Rows:
        """The trunk's input, before its norm."""
        stem, (down_1, down_2) = self.generator.stem, self.generator.down
        convolve = partial(F.conv2d, weight=stem.conv.weight)
        stem_conv = ReflectedConv(image, convolve, stem.padding)
        room = self.space.first
        full = NormalisedReLU(
            stem_conv, _norm(stem), 4 * plan.rows, room if plan.keep_full else None
        )
        half = NormalisedReLU(HalvingConv(full, _conv(down_1)), _norm(down_1), 2 * plan.rows, room)
        return HalvingConv(half, _conv(down_2))

    def _up(self, trunk: StoredRows, plan: StripPlan) -> Rows:
        """The head's output, before tanh."""
        up_1, up_2 = self.generator.up
        room = self.space.last
        half = NormalisedReLU(DoublingConv(trunk, _conv(up_1)), _norm(up_1), 2 * plan.rows, room)
        full = NormalisedReLU(
            DoublingConv(half, _conv(up_2)),
            _norm(up_2),
            4 * plan.rows,
            room if plan.keep_full else None,
        )
        return ReflectedConv(full, self.head, self.generator.head.kernel_size[0] // 2)

    def _trunk(self, source: Rows, plan: StripPlan) -> StoredRows:
        """All residual blocks over a quarter-resolution feature map: ``[1, 4 c, H / 4, W / 4]``."""
        norm_before = _norm(self.generator.down[1])
        x, norm = store(source, norm_before, plan.rows, self.space.first)
        work = self.space.last(x.height, x.read(0, 1))
        trunk = _Trunk(x, work, norm, plan.rows)
        for block in self.blocks:
            trunk.add_residual(block)
        return trunk.finish()


class _Block:
    """A residual block's convolutions, the fastest that there are for it."""

    def __init__(self, block: nn.Module, workspace: Workspace | None) -> None:
        assert isinstance(block, ResidualBlock)
        self.first = _trunk_convolution(_conv(block.first), workspace)
        self.first_norm = block.first.norm
        self.second = _trunk_convolution(block.second, workspace)
        self.second_norm = block.norm


class _Trunk:
    """Two feature maps that the residual blocks work on in place.

    What the last block has left to do to ``x`` is done by whoever reads ``x`` next, on rows that
    are in the cache then: ``settled`` rows of it are done.
    """

    def __init__(self, x: StoredRows, work: StoredRows, norm: Norm, strip: int) -> None:
        self.x, self.work, self.strip = x, work, strip
        self.settled = 0
        self.settle: Callable[[Tensor, int, int], Tensor] = lambda rows, *_: F.relu_(norm(rows))

    def _settle(self, bottom: int) -> None:
        top = self.settled
        if bottom > top:
            self.x.write(top, self.settle(self.x.read(top, bottom), top, bottom))
            self.settled = bottom

    def add_residual(self, block: _Block) -> None:
        """``x += block's residual``, though the sum itself is left to the next reader."""
        norm = self._convolve_first(block)
        norm = self._convolve_second(block, norm)
        work = self.work
        self.settle = lambda rows, top, bottom: norm(work.read(top, bottom)).add_(rows)
        self.settled = 0

    def _convolve_first(self, block: _Block) -> Norm:
        """``x`` to ``work``; returns the norm of the result."""
        gathering, height = Gathering(), self.x.height
        for top, bottom in strips(height, self.strip):
            # Rows of ``work`` are overwritten only after they were added to ``x``.
            self._settle(min(bottom + 1, height))
            rows = self.x.read(max(top - 1, 0), min(bottom + 1, height))
            result = block.first(reflected(rows, 0, int(top == 0), int(bottom == height)))
            self.work.write(top, result)
            gathering.add(result)
        return gathering.finish(block.first_norm)

    def _convolve_second(self, block: _Block, norm: Norm) -> Norm:
        """``work``, normalised, to ``work``; returns the norm of the result."""
        gathering, height = Gathering(), self.x.height
        above = self.work.read(0, 0)  # The row above a strip, which is overwritten already.
        for top, bottom in strips(height, self.strip):
            below = F.relu_(norm(self.work.read(top, min(bottom + 1, height))))
            rows = torch.cat([above, below], dim=2)
            above = below[:, :, bottom - top - 1 : bottom - top]
            result = block.second(reflected(rows, 0, int(top == 0), int(bottom == height)))
            self.work.write(top, result)
            gathering.add(result)
        return gathering.finish(block.second_norm)

    def finish(self) -> StoredRows:
        """The trunk's output, in the place of ``work``, from which it can be made larger."""
        for top, bottom in strips(self.x.height, self.strip):
            self.work.write(top, self.settle(self.x.read(top, bottom), top, bottom))
        return self.work


def _conv(stage: nn.Module) -> Any:
    """The convolution of a stage of the generator."""
    return stage.conv


def _norm(stage: nn.Module) -> Any:
    """The norm of a stage of the generator."""
    return stage.norm


def _has_fast_winograd(dtype: torch.dtype) -> bool:
    """In AMX's matrix units a direct convolution in bf16 costs less than the transforms."""
    return dtype == torch.float32 or (dtype == torch.bfloat16 and not has_amx())


def _trunk_convolution(conv: nn.Conv2d, workspace: Workspace | None) -> Convolution:
    """A 3×3 convolution, ``[1, C, h + 2, W]`` to ``[1, C, h, W]``, without its bias."""
    if workspace is not None and winograd.is_faster(conv):
        return WinogradConv(conv.weight, workspace)
    return lambda x: F.conv2d(reflected(x, 1, 0, 0), conv.weight)


def _head(conv: nn.Conv2d) -> Convolution:
    """The last convolution.

    CPU kernels work on 8 or 16 output channels at once, and this one has three. A kernel of seven
    rows is seven kernels of one row each, whose results are added up, shifted: 21 channels.
    """
    weight, bias = conv.weight, conv.bias
    if weight.device.type != "cpu":
        return partial(F.conv2d, weight=weight, bias=bias)
    channels, _, kernel_rows, _ = weight.shape
    by_row = weight.permute(2, 0, 1, 3).flatten(0, 1).unsqueeze(2)
    by_row = by_row.contiguous(memory_format=torch.channels_last)  # [7 * 3, C, 1, 7]

    def convolve(x: Tensor) -> Tensor:
        rows = F.conv2d(x, by_row)
        height = x.shape[2] - kernel_rows + 1
        result = (
            torch.zeros_like(rows[:, :channels, :height])
            if bias is None
            else (bias.view(1, -1, 1, 1).expand(1, channels, height, rows.shape[3]).clone())
        )
        for row in range(kernel_rows):
            result += rows[:, row * channels : (row + 1) * channels, row : row + height]
        return result

    return convolve
