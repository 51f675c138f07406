"""Image formats that can be read and written, and what each of them holds."""

from __future__ import annotations

import ctypes
import warnings
from contextlib import suppress
from functools import lru_cache
from pathlib import PurePath
from typing import TYPE_CHECKING

from PIL import Image, _imaging

from cyclegan_cli.errors import DataError, UsageError

if TYPE_CHECKING:
    from cyclegan_cli.config import TranslateConfig
    from cyclegan_cli.data.image import EncodeOptions

# Pillow warns of images above 89 megapixels (and refuses those above 179), and of irregularities in
# files that it reads nevertheless. Neither concerns the user.
warnings.filterwarnings("ignore", module=r"PIL\.")

# Arrays and volumes, which are read and written without Pillow, by extension.
ARRAY_FORMATS = {
    ".npy": "NPY", ".npz": "NPZ", ".dcm": "DICOM", ".dicom": "DICOM", ".nii": "NIFTI",
    ".nii.gz": "NIFTI",
}  # fmt: skip
NPY_HEAD = b"\x93NUMPY"
# Formats whose values are measurements in the unit that the file's header defines.
VOLUME_FORMATS = frozenset({"DICOM", "NIFTI"})

# Formats that run another program (EPS: Ghostscript), or that Pillow identifies but cannot read.
UNSAFE_FORMATS = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "PDF"})
# Formats for RGB images of any size, which excludes icons, for example.
WRITABLE_FORMATS = frozenset(
    {"AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "SGI", "TGA",
     "TIFF", "WEBP", *ARRAY_FORMATS.values()}
)  # fmt: skip
ALPHA_FORMATS = frozenset({"AVIF", "GIF", "HEIF", "JPEG2000", "PNG", "SGI", "TGA", "TIFF", "WEBP"})
SIXTEEN_BIT_FORMATS = frozenset({"NPY", "NPZ", "PNG", "TIFF"})  # 16 bits per channel
PROFILE_FORMATS = frozenset({"AVIF", "HEIF", "JPEG", "PNG", "TIFF", "WEBP"})
EXIF_FORMATS = PROFILE_FORMATS  # EXIF and XMP
# Largest width and height in pixels, by their headers or libjpeg.
LARGEST_SIDES = {"GIF": 65535, "JPEG": 65500, "PCX": 65535, "SGI": 65535, "TGA": 65535,
                "WEBP": 16383}  # fmt: skip
# JPEG 2000 codestreams, without the container that describes their colours.
CODESTREAM_EXTENSIONS = frozenset({".j2c", ".j2k", ".jpc"})
HEIF_EXTENSIONS = frozenset({".heic", ".heif", ".hif"})
HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
QUALITY_FORMATS = frozenset({"AVIF", "HEIF", "JPEG", "WEBP"})
PAGED_FORMATS = frozenset({"TIFF"})
ANIMATED_FORMATS = frozenset({"AVIF", "GIF", "PNG", "WEBP"})
# Pixel formats besides RGB: grey, CMYK, palette, black and white.
MODES = {
    "BMP": ("L", "P", "1"), "GIF": ("P",), "JPEG": ("L", "CMYK"), "JPEG2000": ("L",),
    "PCX": ("L", "P", "1"), "PNG": ("L", "P", "1"), "PPM": ("L", "1"), "SGI": ("L",),
    "TGA": ("L", "P", "1"), "TIFF": ("L", "CMYK", "P", "1"),
}  # fmt: skip


@lru_cache(maxsize=1)
def readable_formats() -> tuple[str, ...]:
    """Return the names of the readable formats, e.g. ``("AVIF", "BMP", ...)``."""
    Image.init()
    _silence_libtiff()
    with suppress(ImportError):
        from pillow_heif import register_heif_opener  # The extra "heif".

        register_heif_opener()
    return tuple(sorted(set(Image.OPEN) - UNSAFE_FORMATS))


def _silence_libtiff() -> None:
    """Keep libtiff from printing messages that Pillow raises as errors."""
    with suppress(
        OSError, AttributeError
    ):  # Where Pillow has no libtiff, or one of its own inside.
        library = ctypes.CDLL(_imaging.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            set_handler = getattr(library, name)
            set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            set_handler(None)


@lru_cache(maxsize=1)
def readable_extensions() -> frozenset[str]:
    """Return the lower-case extensions of the readable formats, e.g. ``.jpg``."""
    readable = set(readable_formats())
    known = Image.registered_extensions().items()
    # Include HEIC without the extra, too, so that these images are refused instead of skipped.
    images = frozenset(extension for extension, name in known if name in readable)
    return images | HEIF_EXTENSIONS | set(ARRAY_FORMATS)


def extension_of(name: str) -> str:
    """Return the extension of a file name, e.g. ``.jpg``; ``.nii.gz`` is one extension."""
    return name[-len(".nii.gz") :] if name.lower().endswith(".nii.gz") else PurePath(name).suffix


def writable_format(extension: str) -> str | None:
    """Return the format for an extension, or None if it cannot be written."""
    readable_formats()  # Registers them.
    if extension.lower() in ARRAY_FORMATS:
        return ARRAY_FORMATS[extension.lower()]
    name = Image.registered_extensions().get(extension.lower())
    return name if name in WRITABLE_FORMATS and name in Image.SAVE else None


# Extensions of raw photos.
RAW_EXTENSIONS = frozenset(
    {".3fr", ".ari", ".arw", ".bay", ".cap", ".cr2", ".cr3", ".crw", ".dcr", ".dcs", ".dng",
     ".drf", ".eip", ".erf", ".fff", ".gpr", ".iiq", ".k25", ".kdc", ".mdc", ".mef", ".mos",
     ".mrw", ".nef", ".nrw", ".orf", ".pef", ".ptx", ".r3d", ".raf", ".rw2", ".rwl", ".rwz",
     ".sr2", ".srf", ".srw", ".x3f"}
)  # fmt: skip
# Signatures of raw photos that are not TIFF files, with their offsets.
SIGNATURES = (
    (0, b"FUJIFILMCCD-RAW", "RAF"), (0, b"IIRO", "ORF"), (0, b"IIRS", "ORF"), (0, b"MMOR", "ORF"),
    (0, b"IIU\0", "RW2"), (0, b"FOVb", "X3F"), (0, b"\0MRM", "MRW"), (6, b"HEAPCCDR", "CRW"),
    (4, b"ftypcrx ", "CR3"), (4, b"\x10\0\0\0CR\2\0", "CR2"),
)  # fmt: skip
HEAD_BYTES = 64


def refuse_raw(head: bytes, name: str) -> None:
    """Refuse a raw photo by its signature.

    Args:
        head: The first ``HEAD_BYTES`` of the file.
        name: Name of the file for the error message.

    Raises:
        DataError: The file is a raw photo.
    """
    for offset, signature, kind in SIGNATURES:
        if head[offset:].startswith(signature):
            raise raw_photo(name, kind)


def raw_photo(name: str, kind: str = "") -> DataError:
    """Return the error for a raw photo.

    Args:
        name: Name of the file.
        kind: Kind of raw photo; by default from the extension.
    """
    extension = PurePath(name).suffix
    kind = kind or (extension[1:].upper() if extension.lower() in RAW_EXTENSIONS else "TIFF")
    return DataError(
        f"{name} is a raw photo ({kind}) with undeveloped sensor data",
        "Develop it first, e.g. with darktable or RawTherapee, and translate the TIFF or PNG.",
    )


COMMON_FORMATS = "jpg, png, webp, tiff, gif, avif, bmp, heic"


def output_extension(format_name: str | None) -> str | None:
    """Return the extension that ``--format`` selects, e.g. ``.png``; None: the input's.

    Raises:
        UsageError: The format is not known or not writable.
    """
    if format_name is None:
        return None
    extension = "." + format_name.lower().removeprefix(".")
    if writable_format(extension):
        return extension
    hint = f"Known formats: {COMMON_FORMATS}, among others."
    if extension in HEIF_EXTENSIONS:
        hint = "Install the package that writes it: pip install pillow-heif."
    raise UsageError(f"--format {format_name} is not a format that can be written", hint)


def encode_options(config: TranslateConfig, extension: str | None) -> EncodeOptions:
    """Return how outputs are encoded.

    Args:
        config: The options.
        extension: The extension of all outputs, if it is known.

    Raises:
        UsageError: The format does not support one of the options.
    """
    from cyclegan_cli.data.image import EncodeOptions  # Needs numpy.

    kind = writable_format(extension) if extension else None
    if kind and config.bit_depth == "16" and kind not in SIXTEEN_BIT_FORMATS:
        raise UsageError(
            f"--bit-depth 16: {kind} has 8 bits per channel",
            "Use --format png or tiff, or leave --bit-depth out.",
        )
    if kind and config.quality is not None and kind not in QUALITY_FORMATS:
        raise UsageError(
            f"--quality {config.quality}: {kind} has no quality setting", "Leave it out."
        )
    return EncodeOptions(
        quality=config.quality,
        bit_depth={"8": 8, "16": 16}[config.bit_depth] if config.bit_depth else None,  # type: ignore[arg-type]
        # A mask keeps pixels in their own colors.
        keep_profile=config.keep_profile or config.mask is not None,
        keep_mode=config.keep_mode,
    )
