"""3×3 convolutions with a quarter of the multiplications (Winograd; Lavin and Gray 2016).

A tile of 4×4 results of a 3×3 convolution depends on 6×6 inputs and, computed directly, costs 144
multiplications. Winograd's minimal filtering F(4×4, 3×3) gets it with 36: transform the inputs,
multiply them element by element with the transformed kernel, transform back. Summed over the
channels, the 36 element-wise products are 36 matrix products, and both transforms are one more
matrix product each: all of it runs at the speed of BLAS.

In fp32 the rounding error is that of a direct convolution (a relative 1e-5). In bf16 it is three to
five times that: whether a network's weights allow it is for the caller to find out. On GPUs, whose
libraries do the same, convolutions are left alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TILE = 4  # Results a side.
PATCH = TILE + 2  # Inputs a side.
# Tiles worked on at once: the buffers of more do not stay in the cache, and fewer leave the matrix
# products thin (docs/performance.md).
TILES_AT_ONCE = 144
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
    (-2 / 3, -2 / 3 * HALF, -1 / 3),
    (-2 / 3, 2 / 3 * HALF, -1 / 3),
    (1 / 6, ROOT / 6, 1 / 3),
    (1 / 6, -ROOT / 6, 1 / 3),
    (0, 0, 1),
)
RESULT_TRANSFORM = (
    (1, 1, 1, 1, 1, 0),
    (0, HALF, -HALF, ROOT, -ROOT, 0),
    (0, 0.5, 0.5, 2, 2, 0),
    (0, HALF / 2, -HALF / 2, 2 * ROOT, -2 * ROOT, 1),
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
    """A 3×3 convolution of stride 1, without padding or bias.

    Args:
        weight: ``[O, C, 3, 3]``, as precise as there is: it is rounded once it is transformed.
        workspace: What it works in, and in which number format; shared among convolutions that
            run one after the other.
    """

    def __init__(self, weight: Tensor, workspace: Workspace) -> None:
        dtype, self.workspace = workspace.dtype, workspace
        self.channels_out, self.channels_in = weight.shape[:2]
        by_place = weight.permute(2, 3, 1, 0).reshape(9, -1).double()
        kernels = (both_ways(KERNEL_TRANSFORM) @ by_place).to(dtype)
        self.kernels = kernels.view(-1, self.channels_in, self.channels_out)  # [36, C, O]
        self.from_inputs = both_ways(INPUT_TRANSFORM).to(dtype)  # [36, 36]
        self.to_results = both_ways(RESULT_TRANSFORM).to(dtype)  # [16, 36]

    def __call__(self, x: Tensor) -> Tensor:
        """Convolve a single picture.

        Args:
            x: ``[1, C, H + 2, W + 2]``, of the workspace's dtype.

        Returns:
            ``[1, O, H, W]``, channels-last.
        """
        height, width = x.shape[2] - 2, x.shape[3] - 2
        rows, columns = -(-height // TILE), -(-width // TILE)
        spare = [0, columns * TILE - width, 0, rows * TILE - height]
        pixels = (F.pad(x, spare) if any(spare) else x).permute(0, 2, 3, 1).contiguous()[0]
        results = x.new_empty(1, rows * TILE, columns * TILE, self.channels_out)
        columns_at_once = min(columns, TILES_AT_ONCE)
        rows_at_once = TILES_AT_ONCE // columns_at_once
        for top in range(0, rows, rows_at_once):
            for left in range(0, columns, columns_at_once):
                bottom = min(top + rows_at_once, rows)
                right = min(left + columns_at_once, columns)
                self._tiles(
                    pixels[top * TILE : bottom * TILE + 2, left * TILE : right * TILE + 2],
                    results[0, top * TILE : bottom * TILE, left * TILE : right * TILE],
                )
        return results[:, :height, :width].permute(0, 3, 1, 2)

    def _tiles(self, pixels: Tensor, results: Tensor) -> None:
        """Fill ``results [4 h, 4 w, O]`` from ``pixels [4 h + 2, 4 w + 2, C]``."""
        rows, columns = results.shape[0] // TILE, results.shape[1] // TILE
        tiles, c, o = rows * columns, self.channels_in, self.channels_out
        row, column, _ = pixels.stride()
        overlapping = pixels.as_strided(
            (PATCH, PATCH, rows, columns, c), (row, column, TILE * row, TILE * column, 1)
        )
        # The two halves of the workspace take turns: what was read last is overwritten next.
        first, second = self.workspace.halves(PATCH**2 * tiles * max(c, o))
        patches = first[: PATCH**2 * tiles * c].view(PATCH, PATCH, rows, columns, c)
        patches.copy_(overlapping)
        inputs = second[: PATCH**2 * tiles * c].view(PATCH**2, tiles * c)
        torch.mm(self.from_inputs, patches.view(PATCH**2, tiles * c), out=inputs)
        products = first[: PATCH**2 * tiles * o].view(PATCH**2, tiles, o)
        torch.bmm(inputs.view(PATCH**2, tiles, c), self.kernels, out=products)
        folded = second[: TILE**2 * tiles * o].view(TILE**2, tiles * o)
        torch.mm(self.to_results, products.view(PATCH**2, tiles * o), out=folded)
        row, column, _ = results.stride()
        tiled = results.as_strided(
            (rows, TILE, columns, TILE, o), (TILE * row, row, TILE * column, column, 1)
        )
        tiled.copy_(folded.view(TILE, TILE, rows, columns, o).permute(2, 0, 3, 1, 4))


def both_ways(transform: tuple[tuple[float, ...], ...]) -> Tensor:
    """A transform of rows and columns as one matrix over the flattened tile, fp64."""
    one_way = torch.tensor(transform, dtype=torch.float64)
    return torch.kron(one_way, one_way)
