"""``cyclegan export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cyclegan_cli.checkpoints.header import BOTH_DIRECTIONS, Direction
from cyclegan_cli.checkpoints.locate import Which, chosen_checkpoint
from cyclegan_cli.cli import console
from cyclegan_cli.cli.completion import complete_checkpoint
from cyclegan_cli.cli.options import (
    DomainsOption,
    To,
    WhichOption,
    chosen_direction,
    parse_domains,
)
from cyclegan_cli.errors import UsageError
from cyclegan_cli.exporting.job import (
    FORMATS,
    MIN_OPSET,
    OPSET,
    FormatName,
    Job,
    Precision,
    check_options,
    plan_outputs,
    refuse_overwriting,
)

if TYPE_CHECKING:
    from cyclegan_cli.checkpoints.header import ModelInfo
    from cyclegan_cli.checkpoints.locate import Domains
    from cyclegan_cli.exporting.exporter import Report
    from cyclegan_cli.exporting.verify import Verification

WhichDirection = Literal["a2b", "b2a", "both"]


def export_command(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            readable=False,  # Whoever opens it says what is wrong.
            help="A checkpoint file, a run folder, or a model in the package; also a .pth file of "
            "the original implementation.",
            metavar="CHECKPOINT",
            autocompletion=complete_checkpoint,
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="The file to write; a folder where each direction has a file of its own.",
            metavar="FILE|DIR",
            show_default="day2night.onnx, by the domains",
        ),
    ] = None,
    format: Annotated[
        FormatName,
        typer.Option(
            "--format", help="What to write; onnx needs the extra \\[onnx], openvino \\[openvino]."
        ),
    ] = "onnx",
    to: To = None,
    direction: Annotated[
        WhichDirection | None,
        typer.Option("--direction", help="The same without names.", show_default="a2b"),
    ] = None,
    domains: DomainsOption = None,
    precision: Annotated[
        Precision,
        typer.Option(
            "--precision",
            help="How numbers are stored. onnx: fp32, fp16, int8; pt2, pth and openvino: fp32, "
            "fp16; safetensors: fp32, fp16, bf16.",
        ),
    ] = "fp32",
    which: WhichOption = "latest",
    image_io: Annotated[
        bool,
        typer.Option(
            "--image-io",
            help="Pixels in, pixels of the same size out: uint8, batch x height x width x 3. "
            "For onnx and openvino.",
        ),
    ] = False,
    opset: Annotated[
        int | None,
        typer.Option(
            "--opset",
            help="Version of ONNX's operators, for older runtimes: 13 to 20; 18 to 20 with "
            "--image-io or int8.",
            min=MIN_OPSET,
            max=OPSET,
            metavar="N",
            show_default=str(OPSET),
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            readable=False,  # Whoever opens it says what is wrong.
            help="Folder of images of the domain that is translated from, 8 or more; int8 is "
            "calibrated on three quarters of them and judged on the rest.",
            metavar="DIR",
        ),
    ] = None,
    min_psnr: Annotated[
        float | None,
        typer.Option(
            "--min-psnr",
            help="Write no int8 model whose PSNR against the network is lower than this, in dB.",
            min=0.0,
            max=100.0,
            metavar="DB",
            show_default="35",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a file on stdout.")
    ] = False,
) -> None:
    """Hand a model to other runtimes, verified.

    A file appears only after it was opened in its runtime and its outputs were compared with the
    network's; how near they must be depends on the precision.
    """  # fmt: skip
    if to is not None and direction is not None:
        raise UsageError("--to and --direction exclude each other", "Give one of them.")
    check_options(
        FORMATS[format], precision, image_io, calibration, min_psnr, direction == "both", opset
    )
    jobs = _plan(
        checkpoint, output, format, to, direction, parse_domains(domains), precision, which,
        image_io, calibration, min_psnr, overwrite, opset or OPSET,
    )  # fmt: skip
    from cyclegan_cli.exporting.exporter import export

    for job in jobs:
        report = export(job)
        if as_json:
            console.json_line(report.to_document())
        else:
            _show(report)


def _plan(
    checkpoint: Path,
    output: str | None,
    format: FormatName,
    to: str | None,
    direction: WhichDirection | None,
    domains: Domains | None,
    precision: Precision,
    which: Which,
    image_io: bool,
    calibration: Path | None,
    min_psnr: float | None,
    overwrite: bool,
    opset: int,
) -> list[Job]:
    """The files to write; all that can be refused without torch is."""
    from cyclegan_cli.checkpoints.locate import read_checkpoint

    file = chosen_checkpoint(checkpoint, which)
    found = read_checkpoint(file, domains)
    info = found.info
    directions = _directions(info, to, direction)
    planned = plan_outputs(FORMATS[format], info, directions, which, output, overwrite)
    jobs = [
        Job(
            found, group, target, FORMATS[format], precision, image_io, calibration,
            opset=opset, **({} if min_psnr is None else {"min_psnr": min_psnr}),
        )
        for group, target in planned
    ]  # fmt: skip
    for job in jobs:
        refuse_overwriting(job)
    if calibration is not None:
        from cyclegan_cli.exporting.calibration import calibration_files

        calibration_files(calibration)
    return jobs


def _directions(
    info: ModelInfo, to: str | None, direction: WhichDirection | None
) -> tuple[Direction, ...]:
    if direction == "both":
        for one in BOTH_DIRECTIONS:
            info.require(one)
        return BOTH_DIRECTIONS
    return (chosen_direction(info, to, direction),)


def _show(report: Report) -> None:
    """The report as lines of text."""
    job, document, verification = report.job, report.document, report.verification
    pairs = zip(*(_as_list(document[end]) for end in ("from", "to")), strict=True)
    ways = ", ".join(f"{source} -> {target}" for source, target in pairs)
    console.result(
        f"{job.output} ({ways}): {job.format.name} {job.precision}, {report.size:,} bytes"
    )
    unit = " levels" if job.image_io else ""
    psnr = "identical" if verification.psnr is None else f"PSNR {verification.psnr:.1f} dB"
    console.result(
        f"difference to the network: largest {verification.largest_difference:.2g}{unit}, "
        f"mean {verification.mean_difference:.2g}{unit}, {psnr}"
    )
    console.result(f"compared on: {_inputs(verification)}")
    versions = ", ".join(f"{name} {number}" for name, number in document["versions"].items())
    console.result(f"versions: {versions}")
    source = document["source"]
    console.result(f"sha256: {source['sha256']}  {source['file']} (source)")
    for name, digest in report.sha256.items():
        console.result(f"sha256: {digest}  {name}")


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _inputs(verification: Verification) -> str:
    """What was compared: ``noise 1x64x64, ...``, or how many held-out images."""
    judged = verification.judged
    if len(judged) < len(verification.checks):
        return f"{len(judged)} held-out images"
    sizes = ("x".join(map(str, check.size)) for check in judged)
    return ", ".join(f"{check.what} {size}" for check, size in zip(judged, sizes, strict=True))
