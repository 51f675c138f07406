"""Files as Pillow opens them. Whatever is wrong with a file becomes one sentence here."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from PIL import Image, UnidentifiedImageError

from cyclegan_cli.data import png
from cyclegan_cli.data.formats import readable_formats
from cyclegan_cli.data.listing import refuse_folder
from cyclegan_cli.data.raw import HEAD_BYTES, refuse_raw
from cyclegan_cli.data.refusals import unidentified, unreadable
from cyclegan_cli.data.tiff_directories import (
    TIFF_HEADS,
    image_elsewhere,
    is_reduced,
    may_be_stack,
    refuse_unreadable_tiff,
)
from cyclegan_cli.errors import CycleGANError, DataError

# Formats whose frames or pages are each an image.
FORMATS_OF_FRAMES = frozenset({"AVIF", "DCX", "FLI", "GIF", "PNG", "TIFF", "WEBP"})
# Pages of a TIFF: Pillow looks for each among all before it, and a page takes but 100 bytes.
MOST_PAGES = 10_000
# Segments of a JPEG with EXIF data: Pillow adds each to all before it, and one holds 64 KB.
MOST_EXIF_SEGMENTS = 64
JPEG_START, START_OF_SCAN, EXIF_SEGMENT = b"\xff\xd8\xff", 0xDA, 0xE1

SAID_BY_PAGES = ("icc_profile", "dpi", "xmp")


@dataclass(frozen=True)
class Probe:
    """What an image's header says.

    Attributes:
        format: Pillow's name of the format.
        mode: Pillow's name of the pixel format.
        width: In pixels, as stored (before the EXIF orientation).
        height: Likewise.
        frames: 1, but for animations and pages.
    """

    format: str
    mode: str
    width: int
    height: int
    frames: int


def probe(path: Path) -> Probe:
    """Read an image's header, not its pixels.

    Raises:
        DataError: Not an image.
    """
    with opened(path, str(path), head_only=True) as image:
        return Probe(format_of(image), image.mode, image.width, image.height, count_frames(image))


def format_of(image: Image.Image) -> str:
    """Pillow's name of the format; a JPEG with a preview behind it (MPO) is a JPEG."""
    return "JPEG" if image.format == "MPO" else image.format or "PNG"


def count_frames(image: Any) -> int:
    """Frames or pages; previews behind a photo (MPO), layers and other sizes do not count."""
    if image.format == "TIFF":
        return hidden_planes(image) or _count_pages(image)
    return getattr(image, "n_frames", 1) if image.format in FORMATS_OF_FRAMES else 1


def hidden_planes(image: Any) -> int:
    """How many planes a TIFF has, where it has more of them than directories; else 0.

    Raises:
        ValueError: There are several such stacks.
    """
    if image.format != "TIFF" or not may_be_stack(image.tag_v2):
        return 0
    from cyclegan_cli.data.stacks import count_planes  # Needs numpy, which headers do not.

    return count_planes(image)


def _count_pages(image: Image.Image) -> int:
    start, info = image.tell(), dict(image.info)
    for pages in range(1, MOST_PAGES + 1):
        try:
            image.seek(pages)
        except EOFError:
            image.seek(start)
            image.info = info  # Pages looked at have left theirs.
            return pages
    raise ValueError(f"it has more than {MOST_PAGES:,} pages")


def limit_pixels(most: int) -> None:
    """Refuse images that claim more pixels than this, for all of the process.

    Pillow refuses what has more than twice its ``MAX_IMAGE_PIXELS``; by default that is 179
    million.
    """
    Image.MAX_IMAGE_PIXELS = (most + 1) // 2


def most_pixels() -> int:
    """How many pixels an image may have, all of its frames together."""
    return 2 * (Image.MAX_IMAGE_PIXELS or sys.maxsize // 2)


def too_many_pixels(name: str) -> DataError:
    """What to raise of an image that claims more: a small file may, to exhaust the memory."""
    return DataError(
        f"{name} claims more than the {most_pixels() / 1e6:.4g} megapixels that an image may "
        "have, all frames together (translate allows more with --max-megapixels)"
    )


def _refuse_no_file(path: Path, name: str) -> NoReturn:
    """A pipe or device could keep us waiting for ever; a folder may be one that is locked."""
    if path.is_dir():
        try:
            os.scandir(path).close()
        except OSError as error:
            refuse_folder(error)
    raise DataError(f"cannot read {name}: it is not a file, but a folder, pipe or device")


def go_to(image: Any, page: int) -> None:
    """Go to a frame or page; Pillow keeps what another page of a TIFF has said, unless told."""
    if image.format == "TIFF" and page != image.tell():
        for key in SAID_BY_PAGES:
            image.info.pop(key, None)
    image.seek(page)


def _go_to_full_page(image: Any, name: str) -> None:
    """Have a TIFF be at its first page that is neither a reduced version nor a mask of another."""
    page = 0
    while image.format == "TIFF" and is_reduced(image.tag_v2):
        page += 1
        try:
            go_to(image, page)
        except EOFError:
            raise image_elsewhere(name, image.width, image.height) from None


def _seekable(source: Path | BinaryIO) -> BinaryIO:
    """Pillow goes back and forth in a file, which a pipe cannot."""
    return source.open("rb") if isinstance(source, Path) else io.BytesIO(source.read())


def _refuse_endless_exif(jpeg: BinaryIO) -> None:
    """Raise ValueError of a JPEG of more EXIF segments than are read; it is left at its start."""
    found, place = 0, 2
    while len(head := _bytes_at(jpeg, place, 10)) == 10 and head[0] == 0xFF:
        if head[1] == START_OF_SCAN:
            break
        found += head[1] == EXIF_SEGMENT and head[4:] == b"Exif\0\0"
        if found > MOST_EXIF_SEGMENTS:
            raise ValueError(f"it has more than {MOST_EXIF_SEGMENTS} segments of EXIF data")
        # Any number of bytes 0xFF may come before a segment's kind.
        place += 1 if head[1] == 0xFF else 2 + int.from_bytes(head[2:4])
    jpeg.seek(0)


def _bytes_at(stream: BinaryIO, place: int, count: int) -> bytes:
    stream.seek(place)
    return stream.read(count)


@contextmanager
def opened(source: Path | BinaryIO, name: str, head_only: bool = False) -> Iterator[Image.Image]:
    """Open an image; whatever goes wrong with it inside becomes one sentence.

    Args:
        source: A file, or a stream that is read to its end.
        name: What messages call it.
        head_only: Whether its pixels are not wanted: then their checksums do not count.

    Raises:
        DataError: It cannot be read. Errors of this project, and those that no file can cause,
            pass as they are.
    """
    if isinstance(source, Path) and os.path.exists(source) and not os.path.isfile(source):
        _refuse_no_file(source, name)
    image: Image.Image | None = None
    try:
        with _seekable(source) as file:
            head = file.read(HEAD_BYTES)
            refuse_raw(head, name)
            if head.startswith(TIFF_HEADS):
                refuse_unreadable_tiff(file, head, name)
            file.seek(0)
            if head.startswith(JPEG_START):
                _refuse_endless_exif(file)
            whole = png.mended(file, head_only) if head.startswith(png.SIGNATURE) else None
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
        # On damaged files Pillow's decoders raise whatever they stumble over.
        raise unreadable(name, error, image) from error
