"""``cyclegan export``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cyclegan_cli.checkpoints.header import BOTH_DIRECTIONS, Direction
from cyclegan_cli.checkpoints.locate import chosen_checkpoint
from cyclegan_cli.cli import console
from cyclegan_cli.cli.options import chosen_direction, config_options
from cyclegan_cli.config import OPSET, ExportConfig, parse_domains
from cyclegan_cli.exporting.formats import FORMATS
from cyclegan_cli.exporting.job import (
    DEFAULT_MIN_PSNR,
    Job,
    check_options,
    plan_outputs,
    refuse_overwriting,
)

if TYPE_CHECKING:
    from cyclegan_cli.exporting.exporter import Report
    from cyclegan_cli.exporting.verify import Verification


@config_options(ExportConfig)
def export_command(config: ExportConfig) -> None:
    """Export a model to another runtime's format, and verify it.

    A file appears only after its runtime has opened it and its outputs have been compared with
    the network's; the tolerance depends on the precision.
    """  # fmt: skip
    check_options(
        FORMATS[config.format], config.precision, config.image_io, config.calibration,
        config.min_psnr, config.direction == "both", config.opset,
    )  # fmt: skip
    jobs = _plan(config)
    from cyclegan_cli.exporting.exporter import export

    for job in jobs:
        report = export(job)
        if config.json:
            console.json_line(report.to_document())
        else:
            _show(report)


def _plan(config: ExportConfig) -> list[Job]:
    """Return the files to write, after every check that needs no torch."""
    from cyclegan_cli.checkpoints.reading import read_model

    domains = parse_domains(config.domains)
    file = chosen_checkpoint(config.checkpoint, config.which)
    info = read_model(file, domains)
    if config.direction == "both":
        directions: tuple[Direction, ...] = BOTH_DIRECTIONS
        for one in directions:
            info.require(one)
    else:
        directions = (chosen_direction(info, config.to, config.direction),)
    chosen = FORMATS[config.format]
    planned = plan_outputs(chosen, info, directions, config.which, config.output, config.overwrite)
    jobs = [
        Job(
            file, group, target, chosen, config.precision, config.image_io, config.calibration,
            DEFAULT_MIN_PSNR if config.min_psnr is None else config.min_psnr, domains,
            config.opset or OPSET,
        )
        for group, target in planned
    ]  # fmt: skip
    for job in jobs:
        refuse_overwriting(job)
    if config.calibration is not None:
        from cyclegan_cli.exporting.calibration import calibration_files

        calibration_files(config.calibration)
    return jobs


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
