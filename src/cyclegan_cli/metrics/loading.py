"""Images as the metrics compare them: center squares of one size."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from cyclegan_cli.data.decode import decode_opaque
from cyclegan_cli.data.image import PixelArray
from cyclegan_cli.data.tensors import to_unit_range


def decode_whole(path: Path) -> PixelArray:
    """Decode the first frame of an image, composited on white: ``[H, W, 3]`` uint8.

    Raises:
        DataError: The file cannot be read.
    """
    # At full scale: JPEGs decoded at a reduced scale would differ from images of other formats.
    return decode_opaque(path, sys.maxsize)[0]


def center_square(pixels: PixelArray, size: int) -> Tensor:
    """Crop the center square and resize it, antialiased bicubic.

    Args:
        pixels: ``[H, W, 3]`` uint8.
        size: Side of the result in pixels. A square of this size is not resampled.

    Returns:
        ``[3, size, size]`` uint8.
    """
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = torch.from_numpy(pixels[top : top + side, left : left + side].copy()).permute(2, 0, 1)
    if side == size:
        return square
    resized = F.interpolate(
        square[None].float(),
        size=(size, size),
        mode="bicubic",
        antialias=True,
        align_corners=False,
    )
    return resized[0].round_().clamp_(0, 255).to(torch.uint8)


def load_squares(paths: Iterable[Path], size: int) -> Tensor:
    """Load the center squares of images: ``[N, 3, size, size]`` in [-1, 1].

    Raises:
        DataError: A file cannot be read.
    """
    squares = [center_square(decode_whole(path), size) for path in paths]
    return to_unit_range(torch.stack(squares))
