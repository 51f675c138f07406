"""The pipeline's stages for image files and for standard input and output."""

from __future__ import annotations

import os
from contextlib import suppress
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
from cyclegan_cli.data.encode import encode, refuse_inexact, refuse_unwritable
from cyclegan_cli.data.formats import (
    VOLUME_FORMATS,
    WRITABLE_FORMATS,
    extension_of,
    writable_format,
)
from cyclegan_cli.data.image import DecodedImage, EncodeOptions, PixelArray
from cyclegan_cli.data.masks import composite_values, masked_share
from cyclegan_cli.data.raster import open_raster, read_place
from cyclegan_cli.errors import DataError, DeviceError, OutputError
from cyclegan_cli.runtime.threads import available_cores
from cyclegan_cli.translation.animations import (
    FRAME_BY_FRAME,
    AnimationSettings,
    FrameSmoother,
    select_frames,
)
from cyclegan_cli.translation.measuring import Measuring
from cyclegan_cli.translation.outputs import TranslationJob
from cyclegan_cli.translation.pipeline import PIXEL_BYTES, Outcome
from cyclegan_cli.translation.raster import RasterJob, output_probe, translate_raster
from cyclegan_cli.translation.volume_stages import (
    DEFAULT_OPTIONS,
    TranslatedVolume,
    VolumeOptions,
    VolumeTask,
    format_name_of,
    prepare_volume,
    refuse_volume_output,
    translate_volume,
    write_volume,
)

if TYPE_CHECKING:
    import torch

    from cyclegan_cli.translation.labels import LabelCopier
    from cyclegan_cli.translation.masks import Masks
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
        masks: Where images are translated; None: everywhere.
        labels: Copies the labels of images that are translated or skipped; None: none.
        measuring: Measures translations, and rejects those that do not keep edges; None: neither.
        volumes: Options for volumes and arrays.
        animations: How animations are translated.
    """

    translator: Translator
    existing: Existing = "skip"
    options: EncodeOptions = EncodeOptions()
    stdin: BinaryIO | None = None
    stdout: BinaryIO | None = None
    extension: str | None = None
    masks: Masks | None = None
    labels: LabelCopier | None = None
    measuring: Measuring | None = None
    volumes: VolumeOptions = DEFAULT_OPTIONS
    animations: AnimationSettings = FRAME_BY_FRAME

    def is_done(self, job: TranslationJob) -> bool:
        """Return whether the output exists and is kept."""
        return self.stdout is None and keeps_output(job, self.existing, self.masks)

    def pixel_bytes(self, job: TranslationJob) -> int:
        """Return the size of the image's pixels, from its header."""
        if self.stdin:
            return 0
        copies = 2 if self.masks else 1  # With a mask, the pixels of the input are kept.
        if self.translator.source_format is None:
            if self._color_raster(job):
                return 0
            return copies * pixel_bytes(self.volumes.path_of(job.input))
        found = probe_bands(self.volumes.path_of(job.input), job.input)
        return 0 if self._is_raster(job, found) else copies * found.nbytes

    def _is_raster(self, job: TranslationJob, found: BandProbe) -> bool:
        """Return whether an image is read and written some rows at a time."""
        if found.format != "TIFF" or not self._writes_tiff(job) or self._needs_whole:
            return False
        return self._is_large(self._whole_bytes(found))

    def _is_large(self, size: float) -> bool:
        return size > min(WHOLE_BYTES, WHOLE_FRACTION * self.translator.host_budget())

    def _writes_tiff(self, job: TranslationJob) -> bool:
        """Return whether the job reads a file and writes a TIFF file."""
        is_file = self.stdin is None and self.stdout is None
        return is_file and writable_format(Path(job.output).suffix) == "TIFF"

    def _color_raster(self, job: TranslationJob) -> RasterJob | None:
        """Return the job of an RGB image that is read and written some rows at a time.

        Raises:
            DataError: The file is not an image.
        """
        options, target = self.options, self.translator.target_format
        if self.masks or self._needs_whole or not self._writes_tiff(job):
            return None
        if not self._is_large(3 * pixel_bytes(Path(job.input))):
            return None
        if options.keep_mode or options.keep_profile or self.translator.options.resize:
            return None
        with suppress(DataError), open_raster(Path(job.input)) as raster:
            if raster.is_plain_color:
                found = raster.probe
                depth = options.bit_depth or (16 if found.dtype == "uint16" else 8)
                remark = "" if target else self.translator.scale_remark(found.width, found.height)
                remarks = (remark,) if remark else ()
                paths = Path(job.input), Path(job.output)
                return RasterJob(*paths, found, bit_depth=depth, remarks=remarks)
        return None  # Another TIFF, or a damaged one, whose error decoding reports.

    def _whole_bytes(self, found: BandProbe) -> float:
        """Bytes of an image, its translation, and the encoder's copy of it."""
        target = self.translator.target_format
        values = target.channels * np.dtype(target.dtype).itemsize if target else 4
        return found.nbytes + 2 * found.width * found.height * values

    @property
    def _needs_whole(self) -> bool:
        """Whether measures need all pixels of an image and its translation in memory."""
        measuring = self.measuring
        return bool(measuring and (measuring.minimum is not None or measuring.reverse))

    def decode(self, job: TranslationJob) -> DecodedImage | BandImage | RasterJob | VolumeTask:
        """Read the image, and refuse one that cannot be written; see :meth:`_decode`."""
        if (task := self._volume_task(job)) is not None:
            return task
        image = self._decode(job)
        if self.measuring is None or isinstance(image, RasterJob):
            return image
        return self.measuring.before(image)

    def _volume_task(self, job: TranslationJob) -> VolumeTask | None:
        """Return the task of translating a volume; None: the input is translated as an image."""
        name = "standard input" if self.stdin else job.input
        volume = self.volumes.open(self.stdin or Path(job.input), name, self.translator)
        own = format_name_of(volume, name)
        if volume is None:
            format_name = writable_format(self.extension or extension_of(job.output)) or own
            refuse_volume_output(name, own, job.output, format_name)
            return None
        format_name = self._format_name(job, own)
        task = prepare_volume(volume, name, job.output, format_name, self.translator)
        if task is not None and (self.masks or self._needs_whole):
            raise DataError(
                f"--mask, --min-structure and --cycle-error are for images, and {name} becomes a "
                f"{own} file",
                "Leave them out.",
            )
        return task

    def _decode(self, job: TranslationJob) -> DecodedImage | BandImage | RasterJob:
        """Read the image, and refuse one that cannot be written.

        Raises:
            DataError: It cannot be read, or does not have the channels of the source domain.
            OutputError: The output format cannot hold the target domain.
        """
        if self.translator.source_format is not None:
            return self._decode_bands(job, self.translator.source_format)
        if raster := self._color_raster(job):
            return raster
        # Pixels outside of a mask are those of the full size, as is the image translated back.
        needs_all = self.masks or (self.measuring and self.measuring.reverse)
        shrink_to = None if needs_all else self.translator.options.resize
        source = self.stdin or self.volumes.path_of(job.input)
        image = decode(source, shrink_to, keep_stored=self.masks is not None)
        if self.translator.target_format is not None and len(image.frames) > 1:
            raise DataError(
                f"{job.input} has {len(image.frames)} frames, and the target domain has single "
                "images",
                "Save each frame as a file of its own.",
            )
        image = select_frames(image, self.animations.selection)
        format_name = self._format(job, image)
        refuse_unwritable(image, format_name, self.options, job.output)
        if self.masks:
            image = self.masks.attached(job, image)
            refuse_inexact(image, format_name, self.options, job.output)
        return image

    def _decode_bands(self, job: TranslationJob, source: BandFormat) -> BandImage | RasterJob:
        name = "standard input" if self.stdin else job.input
        if self.stdin is None:
            found = probe_bands(self.volumes.path_of(job.input), name)
            if self._is_raster(job, found):
                return self._open_raster(job, source)
            if (needed := self._whole_bytes(found)) > (budget := self.translator.host_budget()):
                raise DeviceError(
                    f"{name} needs {needed / 1e9:.2g} GB of memory for its pixels, found "
                    f"{max(budget, 0) / 1e9:.2g} GB",
                    "Translate a TIFF to a TIFF, without --min-structure and --cycle-error: only "
                    "some of its rows are in memory.",
                )
        image = read_bands(self.stdin or self.volumes.path_of(job.input), name)
        selected = select(image, source, name)
        self._refuse_floats(image.probe, source, name)
        self._format(job, image)  # Refuses a format that cannot hold the target domain.
        if self.masks:
            weights = self.masks.weights(job, [(image.width, image.height)])[0]
            image = replace(image, weights=weights)
            selected = self._kept_values(selected, name)
        return replace(image, values=selected)

    def _kept_values(self, values: PixelArray, name: str) -> PixelArray:
        """Return values in the type of the target domain, in which those outside are kept."""
        target = self.translator.target_format
        assert target is not None
        if not np.can_cast(values.dtype, target.dtype):
            raise DataError(
                f"{name} has values of type {values.dtype}, which pixels outside of the mask "
                f"cannot keep in outputs of {target.dtype}",
                "Use images with the type of their domain.",
            )
        return values.astype(target.dtype)

    def _open_raster(self, job: TranslationJob, source: BandFormat) -> RasterJob:
        """Check a TIFF that is read in windows."""
        with open_raster(Path(job.input), source) as raster:
            raster[0:0]  # Refuses an image without the channels of the source domain.
            self._refuse_floats(raster.probe, source, job.input)
            weights = None
            if self.masks:
                self._kept_values(raster[0:0], job.input)
                size = raster.probe.width, raster.probe.height
                weights = self.masks.weights(job, [size])[0]
            return RasterJob(Path(job.input), Path(job.output), raster.probe, weights)

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
        result = self._translate(image)
        return result if self.measuring is None else self.measuring.translated(image, result)

    def _translate(self, image: DecodedImage | BandImage) -> DecodedImage | BandImage:
        if isinstance(image, BandImage):
            return self._translate_bands(image.values, image)
        if self.translator.target_format is not None:
            return self._translate_bands(image.on_white(0), image)
        smoother = FrameSmoother(self.translator.generator, self.animations.smoothing)
        translated = image.with_frames(
            smoother.apply(
                lambda frame: self.translator.translate_array(
                    frame, self.options.bit_depth, image.full_size
                ),
                image.frames,
                is_animated=image.animation is not None,
            )
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
        if isinstance(image, BandImage) and image.weights is not None:
            return masked_bands(image, values, missing, found)
        if isinstance(image, BandImage):
            return replace(image, values=values, probe=found, missing=missing)
        return BandImage(values, replace(found, format=image.format))

    def skip(self, job: TranslationJob) -> Outcome:
        """Return the outcome of an image whose translation exists, and copy missing labels."""
        outcome = Outcome(job.input, job.output, "skipped")
        if self.labels is None:
            return outcome
        copied = self.labels.copy(job, replace=False)
        return replace(outcome, labels=copied.files, warnings=copied.warnings)

    def encode(
        self, job: TranslationJob, image: DecodedImage | BandImage | RasterJob | TranslatedVolume
    ) -> Outcome:
        """Write the translation and copy its labels, unless its structure score is too low."""
        if isinstance(image, RasterJob):
            return self._labelled(job, self._of_raster(job, image))
        if isinstance(image, TranslatedVolume):
            target, is_private = self.stdout or Path(job.output), self.volumes.anonymize
            write_volume(image, target, job.output, self.translator, is_private)
            size = image.probe.width, image.probe.height
            done = Outcome(job.input, job.output, "ok", width=size[0], height=size[1])
            return self._labelled(job, done)
        structure = None if self.measuring is None else self.measuring.structure(image)
        minimum = None if self.measuring is None else self.measuring.minimum
        is_rejected = structure is not None and minimum is not None and structure < minimum
        outcome = (
            Outcome(job.input, job.output, "rejected") if is_rejected else self._write(job, image)
        )
        cycle_error = None if image.measures is None else image.measures.cycle_error
        outcome = replace(outcome, structure=structure, cycle_error=cycle_error)
        return outcome if is_rejected else self._labelled(job, outcome)

    def _labelled(self, job: TranslationJob, outcome: Outcome) -> Outcome:
        """Copy the labels of an image that was translated."""
        if self.labels is None:
            return outcome
        copied = self.labels.copy(job, True, (outcome.width or 0, outcome.height or 0))
        warnings = outcome.warnings + copied.warnings
        return replace(outcome, labels=copied.files, warnings=warnings)

    def _of_raster(self, job: TranslationJob, raster: RasterJob) -> Outcome:
        return Outcome(
            job.input, job.output, "ok", width=raster.probe.width, height=raster.probe.height,
            mask_share=None if raster.weights is None else masked_share((raster.weights,)),
            warnings=raster.remarks,
        )  # fmt: skip

    def _write(self, job: TranslationJob, image: DecodedImage | BandImage) -> Outcome:
        target = self.stdout or Path(job.output)
        format_name = self._format(job, image)
        keeps_place = format_name == "TIFF" and self.options.bit_depth != 16
        is_rgb = self.translator.target_format is None
        if isinstance(image, BandImage) and is_rgb and not keeps_place:
            image = _as_colors(image)
        if isinstance(image, BandImage):
            # An RGB image has been decoded without the tags that place it on the Earth.
            if self.translator.source_format is None and image.format == "TIFF" and not self.stdin:
                with suppress(DataError):
                    image = replace(image, tags=read_place(Path(job.input)))
            write_bands(image, target, format_name, job.output)
            share = None if image.weights is None else masked_share((image.weights,))
            return Outcome(
                job.input, job.output, "ok",
                width=image.width, height=image.height, mask_share=share,
            )  # fmt: skip
        lost = encode(image, target, format_name, self.options)
        return Outcome(
            job.input, job.output, "ok",
            width=image.width, height=image.height, warnings=image.remarks + lost,
            mask_share=None if image.masking is None else image.masking.share,
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


def keeps_output(job: TranslationJob, existing: Existing, masks: Masks | None) -> bool:
    """Return whether the output of a job exists and is kept.

    Args:
        job: The job.
        existing: What to do about an existing output.
        masks: Masks, whose files are inputs, too.
    """
    if existing == "overwrite" or not os.path.isfile(job.output):
        return False
    if existing == "skip":
        return True
    try:
        sources = [job.input]
        if masks and (mask := masks.file_of(job)):
            sources.append(str(mask))
        written = os.stat(job.output).st_mtime_ns
        return all(os.stat(source).st_mtime_ns <= written for source in sources)
    except (OSError, DataError):
        return False  # Reading the image reports the error.


def masked_bands(
    image: BandImage, values: PixelArray, missing: PixelArray | None, found: BandProbe
) -> BandImage:
    """Composite translated values over those of the input, in the values themselves.

    Args:
        image: The input, with weights; its domain and the target's have the same type.
        values: ``[H, W, C]``, translated.
        missing: ``[H, W]`` bool: pixels without data, which the translation also lacks.
        found: The header of the translation. The input's value without data is kept, because
            pixels outside of the mask have it.
    """
    assert image.weights is not None
    nodata = found.nodata if image.probe.nodata is None else image.probe.nodata
    result = composite_values(image.values, values, image.weights, missing, nodata)
    return replace(image, values=result, probe=replace(found, nodata=nodata), missing=missing)


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
