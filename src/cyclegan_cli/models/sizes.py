"""Images of any size to sizes that a generator takes."""

from __future__ import annotations

import torch
from torch import Tensor

# The generator halves an image twice and doubles it again; the trunk, at a quarter of the size,
# reflects one pixel at its borders and needs two to do so.
SIZE_MULTIPLE = 4
SMALLEST_SIDE = 8


def padded_size(size: int) -> int:
    """The next size from ``size`` on that a generator takes."""
    return max(-(-size // SIZE_MULTIPLE) * SIZE_MULTIPLE, SMALLEST_SIDE)


def reflect_to_multiple(images: Tensor, dims: tuple[int, ...] = (-2, -1)) -> Tensor:
    """Continue images at their right and lower borders as mirrors would.

    Unlike torch's reflection padding it works for any size, down to a single pixel, and it can be
    exported with free sizes.

    Args:
        images: ``[B, C, H, W]``.
        dims: Which of height (-2) and width (-1) to continue.

    Returns:
        ``[B, C, H', W']``: the next multiples of 4 from H and W on, at least 8.
    """
    for dim in dims:
        size = images.shape[dim]
        rounded = (size + SIZE_MULTIPLE - 1) // SIZE_MULTIPLE * SIZE_MULTIPLE
        wanted = torch.sym_max(rounded, SMALLEST_SIDE)
        # An exported graph must not depend on the size that it was exported with.
        if torch.compiler.is_exporting() or wanted != size:
            images = images.index_select(dim, _mirrored(size, wanted).to(images.device))
    return images


def _mirrored(size: int, wanted: int | torch.SymInt) -> Tensor:
    """Indices ``0 1 2 3 2 1 0 1 ...`` of ``wanted`` pixels over an image of ``size`` (here 4)."""
    # As a tensor, not as a number: the ONNX exporter knows no remainder of free sizes.
    last = torch.arange(size).amax(0)
    period = (2 * last).clamp(min=1)
    position = torch.arange(wanted) % period
    return torch.minimum(position, period - position)
