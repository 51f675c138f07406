"""Images as arrays of any number of channels and type: TIFF, NumPy arrays, PNG and others.

Values are read as they are stored: without conversion of colors, and without passing through 8
bits.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from cyclegan_cli import files
from cyclegan_cli.config import BAND_TYPES, MAX_CHANNELS, BandFormat, count_channels
from cyclegan_cli.data.containers import PNG_SIGNATURE
from cyclegan_cli.data.formats import NPY_HEAD
from cyclegan_cli.data.image import LUMA, Measures, PixelArray
from cyclegan_cli.data.open_image import (
    decoding_error,
    format_of,
    max_pixels,
    open_image,
    require_file,
    too_many_pixels,
)
from cyclegan_cli.data.tiff import TIFF_HEADS, is_reduced
from cyclegan_cli.data.tiff_pixels import tiff_file
from cyclegan_cli.data.volumes import (
    GZIP_HEAD,
    VOLUME_HEAD_BYTES,
    ZIP_HEAD,
    part_of,
    read_part,
    stream_format,
    volume_format,
)
from cyclegan_cli.errors import CycleGANError, DataError, OutputError

# Photometric interpretations of TIFF 6.0 whose samples are values: white or black is zero, and RGB.
MINISWHITE, MINISBLACK, RGB = 0, 1, 2
SEPARATE_PLANES = 2
# What further samples are.
UNSPECIFIED, STRAIGHT_ALPHA = 0, 2
PREDICTOR = 317
# Tags that place an image on the Earth (GeoTIFF 1.1, annex D; GDAL's GTiff driver).
GDAL_METADATA, GDAL_NODATA = 42112, 42113
GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737, GDAL_METADATA)
# Tags that describe an image: its content, camera, date, author and copyright.
DESCRIPTIONS = (270, 271, 272, 306, 315, 33432)
ITEM_END = "</Item>"
KEPT_COMPRESSIONS = {1: None, 5: "lzw", 8: "zlib", 32946: "zlib", 50000: "zstd"}
# Pillow's modes whose array is the stored values.
PLAIN_MODES = ("L", "LA", "RGB", "RGBA", "I;16", "F")
GRAY_TYPES = ("uint8", "uint16")
CONVERT = "Convert it to a TIFF or .npy file of uint8, uint16, int16, float32 or float64."

NPY_EXTENSION = ".npy"
MAX_INFLATION = 1032  # Bytes that a byte of deflate encodes at most (zlib technical details).
MAX_LISTED = 5
# Zstandard, the densest compression of TIFF, repeats a byte 131,072 times in 4 bytes.
MAX_COMPRESSION_RATIO = 32_768

# Code, data type, count and value of a TIFF tag, as tifffile writes them.
Tag = tuple[int, int, int, Any]
Compression = Literal["lzw", "zlib", "zstd"]


@dataclass(frozen=True)
class BandLayout:
    """How a TIFF stores its pixels.

    Attributes:
        compression: The compression; None: none.
        predictor: Whether neighboring values are subtracted before compression.
        tile: Height and width of its tiles; None: strips.
    """

    compression: Compression | None = "zlib"
    predictor: bool = True
    tile: tuple[int, int] | None = None


@dataclass(frozen=True)
class BandProbe:
    """Facts from the header of an image.

    Attributes:
        format: Name of the format, e.g. ``TIFF``.
        width: Width in pixels.
        height: Height in pixels.
        channels: Number of channels.
        dtype: Type of the values.
        is_color: Whether this is a color image, which is otherwise read at 8 bits and in sRGB.
        nodata: Value of pixels without data; None: not declared.
        frames: Number of slices of a volume.
        details: Further facts by name, for ``inspect``.
    """

    format: str
    width: int
    height: int
    channels: int
    dtype: str
    is_color: bool
    nodata: float | None = None
    frames: int = 1
    details: tuple[tuple[str, str], ...] = ()

    def with_frames(self, count: int) -> BandProbe:
        """Return these facts about a volume of ``count`` slices."""
        return replace(self, frames=count)

    @property
    def nbytes(self) -> int:
        """Size of the values in bytes."""
        return self.width * self.height * self.channels * np.dtype(self.dtype).itemsize

    @property
    def kind(self) -> str:
        """The number of channels and the type, for messages."""
        if self.is_color:
            return "color"
        return f"{count_channels(self.channels)} of {self.dtype}"


@dataclass(frozen=True, eq=False)
class BandImage:
    """An image as an array.

    Attributes:
        values: ``[H, W, C]``, of one of ``BAND_TYPES``.
        probe: Facts from its header.
        tags: TIFF tags that place it on the Earth.
        layout: How a TIFF stores its pixels.
        missing: ``[H, W]`` bool: pixels without data; None: none.
        weights: ``[H, W]`` uint16: where the translation replaces the values, see
            :class:`~cyclegan_cli.data.masks.Masking`; None: everywhere.
        measures: Measures of the translation; None: not asked for.
        array: Name of the array in an ``.npz`` file.
    """

    values: PixelArray
    probe: BandProbe
    tags: tuple[Tag, ...] = ()
    layout: BandLayout = BandLayout()
    missing: PixelArray | None = None
    weights: PixelArray | None = None
    measures: Measures | None = None
    array: str = "arr_0"

    @property
    def format(self) -> str:
        """Name of the format of its file."""
        return self.probe.format

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.values.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.values.shape[0])


def probe_bands(source: Path | BinaryIO, name: str, any_size: bool = False) -> BandProbe:
    """Read the header of an image.

    Args:
        source: A file, or a stream with the contents of one.
        name: Its name in error messages.
        any_size: Whether a TIFF may have more pixels than an image in memory.

    Raises:
        DataError: It cannot be read.
    """
    return _read(source, name, header_only=True, any_size=any_size).probe


def read_bands(source: Path | BinaryIO, name: str) -> BandImage:
    """Read an image as an array.

    Args:
        source: A file, or a stream with the contents of one.
        name: Its name in error messages.

    Raises:
        DataError: It cannot be read, or has a type or size that is not supported.
    """
    return _read(source, name, header_only=False)


def _read(
    source: Path | BinaryIO, name: str, header_only: bool, any_size: bool = False
) -> BandImage:
    part = part_of(source) if isinstance(source, Path) else None
    if part:
        source = part.file
    elif isinstance(source, Path):
        require_file(source, name)
    try:
        with source.open("rb") if isinstance(source, Path) else io.BytesIO(source.read()) as file:
            head = file.read(VOLUME_HEAD_BYTES)
            file.seek(0)
            if head.startswith(NPY_HEAD):
                return _read_npy(file, name, header_only)
            if head.startswith(ZIP_HEAD) and _is_npz(file):
                return _read_npz(file, name, header_only, part.name if part else "")
            volume = volume_format(head) or (head.startswith(GZIP_HEAD) and stream_format(file))
            if volume:
                whole = source if isinstance(source, Path) else file
                return read_part(whole, name, part.name if part else "", volume, header_only)
            if head.startswith(TIFF_HEADS):
                return _read_tiff(file, name, header_only, any_size)
            if _is_deep_png(head):
                return _read_deep_png(file, name, header_only)
    except (CycleGANError, NameError, ImportError, MemoryError):
        raise
    except Exception as error:
        # Decoders raise all kinds of exceptions for damaged files.
        raise decoding_error(name, error, None) from error
    return _read_by_pillow(source, name, header_only)


class UnsupportedTypeError(DataError):
    """The values of an image have a type that is not supported."""


def check_probe(probe: BandProbe, name: str, any_size: bool = False) -> BandProbe:
    """Refuse types and sizes that are not supported."""
    if probe.dtype not in BAND_TYPES:
        raise UnsupportedTypeError(
            f"{name} has values of type {probe.dtype}, which is not supported", CONVERT
        )
    if probe.channels > MAX_CHANNELS:
        raise DataError(f"{name} has {probe.channels} channels, more than {MAX_CHANNELS}")
    if probe.width < 1 or probe.height < 1:
        raise DataError(f"{name} has no pixels")
    if probe.width * probe.height > max_pixels() and not any_size:
        raise too_many_pixels(name)
    return probe


def _read_npy(file: Any, name: str, header_only: bool) -> BandImage:
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0,
               (2, 0): np.lib.format.read_array_header_2_0}  # fmt: skip
    if version not in readers:
        raise DataError(f"{name} is a NumPy file of version {version[0]}.{version[1]}", CONVERT)
    shape, is_fortran, dtype = readers[version](file)
    if dtype.hasobject or dtype.names or len(shape) not in (2, 3):
        raise DataError(
            f"{name} holds an array of shape {list(shape)} and type {dtype}, not an image",
            "Save arrays of shape [H, W] or [H, W, C].",
        )
    height, width, channels = (*shape, 1)[:3]
    is_color = (channels, dtype.name) == (3, "uint8")
    probe = check_probe(BandProbe("NPY", width, height, channels, dtype.name, is_color), name)
    if header_only:
        return BandImage(np.empty((0, 0, channels), dtype.name), probe)
    size = height * width * channels * dtype.itemsize
    content = file.read(size)
    if len(content) != size:
        raise DataError(f"cannot read {name}: it is truncated")
    values = np.frombuffer(content, dtype).astype(dtype.name, copy=False)
    shaped = values.reshape((height, width, channels), order="F" if is_fortran else "C")
    return BandImage(np.ascontiguousarray(shaped), probe)


def _is_npz(file: BinaryIO) -> bool:
    """Return whether a ZIP archive contains arrays; reset its position."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return False
    finally:
        file.seek(0)
    return any(name.endswith(NPY_EXTENSION) for name in names)


def _read_npz(file: BinaryIO, name: str, header_only: bool, array: str) -> BandImage:
    with zipfile.ZipFile(file) as archive:
        members = {
            member.filename.removesuffix(NPY_EXTENSION): member
            for member in archive.infolist()
            if member.filename.endswith(NPY_EXTENSION)
        }
        if array not in members and (array or len(members) > 1):
            listed = ", ".join(list(members)[:MAX_LISTED]) + (", ..." * (len(members) > MAX_LISTED))
            found = f"{len(members)} array{'s' * (len(members) > 1)}: {listed}"
            missing = f", and none is named {array}" if array else ""
            # In one sentence: surveys of folders show no hints.
            raise DataError(f"{name} has {found}{missing} (train and translate: --array NAME)")
        key = array or next(iter(members))
        member = members[key]
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{name} is compressed in a way that NumPy does not write", CONVERT)
        if member.file_size > MAX_INFLATION * member.compress_size + MAX_INFLATION:
            raise DataError(f"cannot read {name}: it declares more data than it holds")
        with archive.open(member) as stream:
            image = _read_npy(stream, name, header_only)
            if not header_only:
                stream.read(1)  # At the end, zipfile verifies the checksum.
    return replace(image, probe=replace(image.probe, format="NPZ"), array=key)


def _read_tiff(file: BinaryIO, name: str, header_only: bool, any_size: bool) -> BandImage:
    with tiff_file(file) as tiff:
        page, probe = tiff_header(tiff, name, header_only, any_size)
        if header_only:
            return BandImage(np.empty((0, 0, probe.channels)), probe)
        refuse_overstated(page, probe, file, name)
        values = page.asarray(maxworkers=1)
        if values.ndim == 2:
            values = values[..., None]
        elif page.planarconfig == SEPARATE_PLANES:
            values = np.moveaxis(values, 0, 2)
        if values.shape != (probe.height, probe.width, probe.channels):
            raise DataError(f"cannot read {name}: it is not a plain two-dimensional image", CONVERT)
        values = np.ascontiguousarray(black_is_zero(values, page))
        return BandImage(values, probe, geo_tags(page), tiff_layout(page))


def tiff_header(
    tiff: Any, name: str, header_only: bool = False, any_size: bool = False
) -> tuple[Any, BandProbe]:
    """Return the page of a TIFF's only image, and facts from its header.

    Args:
        tiff: The file, opened by tifffile.
        name: Its name in error messages.
        header_only: Whether color images of any encoding are accepted.
        any_size: Whether it may have more pixels than an image in memory.

    Raises:
        DataError: The image cannot be read as an array.
    """
    page = _only_page(tiff, name)
    photometric, dtype = int(page.photometric), str(page.dtype)
    samples = int(page.samplesperpixel)
    is_color = _is_color(photometric, dtype, samples, tuple(page.extrasamples))
    tag = page.tags.get(GDAL_NODATA)
    nodata = _number(tag.value) if tag else None
    if nodata is not None and not is_color:
        nodata = black_is_zero(nodata, page)
    probe = BandProbe(
        "TIFF", int(page.imagewidth), int(page.imagelength), samples, dtype, is_color, nodata
    )
    if header_only and is_color:
        return page, probe
    if photometric not in (MINISBLACK, RGB) and (is_color or photometric != MINISWHITE):
        raise DataError(
            f"cannot read {name} as an array: its values are indices or another encoding of "
            f"colors ({page.photometric.name.lower()})",
            CONVERT,
        )
    return page, check_probe(probe, name, any_size)


def black_is_zero(values: Any, page: Any) -> Any:
    """Return values of a page as those of a page whose black is zero.

    Args:
        values: Stored values: an array of any shape, or a number.
        page: The page.
    """
    return 2**page.bitspersample - 1 - values if int(page.photometric) == MINISWHITE else values


def refuse_overstated(page: Any, probe: BandProbe, file: BinaryIO, name: str) -> None:
    """Refuse a TIFF whose header claims far more pixels than its bytes can hold.

    Args:
        page: The page of its image.
        probe: Facts from its header.
        file: The file.
        name: Its name in error messages.

    Raises:
        DataError: It cannot hold that many values.
    """
    file.seek(0, io.SEEK_END)
    size = file.tell()
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    itemsize = np.dtype(probe.dtype).itemsize
    if len(segments) != (wanted := math.prod(page.chunked)):
        raise DataError(
            f"cannot read {name}: it is damaged: {len(segments)} of its {wanted} tiles or strips "
            "are listed"
        )
    if page.is_contiguous:
        segments = [(page.dataoffsets[0], probe.nbytes)]
    stored = [(offset, count) for offset, count in segments if offset and count]
    if any(offset + count > size for offset, count in stored):
        raise DataError(f"cannot read {name}: it is truncated")
    # Tiles without bytes are not decoded.
    if math.prod(page.chunks) * itemsize * len(stored) > MAX_COMPRESSION_RATIO * size:
        raise DataError(
            f"cannot read {name}: it claims {probe.width}x{probe.height} pixels, which its "
            f"{size:,} bytes cannot hold"
        )


def _only_page(tiff: Any, name: str) -> Any:
    """Return the only page that is not a reduced version or mask of another."""
    pages = []
    for page in tiff.pages:
        tags = {tag.code: tag.value for tag in page.tags if tag.code in (254, 255)}
        pages += [] if is_reduced(tags) else [page]
        if len(pages) > 1:
            break
    if not pages:
        raise DataError(f"cannot read {name}: it is damaged, or has no image")
    if len(pages) != 1 or pages[0].imagedepth != 1:
        raise DataError(
            f"{name} is a TIFF with several images, and only one can be read as an array",
            "Write each of them to a file of its own.",
        )
    is_stack = tiff.series and tiff.series[0].size != pages[0].size
    if is_stack and not is_reduced({254: int(tiff.pages[0].subfiletype)}):
        raise DataError(
            f"{name} is a stack of planes, and only single images can be read as arrays",
            "Write each of them to a file of its own.",
        )
    return pages[0]


def _is_color(photometric: int, dtype: str, samples: int, extra: tuple[int, ...]) -> bool:
    if photometric == MINISWHITE:
        return samples != 1 or dtype not in GRAY_TYPES
    if photometric == MINISBLACK:
        # Bilevel, or gray with transparency.
        return dtype == "bool" or (samples == 2 and extra in ((1,), (2,)) and dtype in GRAY_TYPES)
    if photometric == RGB:
        has_alpha = samples == 4 and extra in ((1,), (2,))
        return dtype in GRAY_TYPES and (samples == 3 or has_alpha)
    return True


def _number(text: Any) -> float | None:
    try:
        found = float(text)
    except (TypeError, ValueError):
        return None
    return found if np.isfinite(found) else None


def geo_tags(page: Any, codes: Sequence[int] = GEO_TAGS) -> tuple[Tag, ...]:
    """Return the tags that place a page on the Earth, without those that describe single bands."""
    tags: list[Tag] = []
    for code in codes:
        tag = page.tags.get(code)
        if tag is None:
            continue
        value, count = tag.value, tag.count
        if isinstance(value, str):
            value = _without_bands(value) if code == GDAL_METADATA else value
            count = len(value.encode()) + 1
        tags.append((code, int(tag.dtype), count, value))
    return tuple(tags)


def _without_bands(metadata: str) -> str:
    """Return GDAL's metadata of an image without that of its bands."""
    # Not by a regular expression, which takes quadratic time for items without an end.
    *items, rest = metadata.split(ITEM_END)
    kept = []
    for item in items:
        start = item.rfind("<Item")
        is_of_band = start >= 0 and " sample=" in item[start : item.find(">", start)]
        kept.append(item[:start] if is_of_band else item + ITEM_END)
    return "".join([*kept, rest])


def tiff_layout(page: Any) -> BandLayout:
    """Return how a page stores its pixels."""
    compression = KEPT_COMPRESSIONS.get(int(page.compression), "zlib")
    predictor = page.tags.get(PREDICTOR)
    tile = (int(page.tilelength), int(page.tilewidth)) if page.is_tiled else None
    return BandLayout(
        compression,  # type: ignore[arg-type]
        predictor=predictor is not None and int(predictor.value) > 1,
        tile=tile,
    )


def _is_deep_png(head: bytes) -> bool:
    """Return whether a PNG has 16 bits per channel (PNG specification, 11.2.2)."""
    return head.startswith(PNG_SIGNATURE) and len(head) > 24 and head[24] == 16


def _read_deep_png(file: BinaryIO, name: str, header_only: bool) -> BandImage:
    import imagecodecs

    with open_image(file, name, head_only=header_only) as image:  # Checks size and checksums.
        width, height = image.size
        if width * height > max_pixels():
            raise too_many_pixels(name)
        if header_only:
            bands = 1 if image.mode.startswith("I") else len(image.getbands())
            is_color = bands > 1 or "transparency" in image.info
            probe = BandProbe("PNG", width, height, bands, "uint16", is_color)
            return BandImage(np.empty((0, 0, bands), "uint16"), probe)
    file.seek(0)
    values = imagecodecs.png_decode(file.read())
    values = values[..., None] if values.ndim == 2 else values
    is_color = values.shape[2] > 1
    probe = BandProbe("PNG", width, height, values.shape[2], str(values.dtype), is_color)
    return BandImage(np.ascontiguousarray(values), check_probe(probe, name))


def _read_by_pillow(source: Path | BinaryIO, name: str, header_only: bool) -> BandImage:
    if not isinstance(source, Path):
        source.seek(0)
    with open_image(source, name, head_only=header_only) as image:
        mode = "I;16" if image.mode.startswith("I;16") else image.mode
        bands = len(image.getbands())
        dtype = {"I;16": "uint16", "F": "float32"}.get(mode, "uint8")
        is_gray = mode in ("L", "I;16", "F") and "transparency" not in image.info
        probe = BandProbe(
            format_of(image), image.width, image.height, bands, dtype, is_color=not is_gray
        )
        if header_only:
            return BandImage(np.empty((0, 0, bands), dtype), probe)
        if mode not in PLAIN_MODES:
            raise DataError(f"cannot read {name} as an array: its mode is {image.mode}", CONVERT)
        values = np.asarray(image)
        values = values[..., None] if values.ndim == 2 else values
        probe = check_probe(replace(probe, dtype=str(values.dtype)), name)
        return BandImage(np.ascontiguousarray(values), probe)


# --- values of a domain -----------------------------------------------------------------------


def select(image: BandImage, chosen: BandFormat, name: str) -> PixelArray:
    """Return the values of a domain's channels: ``[H, W, channels]``.

    A color image is converted to gray for one channel, and a gray image to three.

    Raises:
        DataError: The image has another number of channels, or lacks a band.
    """
    found = image.values.shape[2]
    if chosen.bands:
        if max(chosen.bands) > found:
            raise DataError(f"{name} has {found} bands, not band {max(chosen.bands)}")
        chosen_values: PixelArray = image.values[..., [band - 1 for band in chosen.bands]]
        return chosen_values
    if found == chosen.channels:
        return image.values
    if chosen.channels == 1 and found == 3 and image.probe.is_color:
        gray: PixelArray = np.rint(image.values @ np.array(LUMA))[..., None]
        return gray.astype(image.values.dtype)
    if chosen.channels == 3 and found == 1:
        return np.repeat(image.values, 3, axis=2)
    raise DataError(f"{name} has {count_channels(found)}, and its domain {chosen.channels}")


def missing_values(values: PixelArray, *nodata: float | None) -> PixelArray:
    """Return which values are no data: NaN, infinity and ``nodata``; bool, of the same shape."""
    missing: PixelArray = (
        ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(values.shape, dtype=bool)
    )
    for value in nodata:
        if value is not None:
            # A float32 file holds the number nearest to a value that is written in decimals.
            missing |= values == (values.dtype.type(value) if values.dtype.kind == "f" else value)
    return missing


def to_unit(values: PixelArray, chosen: BandFormat, nodata: float | None = None) -> PixelArray:
    """Map values to what the networks see.

    Args:
        values: ``[H, W, C]`` of any type.
        chosen: The range, and the value without data.
        nodata: A further value without data, which the file declares.

    Returns:
        ``[H, W, C]`` fp32 in [-1, 1]; NaN for values without data.
    """
    low, high = np.array(chosen.low), np.array(chosen.high)
    unit = (values.astype(np.float64) - low) * (2 / (high - low)) - 1
    result: PixelArray = np.clip(unit, -1, 1).astype(np.float32)
    if values.dtype.kind == "f" or (chosen.nodata, nodata) != (None, None):
        result[missing_values(values, chosen.nodata, nodata)] = np.nan
    return result


def from_unit(unit: PixelArray, chosen: BandFormat) -> PixelArray:
    """Map a generator's output to values of its domain.

    Args:
        unit: ``[H, W, C]`` in [-1, 1].
        chosen: The range and type.

    Returns:
        ``[H, W, C]`` of the domain's type. No value equals the one without data.
    """
    low, high = np.array(chosen.low), np.array(chosen.high)
    values = (unit.astype(np.float64) + 1) * ((high - low) / 2) + low
    if chosen.is_float:
        converted: PixelArray = values.astype(chosen.dtype)
        return converted
    limits = np.iinfo(chosen.dtype)
    result: PixelArray = np.clip(np.rint(values), limits.min, limits.max).astype(chosen.dtype)
    if chosen.nodata is not None:
        avoid_value(result, chosen.nodata)
    return result


def avoid_value(values: PixelArray, nodata: float) -> None:
    """Move integers that equal the value without data by one, in place.

    Args:
        values: An array of any shape and type. Floating-point values stay.
        nodata: The value.
    """
    if values.dtype.kind == "f":
        return
    equal = values == nodata
    if equal.any():
        values[equal] = nodata + (1 if nodata < np.iinfo(values.dtype).max else -1)


def nodata_value(chosen: BandFormat, source_nodata: float | None) -> float:
    """Return the value of pixels without data in outputs of a domain."""
    if chosen.nodata is not None:
        return chosen.nodata
    if chosen.is_float:
        return float("nan")
    limits = np.iinfo(chosen.dtype)
    fits = source_nodata is not None and source_nodata == int(source_nodata)
    if fits and source_nodata is not None and limits.min <= source_nodata <= limits.max:
        return source_nodata
    return float(limits.min)


# --- writing ----------------------------------------------------------------------------------


def can_hold(format: str | None, chosen: BandFormat) -> bool:
    """Return whether a format can hold the images of a domain, without loss.

    Args:
        format: Pillow's name of the format, or ``NPY``.
        chosen: The domain.
    """
    if format == "PNG":
        return chosen.channels in (1, 3) and chosen.dtype in GRAY_TYPES
    if format == "DICOM":
        return chosen.channels == 1 or (chosen.channels, chosen.dtype) == (3, "uint8")
    return format in ("TIFF", "NPY", "NPZ") or (format == "NIFTI" and chosen.channels == 1)


def write_bands(image: BandImage, target: Path | BinaryIO, format: str, name: str) -> None:
    """Write an image, atomically.

    Args:
        image: The image; pixels without data have the value in ``probe.nodata``.
        target: A file, which is replaced atomically, or a stream.
        format: ``TIFF``, ``NPY``, ``NPZ`` or ``PNG``.
        name: Name of the file in error messages.

    Raises:
        OutputError: The file cannot be written.
    """
    try:
        content = bands_content(image, format)
    except Exception as error:
        # Encoders raise all kinds of exceptions for images that are too large for their format.
        reason = " ".join(str(error).split())
        raise OutputError(f"cannot write {name} as {format}: {reason}") from error
    files.write_content(target, content, name)


def bands_content(image: BandImage, format: str) -> bytes:
    """Return the file of an image.

    Args:
        image: The image; pixels without data have the value in ``probe.nodata``.
        format: ``TIFF``, ``NPY``, ``NPZ`` or ``PNG``.
    """
    values = image.values[..., 0] if image.values.shape[2] == 1 else image.values
    stream = io.BytesIO()
    if format == "NPY":
        np.lib.format.write_array(stream, np.ascontiguousarray(values), allow_pickle=False)
        return stream.getvalue()
    if format == "NPZ":
        # Not by np.savez, which writes the time.
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            content = bands_content(image, "NPY")
            archive.writestr(zipfile.ZipInfo(image.array + NPY_EXTENSION), content)
        return stream.getvalue()
    if format == "PNG":
        import imagecodecs

        return bytes(imagecodecs.png_encode(np.ascontiguousarray(values)))
    _write_tiff(stream, image, values)
    return stream.getvalue()


def _write_tiff(stream: BinaryIO, image: BandImage, values: PixelArray) -> None:
    import tifffile

    options = tiff_options(image, values.nbytes)
    tifffile.imwrite(stream, np.ascontiguousarray(values), **options)


def tiff_options(image: BandImage, nbytes: int) -> dict[str, Any]:
    """Return the arguments with which tifffile writes an image.

    Args:
        image: The image; of its values only the type and the number of channels are used. A color
            image has three channels, or four with transparency.
        nbytes: Size of its values in bytes.
    """
    tags = [(*tag, True) for tag in image.tags]
    if image.probe.nodata is not None or (image.missing is not None and image.missing.any()):
        nodata = image.probe.nodata
        text = "nan" if nodata is None else f"{nodata:.17g}"
        tags.append((GDAL_NODATA, 2, len(text) + 1, text, True))
    layout, channels = image.layout, image.values.shape[2]
    colors = 3 if image.probe.is_color else 1
    extra = STRAIGHT_ALPHA if image.probe.is_color else UNSPECIFIED
    has_tiles = layout.tile is not None and all(side % 16 == 0 for side in layout.tile)
    return {
        "photometric": "rgb" if colors == 3 else "minisblack",
        "planarconfig": "contig" if channels > 1 else None,
        "extrasamples": [extra] * (channels - colors) if channels > colors else None,
        "compression": layout.compression,
        "predictor": bool(layout.predictor and layout.compression),
        "tile": layout.tile if has_tiles else None,
        "extratags": tags,
        "metadata": None,
        "bigtiff": nbytes > 2**32 - 2**25,
    }
