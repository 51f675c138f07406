"""``cyclegan translate`` of one image from standard input or to standard output."""

from __future__ import annotations

import glob
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cyclegan_cli.cli import console
from cyclegan_cli.cli.interrupts import StopRequest
from cyclegan_cli.cli.pixels import encode_options, ending_of, known_ending
from cyclegan_cli.cli.translation import (
    checkpoint_of,
    load,
    raise_what_went_wrong,
    show,
    show_summary,
)
from cyclegan_cli.config import STREAM, TranslateConfig
from cyclegan_cli.errors import DataError, DeviceError, UsageError
from cyclegan_cli.files import is_disk_full

if TYPE_CHECKING:
    from cyclegan_cli.data.image import EncodeOptions
    from cyclegan_cli.runtime.distributed_env import DistributedEnv
    from cyclegan_cli.translation.outcomes import Outcome
    from cyclegan_cli.translation.translator import Translator


def translate_stream(request: TranslateConfig, env: DistributedEnv) -> None:
    """Do what the options say, where an input or the output is ``-``.

    Raises:
        CycleGANError: As documented for the exit codes.
    """
    _refuse_what_a_stream_has_not(request, env)
    _refuse_more_than_one(request)
    source = _source(request.inputs[0])
    ending = ending_of(request)
    target = _target(request, ending)
    file = target if isinstance(target, Path) else None
    options = encode_options(request, known_ending(file, ending))
    checkpoint, direction, _ = checkpoint_of(request, env)
    from cyclegan_cli.translation.outcomes import Outcome, Summary

    summary = Summary(1)
    if isinstance(target, Path) and target.is_file() and not request.overwrite:
        outcome = Outcome(STREAM, str(target), "skipped")
    else:
        translator = load(request, env, checkpoint, direction)
        started = time.monotonic()
        outcome = _translated(source, target, translator, options, ending)
        summary.seconds = time.monotonic() - started
    summary.counts[outcome.status] += 1
    outcome = replace(outcome, seconds=round(summary.seconds, 4))
    show(outcome, request)
    show_summary(summary, request, env)
    raise_what_went_wrong(summary, StopRequest())


def _refuse_what_a_stream_has_not(request: TranslateConfig, env: DistributedEnv) -> None:
    """Options that mean nothing here, and those that would disturb the image on stdout."""
    refused = {
        "--files-from": request.files_from is not None,
        "--suffix": request.suffix is not None,
        "--name-template": request.name_template is not None,
        "--root": request.root is not None,
        "--if-newer": request.if_newer,
        "--shard": request.shard is not None,
        "--json, unless -o names a file": request.json and request.output in (None, STREAM),
        "more than one process": env.world_size > 1,
    }
    for what, is_given in refused.items():
        if is_given:
            raise UsageError(
                f"an image on standard input or output (-) excludes {what}",
                "Leave one of them out.",
            )


def _refuse_more_than_one(request: TranslateConfig) -> None:
    name = request.inputs[0]
    several = len(request.inputs) > 1 or Path(name).is_dir()
    if several or (glob.has_magic(name) and not Path(name).exists()):
        raise UsageError(
            "- is a single image on standard input or output, and these inputs may be several",
            "Name one image, or an output folder.",
        )


def _source(name: str) -> Path | BinaryIO:
    if name != STREAM:
        from cyclegan_cli.translation.inputs import refuse_missing

        refuse_missing(name, name)
        return Path(name)
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError(
            "INPUT -: nothing is piped into standard input",
            "Pipe an image into it, as in: curl URL | cyclegan translate -",
        )
    return sys.stdin.buffer


def _target(request: TranslateConfig, ending: str | None) -> Path | BinaryIO:
    if request.output in (None, STREAM):
        return console.binary_stdout()
    from cyclegan_cli.translation.inputs import Source
    from cyclegan_cli.translation.naming import plan_naming

    file = plan_naming(request.output, [Source(STREAM, STREAM)], "", ending=ending).file
    if file is None:
        raise UsageError(
            f"-o {request.output} names a folder, and an image on standard input has no name",
            "Name a file.",
        )
    return Path(file)


def _translated(
    source: Path | BinaryIO,
    target: Path | BinaryIO,
    translator: Translator,
    options: EncodeOptions,
    ending: str | None,
) -> Outcome:
    from cyclegan_cli.runtime.threads import limit_openmp_spin
    from cyclegan_cli.translation.outcomes import Outcome
    from cyclegan_cli.translation.work import translate_stream

    try:
        with limit_openmp_spin():
            return translate_stream(source, target, translator, options, ending)
    except (DataError, DeviceError, MemoryError) as error:
        if is_disk_full(error):
            raise
        names = [str(side) if isinstance(side, Path) else STREAM for side in (source, target)]
        sentence = (
            f"{names[0]}: not enough memory" if isinstance(error, MemoryError) else error.message
        )
        return Outcome(names[0], names[1], "failed", sentence)
