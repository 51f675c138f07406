"""What is done with each image: read, translate, write."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from cyclegan_cli.data.decode import decode, pixel_bytes
from cyclegan_cli.data.encode import encode, refuse_unwritable
from cyclegan_cli.data.formats import WRITABLE_FORMATS, writable_format
from cyclegan_cli.data.image import DecodedImage, EncodeOptions
from cyclegan_cli.runtime.threads import available_cores
from cyclegan_cli.translation.inputs import STDIN
from cyclegan_cli.translation.outcomes import Outcome
from cyclegan_cli.translation.planning import Job

if TYPE_CHECKING:
    import torch

    from cyclegan_cli.translation.translator import Translator

Existing = Literal["skip", "overwrite", "if-newer"]


@dataclass(frozen=True)
class FileWork:
    """Files through one translator.

    Attributes:
        translator: What translates.
        existing: What is done about an output that exists: left, replaced, or replaced where the
            input was changed later.
        options: How translations are written.
    """

    translator: Translator
    existing: Existing = "skip"
    options: EncodeOptions = EncodeOptions()

    def is_done(self, job: Job) -> bool:
        """Whether the output exists and is to be left as it is."""
        if self.existing == "overwrite" or not os.path.isfile(job.output):
            return False
        return self.existing == "skip" or not _is_newer(job.input, job.output)

    def weigh(self, job: Job) -> int:
        """The bytes of the image's pixels, from its header."""
        return pixel_bytes(Path(job.input))

    def decode(self, job: Job) -> DecodedImage:
        """Read the image, and refuse what cannot be written."""
        image = decode(Path(job.input), self.translator.options.resize)
        refuse_unwritable(image, _format_of(job.output), self.options, job.output)
        return image

    def translate(self, image: DecodedImage) -> DecodedImage:
        """Translate each of its frames."""
        return translate_image(image, self.translator, self.options)

    def encode(self, job: Job, image: DecodedImage) -> Outcome:
        """Write the translation."""
        lost = encode(image, Path(job.output), _format_of(job.output), self.options)
        return _success(job, image, lost)


def translate_image(
    image: DecodedImage, translator: Translator, options: EncodeOptions
) -> DecodedImage:
    """The same image with each of its frames translated.

    Raises:
        DeviceError: Not enough memory.
    """
    translated = image.with_frames(
        [
            translator.translate_levels(frame, options.bit_depth, image.full_size)
            for frame in image.frames
        ]
    )
    remark = translator.scale_remark(image.width, image.height)
    return replace(translated, remarks=(*translated.remarks, remark)) if remark else translated


def translate_stream(
    source: Path | BinaryIO,
    target: Path | BinaryIO,
    translator: Translator,
    options: EncodeOptions = EncodeOptions(),
    ending: str | None = None,
) -> Outcome:
    """Translate a single image from or to a stream, which has the source's format if it can be.

    Args:
        source: A file, or a stream of the bytes of one.
        target: Likewise.
        translator: What translates.
        options: How it is written.
        ending: Of the format that it is written in to a stream; None: the source's.

    Raises:
        DataError: It cannot be read, or not be written.
        DeviceError: Not enough memory.
    """
    names = [str(side) if isinstance(side, Path) else STDIN for side in (source, target)]
    image = decode(source, translator.options.resize)
    own = image.format if image.format in WRITABLE_FORMATS else "PNG"
    wanted = writable_format(ending) if ending else own
    wanted = _format_of(names[1]) if isinstance(target, Path) else wanted or own
    refuse_unwritable(image, wanted, options, names[1])
    translated = translate_image(image, translator, options)
    lost = encode(translated, target, wanted, options)
    return _success(Job(*names), translated, lost)


def default_workers(device: torch.device) -> int:
    """How many threads are to decode, and as many to encode.

    On a CPU the network takes all cores and, but for the smallest, far longer than both; one
    thread of each keeps it supplied. Each takes a part of a core while it works, which the
    network would otherwise have: what is gained are the moments in which the network leaves a
    core idle, and those in which a file is flushed to the disk.
    """
    if device.type == "cpu":
        return 1
    return min(max(available_cores() // 2, 1), 8)


def _format_of(output: str) -> str:
    """The format that a file's name stands for."""
    return writable_format(Path(output).suffix) or "PNG"


def _success(job: Job, image: DecodedImage, lost: tuple[str, ...]) -> Outcome:
    return Outcome(
        job.input, job.output, "ok",
        width=image.width, height=image.height, warnings=image.remarks + lost,
    )  # fmt: skip


def _is_newer(source: str, output: str) -> bool:
    """Whether an input was changed after its output was written."""
    try:
        return os.stat(source).st_mtime_ns > os.stat(output).st_mtime_ns
    except OSError:
        return True  # Reading it will say what is wrong.
