"""What a file says of its colours: by a profile, by numbers (CICP), by PNG's chunks, by EXIF."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cyclegan_cli.data import exif as exif_block
from cyclegan_cli.data import rgb_profiles
from cyclegan_cli.data.colour import Pixels
from cyclegan_cli.data.image import Levels
from cyclegan_cli.data.isobmff import ColourBox, avif_colours, jpeg2000_colours
from cyclegan_cli.data.metadata import exif_of, whole_file

PNG_CHUNKS = {b"cICP": 4, b"gAMA": 4, b"cHRM": 32, b"sRGB": 1}  # ... and how long they are.
# PNG specification, third edition, 11.3.2.5: what is written of sRGB for those who know no other.
SRGB_GAMMA, SRGB_CHROMATICITIES = 45455, (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
NEARLY = 100  # Of 100,000: different programs round differently.
GAMMAS = range(10_000, 1_000_001)  # Beyond them an image is black or white.
WHITE_POINT, PRIMARIES = 318, 319  # TIFF 6.0, section 20


@dataclass(frozen=True)
class ColourSpace:
    """What a file says of its colours other than by an ICC profile that Pillow finds.

    Attributes:
        profile: The same as a profile; None: sRGB, or nothing is said.
        overrules: Whether it counts although there is an ICC profile.
        is_narrow: Whether black and white are 16 and 235 of 255, as in videos.
        remarks: Sentences on what is ignored.
    """

    profile: bytes | None = None
    overrules: bool = False
    is_narrow: bool = False
    remarks: tuple[str, ...] = ()


def read_colour_space(image: Any) -> ColourSpace:
    """Read what a file says of its colours, before its pixels are loaded.

    Args:
        image: As Pillow has opened it.

    Raises:
        ValueError: It is an HDR image.
    """
    _refuse_hdr_profile(image.info.get("icc_profile"))
    found = _of_format(image) if getattr(image, "fp", None) else None
    if found is None and not image.info.get("icc_profile") and says_adobe_rgb(image):
        return ColourSpace(
            rgb_profiles.rgb_profile(
                "Compatible with Adobe RGB (1998)",
                rgb_profiles.ADOBE_RGB,
                rgb_profiles.ADOBE_RGB_CURVE,
            )
        )
    return found or ColourSpace()


def _of_format(image: Any) -> ColourSpace | None:
    """What a format has for it; None where nothing is said."""
    if image.format == "PNG":
        return _of_png(image)
    if image.format == "AVIF":
        return _of_box(avif_colours(whole_file(image)))
    if image.format == "JPEG2000":
        return _of_box(jpeg2000_colours(whole_file(image)))
    if image.format == "TIFF":
        return _of_tiff(image)
    nclx = image.info.get("nclx_profile") if image.format == "HEIF" else None
    if not nclx:
        return None
    return _of_cicp(int(nclx["color_primaries"]), int(nclx["transfer_characteristics"]))


def _of_box(said: ColourBox) -> ColourSpace | None:
    if said.icc:
        _refuse_hdr_profile(said.icc)
        return ColourSpace(said.icc)
    if said.other:
        return ColourSpace(remarks=(f"its colours are in {said.other}, which was taken for sRGB",))
    return _of_cicp(*said.cicp) if said.cicp else None


def _of_cicp(primaries: int, transfer: int) -> ColourSpace | None:
    """A space by its numbers in ITU-T H.273; None where they say nothing."""
    if hdr := rgb_profiles.HDR_TRANSFERS.get(transfer):
        raise ValueError(_hdr(hdr))
    if primaries == transfer == rgb_profiles.UNSPECIFIED:
        return None
    try:
        return ColourSpace(rgb_profiles.cicp_profile(primaries, transfer))
    except KeyError:
        remark = f"its colour space, CICP {primaries}/{transfer}, is not known and was ignored"
        return ColourSpace(remarks=(remark,))


def _hdr(transfer: str) -> str:
    return f"an HDR image ({transfer}) is not tone-mapped here: convert it to SDR first"


def _refuse_hdr_profile(profile: bytes | None) -> None:
    """ICC.1:2022, 9.2.17: a profile may say by CICP, too, what it is of."""
    if not profile or len(profile) < 132:
        return
    (count,) = struct.unpack_from(">I", profile, 128)
    table = profile[132 : 132 + 12 * count]
    for tag, start, _ in struct.iter_unpack(">4sII", table[: len(table) // 12 * 12]):
        if tag == b"cicp" and profile[start : start + 4] == b"cicp":
            transfer = (profile[start + 9 : start + 10] or b"\0")[0]
            if hdr := rgb_profiles.HDR_TRANSFERS.get(transfer):
                raise ValueError(_hdr(hdr))


def _of_png(image: Any) -> ColourSpace | None:
    """By the precedence of the PNG specification, third edition: cICP, iCCP, sRGB, gAMA, cHRM."""
    chunks, remarks = _png_chunks(whole_file(image))
    found = None
    if cicp := chunks.get(b"cICP"):
        primaries, transfer, matrix, is_full = cicp
        if matrix or is_full > 1:
            remarks += ("its cICP chunk does not say what RGB is and was ignored",)
        elif found := _of_cicp(primaries, transfer):
            known = not found.remarks
            return ColourSpace(found.profile, known, known and not is_full, remarks + found.remarks)
    found = ColourSpace() if b"sRGB" in chunks else _of_gamma(chunks)
    has_icc = bool(image.info.get("icc_profile"))
    if found is None or (found.remarks and has_icc):
        return ColourSpace(remarks=remarks) if remarks else None
    return replace(found, remarks=remarks + found.remarks)


def _png_chunks(png: Any) -> tuple[dict[bytes, bytes], tuple[str, ...]]:
    """Those before the pixels that say what the colours are, and what is wrong with them."""
    found: dict[bytes, bytes] = {}
    remarks: list[str] = []
    at = 8
    while at + 12 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        if kind == b"IDAT":
            break
        if kind in PNG_CHUNKS and kind not in found:
            content = bytes(png[at + 8 : at + 8 + length])
            (checksum,) = struct.unpack(
                ">I", bytes(png[at + 8 + length : at + 12 + length])[:4].rjust(4)
            )
            if length == PNG_CHUNKS[kind] and zlib.crc32(kind + content) == checksum:
                found[kind] = content
            else:
                remarks.append(f"its {kind.decode()} chunk is damaged and was ignored")
        at += 12 + length
    return found, tuple(remarks)


def _of_gamma(chunks: Mapping[bytes, bytes]) -> ColourSpace | None:
    """The space of PNG's gAMA and cHRM chunks; what one of them does not say is as in sRGB."""
    gamma, chromaticities = chunks.get(b"gAMA"), chunks.get(b"cHRM")
    if gamma is None and chromaticities is None:
        return None
    exponent = struct.unpack(">I", gamma)[0] if gamma else SRGB_GAMMA
    points = struct.unpack(">8I", chromaticities) if chromaticities else SRGB_CHROMATICITIES
    is_srgb = max(abs(a - b) for a, b in zip(points, SRGB_CHROMATICITIES, strict=True)) <= NEARLY
    if is_srgb and abs(exponent - SRGB_GAMMA) <= NEARLY:
        return ColourSpace()
    curve = (
        rgb_profiles.Curve(100_000 / exponent) if gamma and exponent else rgb_profiles.SRGB_CURVE
    )
    try:
        if exponent not in GAMMAS:
            raise ValueError
        primaries = rgb_profiles.SRGB if is_srgb else tuple(point / 100_000 for point in points)
        return ColourSpace(rgb_profiles.rgb_profile("gAMA and cHRM", primaries, curve))
    except ValueError:
        return ColourSpace(remarks=("its gAMA or cHRM chunk makes no sense and was ignored",))


def _of_tiff(image: Any) -> ColourSpace | None:
    """The primaries that a TIFF may name instead of a profile; its curves are as in sRGB."""
    white, primaries = (image.tag_v2.get(tag) for tag in (WHITE_POINT, PRIMARIES))
    if not (isinstance(white, tuple) and isinstance(primaries, tuple)):
        return None
    points = (*map(float, white), *map(float, primaries))
    if len(points) != 8 or image.info.get("icc_profile"):
        return None
    if np.allclose(points, rgb_profiles.SRGB, atol=NEARLY / 100_000):
        return ColourSpace()
    try:
        return ColourSpace(
            rgb_profiles.rgb_profile("TIFF colorimetry", points, rgb_profiles.SRGB_CURVE)
        )
    except ValueError:
        return ColourSpace(remarks=("its primary chromaticities make no sense and were ignored",))


def says_adobe_rgb(image: Any) -> bool:
    """Whether EXIF data says Adobe RGB, as cameras do without a profile (DCF 2.0; EXIF 2.32)."""
    try:
        exif = exif_of(image)
        return exif is not None and exif_block.says_adobe_rgb(exif)
    except (ValueError, TypeError, OSError):
        return False  # Damaged: what comes of that is said where it is kept.


def from_narrow_range(pixels: Pixels) -> Pixels:
    """Pixels of which black is 16 and white 235 of 255 (ITU-T H.273, equations 1 to 3)."""
    highest = np.iinfo(pixels.colours.dtype).max
    unit = (highest + 1) // 256
    wide = (pixels.colours.astype(np.float64) - 16 * unit) * (highest / (219 * unit))
    colours: Levels = wide.round().clip(0, highest).astype(pixels.colours.dtype)
    return Pixels(colours, pixels.alpha, pixels.mode)
