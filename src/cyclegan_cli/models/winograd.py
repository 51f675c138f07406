"""Winograd convolution F(4×4, 3×3) for inference on CPUs (Lavin and Gray 2016).

A 4×4 tile of outputs of a 3×3 convolution depends on 6×6 inputs and takes 144 multiplications per
channel pair when computed directly. Winograd's minimal filtering takes 36: transform the inputs,
multiply elementwise with the transformed kernel, and transform back. Over all channels, the 36
products are 36 matrix products, which run at the speed of BLAS.

In fp32 a transform is a dozen additions of whole rows of tiles per direction. In bf16, where each
addition would round, it is one matrix product for both directions.

In fp32 the rounding error is that of a direct convolution (relative error 1e-5). In bf16 it is
three to five times as large; the caller decides whether a network tolerates it. On GPUs the vendor
libraries are used instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TILE = 4  # Outputs per side.
PATCH = TILE + 2  # Inputs per side.
# Tiles per chunk: the buffers of many more exceed the cache, and fewer make the matrix products
# inefficient (docs/performance.md).
TILES_PER_CHUNK = 320
# With fewer channels the transforms take longer than the products save.
MIN_CHANNELS = 64

# Transforms of inputs, kernels and outputs by the Toom-Cook algorithm at the points 0, ±1/√2, ±√2
# infinity. With the usual ±1 and ±2 (Lavin and Gray 2016, sec. 4.3) rounding errors are twice as
# large: 0.031 of the output's standard deviation for noise in bf16, here 0.015, direct 0.003.
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


def is_faster(conv: nn.Conv2d) -> bool:
    """Whether Winograd is faster than the direct convolution: 3×3, stride 1, wide, on a CPU."""
    weight = conv.weight
    return (
        conv.kernel_size == (3, 3)
        and conv.stride == (1, 1)
        and min(weight.shape[:2]) >= MIN_CHANNELS
        and weight.device.type == "cpu"
    )


class Workspace:
    """Two reusable buffers; allocating memory would take longer than the computation."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self._halves = torch.empty(2, 0, dtype=dtype)

    def halves(self, elements: int) -> Tensor:
        """Return an uninitialized tensor ``[2, n]``, where n is at least ``elements``."""
        if self._halves.shape[1] < elements:
            self._halves = torch.empty(2, elements, dtype=self.dtype)
        return self._halves


class WinogradConv:
    """A 3×3 convolution with stride 1, without bias, with reflection padding of columns.

    Args:
        weight: ``[O, C, 3, 3]`` in fp32 or fp64; for bf16 it is cast after the transform.
        workspace: Buffers, which determine the dtype; may be shared by convolutions that run
            sequentially.
    """

    def __init__(self, weight: Tensor, workspace: Workspace) -> None:
        dtype, self.workspace = workspace.dtype, workspace
        self.out_channels, self.in_channels = weight.shape[:2]
        flat = weight.permute(2, 3, 1, 0).reshape(9, -1).float()
        kernels = (kronecker(KERNEL_TRANSFORM).float() @ flat).to(dtype)
        self.kernels = kernels.view(-1, self.in_channels, self.out_channels)  # [36, C, O]
        self.transforms: _Additions | _Products = (
            _Additions() if dtype == torch.float32 else _Products(dtype)
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the convolution to a single image.

        Args:
            x: ``[1, C, H + 2, W]``, of the workspace's dtype; W at least 2.

        Returns:
            ``[1, O, H, W]`` in channels-last memory format.
        """
        height, width = x.shape[2] - 2, x.shape[3]
        rows, columns = -(-height // TILE), -(-width // TILE)
        below = rows * TILE - height
        pixels = (F.pad(x, [0, 0, 0, below]) if below else x).permute(0, 2, 3, 1).contiguous()[0]
        results = x.new_empty(1, rows * TILE, columns * TILE, self.out_channels)
        columns_at_once = _chunk_size(columns, TILES_PER_CHUNK)
        rows_at_once = _chunk_size(rows, TILES_PER_CHUNK // columns_at_once)
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
        """Compute outputs from column ``left`` on.

        Args:
            pixels: ``[4 h + 2, W, C]``.
            left: A multiple of four.
            results: ``[4 h, 4 w, O]``, filled in place; columns beyond W are undefined.
        """
        rows, columns = results.shape[0] // TILE, results.shape[1] // TILE
        tiles, most = rows * columns, max(self.in_channels, self.out_channels)
        # The stages alternate between the two buffers.
        first, second = self.workspace.halves(PATCH**2 * tiles * most)
        inputs = _shaped(second, PATCH, PATCH, rows, columns, self.in_channels)
        self.transforms.inputs(pixels, left, first, inputs)
        products = _shaped(first, PATCH**2, tiles, self.out_channels)
        torch.bmm(inputs.view(PATCH**2, tiles, -1), self.kernels, out=products)
        products = products.view(PATCH, PATCH, rows, columns, -1)
        self.transforms.results(products, second, results)


class _Additions:
    """Both transforms as sums of whole planes, one direction after the other."""

    def inputs(self, pixels: Tensor, left: int, spare: Tensor, inputs: Tensor) -> None:
        """Fill ``inputs [6, 6, h, w, C]`` from ``pixels [4 h + 2, W, C]``, from ``left`` on."""
        _, _, rows, columns, channels = inputs.shape
        inside = _InputColumns(pixels.shape[1], left, columns)
        overlapping = pixels[:, inside.first : inside.end].as_strided(
            (PATCH, rows, inside.end - inside.first, channels),
            (pixels.stride(0), TILE * pixels.stride(0), channels, 1),
        )
        downwards = _shaped(spare, PATCH, rows, TILE * columns + 2, channels)
        _transform_inputs(overlapping, inside.part(downwards))
        inside.fill(downwards)
        plane, row = downwards.stride()[:2]
        overlapping = downwards.as_strided(
            (PATCH, PATCH, rows, columns, channels), (channels, plane, row, TILE * channels, 1)
        )
        _transform_inputs(overlapping, inputs.transpose(0, 1))

    def results(self, products: Tensor, spare: Tensor, results: Tensor) -> None:
        """Fill ``results [4 h, 4 w, O]`` from ``products [6, 6, h, w, O]`` (overwritten)."""
        upwards = _shaped(spare, TILE, *products.shape[1:])
        _transform_results(products.flatten(1), upwards.flatten(1))
        _transform_results(upwards.transpose(0, 1), _view_by_element(results).transpose(0, 1))


class _Products:
    """Each transform as one matrix product of both directions."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.from_inputs = kronecker(INPUT_TRANSFORM).to(dtype)  # [36, 36]
        self.to_results = kronecker(RESULT_TRANSFORM).to(dtype)  # [16, 36]

    def inputs(self, pixels: Tensor, left: int, spare: Tensor, inputs: Tensor) -> None:
        """Fill ``inputs [6, 6, h, w, C]`` from ``pixels [4 h + 2, W, C]``, from ``left`` on."""
        columns, channels = inputs.shape[3:]
        inside = _InputColumns(pixels.shape[1], left, columns)
        padded = pixels.new_empty(len(pixels), TILE * columns + 2, channels)
        inside.part(padded).copy_(pixels[:, inside.first : inside.end])
        inside.fill(padded)
        row, column, _ = padded.stride()
        overlapping = padded.as_strided(inputs.shape, (row, column, TILE * row, TILE * column, 1))
        patches = _shaped(spare, *inputs.shape).copy_(overlapping)
        torch.mm(self.from_inputs, patches.view(PATCH**2, -1), out=inputs.view(PATCH**2, -1))

    def results(self, products: Tensor, spare: Tensor, results: Tensor) -> None:
        """Fill ``results [4 h, 4 w, O]`` from ``products [6, 6, h, w, O]``."""
        by_element = _view_by_element(results)
        folded = _shaped(spare, *by_element.shape)
        torch.mm(self.to_results, products.view(PATCH**2, -1), out=folded.view(TILE**2, -1))
        by_element.copy_(folded)


class _InputColumns:
    """Input columns of a row of tiles, with reflection padding at the edges of the image.

    Args:
        width: Width of the image.
        left: First output column.
        columns: Number of tiles, which depend on ``4 columns + 2`` input columns.

    Attributes:
        first: First input column inside the image.
        end: End of the input columns inside the image.
    """

    def __init__(self, width: int, left: int, columns: int) -> None:
        self.first, self.end = max(left - 1, 0), min(left + TILE * columns + 1, width)
        self._before = self.first - (left - 1)  # 1 at the left edge, else 0.

    def part(self, padded: Tensor) -> Tensor:
        """Return the part of ``[..., 4 columns + 2, C]`` inside the image."""
        return padded[..., self._before : self._before + self.end - self.first, :]

    def fill(self, padded: Tensor) -> None:
        """Fill the columns outside the image: one reflected column per edge, zeros beyond."""
        if self._before:
            padded[..., 0, :] = padded[..., 2, :]
        after = self._before + self.end - self.first
        if after < padded.shape[-2]:
            padded[..., after, :] = padded[..., after - 2, :]
            padded[..., after + 1 :, :] = 0


def _chunk_size(total: int, limit: int) -> int:
    """Return the size of nearly equal chunks of at most ``limit``."""
    return -(-total // -(-total // max(limit, 1)))


def _transform_inputs(x: Tensor, out: Tensor) -> None:
    """Apply ``INPUT_TRANSFORM`` to the first dimension, ``[6, ...]`` to ``[6, ...]``."""
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
    """Apply ``RESULT_TRANSFORM`` to the first dimension, ``[6, ...]`` to ``[4, ...]``.

    ``x`` is overwritten.
    """
    sum_1, difference_1, sum_2, difference_2 = x[1], x[2], x[3], x[4]
    _sum_and_difference(sum_1, difference_1, 1)
    _sum_and_difference(sum_2, difference_2, 1)
    torch.add(x[0].add_(sum_1, alpha=ROOT), sum_2, alpha=HALF, out=out[0])
    torch.add(difference_1, difference_2, out=out[1])
    torch.add(sum_1.mul_(HALF), sum_2, alpha=ROOT, out=out[2])
    torch.add(x[5].add_(difference_1, alpha=0.5), difference_2, alpha=2, out=out[3])


def _sum_and_difference(a: Tensor, b: Tensor, factor: float) -> None:
    """Replace a by ``a + factor b`` and b by ``a - factor b``."""
    a.add_(b, alpha=factor)
    torch.sub(a, b, alpha=2 * factor, out=b)


def _view_by_element(results: Tensor) -> Tensor:
    """View ``[4 h, 4 w, O]`` as ``[4, 4, h, w, O]``, grouped by the position in a tile."""
    row, column, _ = results.stride()
    rows, columns, channels = results.shape[0] // TILE, results.shape[1] // TILE, results.shape[2]
    return results.as_strided(
        (TILE, TILE, rows, columns, channels),
        (row, column, TILE * row, TILE * column, 1),
    )


def _shaped(memory: Tensor, *shape: int) -> Tensor:
    """View the beginning of a buffer as a tensor of this shape."""
    return memory[: math.prod(shape)].view(shape)


def kronecker(transform: Sequence[Sequence[float]]) -> Tensor:
    """Combine a transform of rows and columns into one fp64 matrix for flattened tiles."""
    matrix = torch.tensor(transform, dtype=torch.float64)
    return torch.kron(matrix, matrix)
