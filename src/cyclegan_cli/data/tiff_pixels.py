"""Pixels of TIFF files, by tifffile: 16-bit pages, stacks of planes, and writing."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Sequence
from typing import Any, BinaryIO, Literal

import numpy as np
from PIL import Image

from cyclegan_cli.data.color import Pixels
from cyclegan_cli.data.containers import whole_file
from cyclegan_cli.data.exif import into_tiff
from cyclegan_cli.data.image import Mode, PixelArray
from cyclegan_cli.data.metadata import Metadata

# Tags and values of TIFF 6.0.
BITS_PER_SAMPLE, SAMPLE_FORMAT, XMP_TAG = 258, 339, 700
UNSIGNED, BYTE, INCH = 1, 1, 2
WHITE_IS_ZERO, PALETTE = 0, 3  # Photometric interpretations
SEPARATE_PLANES = 2
PREMULTIPLIED_ALPHA, STRAIGHT_ALPHA = 1, 2
READABLE_MODES: dict[int, Mode] = {0: "L", 1: "L", 2: "RGB", 5: "CMYK"}
PHOTOMETRIC = {"RGB": "rgb", "L": "minisblack", "CMYK": "separated", "P": "palette",
               "1": "minisblack"}  # fmt: skip
# tifffile logs what it cannot interpret and does not need.
logging.getLogger("tifffile").addHandler(logging.NullHandler())
logging.getLogger("tifffile").propagate = False


# --- pages of more than 8 bits per channel ------------------------------------------------------


def tiff_is_16_bit(image: Any) -> bool:
    """Return whether the current page has 9 to 16 bits per channel, as unsigned integers."""
    bits = image.tag_v2.get(BITS_PER_SAMPLE, (1,))
    sample_formats = image.tag_v2.get(SAMPLE_FORMAT, (UNSIGNED,))
    return 8 < max(bits) <= 16 and set(sample_formats) == {UNSIGNED}


class TiffPageReader:
    """Reads 16-bit pages of a TIFF file that Pillow has opened; tifffile opens it once.

    Args:
        image: The file, opened by Pillow.
    """

    def __init__(self, image: Any) -> None:
        self.image = image
        self.file: Any = None

    def read(self, index: int) -> Pixels:
        """Return the uint16 pixels of a page, over the full range.

        Raises:
            ValueError: Its photometric interpretation is not supported.
        """
        self.file = self.file or _tiff_file(self.image)
        page = self.file.pages[index]
        photometric = int(page.photometric)
        if photometric not in READABLE_MODES:
            raise ValueError(f"TIFF of photometric interpretation {photometric} at 16 bits")
        return _to_pixels(page.asarray(maxworkers=1), page)


def _tiff_file(image: Any) -> Any:
    return tiff_file(io.BytesIO(whole_file(image)))


def tiff_file(stream: BinaryIO) -> Any:
    """Open a TIFF file by tifffile."""
    import tifffile

    return tifffile.TiffFile(stream)


def _to_pixels(samples: PixelArray, page: Any) -> Pixels:
    """Scale the samples of a page, ``[H, W]`` or with channels, and separate its alpha channel."""
    if samples.ndim == 3 and page.planarconfig == SEPARATE_PLANES:
        samples = np.moveaxis(samples, 0, 2)
    samples = _at_full_range(samples, page.bitspersample)
    if int(page.photometric) == WHITE_IS_ZERO:
        samples = np.iinfo(samples.dtype).max - samples
    samples = samples if samples.ndim == 3 else samples[..., None]
    mode = READABLE_MODES[int(page.photometric)]
    channels = {"L": 1, "RGB": 3, "CMYK": 4}[mode]
    extra = [int(kind) for kind in page.extrasamples][:1]
    colors, alpha = samples[..., :channels], None
    if extra in ([PREMULTIPLIED_ALPHA], [STRAIGHT_ALPHA]) and samples.shape[2] > channels:
        alpha = np.ascontiguousarray(samples[..., channels])
        if extra == [PREMULTIPLIED_ALPHA]:
            colors = _unpremultiply(colors, alpha)
    colors = colors[..., 0] if mode == "L" else colors
    return Pixels(np.ascontiguousarray(colors), alpha, mode)


def _at_full_range(samples: PixelArray, bits: int) -> PixelArray:
    """Scale samples of up to 16 bits to 0..255 as uint8, or to 0..65535 as uint16."""
    highest = 2**bits - 1
    if bits <= 8:
        return np.asarray(samples.astype(np.uint16) * 255 // highest, np.uint8)
    if bits == 16:
        return np.asarray(samples, np.uint16)
    wide = samples.astype(np.uint32) * np.uint32(65535)
    return np.asarray((wide + np.uint32(highest // 2)) // np.uint32(highest), np.uint16)


def _unpremultiply(colors: PixelArray, alpha: PixelArray) -> PixelArray:
    highest = np.uint64(np.iinfo(colors.dtype).max)
    opacity = np.maximum(alpha, 1).astype(np.uint64)[..., None]
    full = (colors.astype(np.uint64) * highest + opacity // 2) // opacity
    return np.asarray(np.minimum(full, highest), colors.dtype)


# --- stacks: several planes in one directory, as ImageJ and others write them -------------------


def count_planes(image: Any) -> int:
    """Return the number of planes of a TIFF if it has more planes than directories, else 0.

    Args:
        image: The file, opened by Pillow.

    Raises:
        ValueError: The file has several such stacks.
    """
    with _tiff_file(image) as file:
        return sum(map(_planes, file.series)) if _is_stack(file) else 0


def missing_planes(image: Any) -> int:
    """Return the number of planes that the description of a TIFF lists and the file lacks.

    Args:
        image: The file, opened by Pillow.
    """
    with _tiff_file(image) as file:
        if file.is_imagej:
            listed = file.imagej_metadata.get("images", 1) if file.imagej_metadata else 1
            return max(int(listed) - max(sum(map(_planes, file.series)), len(file.pages)), 0)
        return sum(page is None for series in file.series for page in series.pages)


def read_planes(image: Any) -> list[Pixels]:
    """Read the planes of a TIFF for which :func:`count_planes` is not 0, in file order.

    Args:
        image: The file, opened by Pillow.

    Raises:
        ValueError: The planes are not grey, RGB, CMYK or palette images of up to 16 bits.
    """
    with _tiff_file(image) as file:
        return [
            _read_plane(plane, series.keyframe)
            for series in file.series
            for plane in series.asarray(maxworkers=1).reshape(-1, *_plane_shape(series.keyframe))
        ]


def _is_stack(file: Any) -> bool:
    stacked = [_planes(series) > len(series) for series in file.series]
    if any(stacked) and sum(map(len, file.series)) != len(file.pages):
        raise ValueError("of several stacks in one file only the first is found")
    return any(stacked)


def _planes(series: Any) -> int:
    return int(series.size // math.prod(_plane_shape(series.keyframe)))


def _plane_shape(page: Any) -> tuple[int, ...]:
    sides, samples = (page.imagelength, page.imagewidth), page.samplesperpixel
    if samples == 1:
        return sides
    return (samples, *sides) if page.planarconfig == SEPARATE_PLANES else (*sides, samples)


def _read_plane(plane: PixelArray, page: Any) -> Pixels:
    if plane.dtype.kind not in "ub" or plane.dtype.itemsize > 2:
        raise ValueError("planes of a stack that are not integers of 8 or 16 bits")
    photometric = int(page.photometric)
    if photometric == PALETTE:
        if plane.ndim == 3 and page.planarconfig == SEPARATE_PLANES:
            plane = np.moveaxis(plane, 0, 2)
        return Pixels((page.colormap >> 8).astype(np.uint8).T[plane], None, "P")
    if photometric not in READABLE_MODES:
        raise ValueError(f"a stack of photometric interpretation {photometric}")
    return _to_pixels(plane, page)


# --- writing ------------------------------------------------------------------------------------


def tiff_bytes(
    pages: Sequence[Pixels], profile: bytes | None, metadata: Metadata, compressed: bool
) -> bytes:
    """Encode a TIFF file.

    Args:
        pages: Pixels of each page, uint8 or uint16.
        profile: ICC profile of all pages.
        metadata: Metadata of the first page.
        compressed: Whether to compress with Deflate, which is lossless.

    Raises:
        ValueError: The EXIF block is damaged.
    """
    import tifffile

    order: Literal[">", "<"] = ">" if metadata.exif.startswith(b"MM") else "<"
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, byteorder=order) as file:
        for index, page in enumerate(pages):
            xmp = metadata.xmp if index == 0 else b""
            file.write(
                **_samples(page),
                compression="zlib" if compressed and page.mode != "1" else None,
                predictor=compressed and page.mode not in ("P", "1"),
                iccprofile=profile,
                resolution=metadata.dpi,
                resolutionunit=INCH if metadata.dpi else None,
                extratags=[(XMP_TAG, BYTE, len(xmp), xmp, True)] if xmp else (),
                metadata=None,
                software=False,
                maxworkers=1,
            )
    content = stream.getvalue()
    return into_tiff(content, metadata.exif) if metadata.exif else content


def _samples(page: Pixels) -> dict[str, Any]:
    """Return the arguments of ``TiffWriter.write`` for the pixels of a page."""
    options: dict[str, Any] = {"photometric": PHOTOMETRIC[page.mode], "data": page.colors}
    if page.mode == "1":
        options["data"] = np.asarray(Image.fromarray(page.colors).convert("1"))
    elif page.mode == "P":
        indexed = Image.fromarray(page.colors).quantize()
        palette = np.array(indexed.getpalette("RGB") or [], dtype=np.uint16).reshape(-1, 3)
        palette = np.pad(palette, ((0, 256 - len(palette)), (0, 0)))
        options["data"] = np.asarray(indexed)
        options["colormap"] = palette.T * np.uint16(257)  # [3, 256] at 16 bits
    elif page.alpha is not None:
        options["data"] = np.dstack([page.colors, page.alpha])
        options["extrasamples"] = ["unassalpha"]
    if options["data"].ndim == 3:
        options["planarconfig"] = "contig"
    return options
