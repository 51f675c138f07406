"""The pipeline's stages for image files and for standard input and output."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from cyclegan_cli.config import BandFormat, Existing, count_channels
from cyclegan_cli.data.bands import (
    BandImage,
    BandProbe,
    can_hold,
    probe_bands,
    read_bands,
    select,
    write_bands,
)
from cyclegan_cli.data.decode import decode, pixel_bytes
from cyclegan_cli.data.encode import encode, refuse_unwritable
from cyclegan_cli.data.formats import (
    VOLUME_FORMATS,
    WRITABLE_FORMATS,
    extension_of,
    writable_format,
)
from cyclegan_cli.data.image import DecodedImage, EncodeOptions, PixelArray
from cyclegan_cli.data.raster import open_raster
from cyclegan_cli.data.volumes import DEFAULT_AXIS, is_array_file, open_volume
from cyclegan_cli.errors import DataError, DeviceError, OutputError
from cyclegan_cli.runtime.threads import available_cores
from cyclegan_cli.translation.outputs import TranslationJob
from cyclegan_cli.translation.pipeline import PIXEL_BYTES, Outcome
from cyclegan_cli.translation.raster import RasterJob, output_probe, translate_raster
from cyclegan_cli.translation.volume_stages import (
    TranslatedVolume,
    VolumeTask,
    prepare_volume,
    refuse_volume_output,
    translate_volume,
    write_volume,
)

if TYPE_CHECKING:
    import torch

    from cyclegan_cli.translation.translator import Translator

# A TIFF is read and written some rows at a time if its pixels, those of its translation and the
# encoder's copy exceed this many bytes, or this fraction of the available memory.
WHOLE_BYTES, WHOLE_FRACTION = PIXEL_BYTES, 0.125


@dataclass(frozen=True)
class FileStages:
    """Read, translate and write image files.

    Attributes:
        translator: The translator.
        existing: What to do about an existing output: skip it, replace it, or replace it if it is
            older than the input.
        options: How outputs are encoded.
        stdin: Read the image from this stream instead of the job's input.
        stdout: Write the image to this stream instead of the job's output.
        extension: Selects the format written to ``stdout``; None: the input's format.
        slice_axis: The axis of NIfTI volumes along which slices are taken; None: that of the
            training.
        array: Name of the array in ``.npz`` files; None: the only one.
        anonymize: Whether to remove what identifies the patient from volumes.
    """

    translator: Translator
    existing: Existing = "skip"
    options: EncodeOptions = EncodeOptions()
    stdin: BinaryIO | None = None
    stdout: BinaryIO | None = None
    extension: str | None = None
    slice_axis: int | None = None
    array: str | None = None
    anonymize: bool = False

    def is_done(self, job: TranslationJob) -> bool:
        """Return whether the output exists and is kept."""
        if self.stdout or self.existing == "overwrite" or not os.path.isfile(job.output):
            return False
        if self.existing == "skip":
            return True
        try:
            return os.stat(job.input).st_mtime_ns <= os.stat(job.output).st_mtime_ns
        except OSError:
            return False  # Reading the image reports the error.

    def pixel_bytes(self, job: TranslationJob) -> int:
        """Return the size of the image's pixels, from its header."""
        if self.stdin:
            return 0
        if self.translator.source_format is None:
            return pixel_bytes(self._path(job))
        found = probe_bands(self._path(job), job.input)
        return 0 if self._is_raster(job, found) else found.nbytes

    def _path(self, job: TranslationJob) -> Path:
        """Return the path of the image; of an ``.npz`` file, with the array."""
        is_npz = self.array is not None and extension_of(job.input).lower() == ".npz"
        return Path(job.input, self.array or "") if is_npz else Path(job.input)

    def _is_raster(self, job: TranslationJob, found: BandProbe) -> bool:
        """Return whether an image is read and written some rows at a time."""
        if self.stdin or self.stdout or found.format != "TIFF":
            return False
        if writable_format(Path(job.output).suffix) != "TIFF":
            return False
        whole = self._whole_bytes(found)
        return whole > min(WHOLE_BYTES, WHOLE_FRACTION * self.translator.budget())

    def _whole_bytes(self, found: BandProbe) -> float:
        """Bytes of an image, its translation, and the encoder's copy of it."""
        target = self.translator.target_format
        values = target.channels * np.dtype(target.dtype).itemsize if target else 4
        return found.nbytes + 2 * found.width * found.height * values

    def decode(self, job: TranslationJob) -> DecodedImage | BandImage | RasterJob | VolumeTask:
        """Read the image, and refuse one that cannot be written.

        Raises:
            DataError: It cannot be read, or does not have the channels of the source domain.
            OutputError: The output format cannot hold the target domain.
        """
        if (task := self._open_volume(job)) is not None:
            return task
        if self.translator.source_format is not None:
            return self._decode_bands(job, self.translator.source_format)
        image = decode(self.stdin or self._path(job), self.translator.options.resize)
        if self.translator.target_format is not None and len(image.frames) > 1:
            raise DataError(
                f"{job.input} has {len(image.frames)} frames, and the target domain has single "
                "images",
                "Save each frame as a file of its own.",
            )
        refuse_unwritable(image, self._format(job, image), self.options, job.output)
        return image

    def _open_volume(self, job: TranslationJob) -> VolumeTask | None:
        """Return the task of translating a volume; None: the input is an image."""
        source, volume = self.stdin or Path(job.input), None
        name = "standard input" if self.stdin else job.input
        if not isinstance(source, Path) or is_array_file(source):
            axis = self.translator.info.training.get("slice_axis", DEFAULT_AXIS)
            axis = self.slice_axis if self.slice_axis is not None else axis
            volume = open_volume(source, name, axis)
        own = volume.probe.format if volume else extension_of(name)[1:].upper()
        used = {"--slice-axis": (self.slice_axis is not None, ("NIFTI",)),
                "--array": (self.array is not None, ("NPZ",)),
                "--anonymize": (self.anonymize, VOLUME_FORMATS)}  # fmt: skip
        for option, (is_given, formats) in used.items():
            if is_given and own not in formats:
                raise DataError(
                    f"{option} is for {' and '.join(sorted(formats))} files, and {name} is none",
                    "Leave it out, or translate these files by themselves.",
                )
        if volume is None:
            format_name = writable_format(self.extension or extension_of(job.output)) or own
            refuse_volume_output(name, own, job.output, format_name)
            return None
        format_name = self._format_name(job, volume.probe.format)
        return prepare_volume(volume, name, job.output, format_name, self.translator)

    def _decode_bands(self, job: TranslationJob, source: BandFormat) -> BandImage | RasterJob:
        name = "standard input" if self.stdin else job.input
        if self.stdin is None:
            found = probe_bands(self._path(job), name)
            if self._is_raster(job, found):
                return self._open_raster(job, source)
            if (needed := self._whole_bytes(found)) > (budget := self.translator.budget()):
                raise DeviceError(
                    f"{name} needs {needed / 1e9:.2g} GB of memory for its pixels, found "
                    f"{max(budget, 0) / 1e9:.2g} GB",
                    "Translate a TIFF to a TIFF, of which only some rows are in memory.",
                )
        image = read_bands(self.stdin or self._path(job), name)
        selected = select(image, source, name)
        self._refuse_floats(image.probe, source, name)
        self._format(job, image)  # Refuses a format that cannot hold the target domain.
        return replace(image, values=selected)

    def _open_raster(self, job: TranslationJob, source: BandFormat) -> RasterJob:
        """Check a TIFF that is read in windows."""
        with open_raster(Path(job.input), source) as raster:
            raster[0:0]  # Refuses an image without the channels of the source domain.
            self._refuse_floats(raster.probe, source, job.input)
            return RasterJob(Path(job.input), Path(job.output), raster.probe)

    def _refuse_floats(self, found: BandProbe, source: BandFormat, name: str) -> None:
        is_measured = found.format in VOLUME_FORMATS  # In a unit, of which the type is no part.
        if found.dtype.startswith("float") and not source.is_float and not is_measured:
            raise DataError(
                f"{name} has values of type {found.dtype}, and the domain "
                f"{self.translator.source} of {source.dtype}",
                "Use images with the values of that domain.",
            )

    def translate(
        self, image: DecodedImage | BandImage | RasterJob | VolumeTask
    ) -> DecodedImage | BandImage | RasterJob | TranslatedVolume:
        """Translate every frame. The translation of a :class:`RasterJob` is also written.

        Raises:
            DataError: An image that is read in windows is damaged.
            OutputError: Its translation cannot be written.
            DeviceError: There is not enough memory.
        """
        if isinstance(image, RasterJob):
            translate_raster(self.translator, image)
            return image
        if isinstance(image, VolumeTask):
            return translate_volume(image, self.translator)
        if isinstance(image, BandImage):
            return self._translate_bands(image.values, image)
        if self.translator.target_format is not None:
            return self._translate_bands(image.on_white(0), image)
        translated = image.with_frames(
            [
                self.translator.translate_array(frame, self.options.bit_depth, image.full_size)
                for frame in image.frames
            ]
        )
        remark = self.translator.scale_remark(image.width, image.height)
        return replace(translated, remarks=(*translated.remarks, remark)) if remark else translated

    def _translate_bands(
        self, pixels: PixelArray, image: DecodedImage | BandImage
    ) -> DecodedImage | BandImage:
        probe = image.probe if isinstance(image, BandImage) else None
        values, missing = self.translator.translate_bands(pixels, probe.nodata if probe else None)
        size = (values.shape[1], values.shape[0])
        if self.translator.target_format is None:
            alpha = None if missing is None else np.where(missing, 0, 255).astype(np.uint8)
            if isinstance(image, BandImage) and image.format == "TIFF":
                values = values if alpha is None else np.dstack([values, alpha])
                colors = BandProbe("TIFF", *size, values.shape[2], "uint8", is_color=True)
                return BandImage(values, colors, image.tags, image.layout)
            return DecodedImage((values,), () if alpha is None else (alpha,), image.format)
        found = output_probe(self.translator, probe, size, missing is not None)
        if isinstance(image, BandImage):
            return replace(image, values=values, probe=found, missing=missing)
        return BandImage(values, replace(found, format=image.format))

    def encode(
        self, job: TranslationJob, image: DecodedImage | BandImage | RasterJob | TranslatedVolume
    ) -> Outcome:
        """Write the translation."""
        if isinstance(image, RasterJob):
            size = image.probe.width, image.probe.height
            return Outcome(job.input, job.output, "ok", width=size[0], height=size[1])
        target = self.stdout or Path(job.output)
        if isinstance(image, TranslatedVolume):
            write_volume(image, target, job.output, self.translator, self.anonymize)
            probe = image.probe
            return Outcome(job.input, job.output, "ok", width=probe.width, height=probe.height)
        format_name = self._format(job, image)
        keeps_place = format_name == "TIFF" and self.options.bit_depth != 16
        is_rgb = self.translator.target_format is None
        if isinstance(image, BandImage) and is_rgb and not keeps_place:
            image = _as_colors(image)
        if isinstance(image, BandImage):
            write_bands(image, target, format_name, job.output)
            return Outcome(job.input, job.output, "ok", width=image.width, height=image.height)
        lost = encode(image, target, format_name, self.options)
        return Outcome(
            job.input, job.output, "ok",
            width=image.width, height=image.height, warnings=image.remarks + lost,
        )  # fmt: skip

    def _format(self, job: TranslationJob, image: DecodedImage | BandImage) -> str:
        """Return Pillow's name of the output format.

        Raises:
            OutputError: The format cannot hold images of the target domain.
        """
        target = self.translator.target_format
        format_name = self._format_name(job, image.format)
        if target is not None and not can_hold(format_name, target):
            raise OutputError(
                f"cannot write {job.output}: {format_name} does not hold "
                f"{count_channels(target.channels)} of {target.dtype}, as the domain "
                f"{self.translator.target} has",
                "Use --format tiff or npy.",
            )
        return format_name

    def _format_name(self, job: TranslationJob, source: str) -> str:
        """Return the name of the output format, for an input of the format ``source``."""
        target = self.translator.target_format
        if self.stdout is None:
            return writable_format(extension_of(job.output)) or "PNG"
        own = source if source in WRITABLE_FORMATS else "PNG"
        if target is not None and not can_hold(own, target):
            own = "TIFF"
        return (writable_format(self.extension) if self.extension else None) or own


def _as_colors(image: BandImage) -> DecodedImage:
    """Return an RGB image, for formats that do not place images on the Earth."""
    colors, alpha = image.values[..., :3], image.values[..., 3:]
    alphas = (alpha[..., 0],) if alpha.shape[2] else ()
    return DecodedImage((colors,), alphas, image.format)


def default_workers(device: torch.device) -> int:
    """Return the number of decoding threads, and of encoding threads.

    On a CPU the network uses all cores and, except for the smallest networks, takes far longer
    than decoding and encoding. One thread of each keeps it supplied; more would take cores from
    it.
    """
    if device.type == "cpu":
        return 1
    return min(max(available_cores() // 2, 1), 8)
