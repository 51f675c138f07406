"""Volumes: files with several slices or frames, each of which is an image.

A path below a file names a part of it, so that a data set lists slices like images:
``head.nii.gz/k0017`` is the slice at index 17 along the third axis, ``scan.dcm/frame0003`` the
third frame, and ``image.npz/ct`` the array ``ct``. No file can have such a path.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol

from cyclegan_cli.data.formats import ARRAY_FORMATS, extension_of, readable_extensions
from cyclegan_cli.errors import CycleGANError, DataError, OutputError

if TYPE_CHECKING:
    from cyclegan_cli.config import BandFormat
    from cyclegan_cli.data.bands import BandImage, BandProbe
    from cyclegan_cli.data.image import PixelArray

AXES = "ijk"  # Of voxels, as NIfTI names them.
DEFAULT_AXIS = 2
CONTAINERS = (".dcm", ".dicom", ".nii", ".nii.gz", ".npz")
# Bytes from which a volume is recognized: the headers of DICOM (PS3.10, 7.1) and NIfTI.
VOLUME_HEAD_BYTES = 352
DICOM_PREFIX_AT, DICOM_PREFIX = 128, b"DICM"
GZIP_HEAD, ZIP_HEAD = b"\x1f\x8b", b"PK\x03\x04"
NIFTI_SIZES = (348, 540)  # Of the headers of NIfTI-1 and NIfTI-2, as their first number.
# Tags of DICOM, little-endian, and the part of a file in which they are searched for.
PIXEL_DATA, NUMBER_OF_FRAMES = b"\xe0\x7f\x10\x00", b"\x28\x00\x08\x00"
SCANNED_BYTES = 2**16
SLICE_NAME = re.compile(r"([ijk]|frame)(\d{4,9})", re.ASCII)


class Part(NamedTuple):
    """A part of a file.

    Attributes:
        file: The file.
        name: Name of the part: ``k0017``, ``frame0003``, or that of an array.
    """

    file: Path
    name: str


@dataclass(frozen=True)
class Derivation:
    """What an image is derived by.

    Attributes:
        source: Name of the source domain.
        target: Name of the target domain.
        program: Name and version of the program.
        model: A text that identifies the model.
    """

    source: str
    target: str
    program: str
    model: str


class VolumeWriter(Protocol):
    """Collects the slices of a derived volume."""

    def write(self, values: PixelArray, nodata: float | None) -> None:
        """Append a slice.

        Args:
            values: ``[H, W, C]``.
            nodata: Value of pixels without data; None: none.

        Raises:
            OutputError: The temporary file cannot be written.
        """

    def save(
        self, stream: BinaryIO, derivation: Derivation, compress: bool, anonymize: bool
    ) -> None:
        """Write the volume, with the header of its source.

        Args:
            stream: The file.
            derivation: What it is derived by.
            compress: Whether to write ``.nii.gz``.
            anonymize: Whether to remove what identifies the patient.
        """

    def close(self) -> None:
        """Remove the temporary file."""


class Volume(Protocol):
    """A file whose slices are images.

    Attributes:
        probe: Facts about each slice, and their number.
    """

    probe: BandProbe

    def read(self, index: int) -> BandImage:
        """Return a slice as an array.

        Raises:
            DataError: It cannot be read.
        """

    def writer(self, target: BandFormat | None) -> VolumeWriter:
        """Return a writer of a volume that is derived from this one.

        Args:
            target: The domain of the derived volume; None: RGB.

        Raises:
            OutputError: A temporary file cannot be written.
        """


def part_of(path: Path) -> Part | None:
    """Return the file and the part that a path names; None: it names a file."""
    parent = path.parent
    if parent.name.lower().endswith(CONTAINERS) and parent.is_file():
        return Part(parent, path.name)
    return None


def is_array_file(path: Path) -> bool:
    """Return whether a file is read without Pillow: an array or a volume, or a part of one.

    A DICOM file may have any name that does not end in the extension of another format.
    """
    extension = extension_of(path.name).lower()
    if extension in ARRAY_FORMATS or part_of(path):
        return True
    return extension not in readable_extensions() and _has_dicom_prefix(path)


def _has_dicom_prefix(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return volume_format(file.read(VOLUME_HEAD_BYTES)) == "DICOM"
    except OSError:
        return False  # Reading it reports the error.


def volume_format(head: bytes) -> str | None:
    """Return ``DICOM`` or ``NIFTI`` if a file begins like one; else None.

    Args:
        head: The first ``VOLUME_HEAD_BYTES`` of the file; of a ``.nii.gz`` uncompressed.
    """
    if head[DICOM_PREFIX_AT : DICOM_PREFIX_AT + 4] == DICOM_PREFIX:
        return "DICOM"
    for order in ("little", "big"):
        size = int.from_bytes(head[:4], order)
        magic = head[4:8] if size == NIFTI_SIZES[1] else head[344:348]
        if size in NIFTI_SIZES and magic[:3] in (b"n+1", b"n+2", b"ni1", b"ni2"):
            return "NIFTI"
    return None


def open_volume(
    source: Path | BinaryIO, name: str, axis: int = DEFAULT_AXIS, format: str | None = None
) -> Volume | None:
    """Open a file if it is a volume.

    Args:
        source: A file, or a seekable stream with the contents of one.
        name: Its name in error messages.
        axis: The axis of a NIfTI volume along which slices are taken: 0, 1 or 2.
        format: Its format, if it is known.

    Returns:
        The volume; None if the file has another format.

    Raises:
        DataError: It cannot be read.
        UsageError: The package that reads the format is missing.
    """
    with as_data_error(name):
        known = format or _file_format(source)
        if known == "DICOM":
            from cyclegan_cli.data.dicom import DicomVolume

            return DicomVolume(source, name)
        if known == "NIFTI":
            from cyclegan_cli.data.nifti import NiftiVolume

            return NiftiVolume(source, name, axis)
    return None


def _file_format(source: Path | BinaryIO) -> str | None:
    if not isinstance(source, Path):
        return stream_format(source)
    if not source.is_file():
        return None
    with source.open("rb") as file:
        return stream_format(file)


def stream_format(source: BinaryIO) -> str | None:
    """Return ``DICOM`` or ``NIFTI`` if a stream, perhaps compressed, is one; else None."""
    source.seek(0)
    head = source.read(VOLUME_HEAD_BYTES)
    source.seek(0)
    if head.startswith(GZIP_HEAD):
        import gzip
        import zlib

        try:
            head = gzip.GzipFile(fileobj=source).read(VOLUME_HEAD_BYTES)
        except (OSError, EOFError, zlib.error):
            head = b""
        source.seek(0)
    return volume_format(head)


def read_part(
    source: Path | BinaryIO, name: str, part: str, format: str, header_only: bool
) -> BandImage:
    """Read a slice of a volume, or a volume with one slice, as an array.

    Args:
        source: The volume.
        name: The name of the slice in error messages.
        part: Name of the slice; empty: the only one.
        format: The format of the volume.
        header_only: Whether to leave the values empty; of a volume, then the probe is that of all
            slices.

    Raises:
        DataError: It cannot be read.
    """
    import numpy as np

    from cyclegan_cli.data.bands import BandImage

    found = SLICE_NAME.fullmatch(part)
    if part and (found is None or (found[1] == "frame") != (format == "DICOM")):
        raise DataError(f"there is no slice {part} in {name}")
    axis = AXES.index(found[1]) if found and found[1] != "frame" else DEFAULT_AXIS
    volume = open_volume(source, name, axis, format)
    assert volume is not None
    probe = volume.probe
    if header_only:
        values = np.empty((0, 0, probe.channels), probe.dtype)
        return BandImage(values, probe.with_frames(1) if part else probe)
    index = int(found[2]) - (found[1] == "frame") if found else 0
    if not part and probe.frames > 1:
        raise DataError(
            f"{name} is a volume of {probe.frames} slices, and single images are needed here",
            "Save each slice to a file of its own.",
        )
    if not 0 <= index < probe.frames:
        raise DataError(f"there is no slice {part} in {name}: it has {probe.frames}")
    return volume.read(index)


def list_parts(paths: Sequence[Path], axis: int = DEFAULT_AXIS, array: str = "") -> list[Path]:
    """Replace each volume by its slices, in their order.

    Args:
        paths: Images. One that cannot be read stays as it is.
        axis: The axis of NIfTI volumes along which slices are taken.
        array: Name of the array in ``.npz`` files; empty: the only one.
    """
    parts: list[Path] = []
    for path in paths:
        if path.name.lower().endswith(CONTAINERS):
            parts += _parts(path, axis, array)
        else:
            parts.append(path)
    return parts


def _parts(path: Path, axis: int, array: str) -> Iterator[Path]:
    kind = ARRAY_FORMATS[extension_of(path.name).lower()]
    if kind == "NPZ":
        yield path / array if array else path
        return
    try:
        is_image = kind == "DICOM" and _has_one_frame(path)
        volume = None if is_image else open_volume(path, str(path), axis)
    except (DataError, OSError):
        volume = None
    if volume is None or (kind == "DICOM" and volume.probe.frames == 1):
        yield path
        return
    for index in range(volume.probe.frames):
        yield path / (f"frame{index + 1:04}" if kind == "DICOM" else f"{AXES[axis]}{index:04}")


def _has_one_frame(path: Path) -> bool:
    """Return whether a DICOM file certainly has one frame, 20 times as fast as by its header."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(SCANNED_BYTES)
    end = head.find(PIXEL_DATA)
    return end >= 0 and NUMBER_OF_FRAMES not in head[:end]


def missing_package(name: str, format: str, package: str) -> DataError:
    """Return the error for a file that needs a package which is not installed."""
    return DataError(
        f"{name} is a {format} file, which needs the package {package}",
        f"Install it: pip install {package}.",
    )


@contextmanager
def as_data_error(name: str) -> Iterator[None]:
    """Turn every failure of a reader into a one-sentence error.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        yield
    except (CycleGANError, NameError, ImportError, MemoryError):
        raise
    except Exception as error:
        from cyclegan_cli.data.open_image import decoding_error

        # Readers raise all kinds of exceptions for damaged files.
        raise decoding_error(name, error, None) from error


def temporary_file() -> Any:
    """Return a temporary file without a name, in ``TMPDIR``.

    Raises:
        OutputError: It cannot be created.
    """
    with as_output_error():
        return tempfile.TemporaryFile()


@contextmanager
def as_output_error() -> Iterator[None]:
    """Turn an error of a temporary file into a one-sentence error.

    Raises:
        OutputError: The file cannot be written.
    """
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(
            f"cannot write a temporary file: {reason}", "Set TMPDIR to a folder with free space."
        ) from error
