"""ICC profiles: conversion to and from sRGB, and profiles made from primaries and curves."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageCms

from cyclegan_cli.data.image import PixelArray

Space = Literal["RGB", "GRAY", "CMYK"]
SPACES: dict[str, Space] = {"RGB": "RGB", "GRAY": "GRAY", "CMYK": "CMYK"}
PILLOW_MODES: dict[str, str] = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
CHANNELS: dict[str, int] = {"RGB": 3, "GRAY": 1, "CMYK": 4}
CREATED = slice(24, 36)  # ICC.1:2022, 7.2.8: year, month, day, hours, minutes, seconds.


@lru_cache(maxsize=1)
def srgb() -> bytes:
    """Return the sRGB profile of outputs; always the same bytes."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[CREATED] = b"".join(value.to_bytes(2) for value in (2000, 1, 1, 0, 0, 0))
    return bytes(profile)


@lru_cache(maxsize=64)
def space_of(profile: bytes) -> Space | None:
    """Return the colour space of a profile; None if it is damaged or not for images."""
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
        # For photos: keeps relative lightness, black and white.
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def convert(pixels: PixelArray, source: bytes, target: bytes) -> PixelArray:
    """Convert pixels between two profiles for which :func:`space_of` is not None.

    Args:
        pixels: ``[H, W]`` (grey) or ``[H, W, C]``, uint8 or uint16.
        source: Profile of the pixels.
        target: Profile to convert to.

    Returns:
        ``[H, W]`` or ``[H, W, C]``, of the same dtype.
    """
    source_space, target_space = space_of(source), space_of(target)
    if source_space is None or target_space is None:
        raise ValueError("not a profile of images")
    if pixels.dtype == np.uint8:
        image = Image.frombytes(
            PILLOW_MODES[source_space], pixels.shape[1::-1], np.ascontiguousarray(pixels).tobytes()
        )
        transform = _transform(source, target, source_space, target_space)
        return np.asarray(ImageCms.applyTransform(image, transform))
    return _convert_at_16_bit(pixels, source, target, source_space, target_space)


def _convert_at_16_bit(
    pixels: PixelArray, source: bytes, target: bytes, source_space: str, target_space: str
) -> PixelArray:
    # Pillow's colour management supports only 8 bits.
    import imagecodecs

    converted = imagecodecs.cms_transform(
        np.ascontiguousarray(pixels),
        source,
        target,
        colorspace=source_space.lower(),
        outcolorspace=target_space.lower(),
        outdtype="u2",
        intent=int(ImageCms.Intent.RELATIVE_COLORIMETRIC),
        # Without NOOPTIMIZE a grid of 33 steps approximates the conversion, with errors up to 10 %.
        flags=int(ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOOPTIMIZE),
    )
    shape = pixels.shape[:2] + ((CHANNELS[target_space],) if target_space != "GRAY" else ())
    return np.asarray(converted).reshape(shape)


@lru_cache(maxsize=64)
def is_srgb(profile: bytes) -> bool:
    """Return whether an RGB profile equals sRGB to within 1 of 255."""
    steps = np.linspace(0, 255, 18).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(18, -1, 3)
    difference = np.subtract(convert(grid, profile, srgb()), grid, dtype=np.int16)
    return bool(np.abs(difference).max() <= 1)


# CIE 1931 x and y of white, red, green and blue.
Chromaticities = tuple[float, float, float, float, float, float, float, float]

D65, ILLUMINANT_C = (0.3127, 0.3290), (0.310, 0.316)
SRGB: Chromaticities = (*D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
ADOBE_RGB: Chromaticities = (*D65, 0.640, 0.330, 0.210, 0.710, 0.150, 0.060)
SMPTE_170M: Chromaticities = (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070)
# ITU-T H.273 (07/2024), table 2.
PRIMARIES: dict[int, Chromaticities] = {
    1: SRGB,
    4: (*ILLUMINANT_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: SMPTE_170M,
    7: SMPTE_170M,
    8: (*ILLUMINANT_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    10: (1 / 3, 1 / 3, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}


@dataclass(frozen=True)
class Curve:
    """Curve from pixel value to light in 0..1: ``(a v + b) ** gamma``, or ``c v`` below ``d``."""

    gamma: float
    a: float = 1.0
    b: float = 0.0
    c: float = 0.0
    d: float = 0.0


def _inverse_of(power: float, alpha: float, slope: float, beta: float) -> Curve:
    """Return the inverse of ``alpha L ** power - (alpha - 1)``; of ``slope L`` below ``beta``."""
    return Curve(1 / power, 1 / alpha, (alpha - 1) / alpha, 1 / slope, slope * beta)


SRGB_CURVE = _inverse_of(1 / 2.4, 1.055, 12.92, 0.0031308)
ADOBE_RGB_CURVE = Curve(563 / 256)
BT_709 = _inverse_of(0.45, 1.099296826809442, 4.5, 0.018053968510807)
SMPTE_240M = _inverse_of(0.45, 1.1115, 4.0, 0.0228)
# Inverses of ITU-T H.273, table 3; without 9, 10 and 17, which are not such curves.
TRANSFERS: dict[int, Curve] = {
    1: BT_709, 4: Curve(2.2), 5: Curve(2.8), 6: BT_709, 7: SMPTE_240M, 8: Curve(1.0), 11: BT_709,
    12: BT_709, 13: SRGB_CURVE, 14: BT_709, 15: BT_709,
}  # fmt: skip
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
UNSPECIFIED = 2

D50 = np.array([0.9642, 1.0, 0.8249])  # ICC.1:2022, 7.2.16: white of the PCS.
# ICC.1:2022, annex E: XYZ to cone responses.
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def cicp_profile(primaries: int, transfer: int) -> bytes | None:
    """Return the profile of a colour space by its ITU-T H.273 codes, or None if it is sRGB.

    Unspecified primaries and transfer characteristics default to those of sRGB.

    Raises:
        KeyError: A code is reserved or not supported.
    """
    primaries = 1 if primaries == UNSPECIFIED else primaries
    transfer = 13 if transfer == UNSPECIFIED else transfer
    chromaticities = PRIMARIES[primaries]
    if (chromaticities, TRANSFERS[transfer]) == (SRGB, SRGB_CURVE):
        return None
    return rgb_profile(f"CICP {primaries}/{transfer}", chromaticities, TRANSFERS[transfer])


@lru_cache(maxsize=64)
def rgb_profile(name: str, chromaticities: Chromaticities, curve: Curve) -> bytes:
    """Return the profile of a colour space by its primaries and curve (ICC.1:2022, 8.4.3).

    Raises:
        ValueError: The primaries do not span a colour space.
    """
    parameters = (curve.gamma, curve.a, curve.b, curve.c, curve.d)
    response = struct.pack(">4s4xH2x", b"para", 3) + _fixed(parameters)
    adapted, columns = _to_d50(chromaticities)
    tags = {b"desc": _text(name), b"cprt": _text("No copyright"), b"wtpt": _xyz(D50)}
    tags |= {b"chad": b"sf32" + bytes(4) + _fixed(adapted.ravel())}
    for letter, column in zip((b"r", b"g", b"b"), columns.T, strict=True):
        tags |= {letter + b"XYZ": _xyz(column), letter + b"TRC": response}
    table, body, offsets = struct.pack(">I", len(tags)), b"", {}
    start = 128 + 4 + 12 * len(tags)
    for tag, content in tags.items():
        if content not in offsets:  # Equal curves are stored once.
            offsets[content] = start + len(body)
            body += content + bytes(-len(content) % 4)
        table += struct.pack(">4sII", tag, offsets[content], len(content))
    head = struct.pack(
        ">I4xI4s4s4s6H4s28x3I48x", start + len(body), 0x04400000, b"mntr", b"RGB ", b"XYZ ",
        2000, 1, 1, 0, 0, 0, b"acsp", 0xF6D6, 0x10000, 0xD32D,
    )  # fmt: skip
    return head + table + body


def _to_d50(chromaticities: Chromaticities) -> tuple[np.ndarray, np.ndarray]:
    """Return white adapted to D50, and XYZ of red, green and blue after that: ``[3, 3]`` each."""
    points = np.array(chromaticities, np.float64).reshape(4, 2)
    full = np.column_stack([points, 1 - points.sum(axis=1)])
    if full[0, 1] <= 0:
        raise ValueError("the white point has no luminance")
    try:
        white = full[0] / full[0, 1]
        primaries = full[1:].T * np.linalg.solve(full[1:].T, white)
    except np.linalg.LinAlgError as error:
        raise ValueError("the primaries do not span a colour space") from error
    cones = BRADFORD @ white
    if cones.min() <= 0:
        raise ValueError("the white point is not a visible colour")
    gains = (BRADFORD @ D50) / cones
    adapted = np.linalg.inv(BRADFORD) @ np.diag(gains) @ BRADFORD
    columns = adapted @ primaries
    if not np.isfinite(columns).all() or np.abs(columns).max() > 100:
        raise ValueError("the primaries do not span a colour space")
    return adapted, columns


def _fixed(values: Sequence[float] | np.ndarray) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(float(value) * 65536) for value in values))


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(values)


def _text(text: str) -> bytes:
    content = text.encode("utf-16-be")
    return struct.pack(">4s4xII2s2sII", b"mluc", 1, 12, b"en", b"US", len(content), 28) + content
