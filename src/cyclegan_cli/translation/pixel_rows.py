"""Convert images from arrays of pixel values to generator inputs and back, strip by strip.

A large image in fp32 needs four times the memory of its 8-bit pixel values, so it is never
converted as a whole.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from cyclegan_cli.config import BandFormat
from cyclegan_cli.data.bands import from_unit, to_unit
from cyclegan_cli.data.image import LUMA, BitDepth, PixelArray
from cyclegan_cli.data.tensors import array_to_tensor, tensor_to_array
from cyclegan_cli.models.padding import padded_size, reflect_to_multiple

# Values that are converted to fp64 at a time.
VALUES_AT_ONCE = 2**21


class PixelSource(Protocol):
    """An array ``[H, W, C]``, or a file of which rows are read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and number of channels."""

    def __getitem__(self, rows: slice, /) -> PixelArray:
        """Return consecutive rows: ``[h, W, C]``."""


class PixelRows:
    """An image whose rows are read as generator input.

    Args:
        pixels: ``[H, W, 3]``, uint8 or uint16; with a format ``[H, W, C]`` of its type.
        channels: 3, or 1 for a generator of grey images.
        like: A tensor with the dtype and device of the result.
        source: How the values are mapped to [-1, 1]; None: as RGB.
    """

    def __init__(
        self, pixels: PixelSource, channels: int, like: Tensor, source: BandFormat | None = None
    ) -> None:
        self.pixels, self.channels, self.like = pixels, channels, like
        self.source = source
        self.nodata: float | None = None
        self.means: Tensor | None = None
        self.height = padded_size(pixels.shape[0])

    def fill(self, nodata: float | None, mask: PixelArray | None = None) -> bool:
        """Replace values without data by the mean of their channel, as training does.

        Args:
            nodata: A value without data that the file declares, in addition to that of the format.
            mask: ``[H, W]`` bool, which is set where pixels lack data in a channel; None: it is
                not needed.

        Returns:
            Whether any pixel lacks data.
        """
        assert self.source is not None
        height, width, channels = self.pixels.shape
        step = max(VALUES_AT_ONCE // (width * channels), 1)
        totals, counts, any_missing = np.zeros(channels), np.zeros(channels), False
        self.nodata = nodata
        for top in range(0, height, step):
            bottom = min(top + step, height)
            unit = to_unit(self.pixels[top:bottom], self.source, nodata)
            lacking = np.isnan(unit)
            any_missing |= bool(lacking.any())
            if mask is not None:
                mask[top:bottom] = lacking.any(axis=2)
            totals += np.nansum(unit, axis=(0, 1), dtype=np.float64)
            counts += (~lacking).sum(axis=(0, 1))
        means = torch.from_numpy(totals / np.maximum(counts, 1)).float()
        self.means = means.view(1, -1, 1, 1) if any_missing else None
        return any_missing

    def missing(self, top: int, bottom: int) -> PixelArray:
        """Return which pixels of some rows lack data in a channel: ``[h, W]`` bool."""
        assert self.source is not None
        unit = to_unit(self.pixels[top:bottom], self.source, self.nodata)
        return np.asarray(np.isnan(unit).any(axis=2))

    def _to_tensor(self, pixels: PixelArray) -> Tensor:
        if self.source is None:
            return array_to_tensor(pixels)
        unit = to_unit(pixels, self.source, self.nodata)
        images = torch.from_numpy(unit).permute(2, 0, 1).unsqueeze(0)
        return images if self.means is None else torch.where(images.isnan(), self.means, images)

    def read(self, top: int, bottom: int) -> Tensor:
        """Return rows of the reflection-padded image: ``[1, C, h, W']`` in [-1, 1]."""
        last = self.pixels.shape[0] - 1
        rows = np.arange(top, bottom)
        if bottom > last + 1:
            position = rows % max(2 * last, 1)
            rows = np.minimum(position, 2 * last - position).clip(0)
            first = int(rows.min())
            pixels = self.pixels[first : int(rows.max()) + 1][rows - first]
        else:
            pixels = self.pixels[top:bottom]
        images = self._to_tensor(pixels).to(self.like)
        images = reflect_to_multiple(to_channels(images, self.channels), dims=(-1,))
        return images.contiguous(memory_format=torch.channels_last)


class PixelSink:
    """Collect a generator's output, strip by strip, as pixel values.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        bit_depth: Bits per channel of RGB images.
        target: How [-1, 1] is mapped to values; None: as RGB.

    Attributes:
        pixels: ``[height, width, 3]``, uint8 or uint16; with a format ``[height, width, C]`` of
            its type.
    """

    def __init__(
        self, height: int, width: int, bit_depth: BitDepth, target: BandFormat | None = None
    ) -> None:
        dtype = np.dtype(np.uint8 if bit_depth == 8 else np.uint16)
        channels = 3
        if target is not None:
            dtype, channels = np.dtype(target.dtype), target.channels
        self.pixels = np.empty((height, width, channels), dtype)
        self.bit_depth: BitDepth = bit_depth
        self.target = target

    def __call__(self, top: int, rows: Tensor) -> None:
        """Write ``[1, C, h, W']`` in [-1, 1] to the rows from ``top`` on."""
        height, width, _ = self.pixels.shape
        rows = rows[:, :, : height - top, :width]
        if rows.shape[2]:
            self.pixels[top : top + rows.shape[2]] = to_pixels(rows, self.bit_depth, self.target)


def to_pixels(rows: Tensor, bit_depth: BitDepth, target: BandFormat | None) -> PixelArray:
    """Convert a generator's output to pixel values.

    Args:
        rows: ``[1, C, h, W]`` in [-1, 1].
        bit_depth: Bits per channel of RGB images.
        target: How [-1, 1] is mapped to values; None: as RGB.

    Returns:
        ``[h, W, 3]``, uint8 or uint16; with a format ``[h, W, C]`` of its type.
    """
    if target is None:
        return tensor_to_array(to_channels(rows, 3), bit_depth)
    return from_unit(rows[0].permute(1, 2, 0).float().cpu().numpy(), target)


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
