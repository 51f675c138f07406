"""Which image formats are read and written, and what each can hold."""

from __future__ import annotations

import ctypes
import warnings
from contextlib import suppress
from functools import lru_cache

from PIL import Image, _imaging

# Pillow warns of images from 89 megapixels on (and refuses them from 179 on), and of oddities
# in files that it can read all the same. Neither is the user's business.
warnings.filterwarnings("ignore", module=r"PIL\.")

# Formats that run another program (EPS: Ghostscript), or that Pillow only recognises.
UNSAFE_FORMATS = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "PDF"})
# Formats that hold any RGB image at its own size. Icons, for example, do not.
WRITABLE_FORMATS = frozenset(
    {"AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "SGI", "TGA",
     "TIFF", "WEBP"}
)  # fmt: skip
ALPHA_FORMATS = frozenset({"AVIF", "GIF", "HEIF", "JPEG2000", "PNG", "SGI", "TGA", "TIFF", "WEBP"})
DEEP_FORMATS = frozenset({"PNG", "TIFF"})  # 16 bits a channel
PROFILE_FORMATS = frozenset({"AVIF", "HEIF", "JPEG", "PNG", "TIFF", "WEBP"})
EXIF_FORMATS = PROFILE_FORMATS  # ... and XMP
# Pixels a side: what their headers, or libjpeg, have room for.
LARGEST_SIDE = {"GIF": 65535, "JPEG": 65500, "PCX": 65535, "SGI": 65535, "TGA": 65535,
                "WEBP": 16383}  # fmt: skip
# JPEG 2000 without the container that tells what its colours are.
CODESTREAM_SUFFIXES = frozenset({".j2c", ".j2k", ".jpc"})
HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
QUALITY_FORMATS = frozenset({"AVIF", "HEIF", "JPEG", "WEBP"})
PAGED_FORMATS = frozenset({"TIFF"})
ANIMATED_FORMATS = frozenset({"AVIF", "GIF", "PNG", "WEBP"})
# What the formats hold besides RGB: grey, inks, palettes, black and white.
MODES = {
    "BMP": ("L", "P", "1"), "GIF": ("P",), "JPEG": ("L", "CMYK"), "JPEG2000": ("L",),
    "PCX": ("L", "P", "1"), "PNG": ("L", "P", "1"), "PPM": ("L", "1"), "SGI": ("L",),
    "TGA": ("L", "P", "1"), "TIFF": ("L", "CMYK", "P", "1"),
}  # fmt: skip


@lru_cache(maxsize=1)
def readable_formats() -> tuple[str, ...]:
    """Names of the formats that are read, e.g. ``("AVIF", "BMP", ...)``."""
    Image.init()
    _silence_libtiff()
    with suppress(ImportError):
        from pillow_heif import register_heif_opener  # The extra "heif".

        register_heif_opener()
    return tuple(sorted(set(Image.OPEN) - UNSAFE_FORMATS))


def _silence_libtiff() -> None:
    """Keep it from writing to the terminal, without a file's name, what Pillow raises as errors."""
    with suppress(
        OSError, AttributeError
    ):  # Where Pillow has no libtiff, or one of its own inside.
        library = ctypes.CDLL(_imaging.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            set_handler = getattr(library, name)
            set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            set_handler(None)


@lru_cache(maxsize=1)
def readable_suffixes() -> frozenset[str]:
    """Lower-case file name endings of the formats that are read, e.g. ``.jpg``."""
    readable = set(readable_formats())
    known = Image.registered_extensions().items()
    # HEIC images are always listed, so that without the extra they are refused, not passed over.
    return frozenset(suffix for suffix, name in known if name in readable) | HEIF_SUFFIXES


def writable_format(suffix: str) -> str | None:
    """Name of the format that a file name ending stands for; None where it cannot be written."""
    readable_formats()  # ... are registered by now.
    name = Image.registered_extensions().get(suffix.lower())
    return name if name in WRITABLE_FORMATS and name in Image.SAVE else None
