"""What a file is that cannot be read, and what about it is not: the sentences for both."""

from __future__ import annotations

import re
import struct
from typing import Any, BinaryIO

from PIL import Image

from cyclegan_cli.data.formats import HEIF_BRANDS, readable_formats
from cyclegan_cli.errors import DataError
from cyclegan_cli.files import is_lfs_pointer

CONVERT = "Convert it to PNG or TIFF with 8 or 16 bits a channel."
NO_IMAGE = "is not an image in a format that is read here"
# What other files begin with. Images are those that a converter makes readable.
OTHER_IMAGES = (
    (b"\xff\x0a", "a JPEG XL image"), (b"\0\0\0\x0cJXL \r\n", "a JPEG XL image"),
    (b"<svg", "an SVG drawing"), (b"%!PS", "a PostScript drawing"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript drawing"), (b"%PDF", "a PDF document"),
    (b"\xd7\xcd\xc6\x9a", "a Windows metafile"), (b"II\xbc\x01", "a JPEG XR image"),
    (b"BPG\xfb", "a BPG image"), (b"gimp xcf", "a GIMP project"),
    (b"v/1\x01", "an OpenEXR image"), (b"#?RADIANCE", "a Radiance HDR image"),
)  # fmt: skip
OTHER_FILES = (
    (b"<!doctype html", "an HTML page, perhaps the answer to a download that failed"),
    (b"<html", "an HTML page, perhaps the answer to a download that failed"),
    (b"PK\x03\x04", "a ZIP archive"), (b"\x1f\x8b", "a gzip archive"),
    (b"\x1a\x45\xdf\xa3", "a film (Matroska or WebM)"),
)  # fmt: skip
FILM_BRANDS = (b"isom", b"iso2", b"mp41", b"mp42", b"avc1", b"qt  ", b"M4V ")
NAMES = {"JPEG2000": "JPEG 2000", "PPM": "PNM"}
CODED_REASON = re.compile(r"decoder error -?\d+|-?\d+|\(?-?\d+, -?\d+\)?|")
# Words of Pillow's about files that are not as their format has it, rather than of a rare kind.
DAMAGE = re.compile(
    r"truncat|buffer|missing|expected|not an? |bad |broken|incorrect|invalid", re.IGNORECASE
)
TIFF_NUMBERS = {"u": "unsigned integers", "i": "signed integers", "f": "floating-point numbers",
              "c": "complex numbers", "b": "bits"}  # fmt: skip


def is_heif(head: bytes) -> bool:
    """Whether a file begins as HEIC images do (ISO/IEC 23008-12)."""
    return head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS


def unidentified(name: str, stream: BinaryIO, head: bytes) -> DataError:
    """What to raise of a file that Pillow makes nothing of.

    Args:
        name: What messages call it.
        stream: The file.
        head: Its first bytes.
    """
    if not head:
        return DataError(f"{name} is empty")
    if is_lfs_pointer(head):
        return DataError(
            f"{name} is a Git LFS pointer, not the image itself, which git lfs pull fetches"
        )
    if is_heif(head) and "HEIF" not in readable_formats():
        return DataError(
            f"{name} is a HEIC image, and the package that reads them is not installed",
            "Install it: pip install pillow-heif.",
        )
    for kind in readable_formats():
        _, accepts = Image.OPEN[kind]
        if accepts and accepts(head) is True:
            return _of_format(name, kind, stream, head)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for magic, what in OTHER_IMAGES:
        if head.startswith(magic) or start.startswith(magic):
            return DataError(f"{name} is {what}, which is not read here", CONVERT)
    for magic, what in OTHER_FILES:
        if head.startswith(magic) or start.startswith(magic):
            return DataError(f"{name} is {what}")
    if head[4:8] == b"ftyp" and head[8:12] in FILM_BRANDS:
        return DataError(f"{name} is a film", "Take its frames out, e.g. with ffmpeg.")
    return DataError(f"{name} {NO_IMAGE}")


def _of_format(name: str, kind: str, stream: BinaryIO, head: bytes) -> DataError:
    """Of a file that begins as one of a format of Pillow's."""
    shown = NAMES.get(kind, kind)
    pixels = _tiff_pixels(stream) if kind == "TIFF" else _psd_pixels(head) if kind == "PSD" else ""
    if pixels:
        return DataError(f"cannot read {name}: {shown} of this kind is not read: {pixels}", CONVERT)
    stream.seek(0)
    try:
        Image.OPEN[kind][0](stream, name).close()
    except Exception as error:  # Whatever a damaged header leads to.
        reason = _sentence(error)
        if reason and not DAMAGE.search(reason):
            return DataError(
                f"cannot read {name}: {shown} of this kind is not read: {reason}", CONVERT
            )
    return DataError(f"cannot read {name}: its {shown} header is damaged or cut off")


def _tiff_pixels(stream: BinaryIO) -> str:
    """What the pixels of a TIFF are, as far as a header that is whole says."""
    import tifffile

    stream.seek(0)
    try:
        with tifffile.TiffFile(stream) as file:
            page: Any = file.pages[0]
            letter = page.dtype.kind if page.dtype is not None else ""
            parts = [
                "big-endian BigTIFF" if file.is_bigtiff and file.byteorder == ">" else "",
                f"{page.samplesperpixel} channel{'s' * (page.samplesperpixel > 1)} of "
                f"{page.bitspersample}-bit {TIFF_NUMBERS.get(letter, 'numbers')}",
                page.photometric.name.lower(),
                f"compression {page.compression.name.lower()}" if page.compression != 1 else "",
            ]
    except Exception:
        return ""  # Damaged.
    return ", ".join(part for part in parts if part)


def _psd_pixels(head: bytes) -> str:
    """Adobe Photoshop File Formats Specification, file header section: at 12 to 26."""
    if len(head) < 26:
        return ""
    channels, _, _, depth, mode = struct.unpack_from(">HIIHH", head, 12)
    return f"{channels} channels of {depth} bits, colour mode {mode}"


def unreadable(name: str, error: Exception, image: Image.Image | None) -> DataError:
    """What to raise of a file that a decoder stumbled over.

    Args:
        name: What messages call it.
        error: What the decoder raised.
        image: The file, if it could be opened.
    """
    reason = _sentence(error)
    if not reason:
        compression = image.info.get("compression", "raw") if image else "raw"
        how = f" ({compression})" if compression != "raw" else ""
        reason = f"it is damaged, or compressed in a way that is not read here{how}"
    return DataError(f"cannot read {name}: {reason}")


def _sentence(error: Exception) -> str:
    """What an error says in words; empty where that is a number or a name of something inside."""
    reason = " ".join(str(getattr(error, "strerror", None) or error).split())
    return "" if isinstance(error, LookupError) or CODED_REASON.fullmatch(reason) else reason
