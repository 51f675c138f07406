"""Files as Pillow opens them. Whatever is wrong with a file becomes one sentence here."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from PIL import Image, UnidentifiedImageError

from cyclegan_cli.data.formats import HEIF_BRANDS, readable_formats
from cyclegan_cli.data.listing import refuse_folder
from cyclegan_cli.data.raw import HEAD_BYTES, refuse_raw
from cyclegan_cli.data.tiff_directories import (
    TIFF_HEADS,
    is_reduced,
    may_be_stack,
    picture_elsewhere,
    refuse_unreadable_tiff,
)
from cyclegan_cli.errors import CycleGANError, DataError
from cyclegan_cli.files import is_lfs_pointer

# Formats whose frames or pages are each a picture.
FORMATS_OF_FRAMES = frozenset({"AVIF", "DCX", "FLI", "GIF", "PNG", "TIFF", "WEBP"})

SAID_BY_PAGES = ("icc_profile", "dpi", "xmp")


@dataclass(frozen=True)
class Probe:
    """What a picture's header says.

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
    """Read a picture's header, not its pixels.

    Raises:
        DataError: Not a picture.
    """
    with opened(path, str(path)) as image:
        return Probe(format_of(image), image.mode, image.width, image.height, count_frames(image))


def _head(file: Path | io.BytesIO) -> bytes:
    """The first bytes of a file that Pillow does not know."""
    if isinstance(file, io.BytesIO):
        return file.getvalue()[:64]
    with file.open("rb") as stream:
        return stream.read(64)


def _is_heif(head: bytes) -> bool:
    """Whether a file begins as HEIC pictures do (ISO/IEC 23008-12)."""
    return head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS


def format_of(image: Image.Image) -> str:
    """Pillow's name of the format; a JPEG with a preview behind it (MPO) is a JPEG."""
    return "JPEG" if image.format == "MPO" else image.format or "PNG"


def count_frames(image: Any) -> int:
    """Frames or pages; previews behind a photo (MPO), layers and other sizes do not count."""
    return hidden_planes(image) or (
        getattr(image, "n_frames", 1) if image.format in FORMATS_OF_FRAMES else 1
    )


def hidden_planes(image: Any) -> int:
    """How many planes a TIFF has, where it has more of them than directories; else 0.

    Raises:
        ValueError: There are several such stacks.
    """
    if image.format != "TIFF" or not may_be_stack(image.tag_v2):
        return 0
    from cyclegan_cli.data.stacks import count_planes  # Needs numpy, which headers do not.

    return count_planes(image)


def limit_pixels(most: int) -> None:
    """Refuse pictures that claim more pixels than this, for all of the process.

    Pillow refuses what has more than twice its ``MAX_IMAGE_PIXELS``; by default that is 179
    million.
    """
    Image.MAX_IMAGE_PIXELS = (most + 1) // 2


def most_pixels() -> int:
    """How many pixels a picture may have, all of its frames together."""
    return 2 * (Image.MAX_IMAGE_PIXELS or sys.maxsize // 2)


def too_many_pixels(name: str) -> DataError:
    """What to raise of a picture that claims more: a small file may, to exhaust the memory."""
    return DataError(
        f"{name} claims more than the {most_pixels() / 1e6:.4g} megapixels that a picture may "
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
            raise picture_elsewhere(name, image.width, image.height) from None


@contextmanager
def opened(source: Path | BinaryIO, name: str) -> Iterator[Image.Image]:
    """Open a picture; whatever goes wrong with it inside becomes one sentence.

    Raises:
        DataError: It cannot be read. Errors of this project, and those that no file can cause,
            pass as they are.
    """
    if isinstance(source, Path) and os.path.exists(source) and not os.path.isfile(source):
        _refuse_no_file(source, name)
    try:
        # Pillow goes back and forth in a file, which a pipe cannot.
        file = source if isinstance(source, Path) else io.BytesIO(source.read())
        with file.open("rb") if isinstance(file, Path) else nullcontext(file) as stream:
            head = stream.read(HEAD_BYTES)
            refuse_raw(head, name)
            if head.startswith(TIFF_HEADS):
                refuse_unreadable_tiff(stream, head, name)
        with Image.open(file, formats=readable_formats()) as image:
            _go_to_full_page(image, name)
            yield image
    except UnidentifiedImageError as error:
        head = _head(file)
        if is_lfs_pointer(head):
            raise DataError(
                f"{name} is a Git LFS pointer, not the image itself, which git lfs pull fetches"
            ) from error
        if "HEIF" not in readable_formats() and _is_heif(head):
            raise DataError(
                f"{name} is a HEIC picture, and the package that reads them is not installed",
                "Install it: pip install pillow-heif.",
            ) from error
        raise DataError(f"{name} is not a picture in a format that is read here") from error
    except Image.DecompressionBombError as error:
        raise too_many_pixels(name) from error
    except (CycleGANError, AssertionError, NameError, ImportError):
        raise
    except Exception as error:
        # On damaged files Pillow's decoders raise whatever they stumble over.
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = " ".join(reason.split())
        raise DataError(f"cannot read {name}: {reason}") from error
