"""Stacks of planes in one TIFF directory, as ImageJ and others write them: tifffile knows them."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np

from cyclegan_cli.data.colour import Pixels
from cyclegan_cli.data.deep import PHOTOMETRIC_MODES, WHITE_IS_ZERO, at_full_range, tiff_pixels
from cyclegan_cli.data.image import Levels
from cyclegan_cli.data.metadata import whole_file

PALETTE, SEPARATE = 3, 2  # TIFF 6.0: photometric interpretation, planar configuration


def count_planes(image: Any) -> int:
    """How many planes a TIFF has, where it has more of them than directories; else 0.

    Args:
        image: As Pillow has opened it.

    Raises:
        ValueError: There are several such stacks.
    """
    with _tiff_file(image) as file:
        return sum(map(_planes, file.series)) if _is_stack(file) else 0


def missing_planes(image: Any) -> int:
    """How many planes a TIFF's description tells of that are not in the file.

    Args:
        image: As Pillow has opened it.
    """
    with _tiff_file(image) as file:
        if file.is_imagej:
            told = file.imagej_metadata.get("images", 1) if file.imagej_metadata else 1
            return max(int(told) - max(sum(map(_planes, file.series)), len(file.pages)), 0)
        return sum(page is None for series in file.series for page in series.pages)


def read_planes(image: Any) -> list[Pixels]:
    """The planes of a TIFF of which :func:`count_planes` is not 0, in the order of the file.

    Args:
        image: As Pillow has opened it.

    Raises:
        ValueError: Their range is unknown.
    """
    with _tiff_file(image) as file:
        return [
            _pixels(plane, series.keyframe)
            for series in file.series
            for plane in series.asarray(maxworkers=1).reshape(-1, *_plane_shape(series.keyframe))
        ]


def _tiff_file(image: Any) -> Any:
    import tifffile

    return tifffile.TiffFile(io.BytesIO(whole_file(image)))


def _is_stack(file: Any) -> bool:
    is_one = [_planes(series) > len(series) for series in file.series]
    if any(is_one) and sum(map(len, file.series)) != len(file.pages):
        raise ValueError("of several stacks in one file only the first is found")
    return any(is_one)


def _planes(series: Any) -> int:
    return int(series.size // math.prod(_plane_shape(series.keyframe)))


def _plane_shape(page: Any) -> tuple[int, ...]:
    sides, samples = (page.imagelength, page.imagewidth), page.samplesperpixel
    if samples == 1:
        return sides
    return (samples, *sides) if page.planarconfig == SEPARATE else (*sides, samples)


def _pixels(plane: Levels, page: Any) -> Pixels:
    if plane.dtype.kind not in "ub" or plane.dtype.itemsize > 2:
        raise ValueError("planes of a stack that are not whole numbers of 8 or 16 bits")
    photometric, bits = int(page.photometric), page.bitspersample
    if plane.ndim == 3 and page.planarconfig == SEPARATE:
        plane = np.moveaxis(plane, 0, 2)
    if photometric == PALETTE:
        return Pixels((page.colormap >> 8).astype(np.uint8).T[plane], None, "P")
    if photometric not in PHOTOMETRIC_MODES:
        raise ValueError(f"a stack of photometric interpretation {photometric}")
    if bits <= 8:
        plane = (plane.astype(np.uint16) * 255 // (2**bits - 1)).astype(np.uint8)
    else:
        plane = at_full_range(plane, 2**bits - 1)
    if photometric == WHITE_IS_ZERO:
        plane = np.iinfo(plane.dtype).max - plane
    extra = tuple(int(kind) for kind in page.extrasamples)
    return tiff_pixels(plane, PHOTOMETRIC_MODES[photometric], extra)
