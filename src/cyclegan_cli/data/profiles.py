"""Colour profiles (ICC): from and to sRGB, at 8 and 16 bits a channel."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageCms

from cyclegan_cli.data.image import Levels

Space = Literal["RGB", "GRAY", "CMYK"]
SPACES: dict[str, Space] = {"RGB": "RGB", "GRAY": "GRAY", "CMYK": "CMYK"}
PILLOW_MODES: dict[str, str] = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
CHANNELS: dict[str, int] = {"RGB": 3, "GRAY": 1, "CMYK": 4}
CREATED = slice(24, 36)  # ICC.1:2022, 7.2.8: year, month, day, hours, minutes, seconds.


@lru_cache(maxsize=1)
def srgb() -> bytes:
    """The profile that outputs are tagged with; the same bytes at any time of any day."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[CREATED] = b"".join(number.to_bytes(2) for number in (2000, 1, 1, 0, 0, 0))
    return bytes(profile)


@lru_cache(maxsize=64)
def space_of(profile: bytes) -> Space | None:
    """The colour space that a profile is for; None where it is damaged or for no images."""
    try:
        found = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip()
        space = SPACES.get(found)
        if space:
            _transform(profile, srgb(), space, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return space


@lru_cache(maxsize=16)
def _transform(
    source: bytes, target: bytes, source_space: str, target_space: str
) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(source)),
        ImageCms.ImageCmsProfile(io.BytesIO(target)),
        PILLOW_MODES[source_space],
        PILLOW_MODES[target_space],
        # Of photos: lightness keeps its steps, and neither black nor white is lost.
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def convert(levels: Levels, source: bytes, target: bytes) -> Levels:
    """Convert between the spaces of two profiles, for which ``space_of`` is not None.

    Args:
        levels: ``[H, W]`` (grey) or ``[H, W, C]``, uint8 or uint16, in the source's space.
        source: The profile that they are in.
        target: The profile that they are to be in.

    Returns:
        ``[H, W]`` or ``[H, W, C]``, of the same type.
    """
    source_space, target_space = space_of(source), space_of(target)
    if source_space is None or target_space is None:
        raise ValueError("not a profile of images")
    if levels.dtype == np.uint8:
        image = Image.frombytes(
            PILLOW_MODES[source_space], levels.shape[1::-1], np.ascontiguousarray(levels).tobytes()
        )
        transform = _transform(source, target, source_space, target_space)
        return np.asarray(ImageCms.applyTransform(image, transform))
    return _convert_at_16_bit(levels, source, target, source_space, target_space)


def _convert_at_16_bit(
    levels: Levels, source: bytes, target: bytes, source_space: str, target_space: str
) -> Levels:
    # Pillow's colour management knows 8 bits only.
    import imagecodecs

    converted = imagecodecs.cms_transform(
        np.ascontiguousarray(levels),
        source,
        target,
        colorspace=source_space.lower(),
        outcolorspace=target_space.lower(),
        outdtype="u2",
        intent=int(ImageCms.Intent.RELATIVE_COLORIMETRIC),
        # Else a grid of 33 steps stands for the conversion, which errs by up to a tenth.
        flags=int(ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOOPTIMIZE),
    )
    shape = levels.shape[:2] + ((CHANNELS[target_space],) if target_space != "GRAY" else ())
    return np.asarray(converted).reshape(shape)


@lru_cache(maxsize=64)
def is_srgb(profile: bytes) -> bool:
    """Whether a profile for RGB means what sRGB means, to one level of 8 bits."""
    steps = np.linspace(0, 255, 18).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(18, -1, 3)
    difference = np.subtract(convert(grid, profile, srgb()), grid, dtype=np.int16)
    return bool(np.abs(difference).max() <= 1)
