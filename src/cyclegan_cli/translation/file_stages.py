"""The pipeline's stages for image files and for standard input and output."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cyclegan_cli.config import Existing
from cyclegan_cli.data.decode import decode, pixel_bytes
from cyclegan_cli.data.encode import encode, refuse_unwritable
from cyclegan_cli.data.formats import WRITABLE_FORMATS, writable_format
from cyclegan_cli.data.image import DecodedImage, EncodeOptions
from cyclegan_cli.runtime.threads import available_cores
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
    """

    translator: Translator
    existing: Existing = "skip"
    options: EncodeOptions = EncodeOptions()
    stdin: BinaryIO | None = None
    stdout: BinaryIO | None = None
    extension: str | None = None

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
        return 0 if self.stdin else pixel_bytes(Path(job.input))

    def decode(self, job: TranslationJob) -> DecodedImage:
        """Read the image, and refuse one that cannot be written."""
        image = decode(self.stdin or Path(job.input), self.translator.options.resize)
        refuse_unwritable(image, self._format(job, image), self.options, job.output)
        return image

    def translate(self, image: DecodedImage) -> DecodedImage:
        """Translate every frame.

        Raises:
            DeviceError: There is not enough memory.
        """
        translated = image.with_frames(
            [
                self.translator.translate_array(frame, self.options.bit_depth, image.full_size)
                for frame in image.frames
            ]
        )
        remark = self.translator.scale_remark(image.width, image.height)
        return replace(translated, remarks=(*translated.remarks, remark)) if remark else translated

    def encode(self, job: TranslationJob, image: DecodedImage) -> Outcome:
        """Write the translation."""
        target = self.stdout or Path(job.output)
        lost = encode(image, target, self._format(job, image), self.options)
        return Outcome(
            job.input, job.output, "ok",
            width=image.width, height=image.height, warnings=image.remarks + lost,
        )  # fmt: skip

    def _format(self, job: TranslationJob, image: DecodedImage) -> str:
        """Return Pillow's name of the output format."""
        if self.stdout is None:
            return writable_format(Path(job.output).suffix) or "PNG"
        own = image.format if image.format in WRITABLE_FORMATS else "PNG"
        return (writable_format(self.extension) if self.extension else None) or own


def default_workers(device: torch.device) -> int:
    """Return the number of decoding threads, and of encoding threads.

    On a CPU the network uses all cores and, except for the smallest networks, takes far longer
    than decoding and encoding. One thread of each keeps it supplied; more would take cores from
    it.
    """
    if device.type == "cpu":
        return 1
    return min(max(available_cores() // 2, 1), 8)
