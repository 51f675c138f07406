"""Unusual, damaged and truncated images, as left by cameras, scanners and failed downloads."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin, features

from images import (
    camera_exif,
    deep_noise,
    display_p3_profile,
    encoded,
    lab_profile,
    noise,
    srgb_profile,
    tiff_of,
    with_orientation,
)

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F")
FORMATS = {
    "BMP": ".bmp", "GIF": ".gif", "JPEG": ".jpg", "PNG": ".png", "PPM": ".ppm", "TGA": ".tga",
    "TIFF": ".tif", "WEBP": ".webp", "JPEG2000": ".jp2", "PCX": ".pcx", "SGI": ".sgi",
    "ICO": ".ico", "QOI": ".qoi", "DDS": ".dds", "AVIF": ".avif", "MPO": ".mpo",
}  # fmt: skip
PROFILES = {
    "srgb": srgb_profile(), "p3": display_p3_profile(), "text": b"no profile at all",
    "cut": display_p3_profile()[:200],
    "lab": lab_profile(),
}  # fmt: skip


def of_mode(mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(deep_noise(16, 24))
    if mode in ("I", "F"):
        return Image.fromarray(deep_noise(16, 24).astype({"I": np.int32, "F": np.float32}[mode]))
    if mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(noise(), srgb, lab, outputMode="LAB") or noise()
    if mode == "PA":
        return noise().convert("P").convert("PA")
    return noise().convert(mode)


def every_mode_in_every_format() -> dict[str, bytes]:
    found = {}
    for mode in MODES:
        for kind, ending in FORMATS.items():
            try:
                content = encoded(of_mode(mode), kind)
            except (OSError, ValueError, KeyError):
                continue  # It has no such thing.
            found[f"{mode.replace(';', '-')}-{kind}{ending}"] = content
    return found


def every_profile_and_orientation() -> dict[str, bytes]:
    found = {}
    for kind in ("JPEG", "PNG", "TIFF", "WEBP"):
        for orientation in range(10):
            name = f"orientation-{orientation}-{kind}{FORMATS[kind]}"
            found[name] = encoded(noise(), kind, exif=with_orientation(orientation))
        for name, profile in PROFILES.items():
            for mode in ("RGB", "L"):
                content = encoded(noise().convert(mode), kind, icc_profile=profile)
                found[f"profile-{name}-{mode}-{kind}{FORMATS[kind]}"] = content
    return found


def whole() -> dict[str, bytes]:
    """One of each kind, to be cut and damaged."""
    frames = [noise(seed=seed) for seed in range(1, 4)]
    kinds = {
        "gif": encoded(noise(), "GIF", save_all=True, append_images=frames, duration=50),
        "apng": encoded(noise(), "PNG", save_all=True, append_images=frames, duration=50),
        "animated webp": encoded(noise(), "WEBP", save_all=True, append_images=frames),
        "jpeg": encoded(noise(), "JPEG", exif=camera_exif(), icc_profile=srgb_profile()),
        "progressive jpeg": encoded(noise(), "JPEG", progressive=True),
        "cmyk jpeg": encoded(noise().convert("CMYK"), "JPEG"),
        "mpo": encoded(noise(), "MPO", save_all=True, append_images=[noise(6, 4)]),
        "png": encoded(noise(), "PNG", exif=camera_exif()),
        "palette png": encoded(noise().quantize(8), "PNG", transparency=0),
        "pages": encoded(noise(), "TIFF", save_all=True, append_images=frames),
        "lzw tiff": encoded(noise(), "TIFF", compression="tiff_lzw", exif=camera_exif()),
        "deep tiff": tiff_of(deep_noise(16, 24, 3), photometric="rgb", compression="zlib"),
        "webp": encoded(noise().convert("RGBA"), "WEBP", exif=camera_exif()),
        "bmp": encoded(noise(), "BMP"),
        "jpeg2000": encoded(noise(), "JPEG2000"),
        "deep png": deep_png(deep_noise(16, 24, 3)),
        "color dicom": (Path(__file__).parent / "data" / "dicom" / "color.dcm").read_bytes(),
        "npz": npz(np.asarray(noise())),
    }
    if features.check("avif"):
        kinds["avif"] = encoded(noise(), "AVIF", exif=camera_exif())
    return kinds


def npz(levels: Any) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, levels)
    return stream.getvalue()


def deep_png(levels: Any) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.png_encode(levels))


def cut_off() -> dict[str, bytes]:
    """Truncated at many places."""
    shares = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97)
    return {
        f"cut-at-{share}-{name}": content[: int(len(content) * share)]
        for name, content in whole().items()
        for share in shares
    }


DAMAGES = {
    "zeros": lambda content, at: content[:at] + bytes(64) + content[at + 64 :],
    "a bit": lambda content, at: content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :],
    "a hole": lambda content, at: content[:at] + content[at + 64 :],
    "cut off": lambda content, at: content[:at],
}


def with_checksums() -> dict[str, bytes]:
    """Images in formats in which any damage can be detected."""
    frames = [noise(100, 80, seed) for seed in (1, 2)]
    return {
        "rgb.png": encoded(noise(100, 80), "PNG"),
        "grey.png": encoded(noise(100, 80).convert("L"), "PNG"),
        "palette.png": encoded(noise(100, 80).quantize(), "PNG"),
        "bits.png": encoded(noise(300, 200).convert("1"), "PNG"),
        "deep.png": deep_png(deep_noise(40, 50, 3)),
        "frames.png": encoded(noise(100, 80), "PNG", save_all=True, append_images=frames),
        "deflate.tif": encoded(noise(100, 80), "TIFF", compression="tiff_adobe_deflate"),
        "deep.tif": tiff_of(deep_noise(40, 50, 3), photometric="rgb", compression="zlib"),
    }


def damaged_in_the_middle() -> dict[str, bytes]:
    return {
        f"damaged by {damage}-{name}": change(content, len(content) // 2)
        for damage, change in DAMAGES.items()
        for name, content in with_checksums().items()
    }


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_that_claims(width: int, height: int, depth: int = 8) -> bytes:
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + head + pixels + png_chunk(b"IEND", b"")


def tiff_with_entry(content: bytes, tag: int, value: int) -> bytes:
    """A little-endian TIFF with another value (LONG or SHORT) in an entry of its directory."""
    changed = bytearray(content)
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    for place in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from("<H", content, place) == (tag,):
            struct.pack_into("<HHII", changed, place, tag, 4, 1, value)
    return bytes(changed)


def tiff_of_endless_pages() -> bytes:
    """Its last directory points to its first."""
    content = bytearray(encoded(noise(), "TIFF"))
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    struct.pack_into("<I", content, start + 2 + 12 * count, start)
    return bytes(content)


def liars() -> dict[str, bytes]:
    """Headers that claim what is not there."""
    plain, deep = encoded(noise(), "TIFF"), tiff_of(deep_noise(16, 24, 3), photometric="rgb")
    endless = b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 0x8769, 4, 1, 8) + bytes(4)
    bomb = PngImagePlugin.PngInfo()
    bomb.add_text("bomb", "0" * 10_000_000, zip=True)
    return {
        "huge.png": png_that_claims(100_000, 100_000),
        "huge-deep.png": png_that_claims(100_000, 100_000, 16),
        "no-pixels.png": png_that_claims(0, 0),
        "short-deep.png": png_that_claims(500, 500, 16),
        "huge.tif": tiff_with_entry(plain, 257, 4_000_000_000),
        "huge-deep.tif": tiff_with_entry(deep, 257, 4_000_000_000),
        "long-deep.tif": tiff_with_entry(deep, 257, 5000),
        "endless.tif": tiff_of_endless_pages(),
        "pixels-elsewhere.tif": tiff_with_entry(plain, 273, 4_000_000_000),
        "endless-exif.jpg": encoded(noise(), "JPEG", exif=b"Exif\0\0" + endless),
        "damaged-exif.jpg": encoded(noise(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
        "text-bomb.png": encoded(noise(), "PNG", pnginfo=bomb),
    }


def odd_ones() -> dict[str, bytes]:
    """Extreme sizes, number types, and wrong extensions."""
    floats = np.linspace(-1, 2, 96, dtype=np.float32).reshape(8, 12)
    floats[3, 4] = np.nan
    return {
        "dot.png": encoded(noise(1, 1), "PNG"),
        "dot.jpg": encoded(noise(1, 1), "JPEG"),
        "dot.gif": encoded(noise(1, 1), "GIF"),
        "line.png": encoded(noise(1, 5000), "PNG"),
        "line.jpg": encoded(noise(5000, 1), "JPEG", exif=camera_exif()),
        "deep-dot.png": deep_png(deep_noise(1, 1, 4)),
        "deep-line.tif": tiff_of(deep_noise(5000, 1, 3), photometric="rgb"),
        "nan.tif": tiff_of(floats),
        "nan-rgb.tif": tiff_of(np.dstack([floats] * 3), photometric="rgb"),
        "negative.tif": tiff_of(np.full((4, 4), -1, np.int32)),
        "sixty-four.tif": tiff_of(np.ones((4, 4), np.uint64)),
        "thirty-two-rgb.tif": tiff_of(np.ones((4, 4, 3), np.uint32), photometric="rgb"),
        "five-channels.tif": tiff_of(deep_noise(4, 4, 5), photometric="minisblack",
                                     planarconfig="contig"),
        "jpeg.png": encoded(noise(), "JPEG"),
        "png.jpg": encoded(noise(), "PNG"),
        "tiff.gif": encoded(noise(), "TIFF"),
        "webp.bmp": encoded(noise(), "WEBP"),
        "nothing.jpg": b"",
        "zeros.png": bytes(1000),
        "words.tif": b"These are words.\n" * 10,
        "page.jpg": b"<!doctype html><title>404</title>",
        "program.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "heic-head.heic": b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(40),
    }  # fmt: skip


def all_of_them() -> dict[str, bytes]:
    return (
        every_mode_in_every_format() | every_profile_and_orientation() | cut_off() | liars()
        | odd_ones() | damaged_in_the_middle()
    )  # fmt: skip
