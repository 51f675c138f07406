"""``cyclegan translate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cyclegan_cli.cli.options import (
    CheckpointOption,
    DeviceOption,
    DirectionOption,
    DomainsOption,
    To,
    WhichOption,
)
from cyclegan_cli.cli.translation import Request, translate
from cyclegan_cli.config import PrecisionChoice

INPUTS = "Inputs"
OUTPUTS = "Outputs"
PIXELS = "Pixels"
MANY = "Many images"
REPORT = "Report"
COMPUTING = "Computing"


def translate_command(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="Images, folders or globs; - for standard input.", metavar="INPUT"),
    ] = None,
    checkpoint: CheckpointOption = None,
    which: WhichOption = "latest",
    to: To = None,
    direction: DirectionOption = None,
    domains: DomainsOption = None,
    device: DeviceOption = "auto",
    files_from: Annotated[
        str | None,
        typer.Option(
            "--files-from",
            help="File with more inputs, a path a line, no globs; - for standard input.",
            metavar="LIST",
            rich_help_panel=INPUTS,
        ),
    ] = None,
    null: Annotated[
        bool,
        typer.Option(
            "--null",
            "-0",
            help="Paths in LIST end with NUL bytes, as those of find -print0.",
            rich_help_panel=INPUTS,
        ),
    ] = False,
    recursive: Annotated[
        bool,
        typer.Option(
            "--recursive/--no-recursive",
            help="Search folders in depth.",
            rich_help_panel=INPUTS,
            show_default="on",
        ),
    ] = True,
    root: Annotated[
        Path | None,
        typer.Option(
            "--root",
            readable=False,  # Whoever opens it says what is wrong.
            help="Keep each input's place below this folder in the output folder.",
            metavar="DIR",
            rich_help_panel=INPUTS,
            show_default="the input folder that it was found in",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="A file for a single image, else a folder, which folders as input need; "
            "- for standard output.",
            metavar="FILE|DIR",
            show_default="beside the input, as photo_DOMAIN.jpg",
            rich_help_panel=OUTPUTS,
        ),
    ] = None,
    suffix: Annotated[
        str | None,
        typer.Option(
            "--suffix",
            help="What names get before their ending.",
            metavar="TEXT",
            show_default="nothing in an output folder, else _DOMAIN",
            rich_help_panel=OUTPUTS,
        ),
    ] = None,
    name_template: Annotated[
        str | None,
        typer.Option(
            "--name-template",
            help="Whole names, e.g. '{parent}-{stem}_{domain}{ext}'.",
            metavar="TEMPLATE",
            rich_help_panel=OUTPUTS,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace existing outputs instead of skipping them.",
            rich_help_panel=OUTPUTS,
        ),
    ] = False,
    if_newer: Annotated[
        bool,
        typer.Option(
            "--if-newer",
            help="Replace existing outputs whose input was changed later.",
            rich_help_panel=OUTPUTS,
        ),
    ] = False,
    precision: Annotated[
        PrecisionChoice,
        typer.Option(
            "--precision",
            help="auto is bf16 where the hardware has it and a probe image reaches a PSNR of "
            "40 dB against fp32, else fp32, which is exact; tf32 needs an NVIDIA GPU from Ampere "
            "on.",
            rich_help_panel=COMPUTING,
        ),
    ] = "auto",
    max_memory: Annotated[
        str | None,
        typer.Option(
            "--max-memory",
            help="Memory for all of this process, or of the GPU, e.g. 4GB.",
            metavar="SIZE",
            show_default="what is free",
            rich_help_panel=COMPUTING,
        ),
    ] = None,
    max_megapixels: Annotated[
        float | None,
        typer.Option(
            "--max-megapixels",
            help="Refuse images that claim more, all frames together: a small file can claim "
            "enough to fill any memory.",
            metavar="N",
            min=0.01,
            max=1_000_000,
            show_default="179",
            rich_help_panel=COMPUTING,
        ),
    ] = None,
    resize: Annotated[
        int | None,
        typer.Option(
            "--resize",
            help="Translate larger images at this short side, and scale them up again.",
            metavar="PIXELS",
            min=8,
            max=100_000,
            rich_help_panel=COMPUTING,
        ),
    ] = None,
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the network, for many images on a GPU; needs a C++ compiler. "
            "Without effect on a CPU.",
            rich_help_panel=COMPUTING,
        ),
    ] = False,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="Format of all outputs: jpg, png, webp, tiff, ...",
            metavar="NAME",
            show_default="the input's, or png where that can only be read",
            rich_help_panel=PIXELS,
        ),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(
            "--quality",
            help="Of formats that lose some (jpg, webp, avif, heic).",
            min=1,
            max=100,
            metavar="1..100",
            show_default="a JPEG's own, else 85 to 92",
            rich_help_panel=PIXELS,
        ),
    ] = None,
    bit_depth: Annotated[
        Literal["8", "16"] | None,
        typer.Option(
            "--bit-depth",
            help="Bits a channel; 16 in png and tiff.",
            show_default="the input's, where the format has them",
            rich_help_panel=PIXELS,
        ),
    ] = None,
    keep_profile: Annotated[
        bool,
        typer.Option(
            "--keep-profile",
            help="Write in the input's colour profile instead of sRGB.",
            rich_help_panel=PIXELS,
        ),
    ] = False,
    keep_mode: Annotated[
        bool,
        typer.Option(
            "--keep-mode",
            help="Write grey, CMYK or a palette where the input had it, instead of RGB.",
            rich_help_panel=PIXELS,
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            help="Threads that decode, and as many that encode, beside the network.",
            min=1,
            max=64,
            metavar="N",
            show_default="1 on a CPU, else half the cores up to 8",
            rich_help_panel=MANY,
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            help="Only the K-th of N disjoint parts of the images, K from 1.",
            metavar="K/N",
            rich_help_panel=MANY,
        ),
    ] = None,
    fail_fast: Annotated[
        bool,
        typer.Option(
            "--fail-fast", help="Stop at the first image that fails.", rich_help_panel=MANY
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON object an image on stdout, as they end, and a summary.",
            rich_help_panel=REPORT,
        ),
    ] = False,
    ordered: Annotated[
        bool,
        typer.Option(
            "--ordered",
            help="Report images in the order of the inputs.",
            rich_help_panel=REPORT,
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Say only what failed.", rich_help_panel=REPORT)
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="Also say where and how it computes, and how long each image took.",
            rich_help_panel=REPORT,
        ),
    ] = False,
) -> None:
    """Translate images into the other domain.

    Outputs have their input's exact size. Existing outputs are skipped, inputs never overwritten.
    Exit code 6 says that some images failed and all others are written.
    """  # fmt: skip
    translate(
        Request(
            inputs=tuple(inputs or ()),
            checkpoint=checkpoint,
            which=which,
            to=to,
            direction=direction,
            domains=domains,
            device=device,
            precision=precision,
            max_memory=max_memory,
            max_megapixels=max_megapixels,
            resize=resize,
            compile=compile,
            files_from=files_from,
            null=null,
            recursive=recursive,
            root=None if root is None else str(root),
            output=output,
            suffix=suffix,
            name_template=name_template,
            overwrite=overwrite,
            if_newer=if_newer,
            format=format,
            quality=quality,
            bit_depth=bit_depth,
            keep_profile=keep_profile,
            keep_mode=keep_mode,
            workers=workers,
            shard=shard,
            fail_fast=fail_fast,
            as_json=as_json,
            ordered=ordered,
            quiet=quiet,
            verbose=verbose,
        )
    )
