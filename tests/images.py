"""Images that tests make for themselves, and ways to look at those that they get."""

import io
import os
import struct
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, JpegImagePlugin

from cyclegan_cli.data.decode import decode
from cyclegan_cli.data.encode import encode
from cyclegan_cli.data.image import DecodedImage, EncodeOptions

Array = np.ndarray[Any, np.dtype[Any]]
# How viewers display the stored rows and columns (EXIF 2.3, tag 0x0112).
UPRIGHT: dict[int, Callable[[Array], Array]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),  # clockwise
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}


def noise(width: int = 24, height: int = 16, seed: int = 0) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def flat(mode: str, colour: Any) -> Image.Image:
    return Image.new(mode, (16, 8), colour)


def palette(*colours: int) -> Image.Image:
    image = flat("P", 1)
    image.putpalette([0, 0, 0, *colours])
    return image


SIXTEEN_BITS = np.array([[0, 256, 257, 32768, 65535, 65406]], dtype=np.uint16)


def with_orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def undated(profile: bytes) -> bytes:
    """A colour profile made on 1 January 2000: the same bytes in every run."""
    return profile[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + profile[36:]


@lru_cache
def srgb_profile() -> bytes:
    return undated(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())


@lru_cache
def lab_profile() -> bytes:
    return undated(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes())


@lru_cache
def display_p3_profile() -> bytes:
    """The sRGB profile with the primaries of Display P3 (XYZ, adapted to D50) in its place."""
    primaries = {
        b"rXYZ": (0.51512, 0.24120, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.15710, 0.06657, 0.78407),
    }
    profile = bytearray(srgb_profile())
    for index in range(int.from_bytes(profile[128:132])):
        name, offset, _ = struct.unpack_from(">4sII", profile, 132 + 12 * index)
        if name in primaries:
            fixed_point = (round(value * 65536) for value in primaries[name])
            struct.pack_into(">3i", profile, offset + 8, *fixed_point)
    return bytes(profile)


def grey_profile(gamma: float = 1.0) -> bytes:
    return undated(bytes(imagecodecs.cms_profile("gray", gamma=gamma)))


def quality_of(path: Path) -> tuple[Any, int]:
    """A JPEG's quantization tables and chroma subsampling."""
    with Image.open(path) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        return image.quantization, JpegImagePlugin.get_sampling(image)


def segments(jpeg: bytes, marker: bytes) -> list[bytes]:
    """The segments of a JPEG that begin with a marker, e.g. DQT ``ff db``."""
    found, at = [], 2
    while jpeg[at : at + 2] != b"\xff\xda":  # the scan
        length = 2 + int.from_bytes(jpeg[at + 2 : at + 4])
        if jpeg[at : at + 2] == marker:
            found.append(jpeg[at : at + length])
        at += length
    return found


def image_of(image: Image.Image, alpha: Array | None = None, **fields: Any) -> DecodedImage:
    """As if it had been decoded."""
    return DecodedImage(
        (np.asarray(image.convert("RGB")),), () if alpha is None else (alpha,), **fields
    )


def round_trip(
    content: bytes, kind: str, options: EncodeOptions = EncodeOptions()
) -> tuple[DecodedImage, DecodedImage, bytes, tuple[str, ...]]:
    """Through a translator that changes nothing: what was read, what its output reads as, the
    output and what was said of it."""
    read = decode(io.BytesIO(content))
    stream = io.BytesIO()
    remarks = encode(read.with_frames(read.frames), stream, kind, options)
    return read, decode(io.BytesIO(stream.getvalue())), stream.getvalue(), remarks


def open_image(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def camera_exif(orientation: int = 6, width: int = 24, height: int = 16) -> Image.Exif:
    """EXIF data of a phone, with GPS."""
    exif = with_orientation(orientation)
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769).update({0x9003: "2020:02:03 04:05:06", 0xA002: width, 0xA003: height})
    exif.get_ifd(0x8825).update({1: "N", 2: (47.0, 22.0, 30.5)})
    return exif


def tiff_of(levels: Array, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, levels, metadata=None, **options)
    return stream.getvalue()


def deep_noise(*shape: int, seed: int = 0) -> Array:
    """uint16"""
    return np.random.default_rng(seed).integers(0, 65536, shape, dtype=np.uint16)


def lock(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let a folder be one that may not be listed, even by root."""
    scandir = os.scandir

    def refuse(path: str | Path) -> Any:
        if os.fspath(path) in (str(folder), os.path.relpath(folder)):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


def files(folder: str) -> list[str]:
    """Everything below a folder, hidden files and leftovers too, by their paths in it."""
    found = Path(folder).rglob("*")
    return sorted(str(path.relative_to(folder)) for path in found if path.is_file())
