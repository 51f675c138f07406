"""What of an image a format holds, and what is written in its place otherwise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import ImageCms

from cyclegan_cli.data import profiles
from cyclegan_cli.data.colour import Pixels, to_grey, to_ink
from cyclegan_cli.data.formats import (
    ALPHA_FORMATS,
    ANIMATED_FORMATS,
    DEEP_FORMATS,
    EXIF_FORMATS,
    LARGEST_SIDE,
    MODES,
    PAGED_FORMATS,
    PROFILE_FORMATS,
)
from cyclegan_cli.data.image import BitDepth, DecodedImage, EncodeOptions, Levels, Mode, to_depth
from cyclegan_cli.errors import OutputError

MODE_NAMES: dict[Mode, str] = {
    "RGB": "RGB", "L": "grey", "CMYK": "CMYK", "P": "palette", "1": "black-and-white"
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """How an image is put into a file.

    Attributes:
        mode: What its pixels become.
        has_alpha: Whether its opacity is written, too.
        bit_depth: Bits a channel.
        profile: The colour profile that its pixels are converted to from sRGB and tagged with;
            None: they stay in sRGB and are not tagged.
        remarks: A sentence for each thing of the image that is not written.
        is_bare: Whether a JPEG 2000 goes without its container, as its name says.
    """

    mode: Mode
    has_alpha: bool
    bit_depth: BitDepth
    profile: bytes | None
    remarks: tuple[str, ...]
    is_bare: bool = False


def refuse_unwritable(image: DecodedImage, format: str, options: EncodeOptions, name: str) -> None:
    """Refuse what a format cannot hold and nobody would want to lose.

    Cheap: to be asked before an image is translated.

    Raises:
        OutputError: Frames, pages, a size, or 16 bits that were asked for.
    """
    count = len(image.frames)
    if count > 1 and image.animation and format not in ANIMATED_FORMATS:
        raise OutputError(
            f"cannot write {name}: {format} holds no animation, and this one has {count} frames",
            "Use --format gif, webp or png.",
        )
    if count > 1 and not image.animation and format not in PAGED_FORMATS:
        raise OutputError(
            f"cannot write {name}: {format} holds one page, and this image has {count}",
            "Use --format tiff.",
        )
    largest = LARGEST_SIDE.get(format, max(image.size))
    if max(image.size) > largest:
        raise OutputError(
            f"cannot write {name}: {format} holds at most {largest} pixels a side, and this "
            f"image has {image.width}x{image.height}",
            "Use --format png or tiff.",
        )
    if options.bit_depth == 16 and (format not in DEEP_FORMATS or image.animation):
        what = "an animation" if image.animation else format
        raise OutputError(
            f"cannot write {name}: {what} has 8 bits a channel, not 16",
            "Use --format png or tiff, or leave --bit-depth out.",
        )


def plan_layout(image: DecodedImage, format: str, options: EncodeOptions) -> Layout:
    """Decide how an image is put into a file of a format."""
    remarks: list[str] = []
    mode = _mode(image, format, options, remarks)
    has_alpha = bool(image.alphas) and format in ALPHA_FORMATS and mode in ("RGB", "L", "P")
    bit_depth = _bit_depth(image, format, options, mode, remarks)
    if mode == "L" and has_alpha and (format, bit_depth) in (("TIFF", 16), ("SGI", 8)):
        mode = "RGB"  # Few programs, and not this one, read such a file; or write such an SGI.
    if image.alphas and not has_alpha and any(map(_shows_through, image.alphas)):
        holder = f"a {MODE_NAMES[mode]} {format}" if format in ALPHA_FORMATS else format
        remarks.append(f"{holder} holds no transparency: it was laid on white")
    if mode == "P" and has_alpha and any(map(_is_graded, image.alphas)):
        remarks.append(f"{format} holds no half transparency: it is whole or none")
    profile = _profile(image, format, options, mode, remarks)
    metadata = image.metadata
    if (metadata.exif or metadata.xmp) and format not in EXIF_FORMATS:
        remarks.append(f"{format} holds no EXIF and XMP data: it was left out")
    return Layout(mode, has_alpha, bit_depth, profile, tuple(remarks))


def _mode(image: DecodedImage, format: str, options: EncodeOptions, remarks: list[str]) -> Mode:
    if format == "GIF":
        return "P"
    if options.keep_mode and image.animation and image.mode != "RGB":
        remarks.append("an animation is written as RGB")
    wanted = image.mode if options.keep_mode and not image.animation else "RGB"
    if wanted == "RGB" or wanted in MODES.get(format, ()):
        if wanted != "P" or not any(map(_shows_through, image.alphas)):
            return wanted
        if format != "PNG":
            remarks.append(f"{format} holds no palette with transparency: written as RGB")
            return "RGB"
        if not any(map(_is_graded, image.alphas)):
            return wanted
        remarks.append("a palette holds no half transparency: written as RGB")
        return "RGB"
    instead: Mode = "L" if wanted == "1" and "L" in MODES.get(format, ()) else "RGB"
    remarks.append(
        f"{format} holds no {MODE_NAMES[wanted]} image: written as {MODE_NAMES[instead]}"
    )
    return instead


def _bit_depth(
    image: DecodedImage, format: str, options: EncodeOptions, mode: Mode, remarks: list[str]
) -> BitDepth:
    wanted = options.bit_depth or image.bit_depth
    if wanted == 8 or (
        format in DEEP_FORMATS and mode not in ("P", "1") and image.animation is None
    ):
        return wanted
    remarks.append(f"{format} holds 8 bits a channel: reduced from 16")
    return 8


def _profile(
    image: DecodedImage, format: str, options: EncodeOptions, mode: Mode, remarks: list[str]
) -> bytes | None:
    own = image.profile
    if own is None or format not in PROFILE_FORMATS:
        if own and options.keep_profile:
            remarks.append(f"{format} holds no colour profile: written in sRGB")
        return None
    space = profiles.space_of(own)
    if mode in ("L", "1") or mode == "CMYK":
        # Nothing of the kind is in sRGB, so grey and inks keep the profile that they had.
        if mode != "1" and space == ("CMYK" if mode == "CMYK" else "GRAY") and _leads_back(own):
            return own
        return None
    if options.keep_profile and space == "RGB" and _leads_back(own):
        return own
    if options.keep_profile:
        kind = "inks" if space == "CMYK" else "grey" if space == "GRAY" else "reading"
        hint = "" if kind == "reading" else " (--keep-mode keeps both)"
        remarks.append(f"its colour profile is one for {kind}: written in sRGB{hint}")
    return profiles.srgb()


def _leads_back(profile: bytes) -> bool:
    """Whether colours can be converted to a profile; scanners' only lead from it."""
    try:
        profiles.convert(np.zeros((1, 1, 3), np.uint8), profiles.srgb(), profile)
    except (ImageCms.PyCMSError, ValueError):
        return False
    return True


def _shows_through(alpha: Levels | None) -> bool:
    return alpha is not None and bool((alpha != np.iinfo(alpha.dtype).max).any())


def _is_graded(alpha: Levels | None) -> bool:
    if alpha is None:
        return False
    return bool(((alpha != 0) & (alpha != np.iinfo(alpha.dtype).max)).any())


def laid_out(image: DecodedImage, index: int, layout: Layout) -> Pixels:
    """A frame as it is written; palettes and black-and-white are still RGB and grey."""
    frame, alpha = image.frames[index], image.alpha(index)
    if layout.has_alpha:
        alpha = to_depth(_opaque(frame) if alpha is None else alpha, layout.bit_depth)
    else:
        frame, alpha = image.on_white(index), None
    frame = to_depth(frame, layout.bit_depth)
    if layout.profile and layout.profile != profiles.srgb():
        colours = profiles.convert(frame, profiles.srgb(), layout.profile)
    elif layout.mode in ("L", "1"):
        colours = to_grey(frame)
    elif layout.mode == "CMYK":
        colours = to_ink(frame)
    else:
        colours = frame
    return Pixels(colours, alpha, layout.mode)


def _opaque(frame: Levels) -> Levels:
    return np.full(frame.shape[:2], np.iinfo(frame.dtype).max, frame.dtype)
