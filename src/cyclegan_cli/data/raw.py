"""Raw photos, which hold what a sensor saw, and previews that must not be taken for the picture."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, BinaryIO

from cyclegan_cli.errors import DataError

# Extensions of cameras' raw files.
RAW_SUFFIXES = frozenset(
    {".3fr", ".ari", ".arw", ".bay", ".cap", ".cr2", ".cr3", ".crw", ".dcr", ".dcs", ".dng",
     ".drf", ".eip", ".erf", ".fff", ".gpr", ".iiq", ".k25", ".kdc", ".mdc", ".mef", ".mos",
     ".mrw", ".nef", ".nrw", ".orf", ".pef", ".ptx", ".r3d", ".raf", ".rw2", ".rwl", ".rwz",
     ".sr2", ".srf", ".srw", ".x3f"}
)  # fmt: skip
# What raw files that are no TIFF begin with, from a place in them.
SIGNATURES = (
    (0, b"FUJIFILMCCD-RAW", "RAF"), (0, b"IIRO", "ORF"), (0, b"IIRS", "ORF"), (0, b"MMOR", "ORF"),
    (0, b"IIU\0", "RW2"), (0, b"FOVb", "X3F"), (0, b"\0MRM", "MRW"), (6, b"HEAPCCDR", "CRW"),
    (4, b"ftypcrx ", "CR3"), (8, b"CR", "CR2"),
)  # fmt: skip
TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
HEAD_BYTES = 32
# TIFF 6.0, TIFF/EP and DNG 1.7: what directories say of the picture in them.
NEW_SUBFILE_TYPE, SUBFILE_TYPE, WIDTH, HEIGHT, PHOTOMETRIC = 254, 255, 256, 257, 262
SUB_DIRECTORIES, DNG_VERSION = 330, 50706
REDUCED_OR_MASK, OLD_REDUCED = 0b101, 2
SENSOR_DATA = (32803, 34892)  # A colour filter array, and linear raw
SHORT, LONG = 3, 4
Directory = dict[int, int]
MOST_DIRECTORIES, MOST_TAGS = 64, 4096  # A raw photo has fewer than ten, and a hundred tags.
DEVELOP = "Develop it first, e.g. with darktable or RawTherapee, and translate the TIFF or PNG."


def refuse_raw(file: BinaryIO, name: str) -> None:
    """Refuse a raw photo by what is in its file, and any TIFF that has a raw photo's extension.

    Args:
        file: Of a picture or anything else.
        name: For the message.

    Raises:
        DataError: It is one, or a preview whose picture is where Pillow does not look for it.
    """
    head = file.read(HEAD_BYTES)
    is_tiff = head.startswith(TIFF_HEADS)
    for place, signature, kind in SIGNATURES:
        if head[place:].startswith(signature) and (kind != "CR2" or is_tiff):
            raise _raw(name, kind)
    if not is_tiff:
        return
    suffix = PurePath(name).suffix
    if suffix.lower() in RAW_SUFFIXES:
        raise _raw(name, suffix[1:].upper())
    pages, below = _directories(file, head)
    if any(DNG_VERSION in directory for directory in pages[:1]):
        raise _raw(name, "DNG")
    if any(directory.get(PHOTOMETRIC) in SENSOR_DATA for directory in (*pages, *below)):
        raise _raw(name, "TIFF")
    shown = next((page for page in pages if not is_reduced(page)), {})
    if pages and any(_is_larger(other, shown) for other in below if not is_reduced(other)):
        page = shown or pages[0]
        raise picture_elsewhere(name, page.get(WIDTH, 0), page.get(HEIGHT, 0))


def is_reduced(tags: Mapping[int, Any]) -> bool:
    """Whether a TIFF directory's tags say that it is a reduced version or a mask of another."""
    new = tags.get(NEW_SUBFILE_TYPE, 0)
    return bool(isinstance(new, int) and new & REDUCED_OR_MASK) or (
        tags.get(SUBFILE_TYPE) == OLD_REDUCED
    )


def _is_larger(one: Directory, other: Directory) -> bool:
    return all(one.get(side, 0) > other.get(side, 0) for side in (WIDTH, HEIGHT))


def _raw(name: str, kind: str) -> DataError:
    return DataError(f"{name} is a raw photo ({kind}): it holds what the sensor saw", DEVELOP)


def picture_elsewhere(name: str, width: int, height: int) -> DataError:
    """What to raise of a TIFF whose pages are all reduced versions of its picture."""
    return DataError(
        f"{name} shows a reduced version of its picture, {width}x{height}, "
        "and the picture itself is not where it is read",
        "Convert it to a plain TIFF or PNG.",
    )


def _directories(file: BinaryIO, head: bytes) -> tuple[list[Directory], list[Directory]]:
    """The first directories of a TIFF, and those that the very first points to (SubIFDs)."""
    order, is_big = "<" if head[:2] == b"II" else ">", head[2:4] in (b"+\0", b"\0+")
    pages: list[Directory] = []
    below: list[Directory] = []
    try:
        (offset,) = struct.unpack_from(order + ("Q" if is_big else "I"), head, 8 if is_big else 4)
        while offset and len(pages) < MOST_DIRECTORIES:
            found, offsets, offset = _directory(file, offset, order, is_big)
            if not pages:
                below += [_directory(file, place, order, is_big)[0] for place in offsets]
            pages.append(found)
    except (struct.error, OverflowError, OSError, ValueError):
        pass  # Damaged: whoever decodes it will tell.
    return pages, below


def _directory(
    file: BinaryIO, start: int, order: str, is_big: bool
) -> tuple[Directory, list[int], int]:
    """The tags that have one number, where its SubIFDs are, and where the next directory is."""
    head, size, inline = ("Q", 20, 12) if is_big else ("H", 12, 8)
    offset = "Q" if is_big else "I"
    file.seek(start)
    (count,) = struct.unpack(order + head, file.read(struct.calcsize(head)))
    content = file.read(min(count, MOST_TAGS) * size + struct.calcsize(offset))
    numbers: Directory = {}
    subs: list[int] = []
    for at in range(0, min(count, MOST_TAGS) * size, size):
        tag, kind, values = struct.unpack_from(f"{order}HH{offset}", content, at)
        if tag == SUB_DIRECTORIES:
            (place,) = struct.unpack_from(order + offset, content, at + inline)
            subs = _offsets(file, place, values, order + ("Q" if kind in (16, 18) else "I"))
        elif kind in (SHORT, LONG) or tag == DNG_VERSION:
            number = "H" if kind == SHORT else "I"
            (numbers[tag],) = struct.unpack_from(order + number, content, at + inline)
    (following,) = struct.unpack_from(order + offset, content, min(count, MOST_TAGS) * size)
    return numbers, subs, following


def _offsets(file: BinaryIO, place: int, count: int, number: str) -> list[int]:
    """Different places, and not very many."""
    if count == 1:
        return [place]
    file.seek(place)
    content = file.read(min(count, MOST_DIRECTORIES) * struct.calcsize(number))
    return list(dict.fromkeys(value for (value,) in struct.iter_unpack(number, content)))
