"""Colours of any pixel format to sRGB, opacity apart."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageCms

from cyclegan_cli.data.picture import Levels

SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")


def split(image: Image.Image) -> tuple[Levels, Levels | None]:
    """Colours in sRGB, ``[H, W, 3]``, and opacity, ``[H, W]``, where there is any.

    Raises:
        ValueError: The range of its pixels is unknown.
    """
    if image.mode in SIXTEEN_BIT_MODES:
        return _grey_at_16_bit(image), None
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers of unknown range")
    profile = image.info.get("icc_profile")
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        alpha = np.asarray(with_alpha.getchannel("A"))
        return np.asarray(_to_srgb(with_alpha.convert("RGB"), profile)), alpha
    return np.asarray(_to_srgb(image.convert("RGB") if image.mode == "P" else image, profile)), None


def _grey_at_16_bit(image: Image.Image) -> Levels:
    levels = np.asarray(image).astype(np.int64)
    if levels.min() < 0 or levels.max() > 65535:
        raise ValueError("pixels are outside the 16-bit range")
    return np.repeat(levels.astype(np.uint16)[..., None], 3, axis=2)


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert from the embedded colour profile, if there is a usable one, to sRGB."""
    if profile and image.mode in ("RGB", "CMYK", "L"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError):
            pass  # A profile that is damaged or of another colour space: plain conversion.
        else:
            if converted is not None:
                return converted
    return image.convert("RGB")


def to_depth(levels: Levels, bit_depth: int) -> Levels:
    """The same at 8 or 16 bits a channel, rounded to the nearest level."""
    if bit_depth == 8 and levels.dtype == np.uint16:
        return ((levels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if bit_depth == 16 and levels.dtype == np.uint8:
        return levels.astype(np.uint16) * np.uint16(257)
    return levels
