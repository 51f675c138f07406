"""Masks: which pixels of an image are translated, and compositing in linear light."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cyclegan_cli.data.color import Pixels, to_grey
from cyclegan_cli.data.decode import decode
from cyclegan_cli.data.formats import readable_extensions
from cyclegan_cli.data.image import DecodedImage, PixelArray, to_depth
from cyclegan_cli.errors import DataError

ROWS_AT_ONCE = 256
# A weight of 1: weights are uint16, because 256 steps are too few for wide feathers.
FULL = 65535
HALF = 32768
# In lossy formats, pixels near an edge are neither black nor white.
LOSSY_FORMATS = frozenset({"JPEG", "AVIF", "HEIF"})
# IEC 61966-2-1, 5.2: the curve of sRGB.
SRGB_LINEAR_END, SRGB_SLOPE, SRGB_OFFSET, SRGB_POWER = 0.04045, 12.92, 0.055, 2.4

# How values with a weight between 0 and 1 are mixed: in linear light, in the values themselves, or
# not at all (a weight of at least 1/2 takes the translation).
Blend = Literal["light", "values", "none"]


@dataclass(frozen=True, eq=False)
class Masking:
    """The pixels of an image before its translation, and where they are kept.

    Attributes:
        frames: Pixels of each frame in sRGB, ``[H, W, 3]`` uint8 or uint16.
        stored: Pixels of each frame in the colors of the file.
        weights: ``[H, W]`` uint16 for each frame: 0 keeps the pixel, 65535 takes the translation.
    """

    frames: tuple[PixelArray, ...]
    stored: tuple[Pixels, ...]
    weights: tuple[PixelArray, ...]

    @property
    def share(self) -> float:
        """Share of the pixels with a weight above 0, over all frames."""
        return masked_share(self.weights)


def masked_share(weights: tuple[PixelArray, ...]) -> float:
    """Return the share of weights above 0."""
    inside = sum(int(np.count_nonzero(one)) for one in weights)
    return inside / sum(one.size for one in weights)


def composite(
    original: PixelArray,
    translated: PixelArray,
    weights: PixelArray,
    blend: Blend = "light",
) -> PixelArray:
    """Composite a translation over the original.

    Works in blocks of rows, so that temporary arrays stay small.

    Args:
        original: ``[H, W]`` or ``[H, W, C]`` of any type.
        translated: Of the same shape and type.
        weights: ``[H, W]`` uint16: 0 for the original, 65535 for the translation.
        blend: How values in between are mixed. ``light`` needs uint8 or uint16 with sRGB's curve.

    Returns:
        A new array of the same shape and type. Where the weight is 0, it equals ``original`` bit
        for bit; where it is 65535, ``translated``.
    """
    result: PixelArray = np.array(translated)
    for top in range(0, len(weights), ROWS_AT_ONCE):
        rows = slice(top, top + ROWS_AT_ONCE)
        weight, target = weights[rows], result[rows]
        kept = weight < HALF if blend == "none" else weight == 0
        target[kept] = original[rows][kept]
        mixed = (weight > 0) & (weight < FULL)
        if blend == "none" or not mixed.any():
            continue
        share = weight[mixed] / FULL
        share = share[:, None] if original.ndim == 3 else share
        mix = _mixed_light if blend == "light" else _mixed_values
        target[mixed] = mix(original[rows][mixed], translated[rows][mixed], share)
    return result


def composite_values(
    original: PixelArray,
    translated: PixelArray,
    weights: PixelArray,
    missing: PixelArray | None,
    nodata: float | None,
) -> PixelArray:
    """Composite values that are not RGB; pixels without data remain so inside of the mask.

    Args:
        original: ``[H, W, C]`` of any type, which may be converted to that of ``translated``.
        translated: ``[H, W, C]``.
        weights: ``[H, W]`` uint16, see :func:`composite`.
        missing: ``[H, W]`` bool: pixels without data; None: none.
        nodata: The value of pixels without data in the result; None: none has it.

    Returns:
        A new array of the shape and type of ``translated``. No mixed value equals ``nodata``.
    """
    result = composite(original.astype(translated.dtype), translated, weights, "values")
    inside = weights > 0
    has_data = np.ones(inside.shape, dtype=bool) if missing is None else ~missing
    if missing is not None and nodata is not None:
        result[missing & inside] = nodata
    if result.dtype.kind != "f" and nodata is not None:
        mixed = (result == nodata) & (inside & has_data)[..., None]
        result[mixed] = nodata + (1 if nodata < np.iinfo(result.dtype).max else -1)
    return result


def _mixed_light(original: PixelArray, translated: PixelArray, share: PixelArray) -> PixelArray:
    highest = np.iinfo(original.dtype).max
    before, after = to_linear(original / highest), to_linear(translated / highest)
    mixed = from_linear(before + (after - before) * share)
    result: PixelArray = np.rint(mixed * highest).astype(original.dtype)
    return result


def _mixed_values(original: PixelArray, translated: PixelArray, share: PixelArray) -> PixelArray:
    before, after = original.astype(np.float64), translated.astype(np.float64)
    mixed = before + (after - before) * share
    if original.dtype.kind != "f":
        mixed = np.rint(mixed)
    result: PixelArray = mixed.astype(original.dtype)
    return result


def to_linear(values: PixelArray) -> PixelArray:
    """Convert sRGB values in [0, 1] to light in [0, 1]."""
    power = ((values + SRGB_OFFSET) / (1 + SRGB_OFFSET)) ** SRGB_POWER
    result: PixelArray = np.where(values <= SRGB_LINEAR_END, values / SRGB_SLOPE, power)
    return result


def from_linear(light: PixelArray) -> PixelArray:
    """Convert light in [0, 1] to sRGB values in [0, 1]: the inverse of :func:`to_linear`."""
    power = (1 + SRGB_OFFSET) * light ** (1 / SRGB_POWER) - SRGB_OFFSET
    is_linear = light <= SRGB_LINEAR_END / SRGB_SLOPE
    result: PixelArray = np.where(is_linear, light * SRGB_SLOPE, power)
    return result


def feathered(weights: PixelArray, pixels: int) -> PixelArray:
    """Let weights rise from the edge of a mask to its inside.

    A weight is multiplied by ``min(1, d / (pixels + 1))``, where ``d`` is the Euclidean distance
    in pixels to the nearest weight of 0. The border of the image does not count as an edge.
    Weights of 0 remain.

    Args:
        weights: ``[H, W]`` uint16.
        pixels: Width of the feather; 0 returns the weights unchanged.

    Returns:
        ``[H, W]`` uint16.
    """
    if pixels == 0:
        return weights
    height, result = len(weights), np.empty_like(weights)
    for top in range(0, height, ROWS_AT_ONCE):
        bottom = min(top + ROWS_AT_ONCE, height)
        first, last = max(top - pixels, 0), min(bottom + pixels, height)
        is_outside = weights[first:last] == 0
        block = weights[top:bottom]
        if is_outside.any() and block.any():
            squares = _squared_distances(is_outside, pixels + 1)[top - first : bottom - first]
            ramp = np.sqrt(squares) / (pixels + 1)
            block = np.rint(block * np.minimum(ramp, 1)).astype(np.uint16)
        result[top:bottom] = block
    return result


def _squared_distances(is_outside: PixelArray, limit: int) -> PixelArray:
    """Return squared distances to the nearest True, ``[H, W]`` int32, exact below ``limit``²."""
    height, width = is_outside.shape
    column = np.full((height, width), limit, np.int32)  # Distance within each column.
    for rows in (range(height), range(height - 1, -1, -1)):
        nearest = np.full(width, limit, np.int32)
        for row in rows:
            nearest = np.where(is_outside[row], 0, np.minimum(nearest + 1, limit))
            np.minimum(column[row], nearest, out=column[row])
    column *= column
    squares = column.copy()
    for shift in range(1, min(limit, width)):
        for here, there in (
            (slice(shift, None), slice(None, -shift)),
            (slice(None, -shift), slice(shift, None)),
        ):
            near = squares[:, here]
            np.minimum(near, column[:, there] + shift * shift, out=near)
    return squares


def read_mask(path: Path) -> tuple[PixelArray, ...]:
    """Read a mask: white is 65535, and black or transparent is 0.

    Colors count by their luma. A mask in a lossy format is rounded to black and white.

    Args:
        path: An image file.

    Returns:
        ``[H, W]`` uint16 for each frame or page, upright.

    Raises:
        DataError: It cannot be read.
    """
    image = decode(path, keep_stored=True)
    is_lossy = image.format in LOSSY_FORMATS
    is_lossy = is_lossy or (image.format == "WEBP" and not image.encoding.get("lossless"))
    masks = [_weights_of(image, index) for index in range(len(image.frames))]
    return tuple(_rounded(mask) if is_lossy else mask for mask in masks)


def mask_of_frame(pixels: PixelArray, is_lossy: bool) -> PixelArray:
    """Return the mask in a frame of a video, see :func:`read_mask`.

    Args:
        pixels: ``[H, W, 3]`` uint8 or uint16.
        is_lossy: Whether values are rounded to black and white.

    Returns:
        ``[H, W]`` uint16.
    """
    mask = _weights_of(DecodedImage((pixels,)), 0)
    return _rounded(mask) if is_lossy else mask


def _rounded(mask: PixelArray) -> PixelArray:
    return np.where(mask < HALF, np.uint16(0), np.uint16(FULL))


def _weights_of(image: DecodedImage, index: int) -> PixelArray:
    """Return luma times alpha of a frame: ``[H, W]`` uint16."""
    frame, alpha = image.frames[index], image.alpha(index)
    weights: PixelArray = np.empty(frame.shape[:2], np.uint16)
    for top in range(0, len(frame), ROWS_AT_ONCE):
        rows = slice(top, top + ROWS_AT_ONCE)
        weights[rows] = to_depth(to_grey(np.ascontiguousarray(frame[rows])), 16)
        if alpha is not None:
            opacity = to_depth(alpha[rows], 16).astype(np.uint64)
            weights[rows] = (weights[rows] * opacity + HALF) // FULL
    return weights


def weights_of_mask(
    values: PixelArray, size: tuple[int, int], name: str, owner: str, invert: bool, feather: int
) -> PixelArray:
    """Check a mask, and return its weights.

    Args:
        values: ``[H, W]`` uint16, see :func:`read_mask`.
        size: Width and height of the image.
        name: Name of the mask in messages.
        owner: Name of the image in messages.
        invert: Whether black instead of white is translated.
        feather: See :func:`feathered`.

    Raises:
        DataError: It has another size than the image, or selects no pixel.
    """
    check_mask_size((values.shape[1], values.shape[0]), size, name, owner)
    weights: PixelArray = FULL - values if invert else values
    largest = int(weights.max())
    if largest < HALF:
        color, end = ("black", "smallest") if invert else ("white", "largest")
        found = round(int(values.min() if invert else largest) / 257)
        raise DataError(
            f"{name} has no {color}, which marks the pixels to translate: its {end} value is "
            f"{found} of 255",
            "Store values of 0 and 1 as 0 and 255.",
        )
    return feathered(weights, feather)


def check_mask_size(found: tuple[int, int], size: tuple[int, int], name: str, owner: str) -> None:
    """Refuse a mask of another size than its image.

    Args:
        found: Width and height of the mask.
        size: Width and height of the image.
        name: Name of the mask in messages.
        owner: Name of the image in messages.

    Raises:
        DataError: The sizes differ.
    """
    if found != size:
        also = "; a mask belongs to the upright image" if found[::-1] == size else ""
        raise DataError(
            f"{name} has {found[0]}x{found[1]} pixels, and {owner} has {size[0]}x{size[1]}{also}",
            "Scale or rotate the mask to the size of its image.",
        )


def mask_beside(folder: Path, stem: str, owner: str, also: Collection[str] = frozenset()) -> Path:
    """Return the image file in a folder with a stem, and the extension of any format.

    Args:
        folder: The folder.
        stem: Relative path without its extension.
        owner: The image it belongs to, for messages.
        also: Extensions beside those of images.

    Raises:
        DataError: There is none, or there are several.
    """
    found = images_with_stem(folder, stem, also)
    if not found:
        raise DataError(
            f"{owner} has no mask: found no {folder / stem}.png, nor with the extension of "
            "another image format",
            "Name each mask as its image, without regard to the extension.",
        )
    if len(found) > 1:
        raise DataError(f"{owner} has two masks, {found[0]} and {found[1]}", "Remove one of them.")
    return found[0]


def images_with_stem(folder: Path, stem: str, also: Collection[str] = frozenset()) -> list[Path]:
    """Return the image files of a relative path without its extension, whatever the format.

    Tests each extension instead of listing the folder, which may have millions of files.
    """
    extensions = sorted({*readable_extensions(), *also})
    candidates = [extension for one in extensions for extension in (one, one.upper())]
    found: list[Path] = []
    for path in (folder / f"{stem}{extension}" for extension in candidates):
        if path.is_file() and not any(path.samefile(other) for other in found):
            found.append(path)
    return found
