"""Conversion between pixel arrays and tensors in [-1, 1]."""

from __future__ import annotations

import numpy as np
import torch

from cyclegan_cli.data.image import BitDepth, PixelArray


def array_to_tensor(pixels: PixelArray) -> torch.Tensor:
    """Convert ``[H, W, 3]`` uint8 or uint16 to ``[1, 3, H, W]`` fp32 in [-1, 1]."""
    if pixels.dtype == np.uint16:
        images = torch.from_numpy(pixels.astype(np.float32)).div_(32767.5).sub_(1.0)
        return images.permute(2, 0, 1).unsqueeze(0)
    # torch.from_numpy shares the memory and warns about arrays that are not writable.
    writable = pixels if pixels.flags.writeable else pixels.copy()
    return to_unit_range(torch.from_numpy(writable).permute(2, 0, 1).unsqueeze(0))


def to_unit_range(pixels: torch.Tensor) -> torch.Tensor:
    """Convert ``[B, C, H, W]`` uint8 to fp32 in [-1, 1]; fp32 in [-1, 1] is returned as it is."""
    if pixels.dtype == torch.float32:
        return pixels
    return pixels.float().div_(127.5).sub_(1.0)


def to_pixel_values(images: torch.Tensor, bit_depth: BitDepth = 8) -> torch.Tensor:
    """Convert ``[B, 3, H, W]`` in [-1, 1] to pixel values, rounded to nearest.

    Returns:
        ``[B, 3, H, W]`` uint8 in 0..255 or uint16 in 0..65535.
    """
    highest = 2**bit_depth - 1
    dtype = torch.uint8 if bit_depth == 8 else torch.uint16
    return images.float().add(1.0).mul_(highest / 2).round_().clamp_(0, highest).to(dtype)


def tensor_to_array(images: torch.Tensor, bit_depth: BitDepth = 8) -> PixelArray:
    """Convert ``[1, 3, H, W]`` in [-1, 1] to ``[H, W, 3]`` uint8 or uint16."""
    pixels = to_pixel_values(images[0], bit_depth).permute(1, 2, 0).contiguous().cpu().numpy()
    return np.asarray(pixels)
