"""EXIF data as bytes: what is wrong after a translation is changed in place, all else is kept.

An EXIF block is a small TIFF file: a header of 8 bytes, then directories of entries of 12 bytes
each (TIFF 6.0, section 2; EXIF 2.32, section 4.5). Makers' notes in it hold offsets that only
their makers understand; so a block keeps its layout wherever it can, and no entry is interpreted
that need not be.

Offsets and counts come from strangers: directories may hold each other, and values may overlap. No
more is read of a block than it has bytes, however its entries point.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

HEADER = b"Exif\0\0"  # Before the block in JPEG, and by habit elsewhere.
X_RESOLUTION, Y_RESOLUTION = 0x011A, 0x011B
ORIENTATION = 0x0112
# Where a thumbnail lies, and how long it is: a JPEG, or strips of pixels (EXIF 2.32, 4.6.3).
THUMBNAIL_PLACES = ((0x0201, 0x0202), (0x0111, 0x0117))
EXIF_DIRECTORY, GPS_DIRECTORY, INTEROP_DIRECTORY = 0x8769, 0x8825, 0xA005
PIXEL_WIDTH, PIXEL_HEIGHT = 0xA002, 0xA003
# EXIF 2.32, 4.6.6, and DCF 2.0: which colours the pixels are in. 2 was never a standard.
COLOUR_SPACE, SRGB, ADOBE_RGB, UNCALIBRATED = 0xA001, 1, 2, 0xFFFF
INTEROP_INDEX, INTEROP_SRGB, INTEROP_ADOBE_RGB = 0x0001, b"R98", b"R03"
SUBDIRECTORIES = (EXIF_DIRECTORY, GPS_DIRECTORY, INTEROP_DIRECTORY)
# What a TIFF file's directory says of the image rather than of its own layout: description,
# camera, resolution, date, artist, rating, copyright, IPTC, place on Earth (GeoTIFF), EXIF, GPS.
IMAGE_TAGS = frozenset(
    {270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 18246, 18249, 33432, 33550, 33723, 33922,
     34264, 34665, 34735, 34736, 34737, 34853, 40091, 40092, 40093, 40094, 40095, 42112, 42113}
)  # fmt: skip
# Resolution and the program that wrote it: what nearly every TIFF says, and nobody misses.
TRIVIAL_TAGS = frozenset({282, 283, 296, 305})
# What ImageJ, OME and tifffile write of how a file is laid out: another file is not.
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
        tag: What it is about.
        type: TIFF's number of its type.
        count: Values of that type.
        at: Where in the block the values are.
        value: The values, as bytes in the block's order; of a pointer to another directory,
            its entries instead.
    """

    tag: int
    type: int
    count: int
    at: int
    value: bytes | tuple[Entry, ...]


class Block:
    """An EXIF block or TIFF file that is read.

    Args:
        content: It, without ``HEADER``.

    Raises:
        ValueError: It is none, or its directory is damaged.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        orders = {b"II": "<", b"MM": ">"}
        if content[:2] not in orders:
            raise ValueError("no EXIF block")
        self.order = orders[content[:2]]
        self.big = self._number("H", 2) == 43  # BigTIFF
        # What may still be read: entries, and bytes of their values.
        self.entries_left = self.bytes_left = len(content)
        self.start = self._number("Q", 8) if self.big else self._number("I", 4)
        self.entries = tuple(self._directory(self.start))

    def _number(self, kind: str, at: int) -> int:
        try:
            (number,) = struct.unpack_from(self.order + kind, self.content, at)
        except struct.error as error:
            raise ValueError("the EXIF block ends too early") from error
        return int(number)

    def _directory(self, at: int, depth: int = 0) -> Iterator[Entry]:
        head, size = (8, 20) if self.big else (2, 12)
        count = self._number("Q" if self.big else "H", at)
        for place in range(at + head, at + head + min(count, 65535) * size, size):
            entry = self._entry(place, depth)
            if entry:
                yield entry

    def _entry(self, place: int, depth: int) -> Entry | None:
        self.entries_left -= 1
        if self.entries_left < 0:
            raise ValueError("the EXIF block has more entries than bytes")
        tag, kind = self._number("H", place), self._number("H", place + 2)
        count = self._number("Q" if self.big else "I", place + 4)
        inline, room = (place + 12, 8) if self.big else (place + 8, 4)
        length = count * TYPE_SIZES.get(kind, len(self.content) + 1)
        offset = self._number("Q" if self.big else "I", inline)
        if tag in SUBDIRECTORIES and depth < 2:
            try:
                return Entry(tag, LONG, 1, inline, tuple(self._directory(offset, depth + 1)))
            except ValueError:
                return None  # One damaged directory does not spoil the others.
        at = inline if length <= room else offset
        if at + length > len(self.content):
            return None
        self.bytes_left -= length
        if self.bytes_left < 0:
            raise ValueError("the values in the EXIF block are more than its bytes")
        return Entry(tag, kind, count, at, self.content[at : at + length])

    def next_directory(self) -> int:
        """Where the block says where its second directory, the thumbnail's, begins."""
        head, size = (8, 20) if self.big else (2, 12)
        count = self._number("Q" if self.big else "H", self.start)
        return self.start + head + count * size

    def thumbnail(self) -> tuple[slice, ...]:
        """Where the thumbnail's JPEG is, or the strips of its pixels."""
        end = self.next_directory() + 4
        if end > len(self.content):
            return ()  # Some writers leave the pointer to it out.
        second = self._number("I", end - 4)
        entries = {e.tag: e for e in self._directory(second, depth=2)} if second else {}
        parts = tuple(
            slice(start, start + length)
            for starts, lengths in THUMBNAIL_PLACES
            if starts in entries and lengths in entries
            for start, length in zip(
                self._numbers(entries[starts]), self._numbers(entries[lengths]), strict=False
            )
            # In a damaged block it may be said to lie upon what is to be kept.
            if start >= end or 8 <= start <= start + length <= self.start
        )
        covered = sum(len(range(*part.indices(len(self.content)))) for part in parts)
        return parts if covered <= len(self.content) else ()

    def _numbers(self, entry: Entry) -> Iterator[int]:
        """An entry's numbers, if whole and positive."""
        kind = {SHORT: "H", LONG: "I"}.get(entry.type)
        if kind is not None and isinstance(entry.value, bytes):
            yield from (number for (number,) in struct.iter_unpack(self.order + kind, entry.value))


def made_upright(exif: bytes, turned: bool) -> bytes:
    """The block of an upright image: orientation 1, no thumbnail (it shows the old image).

    Args:
        exif: With or without ``HEADER``.
        turned: Whether width and height have changed places.

    Returns:
        Without ``HEADER``.

    Raises:
        ValueError: It is damaged beyond use.
    """
    block = Block(exif.removeprefix(HEADER))
    content = bytearray(block.content)
    for entry in block.entries:
        if entry.tag == ORIENTATION:
            _set_number(content, block.order, entry, 1)
        elif entry.tag == EXIF_DIRECTORY and turned:
            _swap_sides(content, block.order, entry)
        elif _is_of_layout(entry):
            content[entry.at : entry.at + entry.count] = bytes(entry.count)
    if turned:
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
        old_width, old_height = _get_number(width, order), _get_number(height, order)
        if old_width is not None and old_height is not None:
            _set_number(content, order, width, old_height)
            _set_number(content, order, height, old_width)


def _swap_resolutions(content: bytearray, entries: Iterable[Entry]) -> None:
    """Those of rows and columns; each is a fraction of two numbers somewhere in the block."""
    found = {entry.tag: entry for entry in entries if entry.tag in (X_RESOLUTION, Y_RESOLUTION)}
    x, y = found.get(X_RESOLUTION), found.get(Y_RESOLUTION)
    if x and y and (x.type, x.count) == (y.type, y.count) == (RATIONAL, 1) and abs(x.at - y.at) > 7:
        at_x, at_y = slice(x.at, x.at + 8), slice(y.at, y.at + 8)
        content[at_x], content[at_y] = content[at_y], content[at_x]


def _get_number(entry: Entry, order: str) -> int | None:
    kind = {SHORT: "H", LONG: "I"}.get(entry.type)
    if kind is None or entry.count != 1 or not isinstance(entry.value, bytes):
        return None
    return int(struct.unpack(order + kind, entry.value)[0])


def _set_number(content: bytearray, order: str, entry: Entry, number: int) -> None:
    kind = {SHORT: "H", LONG: "I"}.get(entry.type)
    if kind and entry.count == 1 and number < 256 ** struct.calcsize(kind):
        struct.pack_into(order + kind, content, entry.at, number)


def says_adobe_rgb(exif: bytes) -> bool:
    """Whether a block says that the pixels are in Adobe RGB.

    Args:
        exif: With or without ``HEADER``.

    Raises:
        ValueError: It is damaged beyond use.
    """
    block = Block(exif.removeprefix(HEADER))
    spaces, indices = _colour_entries(block)
    said = {_get_number(entry, block.order) for entry in spaces}
    is_r03 = any(block.content[e.at : e.at + 3] == INTEROP_ADOBE_RGB for e in indices)
    return ADOBE_RGB in said or (UNCALIBRATED in said and is_r03)


def said_to_be_srgb(exif: bytes) -> bytes:
    """The same block, if it says what colours the pixels are in, for pixels in sRGB.

    Args:
        exif: Without ``HEADER``.

    Raises:
        ValueError: It is damaged beyond use.
    """
    block = Block(exif)
    content = bytearray(exif)
    spaces, indices = _colour_entries(block)
    for entry in spaces:
        _set_number(content, block.order, entry, SRGB)
    for entry in indices:
        if content[entry.at : entry.at + 3] == INTEROP_ADOBE_RGB:
            content[entry.at : entry.at + 3] = INTEROP_SRGB
    return bytes(content)


def _colour_entries(block: Block) -> tuple[list[Entry], list[Entry]]:
    """Those of the colour space, and those of the interoperability index."""
    inner = _below(block.entries, EXIF_DIRECTORY)
    interop = _below(inner, INTEROP_DIRECTORY)
    return (
        [entry for entry in inner if entry.tag == COLOUR_SPACE],
        [e for e in interop if e.tag == INTEROP_INDEX and e.count == 4],
    )


def _below(entries: Iterable[Entry], directory: int) -> list[Entry]:
    """The entries of a directory below."""
    return [
        below
        for entry in entries
        if entry.tag == directory and isinstance(entry.value, tuple)
        for below in entry.value
    ]


def from_tiff(content: bytes) -> bytes | None:
    """What a TIFF file says of its image, as a block; None where it says nothing.

    Raises:
        ValueError: It is damaged.
    """
    block = Block(content)
    entries = [e for e in block.entries if e.tag in IMAGE_TAGS and not _is_of_layout(e)]
    if {entry.tag for entry in entries} <= TRIVIAL_TAGS:
        return None
    mark = b"II*\0" if block.order == "<" else b"MM\0*"
    return mark + struct.pack(block.order + "I", 8) + _directory_bytes(entries, block.order, 8)


def _is_of_layout(entry: Entry) -> bool:
    """Whether it is a description of how pixels lie in the file that it came from."""
    value = entry.value
    return (
        entry.tag == IMAGE_DESCRIPTION
        and entry.type == ASCII
        and isinstance(value, bytes)
        and (LAYOUT_DESCRIPTION.match(value) is not None)
    )


def into_tiff(tiff: bytes, exif: bytes) -> bytes:
    """A TIFF file of one page or more, whose first also says what an EXIF block does.

    Args:
        tiff: In the block's byte order.
        exif: Without ``HEADER``.

    Raises:
        ValueError: One of them is damaged, or they are in different byte orders.
    """
    file, block = Block(tiff), Block(exif)
    if file.order != block.order or file.big:
        raise ValueError("the file and its EXIF block differ in their byte order")
    added = [e for e in block.entries if e.tag in IMAGE_TAGS]
    new = {entry.tag for entry in added}
    entries = sorted(
        [*added, *(e for e in file.entries if e.tag not in new)], key=lambda entry: entry.tag
    )
    place = len(tiff) + len(tiff) % 2
    following = tiff[file.next_directory() : file.next_directory() + 4]
    directory = _directory_bytes(entries, file.order, place, following)
    start = struct.pack(file.order + "I", place)
    return tiff[:4] + start + tiff[8:].ljust(place - 8, b"\0") + directory


def _directory_bytes(
    entries: Iterable[Entry], order: str, place: int, following: bytes = bytes(4)
) -> bytes:
    """A directory, and behind it all that its entries point to, as if it began at ``place``."""
    entries = sorted(entries, key=lambda entry: entry.tag)
    head, tail = bytearray(struct.pack(order + "H", len(entries))), bytearray()
    end = place + 2 + 12 * len(entries) + 4
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
