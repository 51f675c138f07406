"""Pictures on disk to pixels, and back. All knowledge of Pillow's modes and formats is here."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import ExifTags, Image, ImageCms, JpegImagePlugin, UnidentifiedImageError

from cyclegan_cli import files
from cyclegan_cli.errors import DataError, OutputError

if TYPE_CHECKING:
    import numpy as np
    import torch

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
SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")
EXIF_TRANSPOSE = {  # EXIF 2.32, table 4: what makes the picture upright.
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
DEFAULT_QUALITY = {"JPEG": {"quality": 92}, "WEBP": {"quality": 90}, "AVIF": {"quality": 85}}


@dataclass(frozen=True)
class Picture:
    """A decoded picture, upright, in sRGB.

    Attributes:
        rgb: Mode ``RGB``, 8 bits a channel.
        alpha: Mode ``L`` and the same size, or None where the file has no transparency.
        format: Pillow's name of the file's format, e.g. ``JPEG``.
        encoding: What a writer of the same format needs to match the file's quality.
    """

    rgb: Image.Image
    alpha: Image.Image | None = None
    format: str = "PNG"
    encoding: dict[str, Any] = field(default_factory=dict)


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


def list_pictures(folder: Path) -> list[Path]:
    """All files below ``folder`` whose name ends like a picture's, sorted by relative path.

    Hidden files and folders are left out: they are other programs' notes, not pictures.

    Raises:
        DataError: ``folder`` is not a folder that can be listed.
    """
    if not os.path.isdir(folder):
        found = "a file" if os.path.exists(folder) else "nothing"
        raise DataError(f"{folder} is not a folder: found {found}", "Name a folder of pictures.")
    suffixes = readable_suffixes()
    found_paths = (path for path in _walk(folder) if path.suffix.lower() in suffixes)
    return sorted(found_paths, key=lambda path: path.relative_to(folder).as_posix())


def _walk(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise DataError(f"cannot list {error.filename}: {error.strerror}") from error

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


@dataclass(frozen=True)
class Probe:
    """What a picture's header says.

    Attributes:
        format: Pillow's name of the format.
        mode: Pillow's name of the pixel format.
        width: In pixels, as stored (before the EXIF orientation).
        height: Likewise.
        frames: 1, but for animations and pages.
    """

    format: str
    mode: str
    width: int
    height: int
    frames: int


def probe(path: Path) -> Probe:
    """Read a picture's header, not its pixels.

    Raises:
        DataError: Not a picture.
    """
    with _opened(path) as image:
        return Probe(_format(image), image.mode, image.width, image.height, _frames(image))


def decode(path: Path) -> Picture:
    """Read a picture: upright, in sRGB, alpha apart.

    Raises:
        DataError: It cannot be read: missing, damaged, not a picture, too large to be honest
            (Pillow's decompression bomb limit), or of several frames.
    """
    with _opened(path) as image:
        frames = _frames(image)
        if frames > 1:
            raise DataError(
                f"{path} has {frames} frames: animated and multi-page pictures are not supported"
            )
        image.load()
        encoding = _encoding_of(image)
        rgb, alpha = _split(_upright(image))
        return Picture(rgb, alpha, _format(image), encoding)


def _format(image: Image.Image) -> str:
    """Pillow's name of the format; a JPEG with a preview behind it (MPO) is a JPEG."""
    return "JPEG" if image.format == "MPO" else image.format or "PNG"


def _frames(image: Image.Image) -> int:
    """Frames or pages; the previews that cameras put behind a photo (MPO) do not count."""
    return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation."""
    method = EXIF_TRANSPOSE.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if method is None else image.transpose(method)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture; whatever goes wrong with it inside becomes one sentence."""
    if os.path.exists(path) and not os.path.isfile(path):
        # A folder; or a pipe or device, which could keep us waiting for ever.
        raise DataError(f"cannot read {path}: it is not a file, but a folder, pipe or device")
    try:
        with Image.open(path, formats=readable_formats()) as image:
            yield image
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not a picture in a format that is read here") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} claims too many pixels: {error}") from error
    except DataError:
        raise
    except Exception as error:
        # On damaged files Pillow's decoders raise whatever they stumble over.
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = " ".join(reason.split())
        raise DataError(f"cannot read {path}: {reason}") from error


def _encoding_of(image: Image.Image) -> dict[str, Any]:
    """How the file is compressed, as save options that give comparable quality."""
    if isinstance(image, JpegImagePlugin.JpegImageFile) and image.mode in ("L", "RGB"):
        # Of each component the file says which table is its own. A grey file has one component;
        # colour needs a second table for chrominance.
        tables = [image.quantization[component[3]] for component in image.layer[:2]]
        tables = tables * 2 if len(tables) == 1 else tables
        sampling = JpegImagePlugin.get_sampling(image)
        return {"qtables": tables, "subsampling": max(sampling, 0)}
    return {}


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Colour in sRGB, and transparency where there is any."""
    if image.mode in SIXTEEN_BIT_MODES:
        return _from_16_bit(image).convert("RGB"), None
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers of unknown range")
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        alpha = with_alpha.getchannel("A")
        return _to_srgb(with_alpha.convert("RGB"), image.info.get("icc_profile")), alpha
    if image.mode == "P":
        return _to_srgb(image.convert("RGB"), image.info.get("icc_profile")), None
    return _to_srgb(image, image.info.get("icc_profile")), None


def _from_16_bit(image: Image.Image) -> Image.Image:
    """16-bit grey to 8 bits. ``Image.convert`` clips at 255 instead of scaling."""
    import numpy as np

    levels = np.asarray(image).astype(np.int64)
    if levels.min() < 0 or levels.max() > 65535:
        raise ValueError("pixels are outside the 16-bit range")
    return Image.fromarray(((levels + 128) // 257).astype(np.uint8))


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


def encode(picture: Picture, path: Path, format: str) -> None:
    """Write a picture, whole or not at all.

    Transparency is kept where the format has it. JPEG quality is that of ``picture.encoding``
    where the picture came from a JPEG, else 92.

    Raises:
        OutputError: It cannot be written.
    """
    options = picture.encoding if format == picture.format else {}
    options = options or DEFAULT_QUALITY.get(format, {})
    image = picture.rgb
    if picture.alpha is not None and format in ALPHA_FORMATS:
        image = image.copy()
        image.putalpha(picture.alpha)
    with files.atomic_path(path) as temporary, temporary.open("r+b") as stream:
        try:
            image.save(stream, format=format, **options)
        except OSError:
            raise
        except Exception as error:
            # Encoders raise anything where a picture is too large for their format.
            raise OutputError(f"cannot write {path} as {format}: {error}") from error


def picture_to_array(image: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Mode ``RGB`` to ``[H, W, 3]``, uint8."""
    import numpy as np

    return np.array(image, dtype=np.uint8)


def array_to_tensor(array: np.ndarray[Any, np.dtype[np.uint8]]) -> torch.Tensor:
    """``[H, W, 3]`` uint8 to ``[1, 3, H, W]`` fp32 in [-1, 1]."""
    import torch

    return to_unit_range(torch.from_numpy(array).permute(2, 0, 1).unsqueeze(0))


def to_unit_range(levels: torch.Tensor) -> torch.Tensor:
    """``[B, 3, H, W]`` uint8 in 0..255 to fp32 in [-1, 1]."""
    return levels.float().div_(127.5).sub_(1.0)


def to_levels(pictures: torch.Tensor) -> torch.Tensor:
    """``[B, 3, H, W]`` in [-1, 1] to uint8 in 0..255, rounded to the nearest level."""
    import torch

    return pictures.float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def tensor_to_picture(pictures: torch.Tensor) -> Image.Image:
    """``[1, 3, H, W]`` in [-1, 1] to mode ``RGB``."""
    return Image.fromarray(to_levels(pictures[0]).permute(1, 2, 0).contiguous().cpu().numpy())
