"""``cyclegan translate``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cyclegan_cli.cli import console
from cyclegan_cli.cli.interrupts import stop_request
from cyclegan_cli.cli.options import (
    CheckpointOption,
    DeviceOption,
    DirectionOption,
    To,
    chosen_direction,
)
from cyclegan_cli.errors import InterruptedRunError, SomeFailedError

if TYPE_CHECKING:
    from cyclegan_cli.checkpoints.header import Direction
    from cyclegan_cli.translation.batch import Job, Outcome
    from cyclegan_cli.translation.translator import Translator


def translate_command(
    inputs: Annotated[
        list[str], typer.Argument(help="Pictures, folders or globs.", metavar="INPUT")
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="A file for a single picture, else a folder; a folder as input needs one.",
            metavar="FILE|DIR",
            show_default="beside the input, as photo_DOMAIN.jpg",
        ),
    ] = None,
    checkpoint: CheckpointOption = None,
    to: To = None,
    direction: DirectionOption = None,
    device: DeviceOption = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing outputs instead of skipping them.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a picture on stdout.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say only what failed.")] = False,
) -> None:
    """Translate pictures into the other domain.

    Outputs have their input's exact size. Existing outputs are skipped, inputs never overwritten.
    Exit code 6 says that some pictures failed and all others are written.
    """  # fmt: skip
    translator, jobs = _prepare(inputs, output, checkpoint, to, direction, device, overwrite, quiet)
    from cyclegan_cli.translation.batch import translate_files

    counts: Counter[str] = Counter()
    with stop_request("finishing this picture") as stop_requested:
        for outcome in translate_files(jobs, translator, overwrite, stop_requested):
            counts[outcome.status] += 1
            _show(outcome, as_json, quiet)
        if stop_requested.signal_number and counts.total() < len(jobs):
            raise InterruptedRunError(
                f"stopped after {counts.total()} of {len(jobs)} pictures",
                "Run the same command again: what is written is skipped.",
                stop_requested.signal_number,
            )
    if not quiet and len(jobs) > 1:
        console.say(
            f"{counts['ok']} translated, {counts['skipped']} skipped, {counts['failed']} failed"
        )
    if counts["failed"]:
        raise SomeFailedError(f"{counts['failed']} of {len(jobs)} pictures failed")


def _prepare(
    inputs: list[str],
    output: str | None,
    checkpoint: Path | None,
    to: str | None,
    direction: Direction | None,
    device: str,
    overwrite: bool,
    quiet: bool,
) -> tuple[Translator, list[Job]]:
    """All but the device is checked before torch is loaded."""
    from cyclegan_cli.checkpoints.header import read_model_info
    from cyclegan_cli.checkpoints.locate import checkpoint_file, default_checkpoint
    from cyclegan_cli.translation.batch import plan_jobs

    file = checkpoint_file(checkpoint) if checkpoint else default_checkpoint()
    if checkpoint is None and not quiet:
        console.say(f"checkpoint: {file}")
    info = read_model_info(file)
    chosen = chosen_direction(info, to, direction)
    jobs = plan_jobs(inputs, output, info.target(chosen), overwrite)
    from cyclegan_cli.translation.translator import Translator

    return Translator.load(file, chosen, device), jobs


def _show(outcome: Outcome, as_json: bool, quiet: bool) -> None:
    if as_json:
        console.json_line(outcome.to_document())
    for sentence in outcome.warnings:
        console.warn(f"{outcome.input}: {sentence}")
    if outcome.status == "failed":
        console.warn(outcome.error or "")
    elif not quiet and not as_json:
        skipped = " (exists, skipped)" if outcome.status == "skipped" else ""
        console.say(f"{outcome.input} -> {outcome.output}{skipped}")
