"""Pixels of more than 8 bits a channel, of which Pillow drops the lower bits but for grey ones."""

from __future__ import annotations

import io
import logging
from typing import Any

import numpy as np

from cyclegan_cli.data.colour import Pixels
from cyclegan_cli.data.metadata import whole_file
from cyclegan_cli.data.picture import Levels, Mode

BITS_PER_SAMPLE, SAMPLE_FORMAT = 258, 339  # TIFF 6.0
UNSIGNED = 1
PHOTOMETRIC_MODES: dict[int, Mode] = {0: "L", 1: "L", 2: "RGB", 5: "CMYK"}
WHITE_IS_ZERO = 0
PREMULTIPLIED, UNRELATED_ALPHA = 1, 2  # TIFF 6.0, ExtraSamples


def read_deep(image: Any, page: int) -> Pixels | None:
    """The pixels of a PNG or TIFF of more than 8 bits a channel, at their full depth.

    Args:
        image: As Pillow has opened it, its pixels not loaded.
        page: Which page it is at.

    Returns:
        uint16 pixels, all levels in use; None for any other picture.

    Raises:
        Exception: Whatever the decoder raises for a damaged file.
    """
    if image.format == "PNG" and image.tile and "16" in str(image.tile[0].args):
        return None if getattr(image, "is_animated", False) else _read_png(image)
    if image.format == "TIFF" and _tiff_is_deep(image):
        return _read_tiff(image, page)
    return None


def _read_png(image: Any) -> Pixels:
    import imagecodecs

    return _apart(imagecodecs.png_decode(bytes(whole_file(image))))


def _apart(samples: Levels) -> Pixels:
    """``[H, W]`` or ``[H, W, C]`` of grey or RGB, perhaps with alpha, to colours and alpha."""
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    mode: Mode = "RGB" if channels >= 3 else "L"
    if channels in (2, 4):
        colours, alpha = samples[..., :-1], np.ascontiguousarray(samples[..., -1])
    else:
        colours, alpha = samples, None
    colours = colours[..., 0] if colours.ndim == 3 and mode == "L" else colours
    return Pixels(np.ascontiguousarray(colours), alpha, mode)


def _tiff_is_deep(image: Any) -> bool:
    bits = image.tag_v2.get(BITS_PER_SAMPLE, (1,))
    sample_formats = image.tag_v2.get(SAMPLE_FORMAT, (UNSIGNED,))
    # Floating-point numbers, and 32-bit ones that need not use their range, stay Pillow's.
    return 8 < max(bits) <= 16 and set(sample_formats) == {UNSIGNED}


def _read_tiff(image: Any, page: int) -> Pixels:
    import tifffile

    # What it cannot make sense of and does not need, it logs.
    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    logging.getLogger("tifffile").propagate = False
    with tifffile.TiffFile(io.BytesIO(whole_file(image))) as file:
        found: Any = file.pages[page]
        photometric = int(found.photometric)
        if photometric not in PHOTOMETRIC_MODES:
            raise ValueError(f"TIFF of photometric interpretation {photometric} at 16 bits")
        samples = found.asarray(maxworkers=1)
        if found.planarconfig == 2 and samples.ndim == 3:
            samples = np.moveaxis(samples, 0, 2)
        extra = tuple(int(kind) for kind in found.extrasamples)
        highest = 2**found.bitspersample - 1
    samples = _at_full_range(samples, highest)
    if photometric == WHITE_IS_ZERO:
        samples = np.uint16(65535) - samples
    return _tiff_pixels(samples, PHOTOMETRIC_MODES[photometric], extra)


def _at_full_range(samples: Levels, highest: int) -> Levels:
    if highest == 65535:
        return np.asarray(samples, np.uint16)
    wide = samples.astype(np.uint32) * np.uint32(65535)
    return ((wide + np.uint32(highest // 2)) // np.uint32(highest)).astype(np.uint16)


def _tiff_pixels(samples: Levels, mode: Mode, extra: tuple[int, ...]) -> Pixels:
    samples = samples if samples.ndim == 3 else samples[..., None]
    channels = {"L": 1, "RGB": 3, "CMYK": 4}[mode]
    colours = samples[..., :channels]
    alpha = None
    if extra and extra[0] in (PREMULTIPLIED, UNRELATED_ALPHA) and samples.shape[2] > channels:
        alpha = np.ascontiguousarray(samples[..., channels])
        if extra[0] == PREMULTIPLIED:
            colours = _unmultiplied(colours, alpha)
    colours = colours[..., 0] if mode == "L" else colours
    return Pixels(np.ascontiguousarray(colours), alpha, mode)


def _unmultiplied(colours: Levels, alpha: Levels) -> Levels:
    opacity = np.maximum(alpha, 1).astype(np.uint64)[..., None]
    full = (colours.astype(np.uint64) * np.uint64(65535) + opacity // 2) // opacity
    return np.asarray(np.minimum(full, 65535), np.uint16)
