"""What travels in a photo's file beside it and is left out: films, gain maps, depth maps."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

FILM = "the film in it (motion photo) was left out"
GAIN_MAP = "its gain map, which makes it HDR, was left out"
DEPTH_MAP = "its depth map was left out"
EXTENDED = "its XMP data goes on elsewhere in the file, which was left out"

# What XMP says of them, by the prefixes that their makers recommend: Google's camera and container
# (motion photo format 1.0; Ultra HDR 1.1), Adobe's and Apple's gain maps, Google's depth maps,
# and the second part of what is larger than 64 KB (XMP specification, part 3, 1.1.3.1).
XMP_NAMES = {
    FILM: rb"\w+:(?:MotionPhoto|MicroVideo)\w*",
    GAIN_MAP: rb"hdrgm:\w+|HDRGainMap:\w+",
    DEPTH_MAP: rb"(?:GDepth|GImage|GAudio):\w+",
    EXTENDED: rb"xmpNote:HasExtendedXMP",
}
CONTAINER = rb"(?:G?Container):Directory"
ANY_NAME = b"|".join([*XMP_NAMES.values(), CONTAINER])
XMP_TAG = re.compile(rb"<(/?)(" + ANY_NAME + rb")(?=[\s/>])[^<>]*>")
XMP_ATTRIBUTE = re.compile(rb"""\s(""" + ANY_NAME + rb""")\s*=\s*(?:"[^"<]*"|'[^'<]*')""")
# Some cameras write the names for all photos.
NO_FILM = re.compile(rb"""\s\w+:(?:MotionPhoto|MicroVideo)\s*=\s*["']0["']""")
CONTAINED = {rb"MotionPhoto": FILM, rb"GainMap": GAIN_MAP, rb"Depth": DEPTH_MAP}

JPEG_END = b"\xff\xd9"
FILM_HEAD = re.compile(rb"\0\0\0.ftyp(?:3gp|avc|iso|mp4|M4V|qt  )", re.DOTALL)
ISO_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1"
TONE_MAP, HEAD_BYTES = b"tmap", 4096  # An item of an AVIF, listed at its beginning.
GAIN_MAP_MARKS = (b"urn:com:apple:photo:2020:aux:hdrgainmap", b"hdrgm:Version")


def without_companions(xmp: bytes) -> tuple[bytes, tuple[str, ...]]:
    """An XMP packet that says nothing of what is left out, and what that is.

    Args:
        xmp: A packet.

    Returns:
        It, and a sentence for each thing.
    """
    found: dict[str, None] = {}

    def note(name: bytes, content: bytes) -> None:
        for sentence, names in XMP_NAMES.items():
            if re.fullmatch(names, name):
                found[sentence] = None
        for kind, sentence in CONTAINED.items():
            if re.search(rb"""Item:Semantic(?:\s*=\s*["']|>)""" + kind, content):
                found[sentence] = None

    kept = _without_elements(xmp, note)
    has_no_film = NO_FILM.search(kept) is not None
    for match in XMP_ATTRIBUTE.finditer(kept):
        note(match[1], b"")
    if has_no_film:
        found.pop(FILM, None)
    return XMP_ATTRIBUTE.sub(b"", kept), tuple(found)


def _without_elements(xmp: bytes, note: Callable[[bytes, bytes], None]) -> bytes:
    """A packet without the elements of these names, each of which is noted with its content."""
    kept, end, start, opened = [], 0, 0, b""
    for tag in XMP_TAG.finditer(xmp):
        is_closing, name = bool(tag[1]), tag[2]
        if opened and not (is_closing and name == opened):
            continue
        if opened or (not is_closing and tag[0].endswith(b"/>")):
            start = start if opened else tag.start()
            note(name, xmp[start : tag.end()])
            kept.append(xmp[end:start])
            end, opened = tag.end(), b""
        elif not is_closing:
            start, opened = tag.start(), name
    return b"".join([*kept, xmp[end:]])


def companions(image: Any) -> tuple[str, ...]:
    """A sentence for each thing that the file holds beside its image, where XMP need not say so.

    Args:
        image: As Pillow has opened it, its pixels not loaded.
    """
    if image.format in ("JPEG", "MPO"):
        return _of_jpeg(image)
    if image.format == "AVIF":
        place = image.fp.tell()
        image.fp.seek(0)
        head = image.fp.read(HEAD_BYTES)
        image.fp.seek(place)
        return (GAIN_MAP,) * (TONE_MAP in head)
    if image.format == "HEIF":
        is_hdr = any("hdrgainmap" in str(kind) for kind in image.info.get("aux") or ())
        has_depth = bool(image.info.get("depth_images"))
        return (GAIN_MAP,) * is_hdr + (DEPTH_MAP,) * has_depth
    return ()


def _of_jpeg(image: Any) -> tuple[str, ...]:
    has_gain_map = any(content.startswith(ISO_GAIN_MAP) for _, content in image.applist)
    stream, place = image.fp, image.fp.tell()
    size = stream.seek(0, 2)
    stream.seek(max(size - 64, 0))
    end = stream.read(64).rstrip(b"\0")
    has_film = False
    if image.format == "MPO" or not end.endswith(JPEG_END):
        stream.seek(0)
        content = stream.read()
        if image.format == "MPO":  # The images behind the photo have XMP data of their own.
            has_gain_map = has_gain_map or any(mark in content for mark in GAIN_MAP_MARKS)
        has_film = FILM_HEAD.search(content) is not None
    stream.seek(place)
    return (FILM,) * has_film + (GAIN_MAP,) * has_gain_map
