"""TIFF directories, read before Pillow decodes anything: previews, raw photos, extra bands."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, BinaryIO

from cyclegan_cli.data.formats import RAW_EXTENSIONS, raw_photo
from cyclegan_cli.errors import DataError

TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Tags of TIFF 6.0, TIFF/EP and DNG 1.7.
NEW_SUBFILE_TYPE, SUBFILE_TYPE, WIDTH, HEIGHT, PHOTOMETRIC = 254, 255, 256, 257, 262
SAMPLES_PER_PIXEL, SUB_DIRECTORIES, EXTRA_SAMPLES, DNG_VERSION = 277, 330, 338, 50706
REDUCED_OR_MASK, OLD_REDUCED = 0b101, 2
SENSOR_DATA = (32803, 34892)  # A colour filter array, and linear raw
BANDS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3, 9: 3, 10: 3}  # By photometric interpretation
ALPHA = (1, 2)
# Descriptions by ImageJ, OME and tifffile; tags of MetaMorph (STK), Zeiss (LSM) and volumes (SGI).
IMAGE_DESCRIPTION, STACK_TAGS = 270, (33628, 33629, 34412, 32997)
STACK_DESCRIPTION = re.compile(r"""ImageJ=|\s*\{"shape":|shape=\(|\s*<(?:\?xml|OME)\b""")
SHORT, LONG = 3, 4
Directory = dict[int, int]
MAX_SUB_DIRECTORIES, MAX_TAGS = 64, 100_000  # In the file; a page has about twenty.


def refuse_unreadable_tiff(file: BinaryIO, head: bytes, name: str) -> None:
    """Refuse a TIFF that Pillow would show only in part, or as another image.

    Args:
        file: The file.
        head: Its first 16 bytes or more.
        name: Name of the file for error messages.

    Raises:
        DataError: The file is a raw photo, a preview of an image that Pillow does not find, or has
            more bands than are supported.
    """
    if PurePath(name).suffix.lower() in RAW_EXTENSIONS:
        raise raw_photo(name)
    pages, below = _directories(file, head)
    if any(DNG_VERSION in directory for directory in pages[:1]):
        raise raw_photo(name, "DNG")
    if any(directory.get(PHOTOMETRIC) in SENSOR_DATA for directory in (*pages, *below)):
        raise raw_photo(name)
    shown = [page for page in pages if not is_reduced(page)]
    first = (shown or pages or [{}])[0]
    if any(_is_larger(other, first) for other in below if not is_reduced(other)):
        raise image_elsewhere(name, first.get(WIDTH, 0), first.get(HEIGHT, 0))
    for page in shown:
        _refuse_bands(page, name)


def may_be_stack(tags: Mapping[int, Any]) -> bool:
    """Return whether a directory may contain more than one plane, by its tags."""
    description = tags.get(IMAGE_DESCRIPTION)
    return any(tag in tags for tag in STACK_TAGS) or (
        isinstance(description, str) and STACK_DESCRIPTION.match(description) is not None
    )


def is_reduced(tags: Mapping[int, Any]) -> bool:
    """Return whether a directory contains a reduced version or a mask of another image."""
    new = tags.get(NEW_SUBFILE_TYPE, 0)
    return bool(isinstance(new, int) and new & REDUCED_OR_MASK) or (
        tags.get(SUBFILE_TYPE) == OLD_REDUCED
    )


def _is_larger(one: Directory, other: Directory) -> bool:
    return all(one.get(side, 0) > other.get(side, 0) for side in (WIDTH, HEIGHT))


def _refuse_bands(page: Directory, name: str) -> None:
    bands = page.get(SAMPLES_PER_PIXEL, 1)
    known = BANDS.get(page.get(PHOTOMETRIC, -1), bands)
    if bands <= known or (bands == known + 1 and page.get(EXTRA_SAMPLES) in ALPHA):
        return
    raise DataError(
        f"{name} has {bands} bands; only {known} and transparency can be read",
        "Write the bands of the image to a separate file, e.g. with gdal_translate -b 1 -b 2 -b 3.",
    )


def image_elsewhere(name: str, width: int, height: int) -> DataError:
    """Return the error for a TIFF all of whose pages are reduced versions of its image."""
    return DataError(
        f"{name} contains a preview of its image, {width}x{height}, and stores the image itself "
        "where it cannot be read",
        "Convert it to a plain TIFF or PNG.",
    )


def _directories(file: BinaryIO, head: bytes) -> tuple[list[Directory], list[Directory]]:
    """Return the directories of a TIFF, and those that the first one points to (SubIFDs)."""
    order, is_big = "<" if head[:2] == b"II" else ">", head[2:4] in (b"+\0", b"\0+")
    pages: list[Directory] = []
    below: list[Directory] = []
    seen: set[int] = set()
    left = MAX_TAGS
    try:
        (offset,) = struct.unpack_from(order + ("Q" if is_big else "I"), head, 8 if is_big else 4)
        while offset and offset not in seen:
            seen.add(offset)
            found, offsets, offset, left = _directory(file, offset, order, is_big, left)
            for sub in [] if pages else offsets:
                found_below, _, _, left = _directory(file, sub, order, is_big, left)
                below.append(found_below)
            pages.append(found)
    except (struct.error, OverflowError, OSError, ValueError):
        pass  # Damaged; the decoder reports it.
    return pages, below


def _directory(
    file: BinaryIO, start: int, order: str, is_big: bool, left: int
) -> tuple[Directory, list[int], int, int]:
    """Read the integer tags of a directory.

    Returns:
        The tags, the offsets of its SubIFDs, the offset of the next directory, and the number of
        tags that may still be read.

    Raises:
        ValueError: There are too many tags.
    """
    head, size, inline = ("Q", 20, 12) if is_big else ("H", 12, 8)
    offset = "Q" if is_big else "I"
    file.seek(start)
    (count,) = struct.unpack(order + head, file.read(struct.calcsize(head)))
    if count + 1 > left:
        raise ValueError("too many tags")
    content = file.read(count * size + struct.calcsize(offset))
    tags: Directory = {}
    subs: list[int] = []
    for at in range(0, count * size, size):
        tag, kind, values = struct.unpack_from(f"{order}HH{offset}", content, at)
        if tag == SUB_DIRECTORIES:
            (place,) = struct.unpack_from(order + offset, content, at + inline)
            subs = _offsets(file, place, values, order + ("Q" if kind in (16, 18) else "I"))
        elif (kind in (SHORT, LONG) and values == 1) or tag == DNG_VERSION:
            kind_code = "H" if kind == SHORT else "I"
            (tags[tag],) = struct.unpack_from(order + kind_code, content, at + inline)
    following = content[count * size :].ljust(struct.calcsize(offset), b"\0")
    return tags, subs, struct.unpack(order + offset, following)[0], left - count - 1


def _offsets(file: BinaryIO, place: int, count: int, number: str) -> list[int]:
    """Return distinct offsets, at most ``MAX_SUB_DIRECTORIES`` of them."""
    if count == 1:
        return [place]
    file.seek(place)
    content = file.read(min(count, MAX_SUB_DIRECTORIES) * struct.calcsize(number))
    return list(dict.fromkeys(value for (value,) in struct.iter_unpack(number, content)))
