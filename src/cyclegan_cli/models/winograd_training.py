"""Winograd's 3×3 convolution to train with: its results and the gradients of all that goes in.

Every step of F(4×4, 3×3) (:mod:`cyclegan_cli.models.winograd`) is linear. The gradients are the
transposed steps in opposite order, so they cost a quarter of the multiplications too. A tile is
4×4 results, its patch the 6×6 inputs that they depend on; t tiles are worked on at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cyclegan_cli.models.winograd import (
    INPUT_TRANSFORM,
    KERNEL_TRANSFORM,
    PATCH,
    RESULT_TRANSFORM,
    TILE,
    both_ways,
    pays,
)

# More than in translation: the kernels' gradient is a sum over the chunks of tiles, and each of
# them reads and writes all of it.
TILES_AT_ONCE = 256
# With fewer, reading and writing the 36 kernels costs more than the products save.
FEWEST_TILES = 32


class WinogradConv2d(nn.Conv2d):
    """A 3×3 convolution of stride 1, without padding, that trains faster in fp32 on a CPU.

    In other precisions, on other devices, where it is narrow, where no gradient is asked for and
    in graphs for other runtimes it is the plain convolution that it inherits from.
    """

    _kernels: Tensor | None = None
    _kernels_of: tuple[int, int] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H + 2, W + 2]`` to ``[B, O, H, W]``."""
        plain = torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type)
        tiles = len(x) * (x.shape[2] // TILE) * (x.shape[3] // TILE)
        if plain or not x.requires_grad or tiles < FEWEST_TILES or not pays(self):
            return super().forward(x)
        result = _Convolution.apply(x, self.weight, self.bias, self._transformed_kernels())
        return result  # type: ignore[no-any-return]

    def _transformed_kernels(self) -> Tensor:
        """``[36, C, O]``, transformed once for all passes between two updates of the weights."""
        version = (self.weight.data_ptr(), self.weight._version)
        if self._kernels is None or self._kernels_of != version:
            self._kernels, self._kernels_of = transformed(self.weight), version
        return self._kernels


class _Convolution(torch.autograd.Function):
    """What :class:`WinogradConv2d` computes; see there for shapes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, kernels: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, kernels)
        height, width = x.shape[2] - 2, x.shape[3] - 2
        pixels = _in_whole_tiles(x, rim=2)
        shape = (len(x), pixels.shape[1] - 2, pixels.shape[2] - 2, len(weight))
        results = torch.empty(shape, dtype=x.dtype)
        to_results = _transform(RESULT_TRANSFORM, x.dtype)
        for pictures, top, bottom in _chunks(results):
            patches = _transformed_patches(pixels[pictures, top : bottom + 2])
            products = _space(0, (*patches.shape[:2], len(weight)), x.dtype)
            torch.bmm(patches, kernels, out=products)
            tiles = _tiles(results[pictures, top:bottom])
            folded = _space(1, tiles.shape, x.dtype)
            torch.addmm(
                bias.repeat(patches.shape[1]),
                to_results,
                products.view(PATCH**2, -1),
                out=folded.view(TILE**2, -1),
            )
            tiles.copy_(folded)
        return results[:, :height, :width].permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, d_results: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, kernels = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        pixels, d_results = _in_whole_tiles(x, rim=2), _in_whole_tiles(d_results, rim=0)
        d_kernels = None
        d_pixels = _Overlapping(pixels) if needs_x else None
        for pictures, top, bottom in _chunks(d_results):
            d_products = _transformed_gradients(d_results[pictures, top:bottom])
            if needs_weight:
                patches = _transformed_patches(pixels[pictures, top : bottom + 2]).transpose(1, 2)
                if d_kernels is None:
                    d_kernels = _space(3, kernels.shape, x.dtype)
                    torch.bmm(patches, d_products, out=d_kernels)
                else:
                    d_kernels.baddbmm_(patches, d_products)
            if d_pixels is not None:
                d_patches = _space(0, (*d_products.shape[:2], x.shape[1]), x.dtype)
                torch.bmm(d_products, kernels.transpose(1, 2), out=d_patches)
                d_pixels.add(d_patches, pictures, top, bottom)
        return (
            d_pixels.like(x) if d_pixels else None,
            _kernels_gradient(d_kernels, weight) if d_kernels is not None else None,
            d_results.sum((0, 1, 2)) if needs_bias else None,
            None,
        )


def _in_whole_tiles(x: Tensor, rim: int) -> Tensor:
    """``[B, C, H + rim, W + rim]`` as ``[B, H' + rim, W' + rim, C]``, H' and W' multiples of 4."""
    spare = [-(side - rim) % TILE for side in (x.shape[3], x.shape[2])]
    if any(spare):
        x = F.pad(x, [0, spare[0], 0, spare[1]])
    return x.permute(0, 2, 3, 1).contiguous()


def _chunks(results: Tensor) -> Iterator[tuple[slice, int, int]]:
    """Pieces of ``[B, H', W', O]`` to work on at once: pictures, first row and one past the last."""
    pictures, height, width = results.shape[:3]
    rows, columns = height // TILE, width // TILE
    pictures_at_once = max(TILES_AT_ONCE // (rows * columns), 1)
    rows_at_once = min(max(TILES_AT_ONCE // columns, 1), rows)
    for picture in range(0, pictures, pictures_at_once):
        for row in range(0, rows, rows_at_once):
            bottom = min(row + rows_at_once, rows)
            yield slice(picture, picture + pictures_at_once), row * TILE, bottom * TILE


def _tiles(results: Tensor) -> Tensor:
    """``[b, 4 h, 4 w, O]`` seen as ``[4, 4, b, h, w, O]``."""
    pictures, height, width, channels = results.shape
    rows, columns = height // TILE, width // TILE
    apart = results.unflatten(2, (columns, TILE)).unflatten(1, (rows, TILE))
    return apart.permute(2, 4, 0, 1, 3, 5)


def _transformed_patches(pixels: Tensor) -> Tensor:
    """``[b, 4 h + 2, 4 w + 2, C]`` to ``[36, t, C]``: what the kernels are multiplied with.

    Takes the first two working spaces, and leaves the result in the second.
    """
    pictures, height, width, channels = pixels.shape
    picture, row, column, _ = pixels.stride()
    overlapping = pixels.as_strided(
        (PATCH, PATCH, pictures, height // TILE, width // TILE, channels),
        (row, column, picture, TILE * row, TILE * column, 1),
    )
    gathered = _space(0, overlapping.shape, pixels.dtype).copy_(overlapping)
    transformed = _space(1, (PATCH**2, overlapping[0, 0].numel()), pixels.dtype)
    from_inputs = _transform(INPUT_TRANSFORM, pixels.dtype)
    torch.mm(from_inputs, gathered.view(PATCH**2, -1), out=transformed)
    return transformed.view(PATCH**2, -1, channels)


def _transformed_gradients(d_results: Tensor) -> Tensor:
    """``[b, 4 h, 4 w, O]`` to ``[36, t, O]``: the gradients of the 36 products.

    Takes the first and the third working space, and leaves the result in the third.
    """
    tiles = _tiles(d_results)
    gathered = _space(0, tiles.shape, d_results.dtype).copy_(tiles)
    d_products = _space(2, (PATCH**2, tiles[0, 0].numel()), d_results.dtype)
    to_results = _transform(RESULT_TRANSFORM, d_results.dtype)
    torch.mm(to_results.t(), gathered.view(TILE**2, -1), out=d_products)
    return d_products.view(PATCH**2, -1, d_results.shape[-1])


class _Overlapping:
    """The gradient of pixels, to which each patch adds what it has: neighbours share two of six.

    Args:
        pixels: ``[B, 4 h + 2, 4 w + 2, C]``, what it is the gradient of.
    """

    def __init__(self, pixels: Tensor) -> None:
        pictures, height, width, channels = pixels.shape
        # One more tile below and to the right takes the rim.
        rows, columns = height // TILE + 1, width // TILE + 1
        shape = (pictures, rows, TILE, columns, TILE, channels)
        self.tiles = torch.zeros(shape, dtype=pixels.dtype)

    def add(self, d_patches: Tensor, pictures: slice, top: int, bottom: int) -> None:
        """Transform ``[36, t, C]`` back and add them; takes the second working space."""
        tiles = self.tiles[pictures, top // TILE : bottom // TILE + 1]
        count, rows, _, columns, _, channels = tiles.shape
        gathered = _space(1, (PATCH**2, d_patches[0].numel()), d_patches.dtype)
        from_inputs = _transform(INPUT_TRANSFORM, d_patches.dtype)
        torch.mm(from_inputs.t(), d_patches.view(PATCH**2, -1), out=gathered)
        patches = gathered.view(PATCH, PATCH, count, rows - 1, columns - 1, channels)
        patches = patches.permute(2, 3, 0, 4, 1, 5)  # [b, h, 6, w, 6, C]
        tiles[:, :-1, :, :-1] += patches[:, :, :TILE, :, :TILE]
        tiles[:, 1:, :2, :-1] += patches[:, :, TILE:, :, :TILE]
        tiles[:, :-1, :, 1:, :2] += patches[:, :, :TILE, :, TILE:]
        tiles[:, 1:, :2, 1:, :2] += patches[:, :, TILE:, :, TILE:]

    def like(self, x: Tensor) -> Tensor:
        """The finished gradient, ``[B, C, H + 2, W + 2]`` as ``x`` is."""
        pixels = self.tiles.flatten(3, 4).flatten(1, 2)
        return pixels[:, : x.shape[2], : x.shape[3]].permute(0, 3, 1, 2)


def transformed(weight: Tensor) -> Tensor:
    """``[O, C, 3, 3]`` to ``[36, C, O]``: the kernels of the 36 products."""
    out, channels = weight.shape[:2]
    flat = weight.detach().permute(2, 3, 1, 0).reshape(9, channels * out)
    transform = _transform(KERNEL_TRANSFORM, weight.dtype)
    return torch.mm(transform, flat).view(PATCH**2, channels, out)


def _kernels_gradient(d_kernels: Tensor, weight: Tensor) -> Tensor:
    """``[36, C, O]`` to ``[O, C, 3, 3]``, in the memory format of the weight."""
    out, channels = weight.shape[:2]
    transform = _transform(KERNEL_TRANSFORM, weight.dtype)
    flat = torch.mm(transform.t(), d_kernels.view(PATCH**2, -1))
    gradient = flat.view(3, 3, channels, out).permute(3, 2, 0, 1)
    return torch.empty_like(weight).copy_(gradient)


_transforms: dict[tuple[Any, torch.dtype], Tensor] = {}


def _transform(transform: tuple[tuple[float, ...], ...], dtype: torch.dtype) -> Tensor:
    """A transform of rows and columns as one matrix."""
    key = (transform, dtype)
    if key not in _transforms:
        _transforms[key] = both_ways(transform).to(dtype)
    return _transforms[key]


_spaces = threading.local()


def _space(number: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory to work in, the same one again: fresh memory would cost more than the work."""
    spaces = _spaces.__dict__
    numbers = torch.Size(shape).numel()
    key = f"{number} {dtype}"
    if key not in spaces or spaces[key].numel() < numbers:
        spaces[key] = torch.empty(numbers, dtype=dtype)
    return spaces[key][:numbers].view(shape)  # type: ignore[no-any-return]
