"""Read and write NIfTI volumes, slice by slice, in bounded memory."""

from __future__ import annotations

import gzip
import io
import math
import os
import shutil
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cyclegan_cli import files
from cyclegan_cli.config import BandFormat
from cyclegan_cli.data.bands import CONVERT, MAX_INFLATION, BandImage, BandProbe, check_probe
from cyclegan_cli.data.image import PixelArray
from cyclegan_cli.data.volumes import (
    GZIP_HEAD,
    NIFTI_SIZES,
    Derivation,
    VolumeWriter,
    as_data_error,
    as_output_error,
    missing_package,
    temporary_file,
)
from cyclegan_cli.errors import DataError

MAX_HEADER_BYTES = 2**24  # With extensions.
CHUNK_BYTES = 2**20
# Size of all volumes that are kept decompressed in temporary files, for a data set of slices.
KEPT_BYTES = 2**31
# Types of the values that hold those of a stored type without loss.
TYPES = {
    "uint8": "uint8", "int8": "int16", "uint16": "uint16", "int16": "int16", "int32": "float64",
    "uint32": "float64", "float32": "float32", "float64": "float64",
}  # fmt: skip
GZIP_LEVEL = 6
# Texts of the headers of NIfTI-1 and NIfTI-2, also those that are not in use.
TEXT_FIELDS = ("descrip", "aux_file", "intent_name", "db_name", "data_type", "unused_str")


class NiftiVolume:
    """A NIfTI file, whose slices along an axis are images.

    A slice along the axis ``k`` is an image of ``j`` rows and ``i`` columns; in general the last
    other axis counts the rows.

    Args:
        source: A file, or a seekable stream with the contents of one.
        name: Its name in error messages.
        axis: The axis: 0, 1 or 2.

    Attributes:
        probe: Facts about each slice, and their number.
        header: The header, of nibabel.

    Raises:
        DataError: It cannot be read, or is not a volume.
    """

    def __init__(self, source: Path | BinaryIO, name: str, axis: int) -> None:
        self.source, self.name, self.axis = source, name, axis
        with _opened(source) as file:
            self.is_compressed = file.read(2) == GZIP_HEAD
            file.seek(0)
            plain = gzip.GzipFile(fileobj=file) if self.is_compressed else file
            self.header = _read_header(plain, name)
            size = file.seek(0, os.SEEK_END)
        self.stored = np.dtype(self.header.get_data_dtype())
        self.shape: tuple[int, int, int] = _shape_of(self.header, name)
        self.offset = int(self.header["vox_offset"])
        self._refuse_truncated(size)
        self.slope, self.intercept = _scaling(self.header)
        sides = [side for index, side in enumerate(self.shape) if index != axis]
        probe = BandProbe(
            "NIFTI",
            sides[0],
            sides[1],
            1,
            self._dtype(),
            is_color=False,
            frames=self.shape[axis],
            details=tuple(_details(self.header)),
        )
        self.probe = check_probe(probe, name)

    @property
    def values(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of the stored values."""
        return int(self.values * self.stored.itemsize)

    def _refuse_truncated(self, size: int) -> None:
        needed = self.offset + self.nbytes
        if needed > (MAX_INFLATION * size if self.is_compressed else size):
            raise DataError(
                f"cannot read {self.name}: it is truncated: it declares "
                f"{' x '.join(map(str, self.shape))} values of {self.stored}"
            )

    def _dtype(self) -> str:
        stored = self.stored
        if stored.name not in TYPES:
            raise DataError(
                f"{self.name} has values of type {stored}, which is not supported", CONVERT
            )
        if (self.slope, self.intercept) == (1.0, 0.0):
            return TYPES[stored.name]
        if stored.kind == "f":
            return str(stored.name)
        is_shifted = self.slope == 1 and self.intercept == int(self.intercept)
        if is_shifted and TYPES[stored.name] in ("uint8", "int16"):
            return "int16"  # Such as Hounsfield units; values outside are clipped.
        return "float32" if stored.itemsize < 4 else "float64"

    def read(self, index: int) -> BandImage:
        """Return a slice as an array.

        Raises:
            DataError: It cannot be read.
        """
        with as_data_error(self.name), self._values() as stored:
            # In memory of its own: the file may be replaced or cut while the slice is in use.
            values = np.array(np.take(stored, index, axis=self.axis)).T
        scaled = values.astype(values.dtype.newbyteorder("="))
        if (self.slope, self.intercept) != (1.0, 0.0):
            scaled = scaled * np.float64(self.slope) + self.intercept
        if self.probe.dtype == "int16":
            scaled = np.clip(scaled, -(2**15), 2**15 - 1)
        result = np.ascontiguousarray(scaled.astype(self.probe.dtype))[..., None]
        return BandImage(result, self.probe.with_frames(1))

    def writer(self, target: BandFormat | None) -> VolumeWriter:
        """Return a writer of a volume that is derived from this one."""
        assert target is not None  # A NIfTI file does not hold RGB images.
        return SliceWriter(self, target)

    @contextmanager
    def _values(self) -> Iterator[PixelArray]:
        """Yield the stored values: an array of ``shape`` that is mapped, not in memory."""
        if self.is_compressed:
            yield _inflated.get(self)
        elif isinstance(self.source, Path):
            yield np.memmap(self.source, self.stored, "r", self.offset, self.shape, order="F")
        else:
            self.source.seek(self.offset)
            content = self.source.read(self.nbytes)
            yield np.frombuffer(content, self.stored).reshape(self.shape, order="F")


class _InflatedVolumes:
    """Decompressed volumes in temporary files; those used last are kept."""

    def __init__(self) -> None:
        self._volumes: OrderedDict[Any, PixelArray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, volume: NiftiVolume) -> PixelArray:
        """Return the stored values of a volume, mapped."""
        key = _identity(volume.source)
        with self._lock:
            if key not in self._volumes:
                with _inflate(volume) as file:  # The map keeps it.
                    mapped = np.memmap(file, volume.stored, "r", 0, volume.shape, order="F")
                self._volumes[key] = mapped
            self._volumes.move_to_end(key)
            while len(self._volumes) > 1 and self._size() > KEPT_BYTES:
                self._volumes.popitem(last=False)
            return self._volumes[key]

    def _size(self) -> int:
        return sum(values.nbytes for values in self._volumes.values())


_inflated = _InflatedVolumes()


def _identity(source: Path | BinaryIO) -> Any:
    if not isinstance(source, Path):
        return source
    found = source.stat()
    return str(source), found.st_size, found.st_mtime_ns, found.st_ino


def _inflate(volume: NiftiVolume) -> Any:
    """Decompress the values of a volume into a temporary file without a name."""
    target = temporary_file()
    try:
        with _opened(volume.source) as file, gzip.GzipFile(fileobj=file) as plain:
            skip, rest = volume.offset, volume.nbytes
            while skip:
                skip -= len(_some(plain, skip))
            while rest:
                chunk = _some(plain, rest)
                rest -= len(chunk)
                with as_output_error():
                    target.write(chunk)
            plain.read(1)  # At the end, gzip verifies the checksum.
        with as_output_error():
            target.flush()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        target.close()
        raise DataError(f"cannot read {volume.name}: it is damaged or truncated") from error
    except BaseException:
        target.close()
        raise
    return target


def _some(stream: gzip.GzipFile, wanted: int) -> bytes:
    chunk = stream.read(min(wanted, CHUNK_BYTES))
    if not chunk:
        raise EOFError
    return chunk


@contextmanager
def _opened(source: Path | BinaryIO) -> Iterator[BinaryIO]:
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield file
    else:
        source.seek(0)
        yield source


def _read_header(plain: Any, name: str) -> Any:
    """Read the header with its extensions, which end where the values begin."""
    try:
        import nibabel
    except ImportError:
        raise missing_package(name, "NIfTI", "nibabel") from None
    try:
        head = plain.read(NIFTI_SIZES[1])
        is_second = NIFTI_SIZES[1] in (
            int.from_bytes(head[:4], "little"),
            int.from_bytes(head[:4], "big"),
        )
        kind: Any = nibabel.Nifti2Header if is_second else nibabel.Nifti1Header
        size = NIFTI_SIZES[is_second]
        if head[size - 4 :][:2] == b"ni" or head[4:6] == b"ni":
            raise DataError(
                f"cannot read {name}: its values are in another file (.img)",
                "Convert the pair to one .nii file.",
            )
        start = kind(head[:size], check=False)
        offset = int(start["vox_offset"])
        if not size <= offset <= MAX_HEADER_BYTES:
            raise ValueError(f"its values begin at {offset}")
        rest = plain.read(max(offset - len(head), 0))
        return kind.from_fileobj(io.BytesIO((head + rest)[:offset]), check=False)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"cannot read {name}: it is damaged or truncated") from error


def _shape_of(header: Any, name: str) -> tuple[int, int, int]:
    shape = tuple(int(side) for side in header.get_data_shape())
    if len(shape) > 3 and any(side != 1 for side in shape[3:]):
        raise DataError(
            f"{name} has {len(shape)} dimensions ({' x '.join(map(str, shape))}), and volumes of 3 "
            "are needed",
            "Save each volume to a file of its own, for example with nibabel.four_to_three.",
        )
    if len(shape) < 2 or any(side < 1 for side in shape):
        raise DataError(f"{name} is not a volume: its shape is {list(shape)}")
    first, second, third = (*shape, 1)[:3]
    return first, second, third


def _scaling(header: Any) -> tuple[float, float]:
    slope, intercept = (float(header[name]) for name in ("scl_slope", "scl_inter"))
    # A slope of zero, or one that is not a number, means that values are not scaled.
    if not np.isfinite(slope) or slope == 0:
        return 1.0, 0.0
    return slope, intercept if np.isfinite(intercept) else 0.0


def _details(header: Any) -> Iterator[tuple[str, str]]:
    """Yield facts for ``inspect``."""
    yield "shape", " x ".join(str(int(side)) for side in header.get_data_shape())
    unit = str(header.get_xyzt_units()[0])
    sides = " x ".join(f"{float(side):g}" for side in header.get_zooms()[:3])
    yield "spacing", f"{sides} {'mm' if unit == 'mm' else unit}"
    rows = np.asarray(header.get_best_affine())[:3]
    yield "affine", "; ".join(" ".join(f"{value:.6g}" for value in row) for row in rows)


# --- writing ----------------------------------------------------------------------------------


class SliceWriter:
    """Collects the slices of a new volume in a temporary file.

    Args:
        volume: The volume with the header: affine, units, extensions.
        target: The domain of the new volume.

    Raises:
        OutputError: The temporary file cannot be written.
    """

    def __init__(self, volume: NiftiVolume, target: BandFormat) -> None:
        self.volume = volume
        self.dtype = np.dtype(target.dtype).newbyteorder(volume.header.endianness)
        self.file = temporary_file()
        self.slices = 0
        size = volume.values * self.dtype.itemsize
        try:
            with as_output_error():
                files.reserve(self.file, size)
        except BaseException:
            self.file.close()
            raise
        self.values = np.memmap(self.file, self.dtype, "r+", 0, volume.shape, order="F")

    def write(self, values: PixelArray, nodata: float | None) -> None:  # noqa: ARG002 - in values
        """Append a slice: ``[H, W, 1]``."""
        place: list[Any] = [slice(None)] * 3
        place[self.volume.axis] = self.slices
        self.values[tuple(place)] = values[..., 0].T
        self.slices += 1

    def save(
        self,
        stream: BinaryIO,
        derivation: Derivation,  # noqa: ARG002 - of other formats
        compress: bool,
        anonymize: bool,
    ) -> None:
        """Write the volume, with the header of its source."""
        self.values.flush()
        self.file.seek(0)
        target: Any = gzip.GzipFile("", "wb", GZIP_LEVEL, stream, mtime=0) if compress else stream
        target.write(self._header(anonymize))
        shutil.copyfileobj(self.file, target, CHUNK_BYTES)
        if compress:
            target.close()

    def close(self) -> None:
        """Remove the temporary file, once its map is no longer used."""
        self.file.close()

    def _header(self, anonymize: bool) -> bytes:
        header = self.volume.header.copy()
        header.set_data_dtype(self.dtype)
        header["scl_slope"], header["scl_inter"] = 1, 0
        header["cal_min"], header["cal_max"] = 0, 0  # Not specified.
        if anonymize:
            for field in TEXT_FIELDS:
                if field in header.keys():  # noqa: SIM118 - a header is not a dict
                    header[field] = b""
            header.extensions.clear()
        header["vox_offset"] = 0  # The smallest, which depends on the extensions.
        content = io.BytesIO()
        header.write_to(content)
        return content.getvalue()
