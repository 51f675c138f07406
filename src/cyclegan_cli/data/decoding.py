"""Files to pictures. Whatever is wrong with a file becomes one sentence here."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from PIL import ExifTags, Image, JpegImagePlugin, UnidentifiedImageError

from cyclegan_cli.data.colour import split
from cyclegan_cli.data.formats import readable_formats
from cyclegan_cli.data.picture import Picture
from cyclegan_cli.errors import DataError

EXIF_TRANSPOSE = {  # EXIF 2.32, table 4: what makes the picture upright.
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TURNED = tuple(EXIF_TRANSPOSE[orientation] for orientation in (5, 6, 7, 8))  # Width is height.


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
    with _opened(path, str(path)) as image:
        return Probe(_format(image), image.mode, image.width, image.height, _frames(image))


def decode(
    source: Path | BinaryIO, shrink_to: int | None = None, name: str = "standard input"
) -> Picture:
    """Read a picture: upright, in sRGB, alpha apart.

    Args:
        source: A file, or a stream of the bytes of one, which is read to its end.
        shrink_to: Pixels that the short side will be reduced to anyway: frames may be smaller
            than the picture, but not below that (``Picture.full_size`` is set then).
        name: What error messages call a stream; files are called by their path.

    Raises:
        DataError: It cannot be read: missing, damaged, not a picture, too large to be honest
            (Pillow's decompression bomb limit), or of several frames.
    """
    name = str(source) if isinstance(source, Path) else name
    with _opened(source, name) as image:
        frames = _frames(image)
        if frames > 1:
            raise DataError(
                f"{name} has {frames} frames: animated and multi-page pictures are not supported"
            )
        stored_size = image.size
        if shrink_to:
            # JPEG alone can: its decoder halves while it decodes, down to an eighth.
            image.draft(None, (shrink_to, shrink_to))
        reduced = image.size != stored_size
        image.load()
        encoding = _encoding_of(image)
        method = EXIF_TRANSPOSE.get(image.getexif().get(ExifTags.Base.Orientation, 1))
        frame, alpha = split(image if method is None else image.transpose(method))
        alphas = () if alpha is None else (alpha,)
        full_size = (stored_size[::-1] if method in TURNED else stored_size) if reduced else None
        return Picture((frame,), alphas, _format(image), encoding, full_size)


def _format(image: Image.Image) -> str:
    """Pillow's name of the format; a JPEG with a preview behind it (MPO) is a JPEG."""
    return "JPEG" if image.format == "MPO" else image.format or "PNG"


def _frames(image: Image.Image) -> int:
    """Frames or pages; the previews that cameras put behind a photo (MPO) do not count."""
    return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


@contextmanager
def _opened(source: Path | BinaryIO, name: str) -> Iterator[Image.Image]:
    """Open a picture; whatever goes wrong with it inside becomes one sentence."""
    if isinstance(source, Path) and os.path.exists(source) and not os.path.isfile(source):
        # A folder; or a pipe or device, which could keep us waiting for ever.
        raise DataError(f"cannot read {name}: it is not a file, but a folder, pipe or device")
    try:
        # Pillow goes back and forth in a file, which a pipe cannot.
        file = source if isinstance(source, Path) else io.BytesIO(source.read())
        with Image.open(file, formats=readable_formats()) as image:
            yield image
    except UnidentifiedImageError as error:
        raise DataError(f"{name} is not a picture in a format that is read here") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{name} claims too many pixels: {error}") from error
    except DataError:
        raise
    except Exception as error:
        # On damaged files Pillow's decoders raise whatever they stumble over.
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = " ".join(reason.split())
        raise DataError(f"cannot read {name}: {reason}") from error


def _encoding_of(image: Image.Image) -> dict[str, Any]:
    """How the file is compressed, as save options that give comparable quality."""
    if isinstance(image, JpegImagePlugin.JpegImageFile) and image.mode in ("L", "RGB"):
        # Of each component the file says which table is its own. A grey file has one component;
        # colour needs a second table for chrominance.
        tables = [image.quantization[component[3]] for component in image.layer[:2]]
        tables = tables * 2 if len(tables) == 1 else tables
        sampling = JpegImagePlugin.get_sampling(image)
        return {"qtables": tables, "subsampling": max(sampling, 0)}
    return {}
