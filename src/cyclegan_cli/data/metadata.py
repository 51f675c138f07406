"""Metadata of image files: EXIF, XMP, resolution; and auxiliary data that is not kept."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from PIL import ExifTags, Image, PngImagePlugin

from cyclegan_cli.data import exif as exif_block
from cyclegan_cli.data.containers import whole_file

XMP_KEYWORD = "XML:com.adobe.xmp"
# As attribute or element, in the forms that Pillow reads; others were not applied.
XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:="|>))[0-9]+""")
# Pairs to exchange if width becomes height.
XMP_SIDES = (
    (b"tiff:ImageWidth", b"tiff:ImageLength"),
    (b"exif:PixelXDimension", b"exif:PixelYDimension"),
    (b"tiff:XResolution", b"tiff:YResolution"),
)
XMP_THUMBNAILS = re.compile(rb"<(/?)(\w+):Thumbnails\b[^<>]*(?<!/)>")
# Colour space, with the values of EXIF, and name of the profile.
XMP_COLOR_SPACE = re.compile(rb"""(exif:ColorSpace(?:=["']|>))[0-9]+""")
XMP_PROFILE = re.compile(rb"""(photoshop:ICCProfile(?:=["']|>))[^"'<]*""")
SRGB_PROFILE = rb"\g<1>sRGB IEC61966-2.1"


@dataclass(frozen=True)
class Metadata:
    """Metadata of a file, adjusted to its upright translation.

    Attributes:
        exif: EXIF block without ``exif.HEADER``, or empty.
        xmp: XMP packet, or empty.
        dpi: Horizontal and vertical resolution in pixels per inch.
    """

    exif: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None


NO_METADATA = Metadata()


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if it is missing or unreadable.

    Raises:
        OSError: The pixels of a PNG, which may precede its EXIF data, are damaged.
    """
    if image.format == "PNG":
        # Pillow would load it below, where the error would be swallowed and half an image returned.
        image.load()
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1  # Damaged EXIF data does not make an image unreadable.
    return value if value in range(1, 9) else 1


def read_metadata(image: Image.Image, swaps_sides: bool) -> tuple[Metadata, tuple[str, ...]]:
    """Read the metadata of a file before its pixels are loaded.

    Args:
        image: The file, opened by Pillow.
        swaps_sides: Whether the orientation exchanges width and height.

    Returns:
        The metadata, and remarks on what is not kept.
    """
    remarks: list[str] = []
    if image.format == "PNG":
        image.load()  # Metadata may follow the pixels.
    try:
        exif = exif_of(image)
        exif = exif_block.normalize_orientation(exif, swaps_sides) if exif else b""
    except (ValueError, TypeError, OSError):
        exif, remarks = b"", ["its EXIF data is damaged and was left out"]
    xmp = image.info.get("xmp") or b""
    xmp = xmp.encode() if isinstance(xmp, str) else bytes(xmp)
    xmp, dropped = strip_auxiliary_xmp(xmp)
    remarks += dict.fromkeys((*dropped, *auxiliary_data(image), *_lost_description(image)))
    xmp = _without_thumbnails(XMP_ORIENTATION.sub(rb"\g<1>1", xmp))
    xmp = _with_sides_swapped(xmp) if swaps_sides else xmp
    dpi = image.info.get("dpi")
    sensible = isinstance(dpi, tuple) and len(dpi) == 2 and all(0 < d < 65536 for d in dpi)
    both = (float(dpi[0]), float(dpi[1])) if dpi and sensible else None
    both = both[::-1] if both and swaps_sides else both
    return Metadata(exif, xmp, both), tuple(remarks)


def _lost_description(image: Any) -> tuple[str, ...]:
    """Return a remark if a TIFF's description of its own layout contains more than that."""
    description = str(
        image.tag_v2.get(exif_block.IMAGE_DESCRIPTION, "") if image.format == "TIFF" else ""
    )
    for kind, mark in (("ImageJ", "ImageJ="), ("OME", "<OME")):
        if mark in description[:1000]:
            return (f"its {kind} description of the original file was left out",)
    return ()


def with_srgb_specified(metadata: Metadata) -> Metadata:
    """Set the colour space in metadata to sRGB, where it is specified.

    Raises:
        ValueError: The EXIF block is damaged.
    """
    exif = exif_block.specify_srgb(metadata.exif) if metadata.exif else b""
    xmp = XMP_COLOR_SPACE.sub(rb"\g<1>1", metadata.xmp)
    return replace(metadata, exif=exif, xmp=XMP_PROFILE.sub(SRGB_PROFILE, xmp))


def _without_thumbnails(xmp: bytes) -> bytes:
    """Remove thumbnail elements from an XMP packet in a single pass."""
    tags = [(tag[2], not tag[1], tag.start(), tag.end()) for tag in XMP_THUMBNAILS.finditer(xmp)]
    last_end = {prefix: end for prefix, is_start, _, end in tags if not is_start}
    kept, position, inside = bytearray(), 0, None
    for prefix, is_start, start, end in tags:
        if inside is None and is_start and start < last_end.get(prefix, 0):
            kept += xmp[position:start]
            inside = prefix
        elif prefix == inside and not is_start:
            position, inside = end, None
    return bytes(kept) + xmp[position:]


def _with_sides_swapped(xmp: bytes) -> bytes:
    """Exchange the values of width and height in an XMP packet that has both."""
    for names in XMP_SIDES:
        matches = [re.search(name + rb"""(?:=["']|>)([0-9/]+)(?=["'<])""", xmp) for name in names]
        if matches[0] is None or matches[1] is None:
            continue
        first, second = sorted((matches[0], matches[1]), key=lambda match: match.start())
        between = xmp[first.end(1) : second.start(1)]
        xmp = b"".join((xmp[: first.start(1)], second[1], between, first[1], xmp[second.end(1) :]))
    return xmp


def exif_of(image: Image.Image) -> bytes | None:
    """Return the EXIF block of a file opened by Pillow; of a TIFF, its own tags.

    Raises:
        ValueError: The block is damaged.
    """
    if image.format == "TIFF":
        return exif_block.from_tiff(whole_file(image))
    if isinstance(image.info.get("exif"), bytes):
        return bytes(image.info["exif"])
    if raw := image.info.get("Raw profile type exif"):  # As text, by ImageMagick.
        return bytes.fromhex("".join(str(raw).split("\n")[3:]))
    return None


def save_options(metadata: Metadata, format: str) -> dict[str, Any]:
    """Return the arguments of Pillow's writer of a format."""
    options: dict[str, Any] = {}
    if metadata.exif:
        options["exif"] = exif_block.HEADER + metadata.exif
    if metadata.dpi:
        options["dpi"] = metadata.dpi
    if metadata.xmp and format == "PNG":
        info = PngImagePlugin.PngInfo()
        # Never compressed (XMP specification, part 3).
        info.add_itxt(XMP_KEYWORD, metadata.xmp.decode("utf-8", "replace"))
        options["pnginfo"] = info
    elif metadata.xmp:
        options["xmp"] = metadata.xmp
    return options


VIDEO = "the video in it (motion photo) was left out"
GAIN_MAP = "its gain map, which makes it HDR, was left out"
DEPTH_MAP = "its depth map was left out"
EXTENDED = "the extended part of its XMP data was left out"

# Names in XMP, with the prefixes that the vendors recommend: Google's camera and container (motion
# photo format 1.0; Ultra HDR 1.1), gain maps of Adobe and Apple, Google's depth maps, and the
# second part of packets above 64 KB (XMP specification, part 3, 1.1.3.1).
XMP_NAMES = {
    VIDEO: rb"\w+:(?:MotionPhoto|MicroVideo)\w*",
    GAIN_MAP: rb"hdrgm:\w+|HDRGainMap:\w+",
    DEPTH_MAP: rb"(?:GDepth|GImage|GAudio):\w+",
    EXTENDED: rb"xmpNote:HasExtendedXMP",
}
CONTAINER = rb"(?:G?Container):Directory"
ANY_NAME = b"|".join([*XMP_NAMES.values(), CONTAINER])
XMP_TAG = re.compile(rb"<(/?)(" + ANY_NAME + rb")(?=[\s/>])[^<>]*>")
XMP_ATTRIBUTE = re.compile(rb"""\s(""" + ANY_NAME + rb""")\s*=\s*(?:"[^"<]*"|'[^'<]*')""")
# Some cameras write the names for every photo.
NO_VIDEO = re.compile(rb"""\s\w+:(?:MotionPhoto|MicroVideo)\s*=\s*["']0["']""")
CONTAINED = {rb"MotionPhoto": VIDEO, rb"GainMap": GAIN_MAP, rb"Depth": DEPTH_MAP}

JPEG_END = b"\xff\xd9"
VIDEO_HEAD = re.compile(rb"\0\0\0.ftyp(?:3gp|avc|iso|mp4|M4V|qt  )", re.DOTALL)
ISO_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1"
TONE_MAP, HEAD_BYTES = b"tmap", 4096  # Item of an AVIF, listed in its first bytes.
GAIN_MAP_MARKS = (b"urn:com:apple:photo:2020:aux:hdrgainmap", b"hdrgm:Version")


def strip_auxiliary_xmp(xmp: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Remove references to auxiliary data from an XMP packet.

    Args:
        xmp: XMP packet.

    Returns:
        The packet, and a message for each kind of auxiliary data.
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
    has_no_video = NO_VIDEO.search(kept) is not None
    for match in XMP_ATTRIBUTE.finditer(kept):
        note(match[1], b"")
    if has_no_video:
        found.pop(VIDEO, None)
    return XMP_ATTRIBUTE.sub(b"", kept), tuple(found)


def _without_elements(xmp: bytes, note: Callable[[bytes, bytes], None]) -> bytes:
    """Remove the elements of auxiliary data, and call ``note`` with each."""
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


def auxiliary_data(image: Any) -> tuple[str, ...]:
    """Return a message for each kind of auxiliary data that XMP need not mention.

    Args:
        image: The file, opened by Pillow, not loaded.
    """
    if image.format in ("JPEG", "MPO"):
        return _of_jpeg(image)
    if image.format == "AVIF":
        position = image.fp.tell()
        image.fp.seek(0)
        head = image.fp.read(HEAD_BYTES)
        image.fp.seek(position)
        return (GAIN_MAP,) * (TONE_MAP in head)
    if image.format == "HEIF":
        is_hdr = any("hdrgainmap" in str(kind) for kind in image.info.get("aux") or ())
        has_depth = bool(image.info.get("depth_images"))
        return (GAIN_MAP,) * is_hdr + (DEPTH_MAP,) * has_depth
    return ()


def _of_jpeg(image: Any) -> tuple[str, ...]:
    has_gain_map = any(content.startswith(ISO_GAIN_MAP) for _, content in image.applist)
    stream, position = image.fp, image.fp.tell()
    size = stream.seek(0, 2)
    stream.seek(max(size - 64, 0))
    end = stream.read(64).rstrip(b"\0")
    has_video = False
    if image.format == "MPO" or not end.endswith(JPEG_END):
        stream.seek(0)
        content = stream.read()
        if image.format == "MPO":  # Further images have XMP data of their own.
            has_gain_map = has_gain_map or any(mark in content for mark in GAIN_MAP_MARKS)
        has_video = VIDEO_HEAD.search(content) is not None
    stream.seek(position)
    return (VIDEO,) * has_video + (GAIN_MAP,) * has_gain_map
