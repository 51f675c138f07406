"""Read DICOM images: values in the unit that the header defines, such as Hounsfield units."""

from __future__ import annotations

import io
import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cyclegan_cli.config import BandFormat, count_channels
from cyclegan_cli.data.bands import CONVERT, BandImage, BandProbe, check_probe
from cyclegan_cli.data.image import PixelArray
from cyclegan_cli.data.open_image import max_pixels
from cyclegan_cli.data.volumes import VolumeWriter, as_data_error, missing_package
from cyclegan_cli.errors import DataError

# Irregular headers, which are read nevertheless, do not concern the user.
warnings.filterwarnings("ignore", module=r"pydicom\.")

IMPLICIT = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
# Transfer syntaxes that imagecodecs decodes, as pydicom needs further packages for them (PS3.5, A).
IMAGECODECS = {
    "1.2.840.10008.1.2.4.51": "jpeg8",  # 12 bits
    "1.2.840.10008.1.2.4.57": "jpegsof3",
    "1.2.840.10008.1.2.4.70": "jpegsof3",
    "1.2.840.10008.1.2.4.80": "jpegls",
    "1.2.840.10008.1.2.4.81": "jpegls",
    "1.2.840.10008.1.2.4.90": "jpeg2k",
    "1.2.840.10008.1.2.4.91": "jpeg2k",
    "1.2.840.10008.1.2.4.201": "htj2k",
    "1.2.840.10008.1.2.4.202": "htj2k",
    "1.2.840.10008.1.2.4.203": "htj2k",
}
# Those that pydicom decodes by itself or with Pillow.
UNCOMPRESSED = (IMPLICIT, "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", DEFLATED)
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
PYDICOM = (*UNCOMPRESSED, "1.2.840.10008.1.2.5", JPEG_BASELINE)
JPEG2000_SIZES = b"\xff\x4f\xff\x51"
# Start of a frame of JPEG, without the tables among these markers, and of JPEG-LS.
FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
GRAY_BITS, COLOR_BITS = (8, 16), 8
# Elements that describe the pixels of every image (PS3.3, C.7.6.3).
REQUIRED = ("Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "PhotometricInterpretation")
ITEM_BYTES = 8  # Header of the item that holds a compressed frame (PS3.5, A.4).
CT = "CT"
Rescale = tuple[float, float]


class _SizedFile(io.BufferedReader):
    """A file of which no more is requested than it holds, whatever its header declares."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        rest = max(self.size - self.tell(), 0)
        return super().read(rest if size is None or size < 0 else min(size, rest))


@dataclass(frozen=True)
class StoredPixels:
    """How pixels are stored.

    Attributes:
        syntax: UID of the transfer syntax.
        bits: Number of bits of a value.
        is_signed: Whether they are a two's complement.
        is_inverted: Whether the smallest value is white (MONOCHROME1).
        padding: Range of stored values that mark pixels without data; None: none.
    """

    syntax: str
    bits: int
    is_signed: bool
    is_inverted: bool
    padding: tuple[int, int] | None

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and the largest value that can be stored."""
        if self.is_signed:
            return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1
        return 0, 2**self.bits - 1

    def inverted(self, values: Any) -> Any:
        """Return values of MONOCHROME1 as MONOCHROME2."""
        low, high = self.limits
        return low + high - values if self.is_inverted else values


class DicomVolume:
    """A DICOM file, whose frames are slices.

    Args:
        source: A file, or a seekable stream with the contents of one.
        name: Its name in error messages.

    Attributes:
        probe: Facts about each frame, and their number.
        header: The data set without the pixels.

    Raises:
        DataError: It cannot be read, or has pixels that are not supported.
    """

    def __init__(self, source: Path | BinaryIO, name: str) -> None:
        try:
            import pydicom
        except ImportError:
            raise missing_package(name, "DICOM", "pydicom") from None
        self.source, self.name = source, name
        with self._open() as file:
            _refuse_bomb(file, name)
            self.header: Any = pydicom.dcmread(file, stop_before_pixels=True)
            self._pixels_at = file.tell()
        self._refuse_incomplete()
        self.pixels = self._stored_pixels()
        self.probe = self._probe()

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        if isinstance(self.source, Path):
            with _SizedFile(self.source) as file:
                yield file
        else:
            self.source.seek(0)
            yield self.source

    def _refuse_incomplete(self) -> None:
        """Refuse a header without the description of pixels, because it is cut or has none."""
        header = self.header
        kind = _described(header.file_meta.get("MediaStorageSOPClassUID"))
        is_image = "Rows" in header or "TransferSyntaxUID" not in header.file_meta
        if not is_image and "Image" not in kind:
            raise DataError(f"{self.name} is a DICOM file without pixels: {kind}")
        missing = [name for name in REQUIRED if header.get(name) in (None, "")]
        if missing:
            raise DataError(
                f"cannot read {self.name}: its header is truncated or damaged: it lacks "
                f"{missing[0]}"
            )

    def _stored_pixels(self) -> StoredPixels:
        header = self.header
        allocated = int(header.BitsAllocated)
        bits, high = int(header.get("BitsStored", allocated)), int(header.get("HighBit", 0))
        photometric, samples = str(header.PhotometricInterpretation), int(header.SamplesPerPixel)
        is_gray = photometric in MONOCHROME and samples == 1
        if (
            allocated not in (GRAY_BITS if is_gray else (COLOR_BITS, 16))
            or not 1 <= bits <= allocated
            or (high and high != bits - 1)
            or samples != (3 if photometric.startswith(("RGB", "YBR")) else 1)
            or (samples == 3 and allocated != COLOR_BITS)
            or not (is_gray or samples == 3 or photometric == "PALETTE COLOR")
        ):
            raise DataError(
                f"cannot read {self.name}: pixels of {count_channels(samples)} of {bits} in "
                f"{allocated} bits ({photometric[:20]!r}) are not supported",
                CONVERT,
            )
        if "ModalityLUTSequence" in header:
            raise DataError(
                f"cannot read {self.name}: its values are defined by a Modality LUT", CONVERT
            )
        is_signed = bool(int(header.get("PixelRepresentation", 0)))
        syntax = str(header.file_meta.TransferSyntaxUID)
        if syntax not in PYDICOM and syntax not in IMAGECODECS:
            named = _described(header.file_meta.TransferSyntaxUID)
            raise DataError(
                f"cannot read {self.name}: the transfer syntax {named} is not supported",
                "Decompress it, for example with dcmdjpeg or gdcmconv --raw.",
            )
        padding = _padding(header, is_signed, allocated) if is_gray else None
        return StoredPixels(syntax, bits, is_signed, photometric == "MONOCHROME1", padding)

    def _probe(self) -> BandProbe:
        header = self.header
        rows, columns = int(header.Rows), int(header.Columns)
        frames = int(header.get("NumberOfFrames") or 1)
        is_color = str(header.PhotometricInterpretation) not in MONOCHROME
        self._refuse_truncated(rows, columns, frames)
        dtype = "uint8" if is_color else self._dtype(frames)
        probe = BandProbe(
            "DICOM",
            columns,
            rows,
            3 if is_color else 1,
            dtype,
            is_color,
            None if is_color else self._nodata(dtype),
            frames,
            tuple(_details(header)),
        )
        return check_probe(probe, self.name)

    def _refuse_truncated(self, rows: int, columns: int, frames: int) -> None:
        """Refuse a file that is too small for the frames that it declares."""
        with self._open() as file:
            rest = file.seek(0, os.SEEK_END) - self._pixels_at
        # Without the tag and length of the pixels (PS3.5, 7.1).
        rest -= 8 if self.pixels.syntax == IMPLICIT else 12
        samples = int(self.header.SamplesPerPixel)
        size = rows * columns * samples * int(self.header.BitsAllocated) // 8
        if self.pixels.syntax == DEFLATED:
            rest = max_pixels() * 2
        elif self.pixels.syntax not in UNCOMPRESSED:
            size = ITEM_BYTES
        elif str(self.header.PhotometricInterpretation) == "YBR_FULL_422":
            size = size * 2 // 3
        if frames < 1 or size * frames > rest:
            count = f"{frames} frames" if frames != 1 else "one frame"
            raise DataError(
                f"cannot read {self.name}: it is truncated: it declares {count} of "
                f"{columns}x{rows} pixels"
            )

    def rescale(self, index: int) -> Rescale:
        """Return the slope and intercept of a frame (PS3.3, C.7.6.16.2.9 and C.11.1)."""
        item = functional_group(self.header, index, "PixelValueTransformationSequence")
        item = self.header if item is None else item
        slope, intercept = item.get("RescaleSlope"), item.get("RescaleIntercept")
        found = (1.0 if slope is None else float(slope), float(intercept or 0))
        if not np.isfinite(found).all() or not found[0]:
            raise DataError(f"cannot read {self.name}: its rescale slope is {slope}")
        return found

    def _dtype(self, frames: int) -> str:
        has_groups = "PerFrameFunctionalGroupsSequence" in self.header
        pairs = {self.rescale(index) for index in range(frames if has_groups else 1)}
        is_ct = str(self.header.get("Modality", "")) == CT
        if pairs == {(1.0, 0.0)} and not self.pixels.is_signed and not is_ct:
            return "uint8" if self.pixels.bits <= 8 else "uint16"
        limits = np.iinfo(np.int16)
        ends = [end * slope + offset for slope, offset in pairs for end in self.pixels.limits]
        is_whole = all(value == int(value) for pair in pairs for value in pair)
        fits = is_ct or (min(ends) >= limits.min and max(ends) <= limits.max)
        return "int16" if is_whole and fits else "float32"

    def _nodata(self, dtype: str) -> float | None:
        if self.pixels.padding is None or dtype == "float32":
            return None
        slope, intercept = self.rescale(0)
        value = self.pixels.inverted(self.pixels.padding[0]) * slope + intercept
        limits = np.iinfo(dtype)
        return value if limits.min <= value <= limits.max else float(limits.min)

    def read(self, index: int) -> BandImage:
        """Return a frame as an array.

        Raises:
            DataError: It cannot be read.
        """
        with as_data_error(self.name):
            stored = self._decode(index)
            probe = self.probe.with_frames(1)
            if probe.is_color:
                values = self._colors(stored)
            else:
                values = self._measurements(stored, index)[..., None]
            if values.shape != (probe.height, probe.width, probe.channels):
                raise ValueError(f"a frame has the shape {list(values.shape)}")
            return BandImage(np.ascontiguousarray(values), probe)

    def writer(self, target: BandFormat | None) -> VolumeWriter:
        """Return a writer of an image that is derived from this one."""
        from cyclegan_cli.data.dicom_write import FrameWriter

        return FrameWriter(self, target)

    def _decode(self, index: int) -> PixelArray:
        """Return the stored values of a frame: ``[H, W]`` or ``[H, W, 3]``."""
        from pydicom import dcmread
        from pydicom.pixels.processing import convert_color_space
        from pydicom.pixels.utils import pixel_array

        codec = IMAGECODECS.get(self.pixels.syntax)
        with self._open() as file:
            if codec or self.pixels.syntax == JPEG_BASELINE:
                content = self._frame(file, index)
                if coded_size(content) != (self.probe.height, self.probe.width):
                    raise ValueError("its compressed image has another size than its header")
            if codec:
                values = _decode_by_imagecodecs(codec, content)
                photometric = str(self.header.PhotometricInterpretation)
                is_ybr = photometric.startswith("YBR_FULL")
                return convert_color_space(values, photometric, "RGB") if is_ybr else values
            source = dcmread(file) if self.pixels.syntax == DEFLATED else file
            return pixel_array(source, index=index)

    def _frame(self, file: BinaryIO, index: int) -> bytes:
        """Return the compressed content of a frame."""
        from pydicom.encaps import get_frame

        offsets = None
        if "ExtendedOffsetTable" in self.header:
            offsets = self.header.ExtendedOffsetTable, self.header.ExtendedOffsetTableLengths
        file.seek(self._pixels_at + 12)  # Tag, VR and length.
        return get_frame(file, index, number_of_frames=self.probe.frames, extended_offsets=offsets)

    def _colors(self, stored: PixelArray) -> PixelArray:
        """Return ``[H, W, 3]`` uint8."""
        if str(self.header.PhotometricInterpretation) == "PALETTE COLOR":
            from pydicom.pixels.processing import apply_color_lut

            stored = apply_color_lut(stored, self.header)
        if stored.dtype == np.uint16:
            stored = (stored >> 8).astype(np.uint8)
        return stored

    def _measurements(self, stored: PixelArray, index: int) -> PixelArray:
        """Return values in the unit of the image: ``[H, W]`` of the type in ``probe``."""
        pixels = self.pixels
        kind = f"{'i' if pixels.is_signed else 'u'}{stored.dtype.itemsize}"
        stored = stored.astype(kind, copy=False)
        missing = None
        if pixels.padding:
            missing = (stored >= pixels.padding[0]) & (stored <= pixels.padding[1])
        unused = 8 * stored.dtype.itemsize - pixels.bits  # Upper bits may hold overlays.
        stored = (stored << unused) >> unused
        values = pixels.inverted(stored.astype(np.int64))
        slope, intercept = self.rescale(index)
        dtype = self.probe.dtype
        if dtype == "float32":
            result: PixelArray = (values * slope + intercept).astype(np.float32)
            empty = np.nan
        else:
            limits = np.iinfo(dtype)
            values = values * int(slope) + int(intercept)
            result = np.clip(values, limits.min, limits.max).astype(dtype)
            empty = self.probe.nodata or 0
        if missing is not None:
            result[missing] = empty
        return result


def coded_size(content: bytes) -> tuple[int, int] | None:
    """Return height and width in the header of a compressed image, on which its decoding depends.

    Args:
        content: A JPEG, JPEG-LS or JPEG 2000 image.
    """
    place = content.find(JPEG2000_SIZES, 0, 1024)
    if place >= 0:  # ISO/IEC 15444-1, A.5.1.
        right, bottom, left, top = struct.unpack_from(">4I", content, place + 8)
        return bottom - top, right - left
    place = 2
    while place + 9 <= len(content) and content[place] == 0xFF:  # ISO/IEC 10918-1, B.1.1.
        marker, length, _, height, width = struct.unpack_from(">BHBHH", content, place + 1)
        if marker in FRAME_MARKERS:
            return height, width
        # A marker may start with any number of fill bytes 0xFF.
        place += 1 if marker == 0xFF else 2 + length
    return None


def _decode_by_imagecodecs(codec: str, content: bytes) -> PixelArray:
    import imagecodecs

    values: PixelArray = getattr(imagecodecs, f"{codec}_decode")(content)
    return values


def _refuse_bomb(file: BinaryIO, name: str) -> None:
    """Refuse a deflated file whose content exceeds the limit of images; reset its position."""
    from pydicom.filereader import read_dataset, read_preamble

    read_preamble(file, force=False)
    meta = read_dataset(file, False, True, stop_when=lambda tag, *_: tag.group != 2)
    if str(meta.get("TransferSyntaxUID", "")) == DEFLATED:
        inflater, total, limit = zlib.decompressobj(-zlib.MAX_WBITS), 0, 2 * max_pixels()
        data = file.read(1 << 16)
        while data and not inflater.eof:
            total += len(inflater.decompress(data, 1 << 20))
            data = inflater.unconsumed_tail or file.read(1 << 16)
            if total > limit:
                raise DataError(f"{name} is compressed, and its content exceeds {limit:,} bytes")
    file.seek(0)


def _described(uid: Any) -> str:
    """Return the name and number of a UID; a damaged one may contain data of the patient."""
    if not re.fullmatch(r"[0-9.]{1,64}", str(uid), re.ASCII):
        return "unknown"
    return f"{uid.name} ({uid})" if uid.name != str(uid) else str(uid)


def _padding(header: Any, is_signed: bool, allocated: int) -> tuple[int, int] | None:
    if header.get("PixelPaddingValue") is None:
        return None
    first = int(header.PixelPaddingValue)
    last = header.get("PixelPaddingRangeLimit")
    # A writer may give a negative value as an unsigned number.
    ends = [
        end - 2**allocated if is_signed and end >= 2 ** (allocated - 1) else end
        for end in (first, first if last is None else int(last))
    ]
    return min(ends), max(ends)


def functional_group(header: Any, index: int, keyword: str) -> Any:
    """Return the item of a functional group of a frame (PS3.3, C.7.6.16); None if it has none."""
    for sequence, position in (
        ("PerFrameFunctionalGroupsSequence", index),
        ("SharedFunctionalGroupsSequence", 0),
    ):
        groups = header.get(sequence)
        if groups and position < len(groups) and groups[position].get(keyword):
            return groups[position][keyword].value[0]
    return None


def _details(header: Any) -> Iterator[tuple[str, str]]:
    """Yield facts for ``inspect``; none identifies the patient."""
    if header.get("Modality"):
        yield "modality", str(header.Modality)
    measures = functional_group(header, 0, "PixelMeasuresSequence") or header
    spacing = measures.get("PixelSpacing") or header.get("ImagerPixelSpacing")
    if spacing:
        sides = [f"{float(side):g}" for side in spacing]
        thickness = measures.get("SpacingBetweenSlices") or measures.get("SliceThickness")
        sides += [f"{float(thickness):g}"] if thickness else []
        yield "spacing", f"{' x '.join(sides)} mm"
    yield "photometric", str(header.PhotometricInterpretation)
