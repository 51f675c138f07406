"""The formats of exported models, and export jobs checked before anything is loaded. No torch.

A format is one entry of :data:`FORMATS` and one module of this package with a function ``convert``
that returns a :class:`~cyclegan_cli.exporting.converted.ConvertedModel`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from cyclegan_cli.checkpoints.header import BOTH_DIRECTIONS, ModelInfo
from cyclegan_cli.checkpoints.locate import Checkpoint, chosen_checkpoint, read_checkpoint
from cyclegan_cli.config import (
    OPSET,
    Direction,
    ExportConfig,
    ExportFormat,
    ExportPrecision,
    Which,
)
from cyclegan_cli.errors import UsageError

Directions = tuple[Direction, ...]

DEFAULT_MIN_PSNR = 35.0
# Opset 20 is the first with a native instance norm for every type, and supported by all current
# runtimes. The network's operators have not changed since 13; those around it (for pixels and
# int8) have not since 18.
LOWEST_OPSET_EXTENDED = 18
# How to convert exported files to the formats of other programs.
BY_TRTEXEC = "Export .onnx, and build the engine where it will run: trtexec --onnx=FILE."
BY_TENSORFLOW = "Export .onnx, and convert that with onnx2tf."
BY_COREMLTOOLS = "Export .pt2, and convert that with coremltools."
OTHER_PROGRAMS = {
    ".engine": BY_TRTEXEC, ".plan": BY_TRTEXEC, ".trt": BY_TRTEXEC,
    ".tflite": BY_TENSORFLOW, ".pb": BY_TENSORFLOW, ".h5": BY_TENSORFLOW, ".keras": BY_TENSORFLOW,
    ".mlpackage": BY_COREMLTOOLS, ".mlmodel": BY_COREMLTOOLS,
}  # fmt: skip


@dataclass(frozen=True)
class Format:
    """A format of exported models.

    Attributes:
        name: The value of ``--format``, and the name of the module of this package.
        extensions: Extensions of its files; the first is that of the named file.
        precisions: Supported precisions.
        packages: Packages of the extra that has the format's name; their import names.
        image_io: Whether ``--image-io`` is supported.
        holds_both: Whether one file can hold both directions.
    """

    name: ExportFormat
    extensions: tuple[str, ...]
    precisions: tuple[ExportPrecision, ...] = ("fp32", "fp16")
    packages: tuple[str, ...] = ()
    image_io: bool = False
    holds_both: bool = False

    def require_packages(self) -> None:
        """Check that the extra is installed.

        Raises:
            UsageError: It is not.
        """
        missing = [name for name in self.packages if find_spec(name) is None]
        if missing:
            raise UsageError(
                f"--format {self.name} needs the package {missing[0]}, which is not installed",
                f"Install the extra [{self.name}]: pip install {' '.join(self.packages)}",
            )


ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        Format("onnx", (".onnx",), ("fp32", "fp16", "int8"), ONNX_PACKAGES, image_io=True),
        Format("pt2", (".pt2",)),
        Format("safetensors", (".safetensors",), ("fp32", "fp16", "bf16"), holds_both=True),
        Format("pth", (".pth",)),
        Format("openvino", (".xml", ".bin"), packages=(*ONNX_PACKAGES, "openvino"), image_io=True),
    )
}


@dataclass(frozen=True)
class Job:
    """The export of one file (or one and its companion).

    Attributes:
        checkpoint: The exported checkpoint.
        directions: The directions whose generators the file holds.
        output: The file to write.
        format: Its format.
        precision: The precision of its weights.
        image_io: Whether the model takes and returns pixels instead of tensors in [-1, 1].
        calibration: Folder of images for the calibration and evaluation of int8; None otherwise.
        min_psnr: Minimum PSNR in dB of an int8 model relative to the network.
        opset: ONNX opset version.
    """

    checkpoint: Checkpoint
    directions: Directions
    output: Path
    format: Format
    precision: ExportPrecision = "fp32"
    image_io: bool = False
    calibration: Path | None = None
    min_psnr: float = DEFAULT_MIN_PSNR
    opset: int = OPSET

    @property
    def outputs(self) -> tuple[Path, ...]:
        """The files to write: the output, and its companions with other extensions."""
        return output_files(self.format, self.output)


def output_files(chosen: Format, output: Path) -> tuple[Path, ...]:
    """Return the file with the given name, and its companions with other extensions."""
    return (output, *(output.with_suffix(extension) for extension in chosen.extensions[1:]))


def plan_jobs(config: ExportConfig) -> list[Job]:
    """Return the files to write, after all checks that need no torch.

    Raises:
        UsageError: Options contradict each other, the format's packages are not installed, or an
            output is not valid for the format, exists, or is the checkpoint.
        CheckpointError: There is no such checkpoint, it is damaged, or lacks a direction.
        DataError: There are too few calibration images.
    """
    check_options(config)
    chosen = FORMATS[config.format]
    path = chosen_checkpoint(config.checkpoint, config.which)
    checkpoint = read_checkpoint(path, config.domain_names)
    info = checkpoint.info
    if chosen.name == "pth" and info.generator.resampling == "blur":
        raise UsageError(
            f"--format pth: {path} has blurs between its layers (--resampling blur), which the "
            "original implementation does not have",
            "Use another format, or train with --resampling strided.",
        )
    if chosen.name == "pth" and info.generator.norms != "all":
        raise UsageError(
            f"--format pth: {path} has norms in its residual blocks alone (--norms residual), and "
            "the original implementation after each convolution",
            "Use another format, or train with --norms all.",
        )
    directions: Directions
    if config.direction == "both":
        directions = tuple(map(info.require, BOTH_DIRECTIONS))
    else:
        directions = (info.choose_direction(config.to, config.direction),)
    _refuse_for_bands(config, info, directions)
    planned = plan_outputs(chosen, info, directions, config.which, config.output, config.overwrite)
    jobs = [
        Job(
            checkpoint,
            group,
            output,
            chosen,
            precision=config.precision,
            image_io=config.image_io,
            calibration=config.calibration,
            min_psnr=DEFAULT_MIN_PSNR if config.min_psnr is None else config.min_psnr,
            opset=config.opset or OPSET,
        )
        for group, output in planned
    ]
    for job in jobs:
        refuse_overwriting(job)
    if config.calibration is not None:
        from cyclegan_cli.exporting.calibration import calibration_files  # Imports torch.

        calibration_files(config.calibration)
    return jobs


def _refuse_for_bands(config: ExportConfig, info: ModelInfo, directions: Directions) -> None:
    """Refuse options that are for RGB images where a domain has other images."""
    formats = [
        band_format for one in directions for band_format in info.formats_of(one) if band_format
    ]
    if config.image_io and any(found.dtype != "uint8" for found in formats):
        raise UsageError(
            f"--image-io takes and returns uint8, but a domain has {formats[0]}",
            "Export without it: the file then takes and returns tensors in [-1, 1].",
        )
    if config.image_io and any((f.low, f.high) != ((0.0,), (255.0,)) for f in formats):
        raise UsageError(
            "--image-io maps 0 to 255 to [-1, 1], but a domain has another range",
            "Export without it: the file then takes and returns tensors in [-1, 1].",
        )


def check_options(config: ExportConfig) -> None:
    """Refuse options that contradict each other.

    Raises:
        UsageError: They do, or the format's packages are not installed.
    """
    chosen, precision = FORMATS[config.format], config.precision
    if precision not in chosen.precisions:
        raise UsageError(
            f"--precision {precision} is not supported by {chosen.name}",
            f"Supported are {', '.join(chosen.precisions)}.",
        )
    if config.image_io and not chosen.image_io:
        able = ", ".join(entry.name for entry in FORMATS.values() if entry.image_io)
        raise UsageError(f"--image-io is not supported by {chosen.name}", f"Use {able}.")
    if precision == "int8" and config.calibration is None:
        raise UsageError(
            "--precision int8 needs --calibration",
            "Name a folder of images of the source domain.",
        )
    if precision == "int8" and config.direction == "both":
        raise UsageError(
            "--direction both cannot be calibrated with the images of one domain",
            "Export the directions separately, each with images of its source domain.",
        )
    for name, value in (("--calibration", config.calibration), ("--min-psnr", config.min_psnr)):
        if value is not None and precision != "int8":
            raise UsageError(f"{name} is only for --precision int8", "Omit it.")
    if config.opset is not None:
        if chosen.name != "onnx":
            raise UsageError("--opset is only for --format onnx", "Omit it.")
        extension = "--image-io" if config.image_io else f"--precision {precision}"
        if (config.image_io or precision == "int8") and config.opset < LOWEST_OPSET_EXTENDED:
            raise UsageError(
                f"--opset {config.opset}: with {extension} it must be {LOWEST_OPSET_EXTENDED} to "
                f"{OPSET}",
                f"Omit {extension}, or raise it.",
            )
    chosen.require_packages()


def plan_outputs(
    chosen: Format,
    info: ModelInfo,
    directions: Directions,
    which: Which,
    output: str | None,
    overwrite: bool,
) -> list[tuple[Directions, Path]]:
    """Return which directions go into which file.

    Args:
        chosen: The format.
        info: The description of the model.
        directions: One or both.
        which: The checkpoint of the run, for file names that state it.
        output: ``--output``: a file, or a folder if two files are written; None: files named after
            the domains, in the current folder.
        overwrite: Whether existing files may be replaced.

    Raises:
        UsageError: The name is not valid for the format, or exists.
    """
    is_split = len(directions) > 1 and not chosen.holds_both
    groups: list[Directions] = [(one,) for one in directions] if is_split else [directions]
    if output is not None:
        _refuse_other_programs(output)
    names = [_default_name(chosen, info, group, which) for group in groups]
    if is_split:
        folder = Path(output or ".")
        if folder.exists() and not folder.is_dir():
            raise UsageError(
                f"-o {output} is a file, but {chosen.name} writes one file per direction",
                "Name a folder.",
            )
        files = [folder / name for name in names]
    else:
        files = [_named_file(chosen, output) if output else Path(names[0])]
    for file in files:
        for path in output_files(chosen, file):
            if path.is_dir() or (path.exists() and not overwrite):
                hint = "Name a file." if path.is_dir() else "Replace it with --overwrite."
                raise UsageError(f"-o {path} already exists", hint)
    return list(zip(groups, files, strict=True))


def _default_name(chosen: Format, info: ModelInfo, directions: Directions, which: Which) -> str:
    """Return ``day2night``, ``day-night`` for both directions, or the original's name."""
    stem = f"{info.name_a}-{info.name_b}"
    if chosen.name == "pth":
        stem = f"{which}_net_G_{'A' if directions[0] == 'a2b' else 'B'}"
    elif len(directions) == 1:
        stem = f"{info.source(directions[0])}2{info.target(directions[0])}"
    return stem + chosen.extensions[0]


def _refuse_other_programs(output: str) -> None:
    """Refuse a file that would have the extension of another program's format."""
    if output == "-":
        raise UsageError("-o - is standard output, to which no model is written", "Name a file.")
    if hint := OTHER_PROGRAMS.get(Path(output).suffix.lower()):
        raise UsageError(f"-o {output}: {Path(output).suffix} files are not supported", hint)


def _named_file(chosen: Format, output: str) -> Path:
    if output.endswith(("/", os.sep)):
        raise UsageError(f"-o {output} names a folder", "Name a file.")
    file, extension = Path(output), chosen.extensions[0]
    others = {entry.extensions[0]: entry.name for entry in FORMATS.values()}
    other = others.get(file.suffix, chosen.name)
    if other != chosen.name:
        raise UsageError(
            f"-o {output} has the extension of {other}, but --format is {chosen.name}",
            f"Use {extension}, or add --format {other}.",
        )
    if file.suffix and file.suffix != extension:
        raise UsageError(
            f"-o {output} does not have the extension of --format {chosen.name}",
            f"Use {extension}.",
        )
    if len(chosen.extensions) > 1 and not file.suffix:
        raise UsageError(
            f"-o {output}: {chosen.name} writes a {extension} file and a companion",
            f"Use the extension {extension}.",
        )
    return file


def refuse_overwriting(job: Job) -> None:
    """Refuse to replace a checkpoint by its own export, whatever the paths are.

    Raises:
        UsageError: An output is the checkpoint.
    """
    sources = job.checkpoint.files(job.directions)
    for output in job.outputs:
        if output.exists() and any(map(output.samefile, sources)):
            raise UsageError(f"-o {output} is the checkpoint itself", "Name another file.")
