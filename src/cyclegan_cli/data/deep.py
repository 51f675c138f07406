"""Pixels of more than 8 bits a channel, of which Pillow drops the lower bits but for grey ones."""

from __future__ import annotations

import io
import logging
from typing import Any

import numpy as np

from cyclegan_cli.data.colour import SIXTEEN_BIT_MODES, Pixels
from cyclegan_cli.data.image import Levels, Mode
from cyclegan_cli.data.metadata import whole_file
from cyclegan_cli.data.png import pixels_alone

BITS_PER_SAMPLE, SAMPLE_FORMAT = 258, 339  # TIFF 6.0
UNSIGNED = 1
PNG_BIT_DEPTH = 24  # Where it is in a file: PNG specification, 11.2.2.
SGI_BYTES = 3  # Bytes a channel: SGI image file format 1.00, header.
JPEG2000_SIZES = b"\xff\x4f\xff\x51"  # ISO/IEC 15444-1, A.5.1: depth of the first component at 42
AV1_CONFIGURATION = b"av1C"  # AV1 in ISO media files, 2.3.3: two flags in the third byte
PHOTOMETRIC_MODES: dict[int, Mode] = {0: "L", 1: "L", 2: "RGB", 5: "CMYK"}
WHITE_IS_ZERO = 0
# What tifffile cannot make sense of and does not need, it logs.
logging.getLogger("tifffile").addHandler(logging.NullHandler())
logging.getLogger("tifffile").propagate = False
PREMULTIPLIED, UNRELATED_ALPHA = 1, 2  # TIFF 6.0, ExtraSamples


def read_deep(image: Any, page: int) -> Pixels | None:
    """The pixels of a PNG or TIFF of more than 8 bits a channel, at their full depth.

    Args:
        image: As Pillow has opened it, its pixels not loaded.
        page: Which page it is at.

    Returns:
        uint16 pixels, all levels in use; None for any other image.

    Raises:
        Exception: Whatever the decoder raises for a damaged file.
    """
    if not is_deep(image):
        return None
    return _read_png(image) if image.format == "PNG" else _read_tiff(image, page)


def is_deep(image: Any) -> bool:
    """Whether ``read_deep`` reads the page that a file is at; only its header is looked at."""
    if image.format == "PNG":
        is_animated = getattr(image, "is_animated", False)
        return bool(image.tile) and "16" in str(image.tile[0].args) and not is_animated
    return image.format == "TIFF" and _tiff_is_deep(image)


def lost_depth(image: Any) -> tuple[str, ...]:
    """A sentence where Pillow reads 8 bits a channel of a file that has more.

    Args:
        image: As Pillow has opened it, its pixels not loaded; none that ``read_deep`` reads.
    """
    bits = _stored_bits(image)
    return (f"only 8 of its {bits} bits a channel were read",) if bits > 8 else ()


def _stored_bits(image: Any) -> int:
    if image.mode in SIXTEEN_BIT_MODES:
        return 0  # Of grey images Pillow reads all.
    if image.format == "HEIF":
        return int(image.info.get("bit_depth") or 8)
    if image.format == "PPM" and image.tile:
        highest = image.tile[0].args[-1]
        return highest.bit_length() if isinstance(highest, int) else 8
    if image.format == "SGI":
        return 8 * whole_file(image, 4)[SGI_BYTES]
    if image.format == "PNG":
        return whole_file(image, 25)[PNG_BIT_DEPTH]
    if image.format == "JPEG2000":
        head = whole_file(image, 4096)
        place = head.find(JPEG2000_SIZES)
        return 1 + (head[place + 42] & 0x7F) if 0 <= place < len(head) - 42 else 8
    if image.format == "AVIF":
        head = whole_file(image, 4096)
        place = head.find(AV1_CONFIGURATION)
        flags = head[place + 6] if 0 <= place < len(head) - 6 else 0
        return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
    return 8


def mend_transparency(image: Any) -> None:
    """Have a PNG's transparent colour be one of the levels that Pillow makes of the pixels.

    Pillow stretches pixels of 2 and 4 bits to 8, but not the transparent grey; and of what is
    beyond the depth only the lower bits count (PNG specification, third edition, 11.3.1.1).

    Args:
        image: As Pillow has opened it, its pixels not loaded.
    """
    transparent = image.info.get("transparency")
    if image.format != "PNG" or image.fp is None or image.mode not in ("1", "L", "RGB"):
        return
    depth = int(whole_file(image)[PNG_BIT_DEPTH])
    if isinstance(transparent, int) and image.mode == "L":
        image.info["transparency"] = (transparent & (2**depth - 1)) * (255 // (2**depth - 1))
    elif isinstance(transparent, tuple):
        # Of 16 bits Pillow keeps the upper 8.
        image.info["transparency"] = tuple(
            level >> 8 if depth == 16 else level & 255 for level in transparent
        )


def _read_png(image: Any) -> Pixels:
    import imagecodecs

    return _apart(imagecodecs.png_decode(pixels_alone(whole_file(image))))


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
    samples = at_full_range(samples, highest)
    if photometric == WHITE_IS_ZERO:
        samples = np.uint16(65535) - samples
    return tiff_pixels(samples, PHOTOMETRIC_MODES[photometric], extra)


def at_full_range(samples: Levels, highest: int) -> Levels:
    """Levels of 0 to ``highest``, of any shape, as uint16 with all levels in use."""
    if highest == 65535:
        return np.asarray(samples, np.uint16)
    wide = samples.astype(np.uint32) * np.uint32(65535)
    return ((wide + np.uint32(highest // 2)) // np.uint32(highest)).astype(np.uint16)


def tiff_pixels(samples: Levels, mode: Mode, extra: tuple[int, ...]) -> Pixels:
    """The samples of a TIFF page as colours and opacity.

    Args:
        samples: ``[H, W]`` or ``[H, W, C]``, uint8 or uint16 with all levels in use.
        mode: What they are.
        extra: What TIFF calls the samples that are no colours.
    """
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
    highest = np.uint64(np.iinfo(colours.dtype).max)
    opacity = np.maximum(alpha, 1).astype(np.uint64)[..., None]
    full = (colours.astype(np.uint64) * highest + opacity // 2) // opacity
    return np.asarray(np.minimum(full, highest), colours.dtype)
