"""Pictures to files, whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from cyclegan_cli import files
from cyclegan_cli.data.colour import to_depth
from cyclegan_cli.data.formats import ALPHA_FORMATS, QUALITY_FORMATS
from cyclegan_cli.data.picture import EncodeOptions, Picture
from cyclegan_cli.errors import OutputError

DEFAULT_QUALITY = {"JPEG": {"quality": 92}, "WEBP": {"quality": 90}, "AVIF": {"quality": 85}}


def encode(
    picture: Picture,
    target: Path | BinaryIO,
    format: str,
    options: EncodeOptions = EncodeOptions(),
    name: str = "standard output",
) -> tuple[str, ...]:
    """Write a picture, whole or not at all.

    Transparency is kept where the format has it. JPEG quality is that of ``picture.encoding``
    where the picture came from a JPEG, else 92.

    Args:
        picture: What to write.
        target: A file, replaced in one step; or a stream, which gets all bytes in one write.
        format: Pillow's name of the format, see ``formats.writable_format``.
        options: How.
        name: What error messages call a stream.

    Returns:
        A sentence for each thing of the picture that the format does not hold.

    Raises:
        OutputError: It cannot be written.
    """
    name = str(target) if isinstance(target, Path) else name
    try:
        content = _encoded(picture, format, options)
    except Exception as error:
        # Encoders raise anything where a picture is too large for their format.
        raise OutputError(f"cannot write {name} as {format}: {error}") from error
    if isinstance(target, Path):
        files.write_bytes(target, content)
    else:
        _write(target, content, name)
    return ()


def _write(stream: BinaryIO, content: bytes, name: str) -> None:
    try:
        stream.write(content)
        stream.flush()
    except BrokenPipeError:
        raise  # Whoever reads has seen enough: the command line answers that.
    except OSError as error:
        raise OutputError(f"cannot write {name}: {(error.strerror or '').lower()}") from error


def _encoded(picture: Picture, format: str, options: EncodeOptions) -> bytes:
    image = Image.fromarray(to_depth(picture.frames[0], 8))
    alpha = picture.alpha(0)
    if alpha is not None and format in ALPHA_FORMATS:
        image.putalpha(Image.fromarray(to_depth(alpha, 8)))
    stream = io.BytesIO()
    image.save(stream, format=format, **_save_options(picture, format, options))
    return stream.getvalue()


def _save_options(picture: Picture, format: str, options: EncodeOptions) -> dict[str, Any]:
    if options.quality is not None and format in QUALITY_FORMATS:
        return {"quality": options.quality}
    own = picture.encoding if format == picture.format else {}
    return own or DEFAULT_QUALITY.get(format, {})
