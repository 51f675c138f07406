"""Convert images from arrays of pixel values to generator inputs and back, strip by strip.

A large image in fp32 needs four times the memory of its 8-bit pixel values, so it is never
converted as a whole.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cyclegan_cli.data.image import BitDepth, PixelArray
from cyclegan_cli.data.tensors import LUMA, array_to_tensor, tensor_to_array
from cyclegan_cli.models.padding import padded_size, reflect_to_multiple


class PixelRows:
    """An image whose rows are read as generator input.

    Args:
        pixels: ``[H, W, 3]``, uint8 or uint16.
        channels: 3, or 1 for a generator of grey images.
        like: A tensor with the dtype and device of the result.
    """

    def __init__(self, pixels: PixelArray, channels: int, like: Tensor) -> None:
        self.pixels, self.channels, self.like = pixels, channels, like
        self.height = padded_size(pixels.shape[0])

    def read(self, top: int, bottom: int) -> Tensor:
        """Return rows of the reflection-padded image: ``[1, C, h, W']`` in [-1, 1]."""
        last = self.pixels.shape[0] - 1
        rows = np.arange(top, bottom)
        if bottom > last + 1:
            position = rows % max(2 * last, 1)
            rows = np.minimum(position, 2 * last - position).clip(0)
            pixels = self.pixels[rows]
        else:
            pixels = self.pixels[top:bottom]
        images = array_to_tensor(pixels).to(self.like)
        images = reflect_to_multiple(to_channels(images, self.channels), dims=(-1,))
        return images.contiguous(memory_format=torch.channels_last)


class PixelSink:
    """Collect a generator's output, strip by strip, as pixel values.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        bit_depth: Bits per channel.

    Attributes:
        pixels: ``[height, width, 3]``, uint8 or uint16.
    """

    def __init__(self, height: int, width: int, bit_depth: BitDepth) -> None:
        self.pixels = np.empty((height, width, 3), np.uint8 if bit_depth == 8 else np.uint16)
        self.bit_depth: BitDepth = bit_depth

    def __call__(self, top: int, rows: Tensor) -> None:
        """Write ``[1, C, h, W']`` in [-1, 1] to the rows from ``top`` on."""
        height, width, _ = self.pixels.shape
        rows = to_channels(rows[:, :, : height - top, :width], 3)
        if rows.shape[2] > 0:
            self.pixels[top : top + rows.shape[2]] = tensor_to_array(rows, self.bit_depth)


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Convert between grey and RGB images.

    Args:
        images: ``[B, 3, H, W]`` or ``[B, 1, H, W]`` in [-1, 1].
        channels: 3 or 1.

    Returns:
        ``[B, channels, H, W]`` in [-1, 1].
    """
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    weights = images.new_tensor(LUMA).view(3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)
