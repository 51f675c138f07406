"""What is to be exported, checked for sense before anything is loaded. Loads no torch."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from cyclegan_cli.checkpoints.header import ModelInfo
from cyclegan_cli.checkpoints.locate import Which
from cyclegan_cli.checkpoints.reading import Domains, source_files
from cyclegan_cli.errors import UsageError
from cyclegan_cli.exporting.formats import (
    ELSEWHERE,
    FORMATS,
    LOWEST_OPSET,
    LOWEST_OPSET_OF_MORE,
    OPSET,
    Directions,
    Format,
    Precision,
)

DEFAULT_MIN_PSNR = 35.0


@dataclass(frozen=True)
class Job:
    """One file to write (or one and its companion).

    Attributes:
        checkpoint: The file exported.
        directions: The generators that go into the file.
        output: The file to write.
        format: In which format.
        precision: How its numbers are stored.
        image_io: Whether pixels go in and come out instead of numbers in [-1, 1].
        calibration: Folder of images that int8 is calibrated and judged with; None else.
        min_psnr: In decibels; an int8 model that is further from the network is not written.
        domains: Names of the domains A and B in place of the checkpoint's own.
        opset: Version of ONNX's operators.
    """

    checkpoint: Path
    directions: Directions
    output: Path
    format: Format
    precision: Precision = "fp32"
    image_io: bool = False
    calibration: Path | None = None
    min_psnr: float = DEFAULT_MIN_PSNR
    domains: Domains | None = None
    opset: int = OPSET

    @property
    def outputs(self) -> tuple[Path, ...]:
        """The files that the job writes: the output, and companions of other endings."""
        return (self.output, *(self.output.with_suffix(end) for end in self.format.suffixes[1:]))


def check_options(
    chosen: Format,
    precision: Precision,
    image_io: bool,
    calibration: Path | None,
    min_psnr: float | None,
    both: bool,
    opset: int | None = None,
) -> None:
    """Refuse options that contradict each other.

    Raises:
        UsageError: They do, or the format's packages are not installed.
    """
    chosen.require_precision(precision)
    if image_io and not chosen.image_io:
        able = ", ".join(entry.name for entry in FORMATS.values() if entry.image_io)
        raise UsageError(f"--image-io is not possible with {chosen.name}", f"It is with {able}.")
    if precision == "int8" and calibration is None:
        raise UsageError(
            "--precision int8 needs --calibration",
            "Name a folder of images of the domain that is translated from.",
        )
    if precision == "int8" and both:
        raise UsageError(
            "--direction both cannot be calibrated with the images of one domain",
            "Export the two directions one by one, each with images of its own.",
        )
    for name, value in (("--calibration", calibration), ("--min-psnr", min_psnr)):
        if value is not None and precision != "int8":
            raise UsageError(f"{name} is for --precision int8 alone", "Leave it out.")
    _check_opset(chosen, precision, image_io, opset)
    if min_psnr is not None and math.isnan(min_psnr):
        raise UsageError("--min-psnr nan is no number", "Give decibels, e.g. 35.")
    chosen.require_packages()


def _check_opset(chosen: Format, precision: Precision, image_io: bool, opset: int | None) -> None:
    if opset is None:
        return
    if chosen.name != "onnx":
        raise UsageError("--opset is for --format onnx alone", "Leave it out.")
    more = "--image-io" if image_io else "--precision int8" if precision == "int8" else ""
    lowest = LOWEST_OPSET_OF_MORE if more else LOWEST_OPSET
    if not lowest <= opset <= OPSET:
        raise UsageError(
            f"--opset {opset}: {f'with {more} ' if more else ''}it can be {lowest} to {OPSET}",
            f"Leave {more} out, or raise it." if more else "Give one of these.",
        )


def plan_outputs(
    chosen: Format,
    info: ModelInfo,
    directions: Directions,
    which: Which,
    output: str | None,
    overwrite: bool,
) -> list[tuple[Directions, Path]]:
    """Which directions go into which file.

    Args:
        chosen: The chosen.
        info: The checkpoint's description.
        directions: One or both.
        which: Which checkpoint of the run it is, for file names that say so.
        output: As the user gave it: a file, or a folder where two files are written; None: files
            named by the domains, in the current folder.
        overwrite: Whether existing files may be replaced.

    Raises:
        UsageError: A name makes no sense, or is taken.
    """
    apart = len(directions) > 1 and not chosen.holds_both
    groups: list[Directions] = [(one,) for one in directions] if apart else [directions]
    if output is not None:
        _refuse_elsewhere(output)
    names = [chosen.stem(info, group, which) + chosen.suffixes[0] for group in groups]
    if apart:
        folder = Path(output or ".")
        if folder.exists() and not folder.is_dir():
            raise UsageError(
                f"-o {output} is a file, but {chosen.name} writes each direction into its own",
                "Name a folder.",
            )
        files = [folder / name for name in names]
    else:
        files = [_named_file(chosen, output) if output else Path(names[0])]
    for file in files:
        _check_free(chosen, file, overwrite)
    return list(zip(groups, files, strict=True))


def _refuse_elsewhere(output: str) -> None:
    """Refuse what would be a file of another program by its name, and something else within."""
    if output == "-":
        raise UsageError("-o - would be standard output, where no model is written", "Name a file.")
    if hint := ELSEWHERE.get(Path(output).suffix.lower()):
        raise UsageError(f"-o {output}: {Path(output).suffix} files are not written here", hint)


def _named_file(chosen: Format, output: str) -> Path:
    if output.endswith(("/", os.sep)):
        raise UsageError(f"-o {output} names a folder", "Name a file.")
    file = Path(output)
    others = {end: entry.name for entry in FORMATS.values() for end in entry.suffixes[:1]}
    meant = others.get(file.suffix, chosen.name)
    if meant != chosen.name:
        raise UsageError(
            f"-o {output} ends like {meant}, but --format is {chosen.name}",
            f"End it with {chosen.suffixes[0]}, or add --format {meant}.",
        )
    if file.suffix and file.suffix != chosen.suffixes[0]:
        raise UsageError(
            f"-o {output} does not end like {chosen.name}, which --format asks for",
            f"End it with {chosen.suffixes[0]}.",
        )
    if len(chosen.suffixes) > 1 and file.suffix != chosen.suffixes[0]:
        raise UsageError(
            f"-o {output}: {chosen.name} writes a {chosen.suffixes[0]} file and a companion",
            f"End the name with {chosen.suffixes[0]}.",
        )
    return file


def _check_free(chosen: Format, file: Path, overwrite: bool) -> None:
    for suffix in chosen.suffixes:
        path = file if suffix == chosen.suffixes[0] else file.with_suffix(suffix)
        if path.is_dir() or (path.exists() and not overwrite):
            hint = "Name a file." if path.is_dir() else "Replace it with --overwrite."
            raise UsageError(f"-o {path} already exists", hint)


def refuse_overwriting(job: Job) -> None:
    """Keep the checkpoint from being replaced by its own export, however both are named.

    Raises:
        UsageError: An output is the checkpoint.
    """
    sources = source_files(job.checkpoint, job.directions)
    for output in job.outputs:
        if output.exists() and any(map(output.samefile, sources)):
            raise UsageError(f"-o {output} is the checkpoint itself", "Name another file.")
