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
from cyclegan_cli.data.encode import encode, refuse_unwritable
from cyclegan_cli.data.formats import WRITABLE_FORMATS, writable_format
from cyclegan_cli.data.image import DecodedImage, EncodeOptions, PixelArray
from cyclegan_cli.errors import DataError, OutputError
from cyclegan_cli.runtime.threads import available_cores
from cyclegan_cli.translation.animations import (
    FRAME_BY_FRAME,
    AnimationSettings,
    FrameSmoother,
    select_frames,
)
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
        animations: How animations are translated.
    """

    translator: Translator
    existing: Existing = "skip"
    options: EncodeOptions = EncodeOptions()
    stdin: BinaryIO | None = None
    stdout: BinaryIO | None = None
    extension: str | None = None
    animations: AnimationSettings = FRAME_BY_FRAME

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
            return pixel_bytes(Path(job.input))
        found = probe_bands(Path(job.input), job.input)
        return found.width * found.height * found.channels * np.dtype(found.dtype).itemsize

    def decode(self, job: TranslationJob) -> DecodedImage | BandImage:
        """Read the image, and refuse one that cannot be written.

        Raises:
            DataError: It cannot be read, or does not have the channels of the source domain.
            OutputError: The output format cannot hold the target domain.
        """
        if self.translator.source_format is not None:
            return self._decode_bands(job, self.translator.source_format)
        image = decode(self.stdin or Path(job.input), self.translator.options.resize)
        if self.translator.target_format is not None and len(image.frames) > 1:
            raise DataError(
                f"{job.input} has {len(image.frames)} frames, and the target domain has single "
                "images",
                "Save each frame as a file of its own.",
            )
        image = select_frames(image, self.animations)
        refuse_unwritable(image, self._format(job, image), self.options, job.output)
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
        return replace(image, values=selected)

    def translate(self, image: DecodedImage | BandImage) -> DecodedImage | BandImage:
        """Translate every frame.

        Raises:
            DeviceError: There is not enough memory.
        """
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
        target = self.translator.target_format
        own_nodata = image.probe.nodata if isinstance(image, BandImage) else None
        values, missing = self.translator.translate_bands(pixels, own_nodata)
        if target is None:
            alpha = None if missing is None else np.where(missing, 0, 255).astype(np.uint8)
            return DecodedImage((values,), () if alpha is None else (alpha,), image.format)
        source = self.translator.source_format
        known = own_nodata if source is None or source.nodata is None else source.nodata
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

    def encode(self, job: TranslationJob, image: DecodedImage | BandImage) -> Outcome:
        """Write the translation."""
        target = self.stdout or Path(job.output)
        format_name = self._format(job, image)
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


def default_workers(device: torch.device) -> int:
    """Return the number of decoding threads, and of encoding threads.

    On a CPU the network uses all cores and, except for the smallest networks, takes far longer
    than decoding and encoding. One thread of each keeps it supplied; more would take cores from
    it.
    """
    if device.type == "cpu":
        return 1
    return min(max(available_cores() // 2, 1), 8)
