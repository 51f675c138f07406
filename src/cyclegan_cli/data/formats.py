"""Which picture formats are read and written, and what each can hold."""

from __future__ import annotations

import warnings
from functools import lru_cache

from PIL import Image

# Pillow warns of pictures from 89 megapixels on (and refuses them from 179 on), and of oddities
# in files that it can read all the same. Neither is the user's business.
warnings.filterwarnings("ignore", module=r"PIL\.")

# Formats that run another program (EPS: Ghostscript), or that Pillow only recognises.
UNSAFE_FORMATS = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "PDF"})
# Formats that hold any RGB picture at its own size. Icons, for example, do not.
WRITABLE_FORMATS = frozenset(
    {"AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "SGI", "TGA", "TIFF", "WEBP"}
)
ALPHA_FORMATS = frozenset({"GIF", "PNG", "WEBP", "TIFF", "TGA", "JPEG2000", "AVIF", "SGI"})
QUALITY_FORMATS = frozenset({"AVIF", "JPEG", "WEBP"})


@lru_cache(maxsize=1)
def readable_formats() -> tuple[str, ...]:
    """Names of the formats that are read, e.g. ``("AVIF", "BMP", ...)``."""
    Image.init()
    return tuple(sorted(set(Image.OPEN) - UNSAFE_FORMATS))


@lru_cache(maxsize=1)
def readable_suffixes() -> frozenset[str]:
    """Lower-case file name endings of the formats that are read, e.g. ``.jpg``."""
    readable = set(readable_formats())
    return frozenset(
        suffix for suffix, name in Image.registered_extensions().items() if name in readable
    )


def writable_format(suffix: str) -> str | None:
    """Name of the format that a file name ending stands for; None where it cannot be written."""
    name = Image.registered_extensions().get(suffix.lower())
    return name if name in WRITABLE_FORMATS and name in Image.SAVE else None
