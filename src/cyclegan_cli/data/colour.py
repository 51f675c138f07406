"""Pixels of any kind to sRGB and back, opacity apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms

from cyclegan_cli.data import profiles
from cyclegan_cli.data.image import Levels, Mode

SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")
# Shares of red, green and blue in grey (ITU-R BT.601), of 65536, as Pillow has them.
GREY_SHARES = np.array([19595, 38470, 7471], dtype=np.uint64)


@dataclass(frozen=True, eq=False)
class Pixels:
    """Pixels as a file has them.

    Attributes:
        colours: ``[H, W]`` (grey) or ``[H, W, C]`` (3: RGB, 4: CMYK), uint8 or uint16.
        alpha: ``[H, W]`` of the same type, or None.
        mode: What the file has.
    """

    colours: Levels
    alpha: Levels | None
    mode: Mode


def unpack(image: Image.Image) -> Pixels:
    """The pixels of a loaded image.

    Raises:
        ValueError: Their range is unknown.
    """
    if image.mode in SIXTEEN_BIT_MODES:
        levels = _grey_at_16_bit(image)
        transparent = image.info.get("transparency")
        shown = None if transparent is None else levels != transparent
        return Pixels(levels, None if shown is None else shown * np.uint16(65535), "L")
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers of unknown range")
    mode = _mode_of(image)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"))
        colours = np.asarray(image.getchannel("R") if mode in ("L", "1") else image.convert("RGB"))
    elif mode in ("L", "1"):
        colours = np.asarray(image.convert("L"))
        if image.format == "XBM":
            colours = 255 - colours  # A bit that is set is ink; Pillow takes it for light.
    elif mode == "CMYK":
        colours = np.asarray(image)
    elif image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        colours = np.asarray(converted)
    else:
        colours = np.asarray(image.convert("RGB"))
    return Pixels(colours, alpha, mode)


def _mode_of(image: Image.Image) -> Mode:
    modes: dict[str, Mode] = {"1": "1", "L": "L", "LA": "L", "La": "L", "P": "P", "PA": "P",
                              "CMYK": "CMYK"}  # fmt: skip
    return modes.get(image.mode, "RGB")


def _grey_at_16_bit(image: Image.Image) -> Levels:
    levels = np.asarray(image)
    if levels.dtype.kind != "u":
        levels = levels.astype(np.int64)
    if levels.size and (levels.min() < 0 or levels.max() > 65535):
        raise ValueError("pixels are outside the 16-bit range")
    return levels.astype(np.uint16)


def to_srgb(pixels: Pixels, profile: bytes | None) -> Levels:
    """``[H, W, 3]`` in sRGB, of the pixels' type; converted from a profile where that suits them.

    Args:
        pixels: As the file has them.
        profile: The file's, or None. One for RGB suits grey pixels, too.
    """
    colours = pixels.colours
    space = profiles.space_of(profile) if profile else None
    kind = "GRAY" if colours.ndim == 2 else "CMYK" if colours.shape[2] == 4 else "RGB"
    if profile and space == kind != "RGB":
        return profiles.convert(colours, profile, profiles.srgb())
    if kind == "GRAY":
        colours = np.repeat(colours[..., None], 3, axis=2)
    elif kind == "CMYK":
        return _without_ink(colours)
    if profile and space == "RGB" and not profiles.is_srgb(profile):
        return profiles.convert(colours, profile, profiles.srgb())
    return colours


def suits(pixels: Pixels, profile: bytes) -> bool:
    """Whether a profile says what these pixels look like."""
    space = profiles.space_of(profile)
    if pixels.colours.ndim == 2:
        return space in ("RGB", "GRAY")
    return space == ("CMYK" if pixels.colours.shape[2] == 4 else "RGB")


def _without_ink(cmyk: Levels) -> Levels:
    """CMYK of unknown inks to RGB: what each ink leaves of the light."""
    highest = np.uint64(np.iinfo(cmyk.dtype).max)
    light = highest - cmyk.astype(np.uint64)
    product = light[..., :3] * light[..., 3:]
    return ((product + highest // 2) // highest).astype(cmyk.dtype)


def to_ink(rgb: Levels) -> Levels:
    """RGB to CMYK of unknown inks, so that ``to_srgb`` gives the same back: no black."""
    inks = np.iinfo(rgb.dtype).max - rgb
    return np.concatenate([inks, np.zeros_like(inks[..., :1])], axis=2)


def to_grey(rgb: Levels) -> Levels:
    """``[H, W, 3]`` to ``[H, W]``: how light it is."""
    if rgb.dtype == np.uint8:
        return np.asarray(Image.fromarray(rgb).convert("L"))
    return ((rgb @ GREY_SHARES + np.uint64(1 << 15)) >> np.uint64(16)).astype(np.uint16)
