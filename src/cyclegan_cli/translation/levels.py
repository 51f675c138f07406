"""Images as arrays of levels, strip by strip to what a generator takes, and back.

A large image as fp32 numbers in [-1, 1] needs four times the memory of its levels; here it is
never there as a whole.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cyclegan_cli.data.image import BitDepth, PixelArray
from cyclegan_cli.data.tensors import array_to_tensor, tensor_to_array
from cyclegan_cli.models.sizes import padded_size, reflect_to_multiple

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: how Pillow and the original make grey of RGB.


class LevelRows:
    """An image as the generator's input, of which any rows can be had.

    Args:
        levels: ``[H, W, 3]``, uint8 or uint16.
        channels: 3, or 1 for a generator of grey images.
        like: A tensor of the dtype and on the device that rows are wanted in.
    """

    def __init__(self, levels: PixelArray, channels: int, like: Tensor) -> None:
        self.levels, self.channels, self.like = levels, channels, like
        self.height = padded_size(levels.shape[0])

    def read(self, top: int, bottom: int) -> Tensor:
        """Rows of the image continued as by ``reflect_to_multiple``: ``[1, C, h, W']``."""
        last = self.levels.shape[0] - 1
        rows = np.arange(top, bottom)
        if bottom > last + 1:
            position = rows % max(2 * last, 1)
            rows = np.minimum(position, 2 * last - position).clip(0)
            levels = self.levels[rows]
        else:
            levels = self.levels[top:bottom]
        images = array_to_tensor(levels).to(self.like)
        images = reflect_to_multiple(to_channels(images, self.channels), dims=(-1,))
        return images.contiguous(memory_format=torch.channels_last)


class LevelSink:
    """Takes a generator's output, strip by strip, as levels.

    Args:
        height: The image's, in pixels.
        width: Likewise.
        bit_depth: Bits a channel.

    Attributes:
        levels: ``[height, width, 3]``, uint8 or uint16.
    """

    def __init__(self, height: int, width: int, bit_depth: BitDepth) -> None:
        self.levels = np.empty((height, width, 3), np.uint8 if bit_depth == 8 else np.uint16)
        self.bit_depth: BitDepth = bit_depth

    def __call__(self, top: int, rows: Tensor) -> None:
        """Put ``[1, C, h, W']`` in [-1, 1] in the place of the rows from ``top`` on."""
        height, width, _ = self.levels.shape
        rows = to_channels(rows[:, :, : height - top, :width], 3)
        if rows.shape[2] > 0:
            self.levels[top : top + rows.shape[2]] = tensor_to_array(rows, self.bit_depth)


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Make grey images of RGB ones, or RGB of grey; those of ``channels`` stay as they are.

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
