"""Reflection padding: of feature maps, and of images to sizes that a generator accepts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# The generator downsamples twice by 2. Residual blocks use reflection padding of 1 at a quarter of
# the size, which requires at least 2 pixels.
SIZE_MULTIPLE = 4
SMALLEST_SIDE = 8


def padded_size(size: int) -> int:
    """Return the smallest accepted size that is at least ``size``."""
    return max(-(-size // SIZE_MULTIPLE) * SIZE_MULTIPLE, SMALLEST_SIDE)


def reflection_pad(x: Tensor, padding: int) -> Tensor:
    """Reflection-pad all sides: ``[B, C, H, W]`` to ``[B, C, H + 2 padding, W + 2 padding]``."""
    if x.dtype == torch.float32:
        return F.pad(x, [padding] * 4, mode="reflect")
    # Autocast would pad an fp32 copy, which the convolution casts back.
    with torch.autocast(x.device.type, enabled=False):
        return F.pad(x, [padding] * 4, mode="reflect")


def reflect_to_multiple(images: Tensor, dims: tuple[int, ...] = (-2, -1)) -> Tensor:
    """Reflection-pad images at their right and bottom borders.

    Unlike `torch.nn.ReflectionPad2d`, the padding may exceed the image, down to a single pixel, and
    can be exported with dynamic sizes.

    Args:
        images: ``[B, C, H, W]``.
        dims: Dimensions to pad: height (-2), width (-1).

    Returns:
        ``[B, C, H', W']``, where H' and W' are the next multiples of 4, and at least 8.
    """
    for dim in dims:
        size = images.shape[dim]
        rounded = (size + SIZE_MULTIPLE - 1) // SIZE_MULTIPLE * SIZE_MULTIPLE
        wanted = torch.sym_max(rounded, SMALLEST_SIDE)
        # An exported graph must not depend on the size of the example input.
        if torch.compiler.is_exporting() or wanted != size:
            images = images.index_select(dim, _reflected_indices(size, wanted).to(images.device))
    return images


def _reflected_indices(size: int, wanted: int | torch.SymInt) -> Tensor:
    """Return ``wanted`` indices ``0 1 2 3 2 1 0 1 ...`` into an image of ``size`` (here 4)."""
    # A tensor, not a SymInt: the ONNX exporter does not support the remainder of dynamic sizes.
    last = torch.arange(size).amax(0)
    period = (2 * last).clamp(min=1)
    position = torch.arange(wanted) % period
    return torch.minimum(position, period - position)
