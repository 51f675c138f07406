"""EXIF blocks, edited in place.

An EXIF block is a small TIFF file: a header of 8 bytes, then directories of entries of 12 bytes
each (TIFF 6.0, section 2; EXIF 2.32, section 4.5). Maker notes in it contain offsets that only the
maker understands. The block therefore keeps its layout wherever possible; with Pillow it would not.

Offsets and counts are untrusted: directories may nest and values may overlap. No more bytes are
read than the block has, wherever its entries point.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

HEADER = b"Exif\0\0"  # Precedes the block in JPEG, and often elsewhere.
X_RESOLUTION, Y_RESOLUTION = 0x011A, 0x011B
ORIENTATION = 0x0112
# Offset and length of a thumbnail: a JPEG, or strips of pixels (EXIF 2.32, 4.6.3).
THUMBNAIL_TAGS = ((0x0201, 0x0202), (0x0111, 0x0117))
EXIF_DIRECTORY, GPS_DIRECTORY, INTEROP_DIRECTORY = 0x8769, 0x8825, 0xA005
PIXEL_WIDTH, PIXEL_HEIGHT = 0xA002, 0xA003
# Colour space: EXIF 2.32, 4.6.6, and DCF 2.0; 2 is not in the standard.
COLOR_SPACE, SRGB, ADOBE_RGB, UNCALIBRATED = 0xA001, 1, 2, 0xFFFF
INTEROP_INDEX, INTEROP_SRGB, INTEROP_ADOBE_RGB = 0x0001, b"R98", b"R03"
SUBDIRECTORIES = (EXIF_DIRECTORY, GPS_DIRECTORY, INTEROP_DIRECTORY)
# Tags of a TIFF that describe the image and not the layout of the file: description, camera,
# resolution, date, artist, rating, copyright, IPTC, location (GeoTIFF), EXIF, GPS.
IMAGE_TAGS = frozenset(
    {270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 18246, 18249, 33432, 33550, 33723, 33922,
     34264, 34665, 34735, 34736, 34737, 34853, 40091, 40092, 40093, 40094, 40095, 42112, 42113}
)  # fmt: skip
# Resolution and software: in nearly every TIFF, and not worth a block of their own.
TRIVIAL_TAGS = frozenset({282, 283, 296, 305})
# Descriptions of the layout of the file, by ImageJ, OME and tifffile.
IMAGE_DESCRIPTION = 270
LAYOUT_DESCRIPTION = re.compile(
    rb"""ImageJ=|\s*\{"shape":|shape=\(|\s*(?:<\?xml\b[^>]*>\s*)?(?:<!--[^>]*-->\s*)?<OME\b"""
)
TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
              16: 8, 17: 8, 18: 8}  # fmt: skip
ASCII, SHORT, LONG, RATIONAL = 2, 3, 4, 5


@dataclass(frozen=True)
class Entry:
    """An entry of a directory.

    Attributes:
        tag: Number of its tag.
        type: Number of its TIFF type.
        count: Number of values.
        at: Offset of the values in the block.
        value: The values as bytes in the byte order of the block; the entries of a directory if it
            points to one.
    """

    tag: int
    type: int
    count: int
    at: int
    value: bytes | tuple[Entry, ...]


class Block:
    """A parsed EXIF block or TIFF file.

    Args:
        content: The block without ``HEADER``.

    Raises:
        ValueError: The content is not a block, or its directory is damaged.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        orders = {b"II": "<", b"MM": ">"}
        if content[:2] not in orders:
            raise ValueError("not an EXIF block")
        self.order = orders[content[:2]]
        self.big = self._integer("H", 2) == 43  # BigTIFF
        # Entries, and bytes of their values, that may still be read.
        self.entries_left = self.bytes_left = len(content)
        self.start = self._integer("Q", 8) if self.big else self._integer("I", 4)
        self.entries = tuple(self._directory(self.start))

    def _integer(self, kind: str, at: int) -> int:
        try:
            (value,) = struct.unpack_from(self.order + kind, self.content, at)
        except struct.error as error:
            raise ValueError("the EXIF block ends too early") from error
        return int(value)

    def _directory(self, at: int, depth: int = 0) -> Iterator[Entry]:
        head, size = (8, 20) if self.big else (2, 12)
        count = self._integer("Q" if self.big else "H", at)
        for position in range(at + head, at + head + min(count, 65535) * size, size):
            entry = self._entry(position, depth)
            if entry:
                yield entry

    def _entry(self, position: int, depth: int) -> Entry | None:
        self.entries_left -= 1
        if self.entries_left < 0:
            raise ValueError("the EXIF block has more entries than bytes")
        tag, kind = self._integer("H", position), self._integer("H", position + 2)
        count = self._integer("Q" if self.big else "I", position + 4)
        inline, inline_size = (position + 12, 8) if self.big else (position + 8, 4)
        length = count * TYPE_SIZES.get(kind, len(self.content) + 1)
        offset = self._integer("Q" if self.big else "I", inline)
        if tag in SUBDIRECTORIES and depth < 2:
            try:
                return Entry(tag, LONG, 1, inline, tuple(self._directory(offset, depth + 1)))
            except ValueError:
                return None  # Keep the other directories.
        at = inline if length <= inline_size else offset
        if at + length > len(self.content):
            return None
        self.bytes_left -= length
        if self.bytes_left < 0:
            raise ValueError("the values in the EXIF block are more than its bytes")
        return Entry(tag, kind, count, at, self.content[at : at + length])

    def next_directory(self) -> int:
        """Return the offset of the pointer to the second directory, that of the thumbnail."""
        head, size = (8, 20) if self.big else (2, 12)
        count = self._integer("Q" if self.big else "H", self.start)
        return self.start + head + count * size

    def thumbnail(self) -> tuple[slice, ...]:
        """Return where the JPEG of the thumbnail is, or the strips of its pixels."""
        end = self.next_directory() + 4
        if end > len(self.content):
            return ()  # Some writers omit the pointer.
        second = self._integer("I", end - 4)
        entries = {e.tag: e for e in self._directory(second, depth=2)} if second else {}
        parts = tuple(
            slice(start, start + length)
            for starts, lengths in THUMBNAIL_TAGS
            if starts in entries and lengths in entries
            for start, length in zip(
                self._integers(entries[starts]), self._integers(entries[lengths]), strict=False
            )
            # In a damaged block it may overlap what has to be kept.
            if start >= end or 8 <= start <= start + length <= self.start
        )
        covered = sum(len(range(*part.indices(len(self.content)))) for part in parts)
        return parts if covered <= len(self.content) else ()

    def _integers(self, entry: Entry) -> Iterator[int]:
        """Yield the values of an entry of unsigned integers."""
        kind = {SHORT: "H", LONG: "I"}.get(entry.type)
        if kind is not None and isinstance(entry.value, bytes):
            yield from (value for (value,) in struct.iter_unpack(self.order + kind, entry.value))


def normalize_orientation(exif: bytes, swaps_sides: bool) -> bytes:
    """Return the block of an upright image: orientation 1, without the old thumbnail.

    Args:
        exif: Block with or without ``HEADER``.
        swaps_sides: Whether width and height were exchanged.

    Returns:
        Block without ``HEADER``.

    Raises:
        ValueError: The block is damaged beyond use.
    """
    block = Block(exif.removeprefix(HEADER))
    content = bytearray(block.content)
    for entry in block.entries:
        if entry.tag == ORIENTATION:
            _set_integer(content, block.order, entry, 1)
        elif entry.tag == EXIF_DIRECTORY and swaps_sides:
            _swap_sides(content, block.order, entry)
        elif _is_of_layout(entry):
            content[entry.at : entry.at + entry.count] = bytes(entry.count)
    if swaps_sides:
        _swap_resolutions(content, block.entries)
    thumbnail = block.thumbnail()
    if block.next_directory() + 4 <= len(content):
        struct.pack_into("<I", content, block.next_directory(), 0)
    for part in thumbnail:
        content[part] = bytes(len(content[part]))
    for part in sorted(thumbnail, key=lambda part: part.start, reverse=True):
        if part.stop >= len(content) and part.start > block.next_directory():
            del content[part]
    return bytes(content)


def _swap_sides(content: bytearray, order: str, directory: Entry) -> None:
    sides = {e.tag: e for e in directory.value if isinstance(e, Entry)}
    width, height = sides.get(PIXEL_WIDTH), sides.get(PIXEL_HEIGHT)
    if width and height:
        old_width, old_height = _get_integer(width, order), _get_integer(height, order)
        if old_width is not None and old_height is not None:
            _set_integer(content, order, width, old_height)
            _set_integer(content, order, height, old_width)


def _swap_resolutions(content: bytearray, entries: Iterable[Entry]) -> None:
    """Exchange the resolutions of rows and columns, each a fraction of two integers."""
    found = {entry.tag: entry for entry in entries if entry.tag in (X_RESOLUTION, Y_RESOLUTION)}
    x, y = found.get(X_RESOLUTION), found.get(Y_RESOLUTION)
    if x and y and (x.type, x.count) == (y.type, y.count) == (RATIONAL, 1) and abs(x.at - y.at) > 7:
        at_x, at_y = slice(x.at, x.at + 8), slice(y.at, y.at + 8)
        content[at_x], content[at_y] = content[at_y], content[at_x]


def _get_integer(entry: Entry, order: str) -> int | None:
    kind = {SHORT: "H", LONG: "I"}.get(entry.type)
    if kind is None or entry.count != 1 or not isinstance(entry.value, bytes):
        return None
    return int(struct.unpack(order + kind, entry.value)[0])


def _set_integer(content: bytearray, order: str, entry: Entry, value: int) -> None:
    kind = {SHORT: "H", LONG: "I"}.get(entry.type)
    if kind and entry.count == 1 and value < 256 ** struct.calcsize(kind):
        struct.pack_into(order + kind, content, entry.at, value)


def specifies_adobe_rgb(exif: bytes) -> bool:
    """Return whether a block specifies the colour space Adobe RGB.

    Args:
        exif: Block with or without ``HEADER``.

    Raises:
        ValueError: The block is damaged beyond use.
    """
    block = Block(exif.removeprefix(HEADER))
    spaces, indices = _color_entries(block)
    values = {_get_integer(entry, block.order) for entry in spaces}
    is_r03 = any(block.content[e.at : e.at + 3] == INTEROP_ADOBE_RGB for e in indices)
    return ADOBE_RGB in values or (UNCALIBRATED in values and is_r03)


def specify_srgb(exif: bytes) -> bytes:
    """Return a block whose colour space, where specified, is sRGB.

    Args:
        exif: Block without ``HEADER``.

    Raises:
        ValueError: The block is damaged beyond use.
    """
    block = Block(exif)
    content = bytearray(exif)
    spaces, indices = _color_entries(block)
    for entry in spaces:
        _set_integer(content, block.order, entry, SRGB)
    for entry in indices:
        if content[entry.at : entry.at + 3] == INTEROP_ADOBE_RGB:
            content[entry.at : entry.at + 3] = INTEROP_SRGB
    return bytes(content)


def _color_entries(block: Block) -> tuple[list[Entry], list[Entry]]:
    """Return the entries of the colour space, and those of the interoperability index."""
    inner = _below(block.entries, EXIF_DIRECTORY)
    interop = _below(inner, INTEROP_DIRECTORY)
    return (
        [entry for entry in inner if entry.tag == COLOR_SPACE],
        [e for e in interop if e.tag == INTEROP_INDEX and e.count == 4],
    )


def _below(entries: Iterable[Entry], directory: int) -> list[Entry]:
    """Return the entries of a nested directory."""
    return [
        below
        for entry in entries
        if entry.tag == directory and isinstance(entry.value, tuple)
        for below in entry.value
    ]


def from_tiff(content: bytes) -> bytes | None:
    """Return a block of a TIFF file's image tags, or None without any.

    Raises:
        ValueError: The file is damaged.
    """
    block = Block(content)
    entries = [e for e in block.entries if e.tag in IMAGE_TAGS and not _is_of_layout(e)]
    if {entry.tag for entry in entries} <= TRIVIAL_TAGS:
        return None
    signature = b"II*\0" if block.order == "<" else b"MM\0*"
    return signature + struct.pack(block.order + "I", 8) + _directory_bytes(entries, block.order, 8)


def _is_of_layout(entry: Entry) -> bool:
    """Return whether an entry describes the layout of the original file."""
    value = entry.value
    return (
        entry.tag == IMAGE_DESCRIPTION
        and entry.type == ASCII
        and isinstance(value, bytes)
        and (LAYOUT_DESCRIPTION.match(value) is not None)
    )


def into_tiff(tiff: bytes, exif: bytes) -> bytes:
    """Return a TIFF file whose first page has the image tags of an EXIF block.

    Args:
        tiff: File in the byte order of the block.
        exif: Block without ``HEADER``.

    Raises:
        ValueError: One of them is damaged, or their byte orders differ.
    """
    file, block = Block(tiff), Block(exif)
    if file.order != block.order or file.big:
        raise ValueError("the file and its EXIF block differ in their byte order")
    added = [e for e in block.entries if e.tag in IMAGE_TAGS]
    new = {entry.tag for entry in added}
    entries = sorted(
        [*added, *(e for e in file.entries if e.tag not in new)], key=lambda entry: entry.tag
    )
    position = len(tiff) + len(tiff) % 2
    following = tiff[file.next_directory() : file.next_directory() + 4]
    directory = _directory_bytes(entries, file.order, position, following)
    start = struct.pack(file.order + "I", position)
    return tiff[:4] + start + tiff[8:].ljust(position - 8, b"\0") + directory


def _directory_bytes(
    entries: Iterable[Entry], order: str, position: int, following: bytes = bytes(4)
) -> bytes:
    """Return a directory and the values of its entries, for an offset of ``position``."""
    entries = sorted(entries, key=lambda entry: entry.tag)
    head, tail = bytearray(struct.pack(order + "H", len(entries))), bytearray()
    end = position + 2 + 12 * len(entries) + 4
    for entry in entries:
        if not isinstance(entry.value, bytes):
            value = struct.pack(order + "I", end + len(tail))
            tail += _directory_bytes(entry.value, order, end + len(tail))
        elif len(entry.value) > 4:
            value = struct.pack(order + "I", end + len(tail))
            tail += entry.value + bytes(len(entry.value) % 2)
        else:
            value = entry.value.ljust(4, b"\0")
        head += struct.pack(order + "HHI", entry.tag, entry.type, entry.count) + value
    return bytes(head) + following + bytes(tail)
