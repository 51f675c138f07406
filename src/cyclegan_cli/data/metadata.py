"""What a file says besides its pixels: EXIF, XMP, resolution. Kept, but for what is wrong now."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from PIL import ExifTags, Image, PngImagePlugin

from cyclegan_cli.data import exif as exif_block
from cyclegan_cli.data.companions import companions, without_companions

XMP_KEYWORD = "XML:com.adobe.xmp"
# As an attribute or as an element: the orientation that was applied, and images of the old one.
# Only as Pillow understands it: else it has not been applied.
XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:="|>))[0-9]+""")
# What changes places where width becomes height.
XMP_SIDES = (
    (b"tiff:ImageWidth", b"tiff:ImageLength"),
    (b"exif:PixelXDimension", b"exif:PixelYDimension"),
    (b"tiff:XResolution", b"tiff:YResolution"),
)
XMP_THUMBNAILS = re.compile(rb"<(/?)(\w+):Thumbnails\b[^<>]*(?<!/)>")
# What the colours are in: a number as in EXIF, and the name of the profile.
XMP_COLOUR_SPACE = re.compile(rb"""(exif:ColorSpace(?:=["']|>))[0-9]+""")
XMP_PROFILE = re.compile(rb"""(photoshop:ICCProfile(?:=["']|>))[^"'<]*""")
SRGB_PROFILE = rb"\g<1>sRGB IEC61966-2.1"


@dataclass(frozen=True)
class Metadata:
    """What a file says besides its pixels, as true of an upright translation.

    Attributes:
        exif: An EXIF block without ``exif.HEADER``; empty where there is none.
        xmp: An XMP packet; empty where there is none.
        dpi: Horizontal and vertical resolution, in pixels an inch.
    """

    exif: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None


NO_METADATA = Metadata()


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or it cannot be read.

    Raises:
        OSError: It is a PNG, whose EXIF data may follow its pixels, and those are damaged.
    """
    if image.format == "PNG":
        # Pillow would do so below, where its error is not heard: then it gives half an image.
        image.load()
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1  # Damaged EXIF data is no reason to refuse an image.
    return value if value in range(1, 9) else 1


def read_metadata(image: Image.Image, turned: bool) -> tuple[Metadata, tuple[str, ...]]:
    """Read what a file says, before its pixels are loaded.

    Args:
        image: As Pillow has opened it.
        turned: Whether the orientation makes width of height.

    Returns:
        It, and a sentence on what is too damaged to be kept.
    """
    remarks: list[str] = []
    if image.format == "PNG":
        image.load()  # Some of it may follow the pixels.
    try:
        exif = exif_of(image)
        exif = exif_block.made_upright(exif, turned) if exif else b""
    except (ValueError, TypeError, OSError):
        exif, remarks = b"", ["its EXIF data is damaged and was left out"]
    xmp = image.info.get("xmp") or b""
    xmp = xmp.encode() if isinstance(xmp, str) else bytes(xmp)
    xmp, dropped = without_companions(xmp)
    remarks += dict.fromkeys((*dropped, *companions(image), *_lost_description(image)))
    xmp = _without_thumbnails(XMP_ORIENTATION.sub(rb"\g<1>1", xmp))
    xmp = _with_sides_swapped(xmp) if turned else xmp
    dpi = image.info.get("dpi")
    sensible = isinstance(dpi, tuple) and len(dpi) == 2 and all(0 < d < 65536 for d in dpi)
    both = (float(dpi[0]), float(dpi[1])) if dpi and sensible else None
    both = both[::-1] if both and turned else both
    return Metadata(exif, xmp, both), tuple(remarks)


def _lost_description(image: Any) -> tuple[str, ...]:
    """A remark on a TIFF's description of its own layout, if it says more than that."""
    description = str(
        image.tag_v2.get(exif_block.IMAGE_DESCRIPTION, "") if image.format == "TIFF" else ""
    )
    for kind, mark in (("ImageJ", "ImageJ="), ("OME", "<OME")):
        if mark in description[:1000]:
            return (f"its {kind} description, which is of the file that it was in, was left out",)
    return ()


def said_to_be_srgb(metadata: Metadata) -> Metadata:
    """What is said of pixels that are in sRGB now, where it says what colours they are in.

    Raises:
        ValueError: The EXIF block is damaged.
    """
    exif = exif_block.said_to_be_srgb(metadata.exif) if metadata.exif else b""
    xmp = XMP_COLOUR_SPACE.sub(rb"\g<1>1", metadata.xmp)
    return replace(metadata, exif=exif, xmp=XMP_PROFILE.sub(SRGB_PROFILE, xmp))


def _without_thumbnails(xmp: bytes) -> bytes:
    """An XMP packet without its elements of thumbnails, in one pass over it."""
    tags = [(tag[2], not tag[1], tag.start(), tag.end()) for tag in XMP_THUMBNAILS.finditer(xmp)]
    last_end = {prefix: end for prefix, is_start, _, end in tags if not is_start}
    kept, place, inside = bytearray(), 0, None
    for prefix, is_start, start, end in tags:
        if inside is None and is_start and start < last_end.get(prefix, 0):
            kept += xmp[place:start]
            inside = prefix
        elif prefix == inside and not is_start:
            place, inside = end, None
    return bytes(kept) + xmp[place:]


def _with_sides_swapped(xmp: bytes) -> bytes:
    """An XMP packet in which what it says of width and height, if of both, has changed places."""
    for names in XMP_SIDES:
        said = [re.search(name + rb"""(?:=["']|>)([0-9/]+)(?=["'<])""", xmp) for name in names]
        if said[0] is None or said[1] is None:
            continue
        first, second = sorted((said[0], said[1]), key=lambda match: match.start())
        between = xmp[first.end(1) : second.start(1)]
        xmp = b"".join((xmp[: first.start(1)], second[1], between, first[1], xmp[second.end(1) :]))
    return xmp


def exif_of(image: Image.Image) -> bytes | None:
    """The EXIF block of an image, as Pillow has opened it; of a TIFF what it says itself.

    Raises:
        ValueError: It is damaged.
    """
    if image.format == "TIFF":
        return exif_block.from_tiff(whole_file(image))
    if isinstance(image.info.get("exif"), bytes):
        return bytes(image.info["exif"])
    if raw := image.info.get("Raw profile type exif"):  # ImageMagick's way in PNG: as text.
        return bytes.fromhex("".join(str(raw).split("\n")[3:]))
    return None


def whole_file(image: Any, most: int = -1) -> bytes:
    """All bytes of a file that Pillow has open, or at most so many from its beginning.

    Read, not mapped: a mapped file that is cut short meanwhile would end the process (SIGBUS).
    """
    stream = image.fp
    place = stream.tell()
    stream.seek(0)
    content = stream.read(most)
    stream.seek(place)
    return bytes(content)


def save_options(metadata: Metadata, format: str) -> dict[str, Any]:
    """As Pillow's writer of a format takes it."""
    options: dict[str, Any] = {}
    if metadata.exif:
        options["exif"] = exif_block.HEADER + metadata.exif
    if metadata.dpi:
        options["dpi"] = metadata.dpi
    if metadata.xmp and format == "PNG":
        notes = PngImagePlugin.PngInfo()
        # Unlike the text of other chunks it is never compressed (XMP specification, part 3).
        notes.add_itxt(XMP_KEYWORD, metadata.xmp.decode("utf-8", "replace"))
        options["pnginfo"] = notes
    elif metadata.xmp:
        options["xmp"] = metadata.xmp
    return options
