"""Open image files with Pillow; every failure becomes a one-sentence error."""

from __future__ import annotations

import io
import os
import re
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from PIL import Image, UnidentifiedImageError

from cyclegan_cli.data.containers import PNG_SIGNATURE, repair_png
from cyclegan_cli.data.formats import (
    HEAD_BYTES,
    HEIF_BRANDS,
    readable_formats,
    refuse_raw,
)
from cyclegan_cli.data.tiff import (
    TIFF_HEADS,
    image_elsewhere,
    is_reduced,
    may_be_stack,
    refuse_unreadable_tiff,
)
from cyclegan_cli.data.volumes import is_array_file
from cyclegan_cli.errors import CycleGANError, DataError
from cyclegan_cli.files import is_lfs_pointer

# Formats in which each frame or page is an image.
MULTI_FRAME_FORMATS = frozenset({"AVIF", "DCX", "FLI", "GIF", "PNG", "TIFF", "WEBP"})
# Pages of a TIFF: Pillow compares each with all before it, and a page takes only 100 bytes.
MAX_PAGES = 10_000
# EXIF segments of a JPEG: Pillow appends each to all before it, and one has up to 64 KB.
MAX_EXIF_SEGMENTS = 64
JPEG_START, START_OF_SCAN, EXIF_SEGMENT = b"\xff\xd8\xff", 0xDA, 0xE1

TIFF_EXTENSIONS = frozenset({".tif", ".tiff"})
# Entries of ``Image.info`` that belong to a page of a TIFF.
PAGE_INFO_KEYS = ("icc_profile", "dpi", "xmp")


@dataclass(frozen=True)
class Probe:
    """Facts from an image's header.

    Attributes:
        format: Pillow's name of the format.
        mode: Pillow's name of the pixel format.
        width: Width in pixels as stored, before the EXIF orientation.
        height: Height in pixels as stored.
        frames: Number of frames or pages.
    """

    format: str
    mode: str
    width: int
    height: int
    frames: int


# Pillow's modes of floating-point numbers and signed integers, whose range is unknown.
ARRAY_MODES = frozenset({"F", "I"})


def probe(path: Path, any_size: bool = False) -> Probe:
    """Read an image's header.

    Args:
        path: The file.
        any_size: Whether a TIFF that is read as an array may have more pixels than an image in
            memory.

    Raises:
        DataError: The file is not an image.
    """
    if is_array_file(path):
        return _probe_array(path)
    if path.suffix.lower() not in TIFF_EXTENSIONS:
        return _probe(path)
    try:
        found = _probe(path)
    except DataError as error:
        try:
            return _probe_array(path, any_size)
        except TooManyPixelsError:
            raise
        except DataError:
            raise error from error.__cause__
    if found.mode in ARRAY_MODES:
        with suppress(DataError):
            return _probe_array(path)
    return found


def is_array(header: Probe) -> bool:
    """Return whether a header is that of an image that is read as an array."""
    return " of " in header.mode


def _probe_array(path: Path, any_size: bool = False) -> Probe:
    from cyclegan_cli.data.bands import probe_bands  # Needs numpy.

    found = probe_bands(path, str(path), any_size)
    if found.format == "TIFF" and found.is_color:
        raise DataError(f"cannot read {path}")
    return Probe(found.format, found.kind, found.width, found.height, found.frames)


def _probe(path: Path) -> Probe:
    with open_image(path, str(path), head_only=True) as image:
        return Probe(format_of(image), image.mode, image.width, image.height, count_frames(image))


def format_of(image: Image.Image) -> str:
    """Return Pillow's name of the format; a JPEG with further images (MPO) is a JPEG."""
    return "JPEG" if image.format == "MPO" else image.format or "PNG"


def count_frames(image: Any) -> int:
    """Return the number of frames or pages, without previews (MPO), layers and icon sizes."""
    if image.format == "TIFF":
        return hidden_planes(image) or _count_pages(image)
    return getattr(image, "n_frames", 1) if image.format in MULTI_FRAME_FORMATS else 1


def hidden_planes(image: Any) -> int:
    """Return the number of planes of a TIFF if it has more planes than directories, else 0.

    Raises:
        ValueError: The file has several such stacks.
    """
    if image.format != "TIFF" or not may_be_stack(image.tag_v2):
        return 0
    from cyclegan_cli.data.tiff_pixels import count_planes  # Needs numpy.

    return count_planes(image)


def _count_pages(image: Image.Image) -> int:
    start, info = image.tell(), dict(image.info)
    for pages in range(1, MAX_PAGES + 1):
        try:
            image.seek(pages)
        except EOFError:
            image.seek(start)
            image.info = info  # The visited pages have changed it.
            return pages
    raise ValueError(f"it has more than {MAX_PAGES:,} pages")


def limit_pixels(limit: int) -> None:
    """Set the largest number of pixels of an image, for the whole process.

    Pillow refuses more than twice ``MAX_IMAGE_PIXELS``, by default 179 million pixels.
    """
    Image.MAX_IMAGE_PIXELS = (limit + 1) // 2


def max_pixels() -> int:
    """Return the largest number of pixels of an image, all frames together."""
    return 2 * (Image.MAX_IMAGE_PIXELS or sys.maxsize // 2)


class TooManyPixelsError(DataError):
    """An image claims too many pixels to fit into memory."""


def too_many_pixels(name: str) -> DataError:
    """Return the error for an image that claims too many pixels to fit into memory."""
    return TooManyPixelsError(
        f"{name} claims more than {max_pixels() / 1e6:.4g} megapixels, the limit for all frames "
        "together (translate raises it with --max-megapixels)"
    )


def require_file(path: Path, name: str) -> None:
    """Refuse a folder, pipe or device.

    Raises:
        DataError: The path exists and is not a regular file.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        _refuse_no_file(path, name)


def _refuse_no_file(path: Path, name: str) -> NoReturn:
    """Refuse a folder, pipe or device; reading a pipe could block forever."""
    if path.is_dir():
        try:
            os.scandir(path).close()
        except OSError as error:
            raise DataError(f"cannot list {error.filename}: {error.strerror}") from error
    raise DataError(f"cannot read {name}: it is not a file but a folder, pipe or device")


def go_to(image: Any, page: int) -> None:
    """Seek to a frame or page; for a TIFF, drop entries that Pillow keeps from other pages."""
    if image.format == "TIFF" and page != image.tell():
        for key in PAGE_INFO_KEYS:
            image.info.pop(key, None)
    image.seek(page)


def _go_to_full_page(image: Any, name: str) -> None:
    """Seek a TIFF to its first page that is neither a reduced version nor a mask."""
    page = 0
    while image.format == "TIFF" and is_reduced(image.tag_v2):
        page += 1
        try:
            go_to(image, page)
        except EOFError:
            raise image_elsewhere(name, image.width, image.height) from None


def _refuse_endless_exif(jpeg: BinaryIO) -> None:
    """Raise ValueError for a JPEG with too many EXIF segments; reset its position."""
    found, position = 0, 2
    while len(head := _bytes_at(jpeg, position, 10)) == 10 and head[0] == 0xFF:
        if head[1] == START_OF_SCAN:
            break
        found += head[1] == EXIF_SEGMENT and head[4:] == b"Exif\0\0"
        if found > MAX_EXIF_SEGMENTS:
            raise ValueError(f"it has more than {MAX_EXIF_SEGMENTS} segments of EXIF data")
        # A marker may start with any number of fill bytes 0xFF.
        position += 1 if head[1] == 0xFF else 2 + int.from_bytes(head[2:4])
    jpeg.seek(0)


def _bytes_at(stream: BinaryIO, position: int, count: int) -> bytes:
    stream.seek(position)
    return stream.read(count)


@contextmanager
def open_image(
    source: Path | BinaryIO, name: str, head_only: bool = False
) -> Iterator[Image.Image]:
    """Open an image with Pillow; any failure inside the context becomes a one-sentence error.

    Args:
        source: A file, or a stream, which is read to its end.
        name: Name of the image in error messages.
        head_only: Whether only the header is needed; checksums of pixel data are then ignored.

    Raises:
        DataError: The image cannot be read. Errors of this package, and those that no file can
            cause, are not converted.
    """
    if isinstance(source, Path):
        require_file(source, name)
    image: Image.Image | None = None
    try:
        with source.open("rb") if isinstance(source, Path) else io.BytesIO(source.read()) as file:
            head = file.read(HEAD_BYTES)
            refuse_raw(head, name)
            if head.startswith(TIFF_HEADS):
                refuse_unreadable_tiff(file, head, name)
            file.seek(0)
            if head.startswith(JPEG_START):
                _refuse_endless_exif(file)
            whole = repair_png(file, head_only) if head.startswith(PNG_SIGNATURE) else None
            try:
                image = Image.open(whole or file, formats=readable_formats())
            except UnidentifiedImageError as error:
                raise unidentified(name, file, head) from error
            with image:
                _go_to_full_page(image, name)
                yield image
    except Image.DecompressionBombError as error:
        raise too_many_pixels(name) from error
    except (CycleGANError, NameError, ImportError):
        raise
    except Exception as error:
        # Pillow's decoders raise all kinds of exceptions for damaged files.
        raise decoding_error(name, error, image) from error


CONVERT = "Convert it to PNG or TIFF with 8 or 16 bits per channel."
CONVERT_FLOATS = "Convert it to a TIFF of floating-point numbers, for example with oiiotool."
OPENEXR_HEAD = b"v/1\x01"
NO_IMAGE = "is not an image in a supported format"
# Signatures of other files; images among them can be converted.
OTHER_IMAGES = (
    (b"\xff\x0a", "a JPEG XL image"), (b"\0\0\0\x0cJXL \r\n", "a JPEG XL image"),
    (b"<svg", "an SVG drawing"), (b"%!PS", "a PostScript drawing"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript drawing"), (b"%PDF", "a PDF document"),
    (b"\xd7\xcd\xc6\x9a", "a Windows metafile"), (b"II\xbc\x01", "a JPEG XR image"),
    (b"BPG\xfb", "a BPG image"), (b"gimp xcf", "a GIMP project"),
    (OPENEXR_HEAD, "an OpenEXR image"), (b"#?RADIANCE", "a Radiance HDR image"),
)  # fmt: skip
OTHER_FILES = (
    (b"<!doctype html", "an HTML page, perhaps from a failed download"),
    (b"<html", "an HTML page, perhaps from a failed download"),
    (b"PK\x03\x04", "a ZIP archive"), (b"\x1f\x8b", "a gzip archive"),
    (b"\x1a\x45\xdf\xa3", "a video (Matroska or WebM)"),
)  # fmt: skip
VIDEO_BRANDS = (b"isom", b"iso2", b"mp41", b"mp42", b"avc1", b"qt  ", b"M4V ")
NAMES = {"JPEG2000": "JPEG 2000", "PPM": "PNM"}
CODED_REASON = re.compile(r"decoder error -?\d+|-?\d+|\(?-?\d+, -?\d+\)?|")
# Words in Pillow's messages about damaged files, as opposed to unsupported variants.
DAMAGE = re.compile(
    r"truncat|buffer|missing|expected|not an? |bad |broken|incorrect|invalid", re.IGNORECASE
)
TIFF_DTYPES = {"u": "unsigned integers", "i": "signed integers", "f": "floating-point numbers",
              "c": "complex numbers", "b": "bits"}  # fmt: skip


def is_heif(head: bytes) -> bool:
    """Return whether a file is a HEIC image, by its signature (ISO/IEC 23008-12)."""
    return head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS


def unidentified(name: str, stream: BinaryIO, head: bytes) -> DataError:
    """Return the error for a file that Pillow cannot identify.

    Args:
        name: Name of the file.
        stream: The file.
        head: Its first bytes.
    """
    if not head:
        return DataError(f"{name} is empty")
    if is_lfs_pointer(head):
        return DataError(f"{name} is a Git LFS pointer; fetch the image with git lfs pull")
    if is_heif(head) and "HEIF" not in readable_formats():
        return DataError(
            f"{name} is a HEIC image, which needs the package pillow-heif",
            "Install it: pip install pillow-heif.",
        )
    for kind in readable_formats():
        _, accepts = Image.OPEN[kind]
        with suppress(struct.error, IndexError):  # The file is shorter than a signature.
            if accepts and accepts(head) is True:
                return _unsupported_variant(name, kind, stream, head)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for magic, what in OTHER_IMAGES:
        if head.startswith(magic) or start.startswith(magic):
            hint = CONVERT_FLOATS if head.startswith(OPENEXR_HEAD) else CONVERT
            return DataError(f"{name} is {what}, which is not supported", hint)
    for magic, what in OTHER_FILES:
        if head.startswith(magic) or start.startswith(magic):
            return DataError(f"{name} is {what}")
    if head[4:8] == b"ftyp" and head[8:12] in VIDEO_BRANDS:
        return DataError(f"{name} is a video", "Extract its frames, e.g. with ffmpeg.")
    return DataError(f"{name} {NO_IMAGE}")


def _unsupported_variant(name: str, kind: str, stream: BinaryIO, head: bytes) -> DataError:
    """Return the error for a file with the signature of a format that Pillow reads."""
    shown = NAMES.get(kind, kind)
    pixels = _tiff_pixels(stream) if kind == "TIFF" else _psd_pixels(head) if kind == "PSD" else ""
    if pixels:
        return DataError(
            f"cannot read {name}: this kind of {shown} is not supported: {pixels}", CONVERT
        )
    stream.seek(0)
    try:
        Image.OPEN[kind][0](stream, name).close()
    except Exception as error:  # A damaged header can raise any exception.
        reason = _sentence(error)
        if reason and not DAMAGE.search(reason):
            return DataError(
                f"cannot read {name}: this kind of {shown} is not supported: {reason}", CONVERT
            )
    return DataError(f"cannot read {name}: its {shown} header is damaged or truncated")


def _tiff_pixels(stream: BinaryIO) -> str:
    """Describe the pixels of a TIFF by its header; empty if that is damaged."""
    import tifffile

    stream.seek(0)
    try:
        with tifffile.TiffFile(stream) as file:
            page: Any = file.pages[0]
            letter = page.dtype.kind if page.dtype is not None else ""
            parts = [
                "big-endian BigTIFF" if file.is_bigtiff and file.byteorder == ">" else "",
                f"{page.samplesperpixel} channel{'s' * (page.samplesperpixel > 1)} of "
                f"{page.bitspersample}-bit {TIFF_DTYPES.get(letter, 'samples')}",
                page.photometric.name.lower(),
                f"compression {page.compression.name.lower()}" if page.compression != 1 else "",
            ]
    except Exception:
        return ""  # Damaged.
    return ", ".join(part for part in parts if part)


def _psd_pixels(head: bytes) -> str:
    """Describe the pixels of a PSD by its header (Adobe Photoshop File Formats Specification)."""
    if len(head) < 26:
        return ""
    channels, _, _, depth, mode = struct.unpack_from(">HIIHH", head, 12)
    return f"{channels} channels of {depth} bits, colour mode {mode}"


def decoding_error(name: str, error: Exception, image: Image.Image | None) -> DataError:
    """Return the error for a file that could not be decoded.

    Args:
        name: Name of the file.
        error: Exception of the decoder.
        image: The file, if Pillow could open it.
    """
    reason = _sentence(error)
    if not reason:
        compression = image.info.get("compression", "raw") if image else "raw"
        how = f" ({compression})" if compression != "raw" else ""
        reason = f"it is damaged, or its compression is not supported{how}"
    return DataError(f"cannot read {name}: {reason}")


def _sentence(error: Exception) -> str:
    """Return the message of an exception; empty if it is a code or an internal name."""
    reason = " ".join(str(getattr(error, "strerror", None) or error).split())
    return "" if isinstance(error, LookupError) or CODED_REASON.fullmatch(reason) else reason
