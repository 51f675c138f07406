"""Run a generator on an image of any size in bounded memory, with exactly the same result.

Instance norm averages over the whole image. Independent tiles would each have their own mean and
variance, and so their own colours. Instead, the *layers* are computed one after the other, each
in horizontal strips with the halo that its convolution needs:

1. The mean and variance of a norm are computed over all strips before any layer that depends on
   them.
2. Feature maps at full resolution are stored only if memory permits; otherwise their rows are
   recomputed whenever they are read.
3. The trunk, at a quarter of the resolution, stores two feature maps and updates them in place.
   The maps at half resolution, before and after the trunk, share that memory.

A strip stays in the CPU cache from one operation to the next, unlike a whole image, so this is
also faster than calling the network. Biases before norms are omitted: the norm cancels them.
Stages without a norm (``--norms residual``) need no statistics first, but their bias.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cyclegan_cli.models import winograd
from cyclegan_cli.models.networks import InstanceNorm, ResidualBlock, ResnetGenerator
from cyclegan_cli.models.resampling import blur_padded
from cyclegan_cli.models.winograd import WinogradConv, Workspace
from cyclegan_cli.runtime.devices import has_amx
from cyclegan_cli.translation.arena import FeatureMapArena, Location, StoredRows
from cyclegan_cli.translation.layers import (
    Allocate,
    Bias,
    BilinearUpsampling,
    BlurDownsampling,
    Convolution,
    DownsamplingConv,
    Norm,
    NormalisedReLU,
    ReflectedConv,
    Rows,
    RunningMoments,
    SkipConnection,
    UpsamplingConv,
    ZeroPaddedConv,
    reflected,
    store,
    store_rows,
    strips,
)
from cyclegan_cli.translation.progress import WorkMeter

Sink = Callable[[int, Tensor], None]


@dataclass(frozen=True)
class StripPlan:
    """How an image is divided into strips.

    Attributes:
        rows: Rows of the trunk per strip; each corresponds to four image rows.
        keep_full: Whether feature maps at full resolution are stored instead of recomputed.
        location: The memory of stored feature maps: another device, or ``disk``; None: that of
            the computing device.
    """

    rows: int
    keep_full: bool = False
    location: Location | None = None


class StripGenerator:
    """A generator that computes in strips.

    Args:
        generator: The network, in inference mode, on any device; it is modified.
        dtype: The dtype to compute in; None: the generator's.
        winograd: Whether to use Winograd convolutions where they are faster.

    Attributes:
        generator: The network, channels-last, in that dtype.
        is_winograd: Whether Winograd convolutions are used.
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
        self.resampling = generator.config.resampling
        self.head = _head(generator.head)
        self.arena = FeatureMapArena()
        self.lock = threading.Lock()  # Arena and workspace serve one image at a time.

    @torch.inference_mode()
    def translate(
        self,
        image: Rows,
        plan: StripPlan,
        sink: Sink,
        report: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Translate an image and pass the result to ``sink``, strip by strip.

        Args:
            image: ``[1, input_channels, H, W]`` in [-1, 1], with the generator's dtype and device;
                H and W are multiples of 4, at least 8.
            plan: The strips.
            sink: Called from top to bottom with the index of a row and the rows from it on:
                ``[1, output_channels, h, W]`` in [-1, 1].
            report: Called with the fraction of the work that is done.
        """
        with closing(self.translated(image, plan, report)) as translated:
            for top, rows in translated:
                sink(top, rows)

    @torch.inference_mode()
    def translated(
        self, image: Rows, plan: StripPlan, report: Callable[[float], None] = lambda _: None
    ) -> Generator[tuple[int, Tensor]]:
        """Translate an image, strip by strip. The iterator must be exhausted or closed.

        Args:
            image: As in :meth:`translate`.
            plan: The strips.
            report: Called with the fraction of the work that is done.

        Yields:
            From top to bottom, the index of a row and the rows from it on: ``[1, output_channels,
            h, W]`` in [-1, 1].
        """
        config = self.generator.config
        meter = WorkMeter(config, plan.keep_full, image.height, report)
        with self.lock:
            self.arena.begin(plan.location)
            try:
                if plan.location == "disk":
                    # Before hours of work: the disk may have too little space.
                    first = image.read(0, 1)
                    size = config.base_channels * image.height * first.shape[3] // 2
                    self.arena.reserve(size, first)
                source, norm = self._down(image, plan, meter)
                trunk = self._trunk(source, norm, plan, meter)
                head = self._up(image, trunk, plan, meter)
                for top, bottom in strips(head.height, 4 * plan.rows):
                    yield top, torch.tanh(head.read(top, bottom))
            finally:
                self.arena.end()

    def _down(
        self, image: Rows, plan: StripPlan, meter: WorkMeter
    ) -> tuple[Rows, InstanceNorm | Bias | None]:
        """Return the trunk's input, before its norm or bias and ReLU, and that norm or bias.

        It is None if the input is complete: where a blur follows the ReLU.
        """
        costs, counted, allocate = meter.costs, meter.counted, self.arena.allocate_first
        full = self._stem(image, plan, meter, allocate if plan.keep_full else None)
        half, down = self._half(full, plan, meter, allocate), self.generator.down[1]
        if self.resampling == "cut":
            quarter = counted(ZeroPaddedConv(half, _conv(down)), costs.down_2)
            conv = NormalisedReLU(quarter, _norm(down), 2 * plan.rows, None)
            return BlurDownsampling(conv), None
        quarter_conv = DownsamplingConv(self._blurred(half), _conv(down))
        return counted(quarter_conv, costs.down_2), _norm(down)

    def _stem(
        self, image: Rows, plan: StripPlan, meter: WorkMeter, allocate: Allocate | None
    ) -> NormalisedReLU:
        """Return the stem's output; without memory for it, its rows are recomputed."""
        stem = self.generator.stem
        convolve = partial(F.conv2d, weight=stem.conv.weight)
        conv = meter.counted(ReflectedConv(image, convolve, stem.padding), meter.costs.stem)
        return NormalisedReLU(conv, _norm(stem), 4 * plan.rows, allocate)

    def _half(
        self, full: Rows, plan: StripPlan, meter: WorkMeter, allocate: Allocate | None
    ) -> Rows:
        """Return the first feature map at half resolution; without memory, it is recomputed."""
        down, cost, strip = self.generator.down[0], meter.costs.down_1, 2 * plan.rows
        if self.resampling == "cut":
            # The maps before the blurs are the largest of all, so their rows are recomputed.
            conv = meter.counted(ZeroPaddedConv(full, _conv(down)), cost)
            blurred = BlurDownsampling(NormalisedReLU(conv, _norm(down), 2 * strip, None))
            return blurred if allocate is None else store_rows(blurred, strip, allocate)
        half = meter.counted(DownsamplingConv(self._blurred(full), _conv(down)), cost)
        return NormalisedReLU(half, _norm(down), strip, allocate)

    def _up(self, image: Rows, trunk: StoredRows, plan: StripPlan, meter: WorkMeter) -> Rows:
        """Return the head's output, before tanh."""
        costs, counted = meter.costs, meter.counted
        up_1, up_2 = self.generator.up
        allocate = self.arena.allocate_last
        half: Rows = NormalisedReLU(
            counted(self._doubled(trunk, _conv(up_1)), costs.up_1),
            _norm(up_1),
            2 * plan.rows,
            allocate,
        )
        if self.generator.config.skips:
            # Recomputed, as below: the memory of these maps is in use by now.
            skipped = self._half(self._stem(image, plan, meter, None), plan, meter, None)
            half = SkipConnection(half, skipped)
        full: Rows = NormalisedReLU(
            counted(self._doubled(half, _conv(up_2)), costs.up_2),
            _norm(up_2),
            4 * plan.rows,
            allocate if plan.keep_full else None,
        )
        if self.generator.config.skips:
            full = SkipConnection(full, self._stem(image, plan, meter, None))
        head = ReflectedConv(full, self.head, self.generator.head.kernel_size[0] // 2)
        return counted(head, costs.head)

    def _blurred(self, source: Rows) -> Rows:
        """Return the source, blurred if the generator is antialiased by blurs."""
        return source if self.resampling == "strided" else ReflectedConv(source, blur_padded, 1)

    def _doubled(self, source: Rows, conv: Any) -> Rows:
        """Return the result of an upsampling stage, before its norm."""
        if self.resampling == "cut":
            return ZeroPaddedConv(BilinearUpsampling(source), conv)
        return self._blurred(UpsamplingConv(source, conv))

    def _trunk(
        self,
        source: Rows,
        norm_before: InstanceNorm | Bias | None,
        plan: StripPlan,
        meter: WorkMeter,
    ) -> StoredRows:
        """Apply all residual blocks to ``[1, 4 c, H / 4, W / 4]``."""
        # The map is written over the rows of its source, of which a blur makes it depend on one
        # more: the first strip must end below it.
        rows = plan.rows if self.resampling == "strided" else max(plan.rows, 2)
        allocate = self.arena.allocate_first
        norm: Norm | Bias | None = None
        if norm_before is None:
            x = store_rows(source, rows, allocate)
        else:
            x, norm = store(source, norm_before, rows, allocate)
        work = self.arena.allocate_last(x.height, x.read(0, 1))
        trunk = _Trunk(x, work, norm, plan.rows, partial(meter.add, meter.costs.trunk))
        for block in self.blocks:
            trunk.add_residual(block)
        return trunk.finish()


class _Block:
    """A residual block's convolutions, in their fastest implementation."""

    def __init__(self, block: nn.Module, workspace: Workspace | None) -> None:
        assert isinstance(block, ResidualBlock)
        self.first = _trunk_convolution(_conv(block.first), workspace)
        self.first_norm = _norm(block.first)
        self.second = _trunk_convolution(block.second, workspace)
        self.second_norm = block.norm


class _Trunk:
    """Two feature maps that the residual blocks update in place.

    The last operation of a block on ``x`` is deferred until the next block reads ``x``, while the
    rows are in the cache: it is done for the first ``settled`` rows.
    """

    def __init__(
        self,
        x: StoredRows,
        work: StoredRows,
        norm: Norm | Bias | None,
        strip: int,
        report: Callable[[float], None],
    ) -> None:
        self.x, self.work, self.strip, self.report = x, work, strip, report
        self.settled = x.height if norm is None else 0
        self.settle: Callable[[Tensor, int, int], Tensor] = lambda rows, *_: (
            rows if norm is None else F.relu_(norm(rows))
        )

    def _settle(self, bottom: int) -> None:
        top = self.settled
        if bottom > top:
            self.x.write(top, self.settle(self.x.read(top, bottom), top, bottom))
            self.settled = bottom

    def add_residual(self, block: _Block) -> None:
        """Add the block's residual to ``x``; the addition itself is deferred."""
        norm = self._convolve_first(block)
        norm = self._convolve_second(block, norm)
        work = self.work
        self.settle = lambda rows, top, bottom: norm(work.read(top, bottom)).add_(rows)
        self.settled = 0

    def _convolve_first(self, block: _Block) -> Norm:
        """Convolve ``x`` into ``work``; returns the norm of the result."""
        moments, height = RunningMoments(), self.x.height
        for top, bottom in strips(height, self.strip):
            # Add rows of ``work`` to ``x`` before they are overwritten.
            self._settle(min(bottom + 1, height))
            rows = self.x.read(max(top - 1, 0), min(bottom + 1, height))
            result = block.first(reflected(rows, 0, int(top == 0), int(bottom == height)))
            self.work.write(top, result)
            moments.add(result)
            self.report((bottom - top) / height)
        return moments.finish(block.first_norm)

    def _convolve_second(self, block: _Block, norm: Norm) -> Norm:
        """Normalise and convolve ``work`` in place; returns the norm of the result."""
        moments, height = RunningMoments(), self.x.height
        above = self.work.read(0, 0)  # The row above a strip has been overwritten already.
        for top, bottom in strips(height, self.strip):
            below = F.relu_(norm(self.work.read(top, min(bottom + 1, height))))
            rows = torch.cat([above, below], dim=2)
            above = below[:, :, bottom - top - 1 : bottom - top]
            result = block.second(reflected(rows, 0, int(top == 0), int(bottom == height)))
            self.work.write(top, result)
            moments.add(result)
            self.report((bottom - top) / height)
        return moments.finish(block.second_norm)

    def finish(self) -> StoredRows:
        """Return the trunk's output, in ``work``: at the end of the buffer."""
        for top, bottom in strips(self.x.height, self.strip):
            self.work.write(top, self.settle(self.x.read(top, bottom), top, bottom))
        return self.work


def _conv(stage: nn.Module) -> Any:
    """Return the convolution of a stage of the generator."""
    return stage.conv


def _norm(stage: nn.Module) -> Any:
    """Return the norm of a stage of the generator; without one, the bias of its convolution."""
    return Bias(stage.conv.bias) if stage.norm is None else stage.norm


def _has_fast_winograd(dtype: torch.dtype) -> bool:
    """Return whether Winograd may be faster: with AMX, direct bf16 convolution is cheaper."""
    return dtype == torch.float32 or (dtype == torch.bfloat16 and not has_amx())


def _trunk_convolution(conv: nn.Conv2d, workspace: Workspace | None) -> Convolution:
    """Return a 3×3 convolution, ``[1, C, h + 2, W]`` to ``[1, C, h, W]``, without bias."""
    if workspace is not None and winograd.is_faster(conv):
        return WinogradConv(conv.weight, workspace)
    return lambda x: F.conv2d(reflected(x, 1, 0, 0), conv.weight)


def _head(conv: nn.Conv2d) -> Convolution:
    """Return the last convolution.

    CPU kernels compute 8 or 16 output channels at once, and this layer has three. A kernel of
    seven rows equals seven kernels of one row each, whose shifted results are added: 21 channels.
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
