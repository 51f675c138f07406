"""``cyclegan export``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from cyclegan_cli.cli import console
from cyclegan_cli.cli.options import DirectionOption, To, chosen_direction
from cyclegan_cli.errors import UsageError


def export_command(
    checkpoint: Annotated[
        Path, typer.Argument(help="A checkpoint file or a run folder.", metavar="CHECKPOINT")
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="The file to write.",
            metavar="FILE",
            show_default="day2night.onnx, by the domains",
        ),
    ] = None,
    format: Annotated[
        Literal["onnx"],
        typer.Option("--format", help="What to write; onnx needs the extra \\[onnx]."),
    ] = "onnx",
    to: To = None,
    direction: DirectionOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the verification as JSON on stdout.")
    ] = False,
) -> None:
    """Hand a model to other runtimes, verified.

    The file appears only after it was opened in its runtime, and no output differed from the
    network's by more than 1e-4.
    """  # fmt: skip
    from cyclegan_cli.checkpoints.header import read_model_info
    from cyclegan_cli.checkpoints.locate import checkpoint_file

    file = checkpoint_file(checkpoint)
    info = read_model_info(file)
    chosen = chosen_direction(info, to, direction)
    source = info.source(chosen)
    if output and output.endswith(("/", os.sep)):
        raise UsageError(f"-o {output} names a folder", "Name a file.")
    target = Path(output or f"{source}2{info.target(chosen)}.{format}")
    if target.is_dir() or (target.exists() and not overwrite):
        hint = "Name a file." if target.is_dir() else "Replace it with --overwrite."
        raise UsageError(f"-o {target} already exists", hint)
    from cyclegan_cli.exporting.onnx import export_onnx

    verification = export_onnx(file, target, chosen)
    if as_json:
        console.json_line(
            {"output": str(target), "format": format, "direction": chosen, "from": source,
             "to": info.target(chosen)} | verification.to_document()
        )  # fmt: skip
        return
    console.result(f"{target} ({source} -> {info.target(chosen)})")
    sizes = ", ".join(f"{batch}x3x{height}x{width}" for batch, height, width in verification.sizes)
    console.result(
        f"largest difference to the network: {verification.largest_difference:.2g} ({sizes})"
    )
