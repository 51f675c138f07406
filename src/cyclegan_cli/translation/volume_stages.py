"""Translate volumes slice by slice: DICOM files and NIfTI volumes into files of the same format."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from cyclegan_cli import __version__, files
from cyclegan_cli.config import BandFormat
from cyclegan_cli.data.bands import BandImage, BandProbe, can_hold, nodata_value, select
from cyclegan_cli.data.formats import VOLUME_FORMATS, extension_of
from cyclegan_cli.data.image import PixelArray
from cyclegan_cli.data.volumes import (
    DEFAULT_AXIS,
    Derivation,
    Volume,
    VolumeWriter,
    is_array_file,
    open_volume,
)
from cyclegan_cli.errors import CycleGANError, DataError, OutputError

if TYPE_CHECKING:
    from cyclegan_cli.translation.translator import Translator


@dataclass(frozen=True)
class VolumeOptions:
    """Options for volumes and arrays.

    Attributes:
        slice_axis: The axis of NIfTI volumes along which slices are taken; None: that of the
            training.
        array: Name of the array in ``.npz`` files; None: the only one.
        anonymize: Whether to remove what identifies the patient from volumes.
    """

    slice_axis: int | None = None
    array: str | None = None
    anonymize: bool = False

    def path_of(self, name: str) -> Path:
        """Return the path of an image; of an ``.npz`` file, with the array."""
        is_npz = self.array is not None and extension_of(name).lower() == ".npz"
        return Path(name, self.array or "") if is_npz else Path(name)

    def open(self, source: Path | BinaryIO, name: str, translator: Translator) -> Volume | None:
        """Open an input if it is a volume.

        Raises:
            DataError: It cannot be read, or an option is for files of another format.
        """
        volume = None
        if not isinstance(source, Path) or is_array_file(source):
            axis = translator.info.training.get("slice_axis", DEFAULT_AXIS)
            volume = open_volume(source, name, axis if self.slice_axis is None else self.slice_axis)
        own = format_name_of(volume, name)
        used = {"--slice-axis": (self.slice_axis is not None, ("NIFTI",)),
                "--array": (self.array is not None, ("NPZ",)),
                "--anonymize": (self.anonymize, VOLUME_FORMATS)}  # fmt: skip
        for option, (is_given, formats) in used.items():
            if is_given and own not in formats:
                raise DataError(
                    f"{option} is for {' and '.join(sorted(formats))} files, and {name} is none",
                    "Leave it out, or translate these files by themselves.",
                )
        return volume


DEFAULT_OPTIONS = VolumeOptions()


def format_name_of(volume: Volume | None, name: str) -> str:
    """Return the format of a volume; of another file its extension in capitals."""
    return volume.probe.format if volume else extension_of(name)[1:].upper()


@dataclass(frozen=True, eq=False)
class VolumeTask:
    """A volume to translate.

    Attributes:
        volume: The volume.
        name: Its name in error messages.
        first: Its only slice; None if it has more, which are read one after the other.
    """

    volume: Volume
    name: str
    first: BandImage | None = None


@dataclass(frozen=True, eq=False)
class TranslatedVolume:
    """A translated volume.

    Attributes:
        probe: Facts about the source.
        writer: Its slices.
    """

    probe: BandProbe
    writer: VolumeWriter


def prepare_volume(
    volume: Volume, name: str, output: str, output_format: str, translator: Translator
) -> VolumeTask | None:
    """Return the task of translating a volume into a file of the same format.

    Args:
        volume: The volume.
        name: Its name in error messages.
        output: Name of the output.
        output_format: Format of the output.
        translator: The translator.

    Returns:
        The task; None if the volume has one slice and the output is an image of another format.

    Raises:
        DataError: The volume is not of the source domain.
        OutputError: The format cannot hold the translation.
    """
    probe, target = volume.probe, translator.target_format
    if output_format != probe.format:
        refuse_volume_output(name, probe.format, output, output_format)
        if probe.frames > 1:
            raise DataError(
                f"{name} is a volume of {probe.frames} slices, and a {output_format} file holds "
                "one image",
                f"Omit --format, to write {probe.format}.",
            )
        return None
    if translator.source_format is None and not probe.is_color and probe.dtype != "uint8":
        raise DataError(
            f"{name} has {probe.kind}, and the domain {translator.source} RGB images",
            "Use a model that is trained on such images.",
        )
    holds_color = output_format == "DICOM"
    if not (can_hold(output_format, target) if target else holds_color):
        kind = f"{target.channels} channels of {target.dtype}" if target else "RGB images"
        raise OutputError(
            f"cannot write {output}: {output_format} does not hold {kind}, as the domain "
            f"{translator.target} has",
            "Use --format tiff, for volumes of one slice.",
        )
    return VolumeTask(volume, name, volume.read(0) if probe.frames == 1 else None)


def refuse_volume_output(name: str, source: str, output: str, output_format: str) -> None:
    """Refuse to write a volume from an image of another format, which has no such header.

    Raises:
        OutputError: The output is a volume, and the input is of another format.
    """
    if output_format in VOLUME_FORMATS and source != output_format:
        raise OutputError(
            f"cannot write {output}: a {output_format} file needs the header of an input of the "
            f"same format, and {name} is {source}",
            "Use --format tiff or npy.",
        )


def translate_volume(task: VolumeTask, translator: Translator) -> TranslatedVolume:
    """Translate the slices of a volume one after the other.

    Raises:
        DataError: A slice cannot be read, or is not of the source domain.
        DeviceError: There is not enough memory.
        OutputError: A temporary file cannot be written.
    """
    volume, source, target = task.volume, translator.source_format, translator.target_format
    writer = volume.writer(target)
    try:
        for index in range(volume.probe.frames):
            image = task.first or volume.read(index)
            values = _source_values(image, source, task.name)
            if source is None and target is None:
                translated, missing = translator.translate_array(values, 8), None
            else:
                translated, missing = translator.translate_bands(values, image.probe.nodata)
            writer.write(translated, _nodata(image, missing, source, target))
    except BaseException:
        writer.close()
        raise
    return TranslatedVolume(volume.probe, writer)


def _source_values(image: BandImage, source: BandFormat | None, name: str) -> PixelArray:
    """Return the values of the source domain: ``[H, W, C]``."""
    if source is not None:
        return select(image, source, name)
    return image.values if image.probe.is_color else np.repeat(image.values, 3, axis=2)


def _nodata(
    image: BandImage, missing: PixelArray | None, source: BandFormat | None,
    target: BandFormat | None,
) -> float | None:  # fmt: skip
    """Return the value of pixels without data in the translation, if it may have any."""
    if target is None or (missing is None and target.nodata is None):
        return None
    own = image.probe.nodata
    return nodata_value(target, own if source is None or source.nodata is None else source.nodata)


def write_volume(
    image: TranslatedVolume,
    target: Path | BinaryIO,
    name: str,
    translator: Translator,
    anonymize: bool,
) -> None:
    """Write a translated volume, atomically.

    Raises:
        OutputError: It cannot be written.
    """
    stream: Any = target
    if isinstance(target, Path):
        with files.atomic_path(target) as temporary, temporary.open("r+b") as stream:
            _write(image, stream, name, translator, anonymize)
        return
    content = io.BytesIO()
    _write(image, content, name, translator, anonymize)
    files.write_content(stream, content.getvalue(), name)


def _write(
    image: TranslatedVolume, stream: BinaryIO, name: str, translator: Translator, anonymize: bool
) -> None:
    info = translator.info
    derivation = Derivation(
        translator.source,
        translator.target,
        f"cyclegan-cli {__version__}",
        repr((info.training, info.name_a, info.name_b, info.generator)),
    )
    try:
        image.writer.save(stream, derivation, name.lower().endswith(".gz"), anonymize)
    except (OSError, CycleGANError):
        raise
    except Exception as error:
        # Writers raise all kinds of exceptions for headers with invalid values, and name these,
        # which may be data of the patient.
        raise OutputError(
            f"cannot write {name} as {image.probe.format}: the header of the input has an "
            "invalid value"
        ) from error
    finally:
        image.writer.close()
