"""Many files through one translator: which goes where, and what became of each."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cyclegan_cli.data.decoding import decode
from cyclegan_cli.data.encoding import encode
from cyclegan_cli.data.formats import writable_format
from cyclegan_cli.data.layout import refuse_unwritable
from cyclegan_cli.data.listing import list_pictures
from cyclegan_cli.data.picture import EncodeOptions
from cyclegan_cli.errors import CycleGANError, DataError, UsageError
from cyclegan_cli.files import is_disk_full

if TYPE_CHECKING:
    from cyclegan_cli.translation.translator import Translator

# What pictures are written as when their own format can only be read.
FALLBACK_SUFFIX = ".png"


@dataclass(frozen=True)
class Job:
    """One picture to translate.

    Attributes:
        input: Where it is.
        output: Where its translation goes.
    """

    input: Path
    output: Path


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        input: The picture.
        output: Its translation; not written unless ``ok``.
        status: ``ok``, ``skipped`` (the output existed) or ``failed``.
        error: One sentence, if failed.
        width: In pixels, if ok.
        height: In pixels, if ok.
        seconds: From reading to having written.
        warnings: A sentence for each thing of the picture that its translation does not have.
    """

    input: Path
    output: Path
    status: Literal["ok", "skipped", "failed"]
    error: str | None = None
    width: int | None = None
    height: int | None = None
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()

    def to_document(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self) | {
            "input": str(self.input),
            "output": str(self.output),
            "warnings": list(self.warnings),
        }


def plan_jobs(
    inputs: Sequence[str], output: str | None, target: str, overwrite: bool = False
) -> list[Job]:
    """Decide where each picture's translation goes.

    Args:
        inputs: Files, folders (recursively) or globs, as the user gave them.
        output: A file (for one input file), a folder, or None: beside each input.
        target: Name of the target domain, which names outputs beside their inputs.
        overwrite: Whether existing outputs will be replaced.

    Returns:
        A job a picture, in the order of the inputs; no picture twice.

    Raises:
        UsageError: Nothing fits: a folder without an output folder, several inputs for one output
            file, two inputs for the same output, or an output that is an input.
        DataError: An input does not exist, or a folder has no pictures.
    """
    found = [source for text in inputs for source in _expand(text, output)]
    if output is None:
        jobs = [_beside(source, target) for source in found]
        if not overwrite:
            jobs = _without_earlier_outputs(jobs)
    elif _means_folder(output, found):
        jobs = [
            Job(source.path, _with_writable_suffix(Path(output) / source.place)) for source in found
        ]
    else:
        jobs = [Job(source.path, Path(output)) for source in found]
    # Each picture once for each place, however it was spelled.
    unique: dict[tuple[str, str], Job] = {}
    for job in jobs:
        unique.setdefault((os.path.realpath(job.input), os.path.realpath(job.output)), job)
    jobs = [*unique.values()]
    _refuse_clashes(jobs)
    return jobs


@dataclass(frozen=True)
class _Source:
    """A picture to translate, and the input folder that it was found in, if any."""

    path: Path
    folder: Path | None = None

    @property
    def place(self) -> Path:
        """Where it belongs inside an output folder."""
        return self.path.relative_to(self.folder) if self.folder else Path(self.path.name)


def _expand(text: str, output: str | None) -> list[_Source]:
    """The pictures that an argument stands for."""
    if not text:
        raise UsageError("an INPUT is empty", "Name a picture, a folder or a glob.")
    path = Path(text)
    if path.is_dir():
        return [_Source(picture, path) for picture in _pictures_in(path, output)]
    if path.exists():
        return [_Source(path)]
    if not glob.has_magic(text):
        raise DataError(f"there is no file or folder {text}")
    matches = [match for match in glob.glob(text, recursive=True) if os.path.isfile(match)]
    if not matches:
        raise DataError(f"nothing matches {text}")
    return [_Source(Path(match)) for match in sorted(matches)]


def _without_earlier_outputs(jobs: list[Job]) -> list[Job]:
    """Leave out inputs that are another input's translation.

    So that ``translate photos/*.jpg`` can be run again, though its translations lie beside its
    pictures now: they exist and are skipped. Where they would be replaced instead, whether they
    are translations or pictures of the user's own cannot be told, and they are refused as inputs.
    """
    outputs = {os.path.realpath(job.output) for job in jobs}
    return [job for job in jobs if os.path.realpath(job.input) not in outputs]


def _pictures_in(folder: Path, output: str | None) -> list[Path]:
    """All pictures of a folder, but for earlier translations in an output folder inside it."""
    pictures = list_pictures(folder)
    if output is not None:
        place = Path(output).resolve()
        if folder.resolve() in place.parents:
            pictures = [path for path in pictures if place not in path.resolve().parents]
    if not pictures:
        raise DataError(f"{folder} has no pictures", "Folders are searched recursively.")
    return pictures


def _beside(source: _Source, target: str) -> Job:
    if source.folder is not None:
        raise UsageError(
            f"{source.folder} is a folder, which needs -o DIR",
            "Name a folder for the translated pictures.",
        )
    path = source.path
    return Job(path, _with_writable_suffix(path.with_name(f"{path.stem}_{target}{path.suffix}")))


def _means_folder(output: str, found: Sequence[_Source]) -> bool:
    """Whether ``-o`` names a folder: it is one, is written like one, or must be one.

    Raises:
        UsageError: It names a file where only a folder will do, or one that cannot be written.
    """
    path = Path(output)
    if path.is_dir() or output.endswith(("/", os.sep)):
        return True
    needs_folder = len(found) > 1 or found[0].folder is not None
    if needs_folder and (path.is_file() or writable_format(path.suffix)):
        raise UsageError(
            f"-o {output} names a file, but these inputs need a folder",
            "Name a folder; with a / at its end where it looks like a file.",
        )
    if needs_folder or not (path.suffix or path.is_file()):
        return True
    if not writable_format(path.suffix):
        raise UsageError(
            f"-o {output}: {path.suffix!r} is not an ending of a format that can be written",
            "Use .png or .jpg, for example.",
        )
    return False


def _with_writable_suffix(path: Path) -> Path:
    return path if writable_format(path.suffix) else path.with_suffix(FALLBACK_SUFFIX)


def _refuse_clashes(jobs: Sequence[Job]) -> None:
    """Refuse outputs that would overwrite an input or each other."""
    inputs = {os.path.normcase(os.path.realpath(job.input)) for job in jobs}
    writers: dict[str, Path] = {}
    for job in jobs:
        real_output = os.path.normcase(os.path.realpath(job.output))
        if real_output in inputs:
            raise UsageError(
                f"{job.output} is an input: its translation would overwrite it",
                "Name another output with -o.",
            )
        first = writers.setdefault(real_output, job.input)
        if first != job.input:
            raise UsageError(
                f"{first} and {job.input} would both be written to {job.output}",
                "Translate them into two folders.",
            )


def translate_files(
    jobs: Sequence[Job],
    translator: Translator,
    overwrite: bool,
    stop_requested: Callable[[], int | None] = lambda: None,
    options: EncodeOptions = EncodeOptions(),
) -> Iterator[Outcome]:
    """Translate jobs in order; one that fails does not stop the rest.

    Args:
        jobs: What to do.
        translator: What translates.
        overwrite: Whether existing outputs are replaced rather than skipped.
        stop_requested: Asked before each job; a signal's number ends the work there.
        options: How translations are written.

    Yields:
        An outcome a job, as soon as it is known.

    Raises:
        OutputError: The disk is full: no further output could be written either.
    """
    for job in jobs:
        if stop_requested():
            return
        if os.path.isfile(job.output) and not overwrite:
            yield Outcome(job.input, job.output, "skipped")
            continue
        started = time.monotonic()
        outcome = _translate_file(job, translator, options)
        yield replace(outcome, seconds=round(time.monotonic() - started, 4))


def _translate_file(job: Job, translator: Translator, options: EncodeOptions) -> Outcome:
    try:
        picture = decode(job.input)
        output_format = writable_format(job.output.suffix) or "PNG"
        refuse_unwritable(picture, output_format, options, str(job.output))
        translated = picture.with_frames(
            [translator.translate_levels(frame, options.bit_depth) for frame in picture.frames]
        )
        lost = encode(translated, job.output, output_format, options)
    except CycleGANError as error:
        if is_disk_full(error):
            raise
        return Outcome(job.input, job.output, "failed", error.message)
    return Outcome(
        job.input,
        job.output,
        "ok",
        width=picture.width,
        height=picture.height,
        warnings=picture.remarks + lost,
    )
