"""Images to files, whole or not at all."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from cyclegan_cli import files
from cyclegan_cli.data import profiles
from cyclegan_cli.data.animation import animation_options
from cyclegan_cli.data.colour import Pixels
from cyclegan_cli.data.formats import CODESTREAM_SUFFIXES, EXIF_FORMATS, QUALITY_FORMATS
from cyclegan_cli.data.image import DecodedImage, EncodeOptions, Mode
from cyclegan_cli.data.layout import Layout, laid_out, plan_layout, refuse_unwritable
from cyclegan_cli.data.metadata import Metadata, said_to_be_srgb, save_options
from cyclegan_cli.data.tiff import tiff_bytes
from cyclegan_cli.data.webp import said_to_have_alpha
from cyclegan_cli.errors import OutputError

DEFAULT_QUALITY = {
    "JPEG": {"quality": 92}, "WEBP": {"quality": 90}, "AVIF": {"quality": 85},
    "HEIF": {"quality": 90},
}  # fmt: skip
TRANSPARENT = 255  # The palette's entry for it.
PNG_HEAD = 8 + 12 + 13  # The signature and the first chunk.


def encode(
    image: DecodedImage,
    target: Path | BinaryIO,
    format: str,
    options: EncodeOptions = EncodeOptions(),
    name: str = "standard output",
) -> tuple[str, ...]:
    """Write an image, whole or not at all.

    Args:
        image: What to write.
        target: A file, replaced in one step; or a stream, which gets all bytes in one write.
        format: Pillow's name of the format, see ``formats.writable_format``.
        options: How. By default JPEG quality is that of ``image.encoding`` where the image
            came from a JPEG, else 92.
        name: What error messages call a stream.

    Returns:
        A sentence for each thing of the image that the format does not hold.

    Raises:
        OutputError: It cannot be written.
    """
    name = str(target) if isinstance(target, Path) else name
    refuse_unwritable(image, format, options, name)
    try:
        bare = isinstance(target, Path) and target.suffix.lower() in CODESTREAM_SUFFIXES
        layout = replace(plan_layout(image, format, options), is_bare=bare)
        content, remarks = _encoded_with_metadata(image, format, options, layout)
    except Exception as error:
        # Encoders raise anything where an image is too large for their format.
        reason = " ".join(str(error).split())
        raise OutputError(f"cannot write {name} as {format}: {reason}") from error
    if isinstance(target, Path):
        files.write_bytes(target, content)
    else:
        _write(target, content, name)
    return layout.remarks + remarks


def _write(stream: BinaryIO, content: bytes, name: str) -> None:
    try:
        stream.write(content)
        stream.flush()
    except BrokenPipeError:
        raise  # Whoever reads has seen enough: the command line answers that.
    except OSError as error:
        raise OutputError(f"cannot write {name}: {(error.strerror or '').lower()}") from error


def _encoded_with_metadata(
    image: DecodedImage, format: str, options: EncodeOptions, layout: Layout
) -> tuple[bytes, tuple[str, ...]]:
    """The file's bytes; without EXIF and XMP where the encoder fails because of them."""
    metadata = image.metadata
    if format not in EXIF_FORMATS:
        metadata = Metadata(dpi=metadata.dpi)
    elif image.profile and layout.profile in (None, profiles.srgb()):
        metadata = said_to_be_srgb(metadata)
    attempts = {
        "": metadata,
        "XMP": replace(metadata, xmp=b""),
        "EXIF": replace(metadata, exif=b""),
        "EXIF and XMP": replace(metadata, exif=b"", xmp=b""),
    }
    failures: list[Exception] = []
    for left_out, fewer in attempts.items():
        if left_out and fewer == metadata:
            continue
        try:
            content = _encoded(image, fewer, format, options, layout)
        except Exception as error:
            # JPEG, for example, has room for 64 KB of each.
            failures.append(error)
        else:
            remark = f"its {left_out} data does not fit into a {format} and was left out"
            return content, (remark,) if left_out else ()
    raise failures[0]


def _encoded(
    image: DecodedImage, metadata: Metadata, format: str, options: EncodeOptions, layout: Layout
) -> bytes:
    frames = [laid_out(image, index, layout) for index in range(len(image.frames))]
    own = _own_encoding(image, layout.mode) if format == image.format else {}
    if format == "TIFF":
        return tiff_bytes(frames, layout.profile, metadata, own.get("compressed", True))
    keywords = save_options(metadata, format)
    if layout.is_bare:
        keywords["no_jp2"] = True
    if layout.profile:
        keywords["icc_profile"] = layout.profile
    if layout.bit_depth == 16:
        return _deep_png(frames[0], keywords)
    if options.quality is not None and format in QUALITY_FORMATS:
        keywords["quality"] = options.quality
    else:
        keywords |= own or DEFAULT_QUALITY.get(format, {})
    images = [to_image(frame) for frame in frames]
    if image.animation and len(images) > 1:
        shown = images[1:] if image.animation.still_first else images
        images = images if format == "PNG" else shown
        keywords |= animation_options(image.animation, format, shown, layout.has_alpha)
        keywords["append_images"] = images[1:]
    content = _saved(images[0], format, keywords)
    if format == "WEBP" and len(images) > 1 and layout.has_alpha:
        return said_to_have_alpha(content)
    return content


def _own_encoding(image: DecodedImage, mode: Mode) -> dict[str, Any]:
    """What the writer of the image's own format needs to match its quality."""
    own = image.encoding
    if mode == "L" and "qtables" in own:
        return {"qtables": own["qtables"][:1]}  # One component, which has one table.
    return own if mode == "RGB" or "qtables" not in own else {}


def _saved(image: Image.Image, format: str, keywords: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=format, **keywords)
    return stream.getvalue()


def to_image(pixels: Pixels) -> Image.Image:
    """8-bit pixels as Pillow's writers take them."""
    colours = np.ascontiguousarray(pixels.colours)
    if pixels.mode == "CMYK":
        return Image.frombytes("CMYK", colours.shape[1::-1], colours.tobytes())
    image = Image.fromarray(colours)
    if pixels.mode == "1":
        return image.convert("1")
    if pixels.mode == "P":
        return _indexed(image, pixels)
    if pixels.alpha is not None:
        image.putalpha(Image.fromarray(pixels.alpha))
    return image


def _indexed(image: Image.Image, pixels: Pixels) -> Image.Image:
    if pixels.alpha is None:
        return image.quantize()
    few = image.quantize(TRANSPARENT)
    indices = np.where(pixels.alpha < 128, np.uint8(TRANSPARENT), np.asarray(few))
    palette = (few.getpalette("RGB") or [])[: 3 * TRANSPARENT]
    indexed = Image.frombytes("P", image.size, indices.tobytes())
    indexed.putpalette(palette + [0] * (768 - len(palette)))
    indexed.info["transparency"] = TRANSPARENT
    return indexed


def _deep_png(pixels: Pixels, keywords: dict[str, Any]) -> bytes:
    """A PNG of 16 bits a channel; Pillow writes the chunks that are not pixels."""
    import imagecodecs

    samples = pixels.colours
    if pixels.alpha is not None:
        samples = np.dstack([samples, pixels.alpha])
    content = bytes(imagecodecs.png_encode(np.ascontiguousarray(samples)))
    notes = b"".join(
        chunk
        for kind, chunk in _chunks(_saved(Image.new("RGB", (1, 1)), "PNG", keywords))
        if kind not in (b"IHDR", b"IDAT", b"IEND")
    )
    return content[:PNG_HEAD] + notes + content[PNG_HEAD:]


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and whole of each chunk (PNG specification, 5.3)."""
    at = 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        yield png[at + 4 : at + 8], png[at : at + 12 + length]
        at += 12 + length
