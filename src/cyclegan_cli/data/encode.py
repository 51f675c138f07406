"""Encode image files, atomically."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageCms

from cyclegan_cli import files
from cyclegan_cli.data import icc
from cyclegan_cli.data.color import Pixels, to_cmyk, to_grey
from cyclegan_cli.data.containers import png_chunks, with_alpha_flag
from cyclegan_cli.data.formats import (
    ALPHA_FORMATS,
    ANIMATED_FORMATS,
    CODESTREAM_EXTENSIONS,
    EXIF_FORMATS,
    LARGEST_SIDES,
    MODES,
    PAGED_FORMATS,
    PROFILE_FORMATS,
    QUALITY_FORMATS,
    SIXTEEN_BIT_FORMATS,
)
from cyclegan_cli.data.image import (
    Animation,
    BitDepth,
    DecodedImage,
    EncodeOptions,
    Mode,
    PixelArray,
    to_depth,
)
from cyclegan_cli.data.masks import Blend, composite
from cyclegan_cli.data.metadata import Metadata, save_options, with_srgb_specified
from cyclegan_cli.data.tiff_pixels import tiff_bytes
from cyclegan_cli.errors import OutputError

DEFAULT_QUALITY = {
    "JPEG": {"quality": 92}, "WEBP": {"quality": 90}, "AVIF": {"quality": 85},
    "HEIF": {"quality": 90},
}  # fmt: skip
TRANSPARENT = 255  # Palette index
PNG_HEAD_SIZE = 8 + 12 + 13  # Signature and first chunk


def encode(
    image: DecodedImage,
    target: Path | BinaryIO,
    format: str,
    options: EncodeOptions = EncodeOptions(),
    name: str = "standard output",
) -> tuple[str, ...]:
    """Encode an image and write it atomically.

    Args:
        image: Image to write.
        target: A file, which is replaced atomically; or a stream, which gets a single write.
        format: Pillow's name of the format, see ``formats.writable_format``.
        options: Encoding options. Without a quality, a JPEG from a JPEG file keeps its quality.
        name: Name of a stream in error messages.

    Returns:
        A message for each thing of the image that the format does not support.

    Raises:
        OutputError: The image cannot be written.
    """
    name = str(target) if isinstance(target, Path) else name
    refuse_unwritable(image, format, options, name)
    try:
        bare = isinstance(target, Path) and target.suffix.lower() in CODESTREAM_EXTENSIONS
        layout = replace(plan_layout(image, format, options), is_bare=bare)
        content, remarks = _encoded_with_metadata(image, format, options, layout)
    except Exception as error:
        # Encoders raise all kinds of exceptions for images that are too large for their format.
        reason = " ".join(str(error).split())
        raise OutputError(f"cannot write {name} as {format}: {reason}") from error
    files.write_content(target, content, name)
    return layout.remarks + remarks


def _encoded_with_metadata(
    image: DecodedImage, format: str, options: EncodeOptions, layout: Layout
) -> tuple[bytes, tuple[str, ...]]:
    """Encode an image; without EXIF or XMP if the encoder fails because of them."""
    metadata = image.metadata
    if format not in EXIF_FORMATS:
        metadata = Metadata(dpi=metadata.dpi)
    elif image.profile and layout.profile in (None, icc.srgb()):
        metadata = with_srgb_specified(metadata)
    attempts = {
        "": metadata,
        "XMP": replace(metadata, xmp=b""),
        "EXIF": replace(metadata, exif=b""),
        "EXIF and XMP": replace(metadata, exif=b"", xmp=b""),
    }
    failures: list[Exception] = []
    for dropped, remaining in attempts.items():
        if dropped and remaining == metadata:
            continue
        try:
            content = _encoded(image, remaining, format, options, layout)
        except Exception as error:
            # JPEG, for example, holds at most 64 KB of each.
            failures.append(error)
        else:
            remark = f"its {dropped} data does not fit into a {format} file and was left out"
            return content, (remark,) if dropped else ()
    raise failures[0]


def _encoded(
    image: DecodedImage, metadata: Metadata, format: str, options: EncodeOptions, layout: Layout
) -> bytes:
    frames = [to_layout(image, index, layout) for index in range(len(image.frames))]
    if format in ("NPY", "NPZ"):
        from cyclegan_cli.data.bands import BandImage, BandProbe, bands_content

        values = frames[0].colors
        probe = BandProbe(format, image.width, image.height, 3, str(values.dtype), is_color=True)
        return bands_content(BandImage(values, probe), format)
    own = _own_encoding(image, layout.mode) if format == image.format else {}
    if format == "TIFF":
        return tiff_bytes(frames, layout.profile, metadata, own.get("compressed", True))
    keywords = save_options(metadata, format)
    if layout.is_bare:
        keywords["no_jp2"] = True
    if layout.profile:
        keywords["icc_profile"] = layout.profile
    if layout.bit_depth == 16:
        return _png_16_bit(frames[0], keywords)
    if options.quality is not None and format in QUALITY_FORMATS:
        keywords["quality"] = options.quality
    else:
        keywords |= own or DEFAULT_QUALITY.get(format, {})
    if image.masking is not None and format == "WEBP":
        keywords["exact"] = True  # Keeps the colors of transparent pixels.
    images = [to_image(frame) for frame in frames]
    if image.animation and len(images) > 1:
        shown = images[1:] if image.animation.has_default_image else images
        images = images if format == "PNG" else shown
        keywords |= animation_options(image.animation, format, shown, layout.has_alpha)
        keywords["append_images"] = images[1:]
    content = _saved(images[0], format, keywords)
    if format == "WEBP" and len(images) > 1 and layout.has_alpha:
        return with_alpha_flag(content)
    return content


def _own_encoding(image: DecodedImage, mode: Mode) -> dict[str, Any]:
    """Return the save options that reach the quality of an image from the same format."""
    own = image.encoding
    if mode == "L" and "qtables" in own:
        return {"qtables": own["qtables"][:1]}  # One component with one table
    return own if mode == "RGB" or "qtables" not in own else {}


def _saved(image: Image.Image, format: str, keywords: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=format, **keywords)
    return stream.getvalue()


def to_image(pixels: Pixels) -> Image.Image:
    """Convert 8-bit pixels to a Pillow image."""
    colors = np.ascontiguousarray(pixels.colors)
    if pixels.mode == "CMYK":
        return Image.frombytes("CMYK", colors.shape[1::-1], colors.tobytes())
    image = Image.fromarray(colors)
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
    opaque = image.quantize(TRANSPARENT)
    indices = np.where(pixels.alpha < 128, np.uint8(TRANSPARENT), np.asarray(opaque))
    palette = (opaque.getpalette("RGB") or [])[: 3 * TRANSPARENT]
    indexed = Image.frombytes("P", image.size, indices.tobytes())
    indexed.putpalette(palette + [0] * (768 - len(palette)))
    indexed.info["transparency"] = TRANSPARENT
    return indexed


def _png_16_bit(pixels: Pixels, keywords: dict[str, Any]) -> bytes:
    """Encode a PNG of 16 bits per channel, with the ancillary chunks that Pillow writes."""
    import imagecodecs

    samples = pixels.colors
    if pixels.alpha is not None:
        samples = np.dstack([samples, pixels.alpha])
    content = bytes(imagecodecs.png_encode(np.ascontiguousarray(samples)))
    donor = _saved(Image.new("RGB", (1, 1)), "PNG", keywords)
    ancillary = b"".join(
        donor[chunk.start : chunk.stop]
        for chunk in png_chunks(io.BytesIO(donor))
        if chunk.kind not in (b"IHDR", b"IDAT", b"IEND")
    )
    return content[:PNG_HEAD_SIZE] + ancillary + content[PNG_HEAD_SIZE:]


# --- layout: what of an image a format supports -------------------------------------------------

MODE_NAMES: dict[Mode, str] = {
    "RGB": "RGB", "L": "grey", "CMYK": "CMYK", "P": "palette", "1": "black-and-white"
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """How an image is stored in a file.

    Attributes:
        mode: Pixel format.
        has_alpha: Whether to store the alpha channel.
        bit_depth: Bits per channel.
        profile: ICC profile to convert the pixels to, from sRGB, and to embed; None keeps sRGB and
            embeds none.
        remarks: A message for each thing of the image that is not stored.
        is_bare: Whether to write a JPEG 2000 codestream without container, by its extension.
    """

    mode: Mode
    has_alpha: bool
    bit_depth: BitDepth
    profile: bytes | None
    remarks: tuple[str, ...]
    is_bare: bool = False


def refuse_unwritable(image: DecodedImage, format: str, options: EncodeOptions, name: str) -> None:
    """Refuse to write what a format does not support and users would not want to lose.

    Cheap, so that it can be called before an image is translated.

    Raises:
        OutputError: The format does not support its frames, pages or size, or 16 bits as requested.
    """
    count = len(image.frames)
    if count > 1 and image.animation and format not in ANIMATED_FORMATS:
        raise OutputError(
            f"cannot write {name}: {format} does not support animation, and this image has "
            f"{count} frames",
            "Use --format gif, webp or png.",
        )
    if count > 1 and not image.animation and format not in PAGED_FORMATS:
        raise OutputError(
            f"cannot write {name}: {format} supports one page, and this image has {count}",
            "Use --format tiff.",
        )
    largest = LARGEST_SIDES.get(format, max(image.size))
    if max(image.size) > largest:
        raise OutputError(
            f"cannot write {name}: {format} supports at most {largest} pixels per side, and this "
            f"image has {image.width}x{image.height}",
            "Use --format png or tiff.",
        )
    if options.bit_depth == 16 and (format not in SIXTEEN_BIT_FORMATS or image.animation):
        what = "an animation" if image.animation else format
        raise OutputError(
            f"cannot write {name}: {what} supports 8 bits per channel, not 16",
            "Use --format png or tiff, or omit --bit-depth.",
        )


def plan_layout(image: DecodedImage, format: str, options: EncodeOptions) -> Layout:
    """Decide how to store an image in a format."""
    remarks: list[str] = []
    mode = _mode(image, format, options, remarks)
    has_alpha = bool(image.alphas) and format in ALPHA_FORMATS and mode in ("RGB", "L", "P")
    bit_depth = _bit_depth(image, format, options, mode, remarks)
    if mode == "L" and has_alpha and (format, bit_depth) in (("TIFF", 16), ("SGI", 8)):
        mode = "RGB"  # Few programs read such a file.
    if image.alphas and not has_alpha and any(map(_is_transparent, image.alphas)):
        holder = f"a {MODE_NAMES[mode]} {format}" if format in ALPHA_FORMATS else format
        remarks.append(f"{holder} does not support transparency: composited on white")
    if mode == "P" and has_alpha and any(map(_is_partly_transparent, image.alphas)):
        remarks.append(f"{format} does not support partial transparency: rounded")
    profile = _profile(image, format, options, mode, remarks)
    metadata = image.metadata
    if (metadata.exif or metadata.xmp) and format not in EXIF_FORMATS:
        remarks.append(f"{format} does not support EXIF and XMP: left out")
    return Layout(mode, has_alpha, bit_depth, profile, tuple(remarks))


def _mode(image: DecodedImage, format: str, options: EncodeOptions, remarks: list[str]) -> Mode:
    if format == "GIF":
        return "P"
    if options.keep_mode and image.animation and image.mode != "RGB":
        remarks.append("an animation is written as RGB")
    wanted = image.mode if options.keep_mode and not image.animation else "RGB"
    if wanted == "RGB" or wanted in MODES.get(format, ()):
        if wanted != "P" or not any(map(_is_transparent, image.alphas)):
            return wanted
        if format != "PNG":
            remarks.append(f"{format} does not support palettes with transparency: written as RGB")
            return "RGB"
        if not any(map(_is_partly_transparent, image.alphas)):
            return wanted
        remarks.append("palettes do not support partial transparency: written as RGB")
        return "RGB"
    instead: Mode = "L" if wanted == "1" and "L" in MODES.get(format, ()) else "RGB"
    remarks.append(
        f"{format} does not support {MODE_NAMES[wanted]} images: written as {MODE_NAMES[instead]}"
    )
    return instead


def _bit_depth(
    image: DecodedImage, format: str, options: EncodeOptions, mode: Mode, remarks: list[str]
) -> BitDepth:
    wanted = options.bit_depth or image.bit_depth
    if wanted == 8 or (
        format in SIXTEEN_BIT_FORMATS and mode not in ("P", "1") and image.animation is None
    ):
        return wanted
    remarks.append(f"{format} supports 8 bits per channel: reduced from 16")
    return 8


def _profile(
    image: DecodedImage, format: str, options: EncodeOptions, mode: Mode, remarks: list[str]
) -> bytes | None:
    own = image.profile
    if own is None or format not in PROFILE_FORMATS:
        if own and options.keep_profile:
            remarks.append(f"{format} does not support colour profiles: written in sRGB")
        return None
    space = icc.space_of(own)
    if mode in ("L", "1") or mode == "CMYK":
        # sRGB is not a profile for grey or CMYK; these keep the profile that they had.
        if mode != "1" and space == ("CMYK" if mode == "CMYK" else "GRAY") and _is_invertible(own):
            return own
        return None
    if options.keep_profile and space == "RGB" and _is_invertible(own):
        return own
    if options.keep_profile:
        kind = "CMYK" if space == "CMYK" else "grey" if space == "GRAY" else "input"
        hint = "" if kind == "input" else " (--keep-mode keeps both)"
        remarks.append(f"its colour profile is for {kind}: written in sRGB{hint}")
    return icc.srgb()


def _is_invertible(profile: bytes) -> bool:
    """Return whether colours can be converted to a profile; those of scanners are one-way."""
    try:
        icc.convert(np.zeros((1, 1, 3), np.uint8), icc.srgb(), profile)
    except (ImageCms.PyCMSError, ValueError):
        return False
    return True


def _is_transparent(alpha: PixelArray | None) -> bool:
    return alpha is not None and bool((alpha != np.iinfo(alpha.dtype).max).any())


def _is_partly_transparent(alpha: PixelArray | None) -> bool:
    if alpha is None:
        return False
    return bool(((alpha != 0) & (alpha != np.iinfo(alpha.dtype).max)).any())


def to_layout(image: DecodedImage, index: int, layout: Layout) -> Pixels:
    """Convert a frame to its layout; palette and black-and-white images are quantized later.

    Outside of a mask, the pixels are those of the file if the layout can hold them.
    """
    pixels = _converted(image, index, layout)
    masking = image.masking
    if masking is None:
        return pixels
    original = stored_colors(image, index, layout)
    if original is None:
        original = _converted(replace(image, frames=masking.frames), index, layout).colors
    colors = pixels.colors
    if layout.mode == "1":  # Its error diffusion would spread over the edge of the mask.
        colors = np.asarray(Image.fromarray(colors).convert("1").convert("L"))
    blend: Blend = "none" if layout.mode == "1" else "light"
    return replace(pixels, colors=composite(original, colors, masking.weights[index], blend))


def _converted(image: DecodedImage, index: int, layout: Layout) -> Pixels:
    frame, alpha = image.frames[index], image.alpha(index)
    if layout.has_alpha:
        if alpha is None:
            alpha = np.full(frame.shape[:2], np.iinfo(frame.dtype).max, frame.dtype)
        alpha = to_depth(alpha, layout.bit_depth)
    else:
        frame, alpha = image.on_white(index), None
    frame = to_depth(frame, layout.bit_depth)
    if layout.profile and layout.profile != icc.srgb():
        colors = icc.convert(frame, icc.srgb(), layout.profile)
    elif layout.mode in ("L", "1"):
        colors = to_grey(frame)
    elif layout.mode == "CMYK":
        colors = to_cmyk(frame)
    else:
        colors = frame
    return Pixels(colors, alpha, layout.mode)


# --- masks: pixels that must not change ----------------------------------------------------------

LOSSLESS_FORMATS = frozenset(
    {"BMP", "JPEG2000", "NPY", "PCX", "PNG", "PPM", "SGI", "TGA", "TIFF"}
)  # fmt: skip


def stored_colors(image: DecodedImage, index: int, layout: Layout) -> PixelArray | None:
    """Return a frame's colors before the translation, exactly as a layout can hold them.

    Args:
        image: An image with masking.
        index: Index of the frame.
        layout: The layout.

    Returns:
        ``[H, W]`` or ``[H, W, C]`` of the layout's type; None if the layout changes them.
    """
    assert image.masking is not None
    if not image.masking.stored:
        return None
    stored = image.masking.stored[index]
    colors, own = to_depth(stored.colors, layout.bit_depth), stored.profile
    is_exact_depth = colors.dtype == stored.colors.dtype or layout.bit_depth == 16
    is_own_space = own == layout.profile
    if own is None or (icc.space_of(own) == "RGB" and icc.is_srgb(own)):
        is_own_space = layout.profile in (own, None, icc.srgb())
    if not (is_exact_depth and is_own_space):
        return None
    if layout.mode == "RGB" and stored.mode != "CMYK":
        has_gray_profile = own is not None and icc.space_of(own) == "GRAY"
        if colors.ndim == 3 or has_gray_profile:
            return None if has_gray_profile else colors
        return np.repeat(colors[..., None], 3, axis=2)
    return colors if layout.mode == stored.mode and layout.mode != "P" else None


def refuse_inexact(image: DecodedImage, format: str, options: EncodeOptions, name: str) -> None:
    """Refuse a lossless format that would change pixels outside of the mask.

    Raises:
        OutputError: It names the property of the image that the format changes.
    """
    if image.masking is None or not _is_lossless(image, format, options):
        return
    layout = plan_layout(image, format, options)
    frames = range(len(image.frames))
    lacks_alpha = not layout.has_alpha and any(map(_is_transparent, image.alphas))
    loses_hidden = layout.has_alpha and format == "WEBP" and len(image.frames) > 1
    if image.altered:
        reason, hint = image.altered, "Write a lossy format, e.g. with --format jpg."
    elif lacks_alpha or loses_hidden:
        reason, hint = f"{format} does not keep its transparent pixels", "Use --format png."
    elif all(stored_colors(image, index, layout) is not None for index in frames):
        return
    elif layout.mode == "P":
        reason, hint = f"{format} gets a new palette", "Use --format png, without --keep-mode."
    elif layout.bit_depth < image.bit_depth:
        reason = f"{format} is written with 8 of its 16 bits per channel"
        hint = "Use --format png or tiff, without --bit-depth 8."
    elif layout.mode != image.mode:
        kinds = f"its pixels are {MODE_NAMES[image.mode]}, and those written"
        reason, hint = f"{kinds} {MODE_NAMES[layout.mode]}", "Use --keep-mode with --format tiff."
    else:
        reason, hint = "its color profile is not kept", "Convert the image to sRGB first."
    raise OutputError(
        f"cannot write {name}: pixels outside of the mask must not change, but {reason}", hint
    )


def _is_lossless(image: DecodedImage, format: str, options: EncodeOptions) -> bool:
    """Return whether a file of this format has exactly the pixels of its layout, or a palette."""
    if format == "WEBP":
        is_own = format == image.format and options.quality is None
        return is_own and bool(image.encoding.get("lossless"))
    return format in LOSSLESS_FORMATS or format == "GIF"


# --- animation ----------------------------------------------------------------------------------

GIF_CLEARS = 2  # GIF89a, 23: the canvas is cleared before the next frame.
MAX_SECONDS = 65535  # APNG: numerator and denominator of a delay have 16 bits.
PNG_REPLACES = 0  # APNG: frames replace all pixels, even with transparent ones.
PNG_KEEPS, PNG_CLEARS = 0, 1  # APNG: disposals of a frame before the next.


def animation_options(
    animation: Animation, format: str, frames: Sequence[Image.Image], has_alpha: bool
) -> dict[str, Any]:
    """Return the arguments of Pillow's writer of a format.

    Args:
        animation: Timing of the frames.
        format: Pillow's name of the format.
        frames: Frames without the default image.
        has_alpha: Whether they have an alpha channel.
    """
    shown = animation.durations[1:] if animation.has_default_image else animation.durations
    durations = [round(duration) for duration in shown]
    options: dict[str, Any] = {"save_all": True, "duration": durations}
    if format == "PNG":
        # Unlike the others, with fractions of a millisecond.
        options |= {"duration": [_apng_duration(duration) for duration in shown]}
        options |= {"blend": PNG_REPLACES, "loop": animation.plays}
        options |= {"disposal": _apng_disposals(frames)}
        options |= {"default_image": animation.has_default_image}
    elif format == "WEBP":
        options |= {"loop": animation.plays}
    elif format == "GIF":
        options |= {"disposal": GIF_CLEARS} if has_alpha else {}
        options |= {"loop": max(animation.plays - 1, 0)} if animation.plays != 1 else {}
    return options


def _apng_disposals(frames: Sequence[Image.Image]) -> list[int]:
    """Return disposals with which Pillow keeps every frame.

    Pillow drops a frame that equals the one before it, unless their disposals differ.
    """
    disposals = [PNG_KEEPS]
    for before, frame in itertools.pairwise(image.convert("RGBA").tobytes() for image in frames):
        clears = before == frame and disposals[-1] == PNG_KEEPS
        disposals.append(PNG_CLEARS if clears else PNG_KEEPS)
    return disposals


def _apng_duration(duration: float) -> float:
    """Return the nearest duration in milliseconds that an APNG can store.

    It is a fraction of two 16-bit integers, in seconds; Pillow refuses others.
    """
    seconds = min(Fraction(duration / 1000), Fraction(MAX_SECONDS))
    finest = MAX_SECONDS if seconds < 1 else int(MAX_SECONDS / seconds)
    return float(seconds.limit_denominator(finest) * 1000)
