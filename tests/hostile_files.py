"""Files made to take a reader's time or memory: loops, fan-outs, offsets that repeat.

Each is small, and is to be answered with work of its size. Tests count that work, and
``benchmarks/fuzz.py`` may damage these files further.
"""

import io
import struct

import numpy as np
import tifffile

from damaged_files import png_chunk
from images import encoded, noise

EXIF_DIRECTORY, GPS_DIRECTORY = 0x8769, 0x8825
UNDEFINED, LONG = 7, 4
TIFF_HEAD = b"II*\0" + struct.pack("<I", 8)


def directory(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    """Little-endian; of each entry the tag, type, count and value or offset."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<H", len(entries)) + packed + struct.pack("<I", following)


def exif_that_points_back(entries: int) -> bytes:
    """Every entry is a pointer to the directory that it is in."""
    return TIFF_HEAD + directory(*[(EXIF_DIRECTORY, LONG, 1, 8)] * entries)


def exif_of_overlapping_directories(entries: int) -> bytes:
    """Every entry points to another directory; all overlap the first."""
    pointers = [(EXIF_DIRECTORY, LONG, 1, 8 + 12 * number) for number in range(entries)]
    return TIFF_HEAD + directory(*pointers)


def exif_of_one_large_value(entries: int, size: int) -> bytes:
    """Every entry has the same bytes for its value."""
    at = 8 + 2 + 12 * entries + 4
    tags = (0xC000 + number for number in range(entries))
    return TIFF_HEAD + directory(*((tag, UNDEFINED, size, at) for tag in tags)) + bytes(size)


def exif_of_one_large_value_below(entries: int, size: int) -> bytes:
    """The same in the directory of EXIF, which is copied into TIFF files."""
    at = 8 + 2 + 12 + 4
    values = at + 2 + 12 * entries + 4
    tags = (0xC000 + number for number in range(entries))
    inner = directory(*((tag, UNDEFINED, size, values) for tag in tags))
    return TIFF_HEAD + directory((EXIF_DIRECTORY, LONG, 1, at)) + inner + bytes(size)


def exif_of_thumbnail_strips(strips: int, size: int) -> bytes:
    """The strips of the thumbnail's pixels are all in one place."""
    second = 8 + 2 + 4
    starts = second + 2 + 2 * 12 + 4
    lengths = starts + 4 * strips
    entries = (0x0111, LONG, strips, starts), (0x0117, LONG, strips, lengths)
    head = TIFF_HEAD + directory(following=second) + directory(*entries)
    places = struct.pack("<I", lengths + 4 * strips) * strips
    return head + places + struct.pack("<I", size) * strips + bytes(size)


def exif_blocks() -> dict[str, bytes]:
    return {
        "points back": exif_that_points_back(2000),
        "overlapping": exif_of_overlapping_directories(2000),
        "one value": exif_of_one_large_value(2000, 30_000),
        "one value below": exif_of_one_large_value_below(2000, 30_000),
        "strips": exif_of_thumbnail_strips(3000, 30_000),
    }


def jpeg_of_many_exif_segments(segments: int) -> bytes:
    """Readers put them together, one after the other."""
    data = b"Exif\0\0" + bytes(65_000)
    segment = b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data
    jpeg = encoded(noise(), "JPEG")
    return jpeg[:2] + segment * segments + jpeg[2:]


def xmp_of_thumbnails_without_end(count: int) -> bytes:
    """Each begins an element; none ends."""
    return b"".join(b"<x%d:Thumbnails>" % number for number in range(count))


def tiff_that_points_back(entries: int) -> bytes:
    """One grey pixel, and pointers to the directory that they are in."""
    ends = 8 + 2 + 12 * (8 + entries) + 4
    pixel = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: ends, 278: 1, 279: 1}
    pointers = [(EXIF_DIRECTORY, LONG, 1, 8)] * entries
    entries_of_pixel = [(tag, LONG, 1, value) for tag, value in pixel.items()]
    return TIFF_HEAD + directory(*entries_of_pixel, *pointers) + b"\x80"


def tiff_of_tiny_pages(pages: int) -> bytes:
    """Of one pixel, which all of them share."""
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        for _ in range(pages):
            file.write(np.zeros((1, 1), np.uint8), metadata=None, software=False)
    return stream.getvalue()


def files() -> dict[str, bytes]:
    """Hostile files by name, with the extension of their format."""
    png = encoded(noise(), "PNG")
    found = {}
    for name, block in exif_blocks().items():
        found[f"{name}.png"] = png[:33] + png_chunk(b"eXIf", block) + png[33:]
        found[f"{name}.webp"] = encoded(noise(), "WEBP", exif=block)
        if len(block) < 65_000:
            found[f"{name}.jpg"] = encoded(noise(), "JPEG", exif=b"Exif\0\0" + block)
    found["segments.jpg"] = jpeg_of_many_exif_segments(60)
    found["thumbnails.webp"] = encoded(noise(), "WEBP", xmp=xmp_of_thumbnails_without_end(3000))
    found["points back.tif"] = tiff_that_points_back(2000)
    found["pages.tif"] = tiff_of_tiny_pages(300)
    return found
