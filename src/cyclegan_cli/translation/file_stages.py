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
    nodata_value,
    probe_bands,
    read_bands,
    select,
    write_bands,
)
from cyclegan_cli.data.decode import decode, pixel_bytes
from cyclegan_cli.data.encode import encode, refuse_inexact, refuse_unwritable
from cyclegan_cli.data.formats import WRITABLE_FORMATS, writable_format
from cyclegan_cli.data.image import DecodedImage, EncodeOptions, PixelArray
from cyclegan_cli.data.masks import composite, masked_share
from cyclegan_cli.errors import DataError, OutputError
from cyclegan_cli.runtime.threads import available_cores
from cyclegan_cli.translation.labels import LabelCopier
from cyclegan_cli.translation.masks import Masks
from cyclegan_cli.translation.measuring import Measuring
from cyclegan_cli.translation.outputs import TranslationJob
from cyclegan_cli.translation.pipeline import Outcome

if TYPE_CHECKING:
    import torch

    from cyclegan_cli.translation.translator import Translator


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

    def is_done(self, job: TranslationJob) -> bool:
        """Return whether the output exists and is kept."""
        if self.stdout or self.existing == "overwrite" or not os.path.isfile(job.output):
            return False
        if self.existing == "skip":
            return True
        try:
            sources = [job.input]
            if self.masks and (mask := self.masks.file_of(job)):
                sources.append(str(mask))
            written = os.stat(job.output).st_mtime_ns
            return all(os.stat(source).st_mtime_ns <= written for source in sources)
        except (OSError, DataError):
            return False  # Reading the image reports the error.

    def pixel_bytes(self, job: TranslationJob) -> int:
        """Return the size of the image's pixels, from its header."""
        if self.stdin:
            return 0
        copies = 2 if self.masks else 1  # With a mask, the pixels of the input are kept.
        if self.translator.source_format is None:
            return copies * pixel_bytes(Path(job.input))
        found = probe_bands(Path(job.input), job.input)
        pixels = found.width * found.height * found.channels
        return copies * pixels * np.dtype(found.dtype).itemsize

    def decode(self, job: TranslationJob) -> DecodedImage | BandImage:
        """Read the image, and refuse one that cannot be written; see :meth:`_decode`."""
        image = self._decode(job)
        return image if self.measuring is None else self.measuring.before(image)

    def _decode(self, job: TranslationJob) -> DecodedImage | BandImage:
        """Read the image, and refuse one that cannot be written.

        Raises:
            DataError: It cannot be read, or does not have the channels of the source domain.
            OutputError: The output format cannot hold the target domain.
        """
        if self.translator.source_format is not None:
            return self._decode_bands(job, self.translator.source_format)
        # Pixels outside of a mask are those of the full size, as is the image translated back.
        needs_all = self.masks or (self.measuring and self.measuring.reverse)
        shrink_to = None if needs_all else self.translator.options.resize
        source = self.stdin or Path(job.input)
        image = decode(source, shrink_to, keep_stored=self.masks is not None)
        if self.translator.target_format is not None and len(image.frames) > 1:
            raise DataError(
                f"{job.input} has {len(image.frames)} frames, and the target domain has single "
                "images",
                "Save each frame as a file of its own.",
            )
        format_name = self._format(job, image)
        refuse_unwritable(image, format_name, self.options, job.output)
        if self.masks:
            image = self.masks.attached(job, image)
            refuse_inexact(image, format_name, self.options, job.output)
        return image

    def _decode_bands(self, job: TranslationJob, source: BandFormat) -> BandImage:
        name = "standard input" if self.stdin else job.input
        image = read_bands(self.stdin or Path(job.input), name)
        selected = select(image, source, name)
        if selected.dtype.kind == "f" and not source.is_float:
            raise DataError(
                f"{name} has values of type {selected.dtype}, and the domain "
                f"{self.translator.source} of {source.dtype}",
                "Use images with the values of that domain.",
            )
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

    def translate(self, image: DecodedImage | BandImage) -> DecodedImage | BandImage:
        """Translate every frame.

        Raises:
            DeviceError: There is not enough memory.
        """
        result = self._translate(image)
        return result if self.measuring is None else self.measuring.translated(image, result)

    def _translate(self, image: DecodedImage | BandImage) -> DecodedImage | BandImage:
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
        target = self.translator.target_format
        own_nodata = image.probe.nodata if isinstance(image, BandImage) else None
        values, missing = self.translator.translate_bands(pixels, own_nodata)
        if target is None:
            alpha = None if missing is None else np.where(missing, 0, 255).astype(np.uint8)
            return DecodedImage((values,), () if alpha is None else (alpha,), image.format)
        source = self.translator.source_format
        known = own_nodata if source is None or source.nodata is None else source.nodata
        if isinstance(image, BandImage) and image.weights is not None:
            has_nodata = missing is not None or target.nodata is not None
            nodata = nodata_value(target, known) if has_nodata else None
            return masked_bands(image, values, missing, nodata)
        has_nodata = missing is not None or target.nodata is not None
        probe = BandProbe(
            image.format,
            values.shape[1],
            values.shape[0],
            target.channels,
            target.dtype,
            is_color=False,
            nodata=nodata_value(target, known) if has_nodata else None,
        )
        if isinstance(image, BandImage):
            return BandImage(values, probe, image.tags, image.layout, missing)
        return BandImage(values, probe)

    def skip(self, job: TranslationJob) -> Outcome:
        """Return the outcome of an image whose translation exists, and copy missing labels."""
        outcome = Outcome(job.input, job.output, "skipped")
        if self.labels is None:
            return outcome
        copied = self.labels.copy(job, replace=False)
        return replace(outcome, labels=copied.files, warnings=copied.warnings)

    def encode(self, job: TranslationJob, image: DecodedImage | BandImage) -> Outcome:
        """Write the translation and copy its labels, unless its structure score is too low."""
        structure = None if self.measuring is None else self.measuring.structure(image)
        minimum = None if self.measuring is None else self.measuring.minimum
        is_rejected = structure is not None and minimum is not None and structure < minimum
        outcome = (
            Outcome(job.input, job.output, "rejected") if is_rejected else self._write(job, image)
        )
        cycle_error = None if image.measures is None else image.measures.cycle_error
        outcome = replace(outcome, structure=structure, cycle_error=cycle_error)
        if self.labels is None or is_rejected:
            return outcome
        copied = self.labels.copy(job, True, (image.width, image.height))
        warnings = outcome.warnings + copied.warnings
        return replace(outcome, labels=copied.files, warnings=warnings)

    def _write(self, job: TranslationJob, image: DecodedImage | BandImage) -> Outcome:
        target = self.stdout or Path(job.output)
        format_name = self._format(job, image)
        if isinstance(image, BandImage):
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
        if self.stdout is None:
            format_name = writable_format(Path(job.output).suffix) or "PNG"
        else:
            own = image.format if image.format in WRITABLE_FORMATS else "PNG"
            if target is not None and not can_hold(own, target):
                own = "TIFF"
            format_name = (writable_format(self.extension) if self.extension else None) or own
        if target is not None and not can_hold(format_name, target):
            raise OutputError(
                f"cannot write {job.output}: {format_name} does not hold "
                f"{count_channels(target.channels)} of {target.dtype}, as the domain "
                f"{self.translator.target} has",
                "Use --format tiff or npy.",
            )
        return format_name


def masked_bands(
    image: BandImage, values: PixelArray, missing: PixelArray | None, nodata: float | None
) -> BandImage:
    """Composite translated values over those of the input, in the values themselves.

    Args:
        image: The input, with weights; its domain and the target's have the same type.
        values: ``[H, W, C]``, translated.
        missing: ``[H, W]`` bool: pixels without data, which the translation also lacks.
        nodata: The value of pixels without data in the output; None: none lacks them.
    """
    assert image.weights is not None
    if image.probe.nodata is not None:
        nodata = image.probe.nodata  # Pixels outside of the mask have it.
    result = composite(image.values, values, image.weights, "values")
    inside = image.weights > 0
    has_data = np.ones(inside.shape, dtype=bool) if missing is None else ~missing
    if missing is not None and nodata is not None:
        result[missing & inside] = nodata
    if result.dtype.kind != "f" and nodata is not None:
        # A mixed value must not be taken for no data.
        result[(result == nodata) & (inside & has_data)[..., None]] += 1
    probe = replace(image.probe, channels=values.shape[2], dtype=str(values.dtype), nodata=nodata)
    return replace(image, values=result, probe=probe, missing=missing)


def default_workers(device: torch.device) -> int:
    """Return the number of decoding threads, and of encoding threads.

    On a CPU the network uses all cores and, except for the smallest networks, takes far longer
    than decoding and encoding. One thread of each keeps it supplied; more would take cores from
    it.
    """
    if device.type == "cpu":
        return 1
    return min(max(available_cores() // 2, 1), 8)
