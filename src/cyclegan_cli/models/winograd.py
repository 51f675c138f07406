"""3×3 convolutions with a quarter of the multiplications (Winograd; Lavin and Gray 2016).

A tile of 4×4 results of a 3×3 convolution depends on 6×6 inputs and, computed directly, costs 144
multiplications. Winograd's minimal filtering F(4×4, 3×3) gets it with 36: transform the inputs,
multiply them element by element with the transformed kernel, transform back. Summed over the
channels, the 36 element-wise products are 36 matrix products, which run at the speed of BLAS.

In fp32 a transform is a dozen additions of whole rows of tiles, first downwards, then across. In
bf16, where each of them would round, it is one matrix product with both ways in it, which rounds
once.

In fp32 the rounding error is that of a direct convolution (a relative 1e-5). In bf16 it is three to
five times that: whether a network's weights allow it is for the caller to find out. On GPUs, whose
libraries do the same, convolutions are left alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TILE = 4  # Results a side.
PATCH = TILE + 2  # Inputs a side.
# Tiles worked on at once: the buffers of many more do not stay in the cache, and fewer leave the
# matrix products thin (docs/performance.md).
TILES_AT_ONCE = 320
# With fewer channels the transforms cost more than the products save.
FEWEST_CHANNELS = 64

# Transforms of inputs, kernels and results by Toom and Cook's rule at the points 0, ±1/√2, ±√2 and
# infinity. With the usual ±1 and ±2 (Lavin and Gray 2016, sec. 4.3) rounding errors are twice as
# large: 0.031 of a result's standard deviation for noise in bf16, here 0.015, direct 0.003.
ROOT = math.sqrt(2)
HALF = ROOT / 2
INPUT_TRANSFORM = (
    (1, 0, -2.5, 0, 1, 0),
    (0, -ROOT, -2, HALF, 1, 0),
    (0, ROOT, -2, -HALF, 1, 0),
    (0, -HALF, -0.5, ROOT, 1, 0),
    (0, HALF, -0.5, -ROOT, 1, 0),
    (0, 1, 0, -2.5, 0, 1),
)
KERNEL_TRANSFORM = (
    (1, 0, 0),
    (-2 / 3 * HALF, -1 / 3, -1 / 3 * HALF),
    (-2 / 3 * HALF, 1 / 3, -1 / 3 * HALF),
    (ROOT / 6, 1 / 3, ROOT / 3),
    (ROOT / 6, -1 / 3, ROOT / 3),
    (0, 0, 1),
)
RESULT_TRANSFORM = (
    (1, ROOT, ROOT, HALF, HALF, 0),
    (0, 1, -1, 1, -1, 0),
    (0, HALF, HALF, ROOT, ROOT, 0),
    (0, 0.5, -0.5, 2, -2, 1),
)


def pays(conv: nn.Conv2d) -> bool:
    """Whether a convolution is one that this is faster for: 3×3, stride 1, wide, on a CPU."""
    weight = conv.weight
    return (
        conv.kernel_size == (3, 3)
        and conv.stride == (1, 1)
        and min(weight.shape[:2]) >= FEWEST_CHANNELS
        and weight.device.type == "cpu"
    )


class Workspace:
    """Two pieces of memory to work in: fresh memory would cost more than the work."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self._halves = torch.empty(2, 0, dtype=dtype)

    def halves(self, numbers: int) -> Tensor:
        """``[2, n]``, n at least ``numbers``; what it holds is anything."""
        if self._halves.shape[1] < numbers:
            self._halves = torch.empty(2, numbers, dtype=self.dtype)
        return self._halves


class WinogradConv:
    """A 3×3 convolution of stride 1, without bias, over columns that go on as in mirrors.

    Args:
        weight: ``[O, C, 3, 3]``, in fp32 or better: to bf16 it is rounded once it is transformed.
        workspace: What it works in, and in which number format; shared among convolutions that
            run one after the other.
    """

    def __init__(self, weight: Tensor, workspace: Workspace) -> None:
        dtype, self.workspace = workspace.dtype, workspace
        self.channels_out, self.channels_in = weight.shape[:2]
        by_place = weight.permute(2, 3, 1, 0).reshape(9, -1).float()
        kernels = (both_ways(KERNEL_TRANSFORM).float() @ by_place).to(dtype)
        self.kernels = kernels.view(-1, self.channels_in, self.channels_out)  # [36, C, O]
        self.transforms: _Additions | _Products = (
            _Additions() if dtype == torch.float32 else _Products(dtype)
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Convolve a single image.

        Args:
            x: ``[1, C, H + 2, W]``, of the workspace's dtype, W at least 2.

        Returns:
            ``[1, O, H, W]``, channels-last.
        """
        height, width = x.shape[2] - 2, x.shape[3]
        rows, columns = -(-height // TILE), -(-width // TILE)
        below = rows * TILE - height
        pixels = (F.pad(x, [0, 0, 0, below]) if below else x).permute(0, 2, 3, 1).contiguous()[0]
        results = x.new_empty(1, rows * TILE, columns * TILE, self.channels_out)
        columns_at_once = _even_parts(columns, TILES_AT_ONCE)
        rows_at_once = _even_parts(rows, TILES_AT_ONCE // columns_at_once)
        for top in range(0, rows, rows_at_once):
            for left in range(0, columns, columns_at_once):
                bottom = min(top + rows_at_once, rows)
                right = min(left + columns_at_once, columns)
                self._tiles(
                    pixels[top * TILE : bottom * TILE + 2],
                    left * TILE,
                    results[0, top * TILE : bottom * TILE, left * TILE : right * TILE],
                )
        return results[:, :height, :width].permute(0, 3, 1, 2)

    def _tiles(self, pixels: Tensor, left: int, results: Tensor) -> None:
        """Fill ``results [4 h, 4 w, O]``, of the columns from ``left`` on.

        Args:
            pixels: ``[4 h + 2, W, C]``.
            left: A multiple of four.
            results: What is beyond column W is anything.
        """
        rows, columns = results.shape[0] // TILE, results.shape[1] // TILE
        tiles, most = rows * columns, max(self.channels_in, self.channels_out)
        # The two halves of the workspace take turns: what was read last is overwritten next.
        first, second = self.workspace.halves(PATCH**2 * tiles * most)
        inputs = _shaped(second, PATCH, PATCH, rows, columns, self.channels_in)
        self.transforms.inputs(pixels, left, first, inputs)
        products = _shaped(first, PATCH**2, tiles, self.channels_out)
        torch.bmm(inputs.view(PATCH**2, tiles, -1), self.kernels, out=products)
        products = products.view(PATCH, PATCH, rows, columns, -1)
        self.transforms.results(products, second, results)


class _Additions:
    """Both transforms as sums of whole planes of numbers, in one direction after the other."""

    def inputs(self, pixels: Tensor, left: int, spare: Tensor, inputs: Tensor) -> None:
        """Fill ``inputs [6, 6, h, w, C]`` from ``pixels [4 h + 2, W, C]``, from ``left`` on."""
        _, _, rows, columns, channels = inputs.shape
        seen = _Seen(pixels.shape[1], left, columns)
        overlapping = pixels[:, seen.first : seen.end].as_strided(
            (PATCH, rows, seen.end - seen.first, channels),
            (pixels.stride(0), TILE * pixels.stride(0), channels, 1),
        )
        downwards = _shaped(spare, PATCH, rows, TILE * columns + 2, channels)
        _transform_inputs(overlapping, seen.inside(downwards))
        seen.complete(downwards)
        plane, row = downwards.stride()[:2]
        overlapping = downwards.as_strided(
            (PATCH, PATCH, rows, columns, channels), (channels, plane, row, TILE * channels, 1)
        )
        _transform_inputs(overlapping, inputs.transpose(0, 1))

    def results(self, products: Tensor, spare: Tensor, results: Tensor) -> None:
        """Fill ``results [4 h, 4 w, O]`` from ``products [6, 6, h, w, O]``, which are used up."""
        upwards = _shaped(spare, TILE, *products.shape[1:])
        _transform_results(products.flatten(1), upwards.flatten(1))
        _transform_results(upwards.transpose(0, 1), _by_place(results).transpose(0, 1))


class _Products:
    """Each transform as one matrix product of both directions."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.from_inputs = both_ways(INPUT_TRANSFORM).to(dtype)  # [36, 36]
        self.to_results = both_ways(RESULT_TRANSFORM).to(dtype)  # [16, 36]

    def inputs(self, pixels: Tensor, left: int, spare: Tensor, inputs: Tensor) -> None:
        """Fill ``inputs [6, 6, h, w, C]`` from ``pixels [4 h + 2, W, C]``, from ``left`` on."""
        columns, channels = inputs.shape[3:]
        seen = _Seen(pixels.shape[1], left, columns)
        padded = pixels.new_empty(len(pixels), TILE * columns + 2, channels)
        seen.inside(padded).copy_(pixels[:, seen.first : seen.end])
        seen.complete(padded)
        row, column, _ = padded.stride()
        overlapping = padded.as_strided(inputs.shape, (row, column, TILE * row, TILE * column, 1))
        patches = _shaped(spare, *inputs.shape).copy_(overlapping)
        torch.mm(self.from_inputs, patches.view(PATCH**2, -1), out=inputs.view(PATCH**2, -1))

    def results(self, products: Tensor, spare: Tensor, results: Tensor) -> None:
        """Fill ``results [4 h, 4 w, O]`` from ``products [6, 6, h, w, O]``."""
        by_place = _by_place(results)
        folded = _shaped(spare, *by_place.shape)
        torch.mm(self.to_results, products.view(PATCH**2, -1), out=folded.view(TILE**2, -1))
        by_place.copy_(folded)


class _Seen:
    """Which columns of an image some tiles see, and what they see beyond its edges.

    Args:
        width: Columns of the image.
        left: The first that results are for.
        columns: Tiles a row, which see ``4 columns + 2``: one to the left, and one to the right.

    Attributes:
        first: The first column of the image that they see.
        end: One past the last.
    """

    def __init__(self, width: int, left: int, columns: int) -> None:
        self.first, self.end = max(left - 1, 0), min(left + TILE * columns + 1, width)
        self._before = self.first - (left - 1)  # 1 at the left edge, else 0.

    def inside(self, padded: Tensor) -> Tensor:
        """The part of ``[..., 4 columns + 2, C]`` that is in the image."""
        return padded[..., self._before : self._before + self.end - self.first, :]

    def complete(self, padded: Tensor) -> None:
        """Mirror the neighbours of the edges; beyond, nothing counts, but it must be a number."""
        if self._before:
            padded[..., 0, :] = padded[..., 2, :]
        after = self._before + self.end - self.first
        if after < padded.shape[-2]:
            padded[..., after, :] = padded[..., after - 2, :]
            padded[..., after + 1 :, :] = 0


def _even_parts(whole: int, most: int) -> int:
    """How large to make parts of a whole, of at most ``most``, for none to be much smaller."""
    return -(-whole // -(-whole // max(most, 1)))


def _transform_inputs(x: Tensor, out: Tensor) -> None:
    """``INPUT_TRANSFORM`` over the first dimension, ``[6, ...]`` to ``[6, ...]``."""
    even, odd = out[1], out[2]
    torch.sub(x[4], x[2], alpha=2, out=even)
    torch.sub(x[3], x[1], alpha=2, out=odd)
    _sum_and_difference(even, odd, HALF)
    even, odd = out[3], out[4]
    torch.sub(x[4], x[2], alpha=0.5, out=even)
    torch.sub(x[3], x[1], alpha=0.5, out=odd)
    torch.sub(even, x[2], alpha=2, out=out[0]).add_(x[0])
    torch.sub(x[5], x[3], alpha=0.5, out=out[5]).sub_(odd, alpha=2)
    _sum_and_difference(even, odd, ROOT)


def _transform_results(x: Tensor, out: Tensor) -> None:
    """``RESULT_TRANSFORM`` over the first dimension, ``[6, ...]``, used up, to ``[4, ...]``."""
    sum_1, difference_1, sum_2, difference_2 = x[1], x[2], x[3], x[4]
    _sum_and_difference(sum_1, difference_1, 1)
    _sum_and_difference(sum_2, difference_2, 1)
    torch.add(x[0].add_(sum_1, alpha=ROOT), sum_2, alpha=HALF, out=out[0])
    torch.add(difference_1, difference_2, out=out[1])
    torch.add(sum_1.mul_(HALF), sum_2, alpha=ROOT, out=out[2])
    torch.add(x[5].add_(difference_1, alpha=0.5), difference_2, alpha=2, out=out[3])


def _sum_and_difference(a: Tensor, b: Tensor, factor: float) -> None:
    """``a + factor b`` and ``a - factor b`` in the places of a and b."""
    a.add_(b, alpha=factor)
    torch.sub(a, b, alpha=2 * factor, out=b)


def _by_place(results: Tensor) -> Tensor:
    """``[4 h, 4 w, O]`` seen as ``[4, 4, h, w, O]``: a tile's numbers by their place in it."""
    row, column, _ = results.stride()
    rows, columns, channels = results.shape[0] // TILE, results.shape[1] // TILE, results.shape[2]
    return results.as_strided(
        (TILE, TILE, rows, columns, channels),
        (row, column, TILE * row, TILE * column, 1),
    )


def _shaped(memory: Tensor, *shape: int) -> Tensor:
    """The beginning of a piece of memory, as a tensor of this shape."""
    return memory[: math.prod(shape)].view(shape)


def both_ways(transform: Sequence[Sequence[float]]) -> Tensor:
    """A transform of rows and columns as one matrix over the flattened tile, fp64."""
    one_way = torch.tensor(transform, dtype=torch.float64)
    return torch.kron(one_way, one_way)
