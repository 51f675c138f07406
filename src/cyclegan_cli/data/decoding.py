"""Files to pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

from PIL import ExifTags, Image, JpegImagePlugin

from cyclegan_cli.data.colour import split
from cyclegan_cli.data.opening import count_frames, format_of, opened
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
    with opened(source, name) as image:
        frames = count_frames(image)
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
        return Picture((frame,), alphas, format_of(image), encoding, full_size)


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
