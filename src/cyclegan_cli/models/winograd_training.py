"""Winograd convolutions with gradients, for training on CPUs.

In fp32 the algorithm is F(4×4, 3×3), with a quarter of the multiplications of a direct convolution
(:mod:`cyclegan_cli.models.winograd`). In bf16 its large coefficients would lose four bits of
precision, so F(2×2, 3×3) is used, with 1 / 2.25 of the multiplications and coefficients 1 and 1/2
(rounding error of an output: 0.5 % of its standard deviation; 0.3 % for a direct convolution).

All stages are linear. The gradients are the transposed stages in reverse order, at equal cost. A
tile is 4×4 (2×2) outputs, and its patch the 6×6 (4×4) inputs that they depend on. A chunk of t
tiles is computed by n matrix products, one for each of the n = 36 (16) elements of a patch.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cyclegan_cli.models.winograd import (
    INPUT_TRANSFORM,
    KERNEL_TRANSFORM,
    MIN_CHANNELS,
    RESULT_TRANSFORM,
    kronecker,
)

# Multiplications of a direct convolution, per element of a kernel, below which the transforms and
# their Python overhead take longer than the products save: two generators train in two threads, and
# share Python's global lock.
MIN_MULTIPLICATIONS = 12_000_000


@dataclass(frozen=True)
class Algorithm:
    """A minimal filtering algorithm for 3×3 kernels in one dtype.

    Attributes:
        tile: Outputs per side.
        tiles_per_chunk: Number of tiles computed at a time.
        tile_by_tile: Whether tiles are transformed by a batched matrix product instead of a single
            one; up to twice as fast in fp32, and half as fast in bf16.
        from_inputs: ``[n, n]``, the transform of a patch.
        from_kernel: ``[n, 9]``, the transform of a kernel, fp32.
        to_results: ``[tile², n]``, the transform of products to a tile.
    """

    tile: int
    tiles_per_chunk: int
    tile_by_tile: bool
    from_inputs: Tensor
    from_kernel: Tensor
    to_results: Tensor

    @property
    def patch(self) -> int:
        """Inputs per side."""
        return self.tile + 2


def _algorithm(dtype: torch.dtype) -> Algorithm:
    """F(2×2, 3×3) for bf16 (Lavin and Gray 2016, sec. 4.1), else F(4×4, 3×3)."""
    transforms: tuple[Any, ...] = (INPUT_TRANSFORM, KERNEL_TRANSFORM, RESULT_TRANSFORM)
    tile, at_once, tile_by_tile = 4, 64, True
    if dtype == torch.bfloat16:
        tile, at_once, tile_by_tile = 2, 1024, False
        transforms = (
            ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
            ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
            ((1, 1, 1, 0), (0, 1, -1, -1)),
        )
    inputs, kernel, results = map(kronecker, transforms)
    precise = torch.promote_types(dtype, torch.float32)
    matrices = inputs.to(dtype), kernel.to(precise), results.to(dtype)
    return Algorithm(tile, at_once, tile_by_tile, *matrices)


ALGORITHMS = {dtype: _algorithm(dtype) for dtype in (torch.bfloat16, torch.float32, torch.float64)}


class WinogradConv2d(nn.Conv2d):
    """A 3×3 convolution with stride 1 and without padding that trains faster on a CPU.

    Falls back to `torch.nn.Conv2d` on other devices, for few channels or small images, without
    gradients, in exported graphs, and for another kernel size, stride, padding, dilation or number
    of groups, or without bias.

    Attributes:
        caches_kernels: Whether transformed kernels are cached between passes; the caller must then
            call :meth:`clear_kernel_cache` after each update of the weights.
        trains_in_bf16: Whether to use the algorithm in bf16. On CPUs with AMX direct convolutions
            are faster.
    """

    caches_kernels = False
    trains_in_bf16 = True
    _kernels: Tensor | None = None
    _kernels_of: tuple[Any, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C, H + 2, W + 2]`` to ``[B, O, H, W]``."""
        if not self._uses_winograd(x):
            return super().forward(x)
        x = x.to(_computes_in(x))
        kernels = self._transformed_kernels(x.dtype)
        return convolution(x, self.weight, self.bias, kernels)  # type: ignore[no-any-return]

    def _uses_winograd(self, x: Tensor) -> bool:
        out, channels = self.weight.shape[:2]
        return (
            not torch.compiler.is_exporting()
            and x.requires_grad
            and x.device.type == "cpu"
            and self.weight.dtype == torch.float32
            and min(out, channels) >= MIN_CHANNELS
            and self._is_supported
            and len(x) * (x.shape[2] - 2) * (x.shape[3] - 2) * out * channels >= MIN_MULTIPLICATIONS
            and (self.trains_in_bf16 or _computes_in(x) != torch.bfloat16)
        )

    @property
    def _is_supported(self) -> bool:
        found = self.kernel_size, self.stride, self.padding, self.dilation, self.groups
        return found == ((3, 3), (1, 1), (0, 0), (1, 1), 1) and self.bias is not None

    def clear_kernel_cache(self) -> None:
        """Clear the cached kernels after an update of the weights.

        Fused optimizers do not bump ``_version``, so updates cannot be detected.
        """
        self._kernels = None

    def _transformed_kernels(self, dtype: torch.dtype) -> Tensor:
        """Return the transformed kernels ``[n, O, C]``, cached between updates of the weights."""
        if torch.compiler.is_compiling() or not self.caches_kernels:
            return transformed_kernels(self.weight, dtype)
        version = (dtype, self.weight.data_ptr(), self.weight._version)
        if self._kernels is None or self._kernels_of != version:
            self._kernels = transformed_kernels(self.weight, dtype)
            self._kernels_of = version
        return self._kernels


def _computes_in(x: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def transformed_kernels(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Transform ``[O, C, 3, 3]`` to ``[n, O, C]`` for convolutions in ``dtype``.

    In memory the result is ``[O, n, C]``, so that a channels-last weight is read, and its gradient
    written, in order.
    """
    out, channels = weight.shape[:2]
    flat = weight.detach().permute(0, 2, 3, 1).reshape(out, 9, channels)
    transform = ALGORITHMS[dtype].from_kernel.expand(out, -1, -1)
    return torch.bmm(transform, flat).to(dtype).transpose(0, 1)


# Custom operators, which torch.compile does not trace into.


@torch.library.custom_op("cyclegan_cli::winograd", mutates_args=())
def convolution(x: Tensor, weight: Tensor, bias: Tensor, kernels: Tensor) -> Tensor:
    """Compute a 3×3 convolution with stride 1 and without padding.

    Args:
        x: ``[B, C, H + 2, W + 2]``, on the CPU.
        weight: ``[O, C, 3, 3]``, fp32 or better.
        bias: ``[O]``, of the dtype of the weight.
        kernels: ``[n, O, C]``, the result of :func:`transformed_kernels` for the dtype of ``x``.

    Returns:
        ``[B, O, H, W]`` in the dtype of ``x`` and channels-last memory format.
    """
    algorithm = ALGORITHMS[x.dtype]
    height, width = x.shape[2] - 2, x.shape[3] - 2
    pixels = _pad_to_tiles(x, algorithm.tile, rim=2)
    shape = (len(x), pixels.shape[1] - 2, pixels.shape[2] - 2, len(weight))
    results = torch.empty(shape, dtype=x.dtype)
    bias = bias.to(x.dtype)
    for images, top, bottom in _chunks(results, algorithm):
        patches = _patches(pixels[images, top : bottom + 2], algorithm)
        inputs = _from_tiles(algorithm.from_inputs, patches, 2, algorithm)
        products = _space(3, (*inputs.shape[:2], len(bias)), x)
        torch.bmm(inputs, kernels.transpose(1, 2), out=products)
        tiles = _tiles(results[images, top:bottom], algorithm.tile)
        folded = _to_tiles(algorithm.to_results, products, tiles.shape[:3], algorithm)
        torch.add(folded, bias, out=tiles)
    if (height, width) == results.shape[1:3]:
        return results.permute(0, 3, 1, 2)
    return results[:, :height, :width].contiguous().permute(0, 3, 1, 2)


@convolution.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, kernels: Tensor) -> Tensor:
    del bias, kernels
    shape = (len(x), len(weight), x.shape[2] - 2, x.shape[3] - 2)
    return x.new_empty(shape).contiguous(memory_format=torch.channels_last)


@torch.library.custom_op("cyclegan_cli::winograd_backward", mutates_args=())
def convolution_backward(
    d_results: Tensor, x: Tensor, weight: Tensor, kernels: Tensor, needs_x: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of ``x`` (empty unless needed), weight and bias."""
    algorithm = ALGORITHMS[x.dtype]
    pixels = _pad_to_tiles(x, algorithm.tile, rim=2)
    d_results = _pad_to_tiles(d_results, algorithm.tile, rim=0)
    d_kernels = None
    d_pixels = _PatchGradients(pixels, algorithm) if needs_x else None
    for images, top, bottom in _chunks(d_results, algorithm):
        tiles = _tiles(d_results[images, top:bottom], algorithm.tile)
        d_products = _from_tiles(algorithm.to_results.t(), tiles, 2, algorithm)
        patches = _patches(pixels[images, top : bottom + 2], algorithm)
        inputs = _from_tiles(algorithm.from_inputs, patches, 3, algorithm)
        d_kernels = _add_product(d_kernels, d_products.transpose(1, 2), inputs)
        if d_pixels is not None:
            d_inputs = _space(3, (*d_products.shape[:2], x.shape[1]), x)
            torch.bmm(d_products, kernels, out=d_inputs)
            from_inputs = algorithm.from_inputs.t()
            d_patches = _to_tiles(from_inputs, d_inputs, tiles.shape[:3], algorithm)
            d_pixels.add(d_patches, images, top, bottom)
    assert d_kernels is not None
    return (
        d_pixels.like(x) if d_pixels else x.new_empty(0),
        _weight_gradient(d_kernels, weight, algorithm),
        d_results.sum((0, 1, 2), dtype=weight.dtype),
    )


@convolution_backward.register_fake
def _(
    d_results: Tensor, x: Tensor, weight: Tensor, kernels: Tensor, needs_x: bool
) -> tuple[Tensor, Tensor, Tensor]:
    del d_results, kernels
    d_x = torch.empty_like(x, memory_format=torch.channels_last) if needs_x else x.new_empty(0)
    d_weight = torch.empty_like(weight, memory_format=torch.channels_last)
    return d_x, d_weight, weight.new_empty(len(weight))


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    del output
    x, weight, _, kernels = inputs
    ctx.save_for_backward(x, weight, kernels)


def _backward(ctx: Any, d_results: Tensor) -> tuple[Tensor | None, ...]:
    needs_x = ctx.needs_input_grad[0]
    d_x, d_weight, d_bias = convolution_backward(d_results, *ctx.saved_tensors, needs_x)
    return d_x if needs_x else None, d_weight, d_bias, None


convolution.register_autograd(_backward, setup_context=_setup_context)


def _pad_to_tiles(x: Tensor, tile: int, rim: int) -> Tensor:
    """Return ``[B, C, H + rim, W + rim]`` as ``[B, H' + rim, W' + rim, C]`` in whole tiles."""
    spare = [-(side - rim) % tile for side in (x.shape[3], x.shape[2])]
    if any(spare):
        x = F.pad(x, [0, spare[0], 0, spare[1]])
    return x.permute(0, 2, 3, 1).contiguous()


def _chunks(results: Tensor, algorithm: Algorithm) -> Iterator[tuple[slice, int, int]]:
    """Yield chunks of ``[B, H', W', O]``: images, first row, and end row."""
    tile = algorithm.tile
    images, rows, columns = len(results), results.shape[1] // tile, results.shape[2] // tile
    images_at_once = max(algorithm.tiles_per_chunk // (rows * columns), 1)
    rows_at_once = min(max(algorithm.tiles_per_chunk // columns, 1), rows)
    for image in range(0, images, images_at_once):
        for row in range(0, rows, rows_at_once):
            bottom = min(row + rows_at_once, rows)
            yield slice(image, image + images_at_once), row * tile, bottom * tile


def _tiles(results: Tensor, tile: int) -> Tensor:
    """View ``[b, tile h, tile w, O]`` as ``[b, h, w, tile, tile, O]``."""
    rows, columns = results.shape[1] // tile, results.shape[2] // tile
    shape = (len(results), rows, tile, columns, tile, results.shape[3])
    return results.view(shape).transpose(2, 3)


def _patches(pixels: Tensor, algorithm: Algorithm) -> Tensor:
    """View ``[b, tile h + 2, tile w + 2, C]`` as overlapping ``[b, h, w, patch, patch, C]``."""
    tile, patch = algorithm.tile, algorithm.patch
    images, height, width, channels = pixels.shape
    image, row, column, _ = pixels.stride()
    return pixels.as_strided(
        (images, (height - 2) // tile, (width - 2) // tile, patch, patch, channels),
        (image, tile * row, tile * column, row, column, 1),
    )


def _from_tiles(transform: Tensor, tiles: Tensor, space: int, algorithm: Algorithm) -> Tensor:
    """Transform tiles for the products with the kernels; uses workspaces 0 and 1.

    Args:
        transform: ``[n, m²]``.
        tiles: ``[b, h, w, m, m, c]``.
        space: Workspace of the result.
        algorithm: Algorithm of the dtype.

    Returns:
        ``[n, t, c]``, grouped by kernel element.
    """
    numbers, channels = len(transform), tiles.shape[-1]
    if not algorithm.tile_by_tile:
        tiles = tiles.permute(3, 4, 0, 1, 2, 5)
        gathered = _space(0, tiles.shape, tiles).copy_(tiles).flatten(2).flatten(0, 1)
        transformed = _space(space, (numbers, gathered.shape[1]), tiles)
        return torch.mm(transform, gathered, out=transformed).view(numbers, -1, channels)
    gathered = _space(0, tiles.shape, tiles).copy_(tiles).flatten(3, 4).flatten(0, 2)
    transformed = _space(1, (len(gathered), numbers, channels), tiles)
    torch.bmm(transform.expand(len(gathered), -1, -1), gathered, out=transformed)
    by_number = _space(space, (numbers, len(gathered), channels), tiles)
    return by_number.copy_(transformed.transpose(0, 1))


def _to_tiles(
    transform: Tensor, products: Tensor, shape: tuple[int, ...], algorithm: Algorithm
) -> Tensor:
    """Transform products with the kernels into tiles; uses workspaces 0 and 1.

    Args:
        transform: ``[m², n]``.
        products: ``[n, t, c]``.
        shape: ``(b, h, w)``, the number of tiles.
        algorithm: Algorithm of the dtype.

    Returns:
        ``[b, h, w, m, m, c]``.
    """
    numbers, tiles, channels = products.shape
    side = algorithm.tile if len(transform) == algorithm.tile**2 else algorithm.patch
    if not algorithm.tile_by_tile:
        transformed = _space(1, (side**2, tiles * channels), products)
        torch.mm(transform, products.flatten(1), out=transformed)
        return transformed.view(side, side, *shape, channels).permute(2, 3, 4, 0, 1, 5)
    by_tile = _space(0, (tiles, numbers, channels), products).copy_(products.transpose(0, 1))
    transformed = _space(1, (tiles, side**2, channels), products)
    torch.bmm(transform.expand(tiles, -1, -1), by_tile, out=transformed)
    return transformed.view(*shape, side, side, channels)


def _add_product(total: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    """Accumulate ``[n, O, C]`` in fp32 or fp64, ``[O, n, C]`` in memory; workspaces 4 and 5."""
    shape = (a.shape[1], len(a), b.shape[2])
    if total is None:
        return torch.bmm(a, b, out=_space(4, shape, a).transpose(0, 1))
    if a.dtype == torch.bfloat16:
        return total.float().add_(torch.bmm(a, b, out=_space(5, shape, a).transpose(0, 1)))
    return total.baddbmm_(a, b)


class _PatchGradients:
    """Accumulates the gradients of overlapping patches into the gradient of pixels.

    Args:
        pixels: ``[B, tile h + 2, tile w + 2, C]``, whose gradient is computed.
        algorithm: Algorithm of the dtype.
    """

    def __init__(self, pixels: Tensor, algorithm: Algorithm) -> None:
        tile = self.tile = algorithm.tile
        images, height, width, channels = pixels.shape
        # One more tile at the bottom and right for the rim.
        rows, columns = (height - 2) // tile + 1, (width - 2) // tile + 1
        shape = (images, rows, tile, columns, tile, channels)
        self.tiles = torch.zeros(shape, dtype=pixels.dtype)

    def add(self, d_patches: Tensor, images: slice, top: int, bottom: int) -> None:
        """Add the gradients of patches ``[b, h, w, patch, patch, C]``."""
        tile = self.tile
        tiles = self.tiles[images, top // tile : bottom // tile + 1]
        patches = d_patches.transpose(2, 3)  # [b, h, patch, w, patch, C]
        tiles[:, :-1, :, :-1] += patches[:, :, :tile, :, :tile]
        tiles[:, 1:, :2, :-1] += patches[:, :, tile:, :, :tile]
        tiles[:, :-1, :, 1:, :2] += patches[:, :, :tile, :, tile:]
        tiles[:, 1:, :2, 1:, :2] += patches[:, :, tile:, :, tile:]

    def like(self, x: Tensor) -> Tensor:
        """Return the gradient ``[B, C, H + 2, W + 2]`` of ``x``."""
        pixels = self.tiles.flatten(3, 4).flatten(1, 2)
        return pixels[:, : x.shape[2], : x.shape[3]].contiguous().permute(0, 3, 1, 2)


def _weight_gradient(d_kernels: Tensor, weight: Tensor, algorithm: Algorithm) -> Tensor:
    """Transform ``[n, O, C]`` to ``[O, C, 3, 3]``, in the dtype of the weight and channels-last."""
    out, channels = weight.shape[:2]
    by_output = d_kernels.transpose(0, 1).to(weight.dtype)
    gradient = torch.bmm(algorithm.from_kernel.t().expand(out, -1, -1), by_output)
    return gradient.view(out, 3, 3, channels).permute(0, 3, 1, 2)


_spaces = threading.local()


def _space(number: int, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return a reusable buffer; allocating memory would take longer than the computation."""
    spaces = _spaces.__dict__
    numbers = torch.Size(shape).numel()
    key = f"{number} {like.dtype}"
    if key not in spaces or spaces[key].numel() < numbers:
        spaces[key] = torch.empty(numbers, dtype=like.dtype)
    return spaces[key][:numbers].view(shape)  # type: ignore[no-any-return]
