"""What AVIF and JPEG 2000 files say of their colours, from their boxes (ISO/IEC 14496-12)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

FULL_BOX = 4  # Version and flags before the content.
SAMPLE_ENTRIES, VISUAL_SAMPLE_ENTRY = 8, 78  # What precedes the boxes in them.
ICC_METHODS = (2, 3)  # ISO/IEC 15444-1, I.5.3.3: restricted, and (JPX) any profile
ENUMERATED, CICP_METHOD = 1, 5
E_SRGB_AND_KIN = {14: "CIELab", 19: "CIEJab", 20: "e-sRGB", 21: "ROMM RGB", 24: "e-sYCC"}


@dataclass(frozen=True)
class ColourBox:
    """A file's colour specification.

    Attributes:
        icc: A profile, or None.
        cicp: Colour primaries and transfer characteristics (ITU-T H.273), or None.
        other: The name of a space that is said otherwise, or None.
    """

    icc: bytes | None = None
    cicp: tuple[int, int] | None = None
    other: str | None = None


def _boxes(content: Any, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, and where the content begins and ends, of each box between two places."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", content, start)
        head = 8
        if size == 1 and start + 16 <= end:
            (size,) = struct.unpack_from(">Q", content, start + 8)
            head = 16
        size = end - start if size == 0 else size
        if size < head:
            return
        yield kind, start + head, min(start + size, end)
        start += size


def _inside(content: Any, path: tuple[bytes, ...], skips: dict[bytes, int]) -> tuple[int, int]:
    """Where the content of the first box at a path of kinds is; nowhere if there is none."""
    start, end = 0, len(content)
    for kind in path:
        found = next((box for box in _boxes(content, start, end) if box[0] == kind), None)
        if found is None:
            return 0, 0
        start, end = found[1] + skips.get(kind, 0), found[2]
    return start, end


def avif_colours(content: Any) -> ColourBox:
    """What an AVIF says of its main image, or else of its first track.

    Args:
        content: All bytes of the file.

    Raises:
        struct.error: It is damaged.
    """
    skips = {b"meta": FULL_BOX, b"stsd": SAMPLE_ENTRIES, b"av01": VISUAL_SAMPLE_ENTRY}
    start, end = _inside(content, (b"meta", b"iprp", b"ipco"), skips)
    properties = list(_boxes(content, start, end))
    chosen = [properties[i - 1] for i in _of_main_item(content) if 0 < i <= len(properties)]
    if not properties:
        track = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"av01")
        chosen = list(_boxes(content, *_inside(content, track, skips)))
    found = ColourBox()
    for kind, start, _ in chosen:
        if kind == b"colr" and content[start : start + 4] == b"nclx" and found.cicp is None:
            found = ColourBox(cicp=struct.unpack_from(">HH", content, start + 4))
    return found


def _of_main_item(content: Any) -> Iterator[int]:
    """Numbers, from 1, of the properties of a file's main item (ISO/IEC 23008-12, 9.3)."""
    start, end = _inside(content, (b"meta", b"pitm"), {b"meta": FULL_BOX})
    if start == end:
        return
    main = struct.unpack_from(">I" if content[start] else ">H", content, start + FULL_BOX)[0]
    start, end = _inside(content, (b"meta", b"iprp", b"ipma"), {b"meta": FULL_BOX})
    if start == end:
        return
    version, is_wide = content[start], content[start + 3] & 1
    place = start + 8
    while place < end:
        item, count = struct.unpack_from(">IB" if version else ">HB", content, place)
        place += 5 if version else 3
        for _ in range(count):
            number = struct.unpack_from(">H" if is_wide else ">B", content, place)[0]
            place += 2 if is_wide else 1
            if item == main:
                yield number & (0x7FFF if is_wide else 0x7F)


def jpeg2000_colours(content: Any) -> ColourBox:
    """What a JPEG 2000 with a container says; of several specifications the first understood.

    Args:
        content: All bytes of the file.
    """
    for kind, start, end in _boxes(content, *_inside(content, (b"jp2h",), {})):
        if kind != b"colr" or end - start < 4:
            continue
        method = content[start]
        if method in ICC_METHODS:
            return ColourBox(icc=bytes(content[start + 3 : end]))
        if method == CICP_METHOD and end - start >= 7:
            return ColourBox(cicp=struct.unpack_from(">HH", content, start + 3))
        if method == ENUMERATED and end - start >= 7:
            (number,) = struct.unpack_from(">I", content, start + 3)
            return ColourBox(other=E_SRGB_AND_KIN.get(number))
    return ColourBox()
