"""``cyclegan export``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cyclegan_cli.cli import console
from cyclegan_cli.cli.options import config_options
from cyclegan_cli.config import ExportConfig

if TYPE_CHECKING:
    from cyclegan_cli.exporting.exporter import Report


@config_options(ExportConfig)
def export_command(config: ExportConfig) -> None:
    """Export a model to another runtime's format, and verify it.

    A file appears only after its runtime has opened it and its outputs have been compared with
    the network's; the tolerance depends on the precision.
    """
    from cyclegan_cli.exporting.job import plan_jobs

    jobs = plan_jobs(config)
    from cyclegan_cli.exporting.exporter import export  # Imports torch.

    for job in jobs:
        report = export(job)
        if config.json:
            console.json_line(report.to_document())
        else:
            _show(report)


def _show(report: Report) -> None:
    """Print a report as lines of text."""
    job, document, verification = report.job, report.document, report.verification
    info = job.checkpoint.info
    directions = ", ".join(f"{info.source(one)} -> {info.target(one)}" for one in job.directions)
    console.result(
        f"{job.output} ({directions}): {job.format.name} {job.precision}, {report.size:,} bytes"
    )
    unit = " of 255" if job.image_io else ""
    psnr = "identical" if verification.psnr is None else f"PSNR {verification.psnr:.1f} dB"
    console.result(
        f"difference to the network: largest {verification.largest_difference:.2g}{unit}, "
        f"mean {verification.mean_difference:.2g}{unit}, {psnr}"
    )
    decisive = verification.decisive
    compared = ", ".join(f"{check.what} {'x'.join(map(str, check.size))}" for check in decisive)
    if len(decisive) < len(verification.checks):
        compared = f"{len(decisive)} held-out images"
    console.result(f"compared on: {compared}")
    versions = ", ".join(f"{name} {number}" for name, number in document["versions"].items())
    console.result(f"versions: {versions}")
    source = document["source"]
    console.result(f"sha256: {source['sha256']}  {source['file']} (source)")
    for name, digest in report.sha256.items():
        console.result(f"sha256: {digest}  {name}")
