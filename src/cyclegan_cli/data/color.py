"""Colours of image files: their colour space, and conversion to and from sRGB."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from cyclegan_cli.data import exif as exif_block
from cyclegan_cli.data import icc
from cyclegan_cli.data.containers import (
    ColorBox,
    avif_colors,
    jpeg2000_colors,
    png_chunks,
    whole_file,
)
from cyclegan_cli.data.image import Mode, PixelArray
from cyclegan_cli.data.metadata import exif_of

SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")
# Weights of red, green and blue in luma (ITU-R BT.601) of 65536, as in Pillow.
GREY_WEIGHTS = np.array([19595, 38470, 7471], dtype=np.uint64)


@dataclass(frozen=True, eq=False)
class Pixels:
    """Pixels in the colours of a file.

    Attributes:
        colors: ``[H, W]`` (grey) or ``[H, W, C]`` (3: RGB, 4: CMYK), uint8 or uint16.
        alpha: ``[H, W]`` of the same dtype, or None.
        mode: Pixel format of the file.
        profile: ICC profile of the colors, if the file has one that applies.
    """

    colors: PixelArray
    alpha: PixelArray | None
    mode: Mode
    profile: bytes | None = None


def unpack(image: Image.Image) -> Pixels:
    """Return the pixels of a loaded image.

    Raises:
        ValueError: The range of the pixel values is unknown.
    """
    if image.mode in SIXTEEN_BIT_MODES:
        grey = _grey_at_16_bit(image)
        transparent = image.info.get("transparency")
        alpha = None if transparent is None else (grey != transparent) * np.uint16(65535)
        return Pixels(grey, alpha, "L")
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers of unknown range")
    mode = _mode_of(image)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"))
        colors = np.asarray(image.getchannel("R") if mode in ("L", "1") else image.convert("RGB"))
    elif mode in ("L", "1"):
        colors = np.asarray(image.convert("L"))
        if image.format == "XBM":
            colors = 255 - colors  # A set bit is black in XBM, but white in Pillow.
    elif mode == "CMYK":
        colors = np.asarray(image)
    elif image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        colors = np.asarray(converted)
    else:
        colors = np.asarray(image.convert("RGB"))
    return Pixels(colors, alpha, mode)


def _mode_of(image: Image.Image) -> Mode:
    modes: dict[str, Mode] = {"1": "1", "L": "L", "LA": "L", "La": "L", "P": "P", "PA": "P",
                              "CMYK": "CMYK"}  # fmt: skip
    return modes.get(image.mode, "RGB")


def _grey_at_16_bit(image: Image.Image) -> PixelArray:
    grey = np.asarray(image)
    if grey.dtype.kind != "u":
        grey = grey.astype(np.int64)
    if grey.size and (grey.min() < 0 or grey.max() > 65535):
        raise ValueError("pixels are outside the 16-bit range")
    return grey.astype(np.uint16)


def to_srgb(pixels: Pixels, profile: bytes | None) -> PixelArray:
    """Convert pixels to sRGB: ``[H, W, 3]``, of their dtype.

    Args:
        pixels: Pixels in the colours of the file.
        profile: Profile for which :func:`profile_applies`, or None.
    """
    colors = pixels.colors
    space = icc.space_of(profile) if profile else None
    kind = "GRAY" if colors.ndim == 2 else "CMYK" if colors.shape[2] == 4 else "RGB"
    if profile and space == kind != "RGB":
        return icc.convert(colors, profile, icc.srgb())
    if kind == "GRAY":
        colors = np.repeat(colors[..., None], 3, axis=2)
    elif kind == "CMYK":
        return _cmyk_to_rgb(colors)
    if profile and space == "RGB" and not icc.is_srgb(profile):
        return icc.convert(colors, profile, icc.srgb())
    return colors


def profile_applies(pixels: Pixels, profile: bytes) -> bool:
    """Return whether the colour space of a profile is that of the pixels; RGB fits grey, too."""
    space = icc.space_of(profile)
    if pixels.colors.ndim == 2:
        return space in ("RGB", "GRAY")
    return space == ("CMYK" if pixels.colors.shape[2] == 4 else "RGB")


def _cmyk_to_rgb(cmyk: PixelArray) -> PixelArray:
    """Convert CMYK without a profile to RGB, by multiplying the light that each ink leaves."""
    highest = np.uint64(np.iinfo(cmyk.dtype).max)
    light = highest - cmyk.astype(np.uint64)
    product = light[..., :3] * light[..., 3:]
    return ((product + highest // 2) // highest).astype(cmyk.dtype)


def to_cmyk(rgb: PixelArray) -> PixelArray:
    """Convert RGB to CMYK without black, the inverse of :func:`to_srgb`."""
    inks = np.iinfo(rgb.dtype).max - rgb
    return np.concatenate([inks, np.zeros_like(inks[..., :1])], axis=2)


def to_grey(rgb: PixelArray) -> PixelArray:
    """Convert ``[H, W, 3]`` to luma, ``[H, W]``."""
    if rgb.dtype == np.uint8:
        return np.asarray(Image.fromarray(rgb).convert("L"))
    return ((rgb @ GREY_WEIGHTS + np.uint64(1 << 15)) >> np.uint64(16)).astype(np.uint16)


COLOR_CHUNKS = {b"cICP": 4, b"gAMA": 4, b"cHRM": 32, b"sRGB": 1}  # Lengths in bytes
# PNG specification, third edition, 11.3.2.5: gAMA and cHRM of sRGB.
SRGB_GAMMA, SRGB_CHROMATICITIES = 45455, (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
TOLERANCE = 100  # Of 100,000: programs round differently.
GAMMAS = range(10_000, 1_000_001)  # Others make an image black or white.
WHITE_POINT, PRIMARIES = 318, 319  # TIFF 6.0, section 20


@dataclass(frozen=True)
class ColorSpace:
    """Colour space that a file specifies other than by an ICC profile known to Pillow.

    Attributes:
        profile: An equivalent ICC profile; None for sRGB or without a specification.
        overrules: Whether it takes precedence over the ICC profile.
        is_limited_range: Whether black and white are 16 and 235 of 255, as in video.
        remarks: Messages on what is ignored.
    """

    profile: bytes | None = None
    overrules: bool = False
    is_limited_range: bool = False
    remarks: tuple[str, ...] = ()


def read_color_space(image: Any) -> ColorSpace:
    """Read the colour space of a file before its pixels are loaded.

    Args:
        image: The file, opened by Pillow.

    Raises:
        ValueError: The file is an HDR image.
    """
    _refuse_hdr_profile(image.info.get("icc_profile"))
    found = _of_format(image) if getattr(image, "fp", None) else None
    if found is None and not image.info.get("icc_profile") and is_adobe_rgb(image):
        return ColorSpace(
            icc.rgb_profile(
                "Compatible with Adobe RGB (1998)",
                icc.ADOBE_RGB,
                icc.ADOBE_RGB_CURVE,
            )
        )
    return found or ColorSpace()


def _of_format(image: Any) -> ColorSpace | None:
    """Return the colour space by format-specific fields, or None without any."""
    if image.format == "PNG":
        return _of_png(image)
    if image.format == "AVIF":
        return _of_box(avif_colors(whole_file(image)))
    if image.format == "JPEG2000":
        return _of_box(jpeg2000_colors(whole_file(image)))
    if image.format == "TIFF":
        return _of_tiff(image)
    nclx = image.info.get("nclx_profile") if image.format == "HEIF" else None
    if not nclx:
        return None
    return _of_cicp(int(nclx["color_primaries"]), int(nclx["transfer_characteristics"]))


def _of_box(box: ColorBox) -> ColorSpace | None:
    if box.icc:
        _refuse_hdr_profile(box.icc)
        return ColorSpace(box.icc)
    if box.other:
        return ColorSpace(remarks=(f"its colours are in {box.other}, which was taken for sRGB",))
    return _of_cicp(*box.cicp) if box.cicp else None


def _of_cicp(primaries: int, transfer: int) -> ColorSpace | None:
    """Return a colour space by its ITU-T H.273 codes, or None if they are unspecified."""
    if hdr := icc.HDR_TRANSFERS.get(transfer):
        raise ValueError(_hdr(hdr))
    if primaries == transfer == icc.UNSPECIFIED:
        return None
    try:
        return ColorSpace(icc.cicp_profile(primaries, transfer))
    except KeyError:
        remark = f"its colour space, CICP {primaries}/{transfer}, is unknown and was ignored"
        return ColorSpace(remarks=(remark,))


def _hdr(transfer: str) -> str:
    return f"HDR images ({transfer}) are not supported: tone-map it to SDR first"


def _refuse_hdr_profile(profile: bytes | None) -> None:
    """Refuse an HDR profile, which has a cicp tag (ICC.1:2022, 9.2.17)."""
    if not profile or len(profile) < 132:
        return
    (count,) = struct.unpack_from(">I", profile, 128)
    table = profile[132 : 132 + 12 * count]
    for tag, start, _ in struct.iter_unpack(">4sII", table[: len(table) // 12 * 12]):
        if tag == b"cicp" and profile[start : start + 4] == b"cicp":
            transfer = (profile[start + 9 : start + 10] or b"\0")[0]
            if hdr := icc.HDR_TRANSFERS.get(transfer):
                raise ValueError(_hdr(hdr))


def _of_png(image: Any) -> ColorSpace | None:
    """By precedence (PNG specification, third edition): cICP, iCCP, sRGB, gAMA and cHRM."""
    chunks, remarks = _color_chunks(whole_file(image))
    found = None
    if cicp := chunks.get(b"cICP"):
        primaries, transfer, matrix, is_full = cicp
        if matrix or is_full > 1:
            remarks += ("its cICP chunk is not for RGB and was ignored",)
        elif found := _of_cicp(primaries, transfer):
            known = not found.remarks
            return ColorSpace(found.profile, known, known and not is_full, remarks + found.remarks)
    found = ColorSpace() if b"sRGB" in chunks else _of_gamma(chunks)
    has_icc = bool(image.info.get("icc_profile"))
    if found is None or (found.remarks and has_icc):
        return ColorSpace(remarks=remarks) if remarks else None
    return replace(found, remarks=remarks + found.remarks)


def _color_chunks(png: bytes) -> tuple[dict[bytes, bytes], tuple[str, ...]]:
    """Return the colour chunks before the pixels, and remarks on damaged ones."""
    found: dict[bytes, bytes] = {}
    remarks: list[str] = []
    for chunk in png_chunks(io.BytesIO(png)):
        if chunk.kind == b"IDAT":
            break
        if chunk.kind not in COLOR_CHUNKS or chunk.kind in found:
            continue
        content = png[chunk.start + 8 : chunk.stop - 4]
        if chunk.is_sound and len(content) == COLOR_CHUNKS[chunk.kind]:
            found[chunk.kind] = content
        else:
            remarks.append(f"its {chunk.kind.decode()} chunk is damaged and was ignored")
    return found, tuple(remarks)


def _of_gamma(chunks: Mapping[bytes, bytes]) -> ColorSpace | None:
    """Return the colour space of PNG's gAMA and cHRM chunks; the default is sRGB."""
    gamma, chromaticities = chunks.get(b"gAMA"), chunks.get(b"cHRM")
    if gamma is None and chromaticities is None:
        return None
    exponent = struct.unpack(">I", gamma)[0] if gamma else SRGB_GAMMA
    points = struct.unpack(">8I", chromaticities) if chromaticities else SRGB_CHROMATICITIES
    is_srgb = max(abs(a - b) for a, b in zip(points, SRGB_CHROMATICITIES, strict=True)) <= TOLERANCE
    if is_srgb and abs(exponent - SRGB_GAMMA) <= TOLERANCE:
        return ColorSpace()
    curve = icc.Curve(100_000 / exponent) if gamma and exponent else icc.SRGB_CURVE
    try:
        if exponent not in GAMMAS:
            raise ValueError
        primaries = icc.SRGB if is_srgb else tuple(point / 100_000 for point in points)
        return ColorSpace(icc.rgb_profile("gAMA and cHRM", primaries, curve))
    except ValueError:
        return ColorSpace(remarks=("its gAMA or cHRM chunk is invalid and was ignored",))


def _of_tiff(image: Any) -> ColorSpace | None:
    """Return the colour space of the primaries in a TIFF, with the curve of sRGB."""
    white, primaries = (image.tag_v2.get(tag) for tag in (WHITE_POINT, PRIMARIES))
    if not (isinstance(white, tuple) and isinstance(primaries, tuple)):
        return None
    points = (*map(float, white), *map(float, primaries))
    if len(points) != 8 or image.info.get("icc_profile"):
        return None
    if np.allclose(points, icc.SRGB, atol=TOLERANCE / 100_000):
        return ColorSpace()
    try:
        return ColorSpace(icc.rgb_profile("TIFF colorimetry", points, icc.SRGB_CURVE))
    except ValueError:
        return ColorSpace(remarks=("its primary chromaticities are invalid and were ignored",))


def is_adobe_rgb(image: Any) -> bool:
    """Return whether EXIF data specifies Adobe RGB, as cameras do (DCF 2.0; EXIF 2.32)."""
    try:
        exif = exif_of(image)
        return exif is not None and exif_block.specifies_adobe_rgb(exif)
    except (ValueError, TypeError, OSError):
        return False  # Damaged; reported when metadata is read.


def expand_limited_range(pixels: Pixels) -> Pixels:
    """Convert pixels with black 16 and white 235 of 255 to full range (ITU-T H.273, eq. 1 to 3)."""
    highest = np.iinfo(pixels.colors.dtype).max
    unit = (highest + 1) // 256
    wide = (pixels.colors.astype(np.float64) - 16 * unit) * (highest / (219 * unit))
    colors: PixelArray = wide.round().clip(0, highest).astype(pixels.colors.dtype)
    return Pixels(colors, pixels.alpha, pixels.mode)
