"""What ``cyclegan translate`` does with its options."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cyclegan_cli.cli import console
from cyclegan_cli.cli.interrupts import StopRequest, leave_at_once, stop_request
from cyclegan_cli.cli.options import chosen_direction, parse_domains, parse_memory
from cyclegan_cli.cli.pixels import encode_options, ending_of, known_ending
from cyclegan_cli.cli.verbosity import refuse_both, say_how_it_translates
from cyclegan_cli.errors import (
    InterruptedRunError,
    OutputError,
    SomeFailedError,
    UsageError,
)

if TYPE_CHECKING:
    from cyclegan_cli.checkpoints.header import Direction
    from cyclegan_cli.checkpoints.locate import Which
    from cyclegan_cli.config import PrecisionChoice
    from cyclegan_cli.data.image import EncodeOptions
    from cyclegan_cli.runtime.distributed_env import DistributedEnv
    from cyclegan_cli.translation.outcomes import Outcome, Summary
    from cyclegan_cli.translation.pipeline import Pipeline
    from cyclegan_cli.translation.planning import Plan
    from cyclegan_cli.translation.translator import Translator
    from cyclegan_cli.translation.work import Existing, FileWork

STREAM = "-"
STDIN_NAMES = frozenset({"/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"})
STDOUT_NAMES = frozenset({"/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"})
RERUN = "Run the same command again: what is written is skipped."


@dataclass(frozen=True)
class Request:
    """The options of the command, as the user gave them; each has the name of its option."""

    inputs: tuple[str, ...]
    checkpoint: Path | None
    which: Which
    to: str | None
    direction: Direction | None
    domains: str | None
    device: str
    precision: PrecisionChoice
    max_memory: str | None
    max_megapixels: float | None
    resize: int | None
    compile: bool
    files_from: str | None
    null: bool
    recursive: bool
    root: str | None
    output: str | None
    suffix: str | None
    name_template: str | None
    overwrite: bool
    if_newer: bool
    format: str | None
    quality: int | None
    bit_depth: Literal["8", "16"] | None
    keep_profile: bool
    keep_mode: bool
    workers: int | None
    shard: str | None
    fail_fast: bool
    as_json: bool
    ordered: bool
    quiet: bool
    verbose: bool

    @property
    def existing(self) -> Existing:
        """What is done about an output that exists."""
        if self.overwrite:
            return "overwrite"
        return "if-newer" if self.if_newer else "skip"

    @property
    def is_stream(self) -> bool:
        """Whether an image comes from standard input or goes to standard output."""
        return STREAM in self.inputs or self.output == STREAM


def translate(request: Request) -> None:
    """Do what the options say.

    Raises:
        CycleGANError: As documented for the exit codes.
    """
    from cyclegan_cli.runtime.distributed_env import read_distributed_env

    request = _with_streams(request)
    _refuse_contradictions(request)
    if request.max_megapixels is not None:
        from cyclegan_cli.data.open_image import limit_pixels

        limit_pixels(round(request.max_megapixels * 1e6))
    env = read_distributed_env()
    if request.is_stream:
        from cyclegan_cli.cli.stream import translate_stream

        translate_stream(request, env)
    else:
        _translate_files(request, env)


def _with_streams(request: Request) -> Request:
    """The same with ``-`` for the names that systems have for standard input and output."""
    return replace(
        request,
        inputs=tuple(STREAM if name in STDIN_NAMES else name for name in request.inputs),
        output=STREAM if request.output in STDOUT_NAMES else request.output,
    )


def _refuse_contradictions(request: Request) -> None:
    refuse_both(request.verbose, request.quiet)
    if request.max_memory is not None:
        parse_memory(request.max_memory)
    if not request.inputs and request.files_from is None:
        raise UsageError("there is no INPUT", "Name an image, a folder or a glob.")
    if request.overwrite and request.if_newer:
        raise UsageError("--overwrite and --if-newer exclude each other", "Give one of them.")
    if request.root is not None and request.output is None:
        raise UsageError("--root keeps places in an output folder, and there is none",
                         "Name one with -o.")  # fmt: skip
    if request.null and request.files_from is None:
        raise UsageError("--null says how a list is written, and there is none",
                         "Give it with --files-from.")  # fmt: skip


def checkpoint_of(request: Request, env: DistributedEnv) -> tuple[Path, Direction, str]:
    """The checkpoint's file, the direction and the name of the domain translated to."""
    from cyclegan_cli.checkpoints.locate import chosen_checkpoint, default_checkpoint
    from cyclegan_cli.checkpoints.reading import read_model

    domains = parse_domains(request.domains)
    if request.checkpoint:
        file = chosen_checkpoint(request.checkpoint, request.which)
    else:
        file = default_checkpoint(request.which)
    if request.checkpoint is None and env.is_rank_zero and not request.quiet:
        console.say(f"checkpoint: {_called(file)}")
    info = read_model(file, domains)
    direction = chosen_direction(info, request.to, request.direction)
    return file, direction, info.target(direction)


def _called(file: Path) -> str:
    """A checkpoint as the user knows it."""
    from cyclegan_cli.checkpoints.pretrained import pretrained_file

    if file == pretrained_file(file.stem):
        return f"{file.stem}, a model that comes with cyclegan-cli"
    return str(file)


def load(request: Request, env: DistributedEnv, file: Path, direction: Direction) -> Translator:
    """The translator, on the device that is this process's."""
    from cyclegan_cli.runtime.devices import device_for_rank
    from cyclegan_cli.runtime.memory import keep_freed_memory
    from cyclegan_cli.runtime.threads import divide_threads
    from cyclegan_cli.translation.translator import Translator, TranslatorOptions

    keep_freed_memory()
    divide_threads(env.local_world_size)
    device = device_for_rank(request.device, env.local_rank, env.local_world_size)
    options = TranslatorOptions(
        device,
        request.precision,
        parse_memory(request.max_memory) if request.max_memory is not None else None,
        request.resize,
        request.compile,
    )
    translator = Translator.load(
        file, direction, domains=parse_domains(request.domains), options=options
    )
    if env.is_rank_zero and not request.quiet:
        for remark in translator.remarks:
            console.say(remark)
    if request.verbose and env.is_rank_zero:
        say_how_it_translates(translator, file)
    return translator


# Many files


def _translate_files(request: Request, env: DistributedEnv) -> None:
    """All but the device is checked before torch is loaded."""
    file, direction, target = checkpoint_of(request, env)
    plan, options = _plan(request, env, target)
    if plan.passed_over and env.is_rank_zero:
        console.warn(plan.passed_over)
    if len(plan) < plan.images and env.is_rank_zero and not request.quiet:
        console.say(f"{len(plan)} of {plan.images} images are this process's share")
    translator = load(request, env, file, direction)
    from cyclegan_cli.runtime.threads import limit_openmp_spin
    from cyclegan_cli.translation.outcomes import Summary
    from cyclegan_cli.translation.work import FileWork

    work = FileWork(translator, request.existing, options)
    summary = Summary(len(plan))
    with (
        stop_request("finishing the images in work", leave_at_once) as stop_requested,
        limit_openmp_spin(),
    ):
        try:
            _work_off(_pipeline(request, plan, work, stop_requested), summary, request)
        except OutputError:
            summary.stopped = "disk full"
            show_summary(summary, request, env)
            raise
        summary.stopped = _why_stopped(summary, request, stop_requested)
        show_summary(summary, request, env)
        if env.is_torchrun and summary.stopped is None:
            from cyclegan_cli.translation.ranks import wait_for_all

            wait_for_all(env, stop_requested)
    raise_what_went_wrong(summary, stop_requested)


def _plan(request: Request, env: DistributedEnv, target: str) -> tuple[Plan, EncodeOptions]:
    from cyclegan_cli.runtime.distributed_env import SINGLE_SHARD, parse_shard
    from cyclegan_cli.translation.inputs import Inputs, PathList
    from cyclegan_cli.translation.naming import plan_naming
    from cyclegan_cli.translation.planning import Plan, folder_to_leave_out

    ending = ending_of(request)
    shard = parse_shard(request.shard) if request.shard is not None else SINGLE_SHARD
    listed = None
    if request.files_from is not None:
        if request.files_from == STREAM and env.world_size > 1:
            raise UsageError("--files-from -: several processes cannot share standard input",
                             "Write the list to a file.")  # fmt: skip
        stdin = sys.stdin.buffer if sys.stdin else None
        listed = PathList.open(request.files_from, request.null, stdin)
    inputs = Inputs(
        request.inputs, listed, request.recursive, request.root, folder_to_leave_out(request.output)
    )
    naming = plan_naming(
        request.output, inputs.first_two(), target, request.name_template, request.suffix, ending
    )
    options = encode_options(request, known_ending(naming.file, ending))
    return Plan(inputs, naming, request.existing != "skip", shard.subdivide(env.shard)), options


def _pipeline(
    request: Request, plan: Plan, work: FileWork, stop_requested: StopRequest
) -> Pipeline:
    from cyclegan_cli.translation.admission import Limits
    from cyclegan_cli.translation.pipeline import Pipeline
    from cyclegan_cli.translation.work import default_workers

    return Pipeline(
        plan,
        work,
        Limits(request.workers or default_workers(work.translator.device)),
        request.ordered,
        request.fail_fast,
        stop_requested,
    )


def _work_off(pipeline: Pipeline, summary: Summary, request: Request) -> None:
    started = time.monotonic()
    with closing(pipeline.outcomes()) as outcomes:
        try:
            for outcome in outcomes:
                summary.counts[outcome.status] += 1
                show(outcome, request)
        finally:
            summary.seconds = time.monotonic() - started


def _why_stopped(summary: Summary, request: Request, stop_requested: StopRequest) -> str | None:
    """Why not all images are through, where they are not."""
    if summary.counts.total() >= summary.images:
        return None
    if stop_requested.signal_number:
        return signal.Signals(stop_requested.signal_number).name
    if request.fail_fast and summary.counts["failed"]:
        return "failure"
    return None


def raise_what_went_wrong(summary: Summary, stop_requested: StopRequest) -> None:
    """End with the exit code that fits what became of the images.

    Raises:
        InterruptedRunError: Not all are through, because of a signal.
        SomeFailedError: Some failed.
    """
    done, failed = summary.counts.total(), summary.counts["failed"]
    so_far = f"{done} of {summary.images} images"
    if stop_requested.signal_number and summary.stopped:
        raise InterruptedRunError(f"stopped after {so_far}", RERUN, stop_requested.signal_number)
    if summary.stopped:
        raise SomeFailedError(f"stopped at the first failure (--fail-fast), after {so_far}", RERUN)
    gone = summary.images - done
    if failed or gone:
        also_gone = f", {gone} were gone before it was their turn" if gone else ""
        raise SomeFailedError(f"{failed} of {summary.images} images failed{also_gone}")


def show(outcome: Outcome, request: Request) -> None:
    """Tell what became of an image."""
    if request.as_json:
        console.json_line(outcome.to_document())
    for sentence in outcome.warnings:
        console.warn(f"{outcome.input}: {sentence}")
    if outcome.status == "failed":
        error = outcome.error or ""
        # Of an image that finds too little memory nobody but us knows the name.
        is_named = any(name in error for name in (outcome.input, outcome.output))
        console.warn(error if is_named or outcome.input == STREAM else f"{outcome.input}: {error}")
    elif not request.quiet and not request.as_json:
        more = " (exists, skipped)" if outcome.status == "skipped" else ""
        if request.verbose and not more:
            more = f" ({outcome.width}x{outcome.height}, {outcome.seconds:.2f} s)"
        console.say(f"{outcome.input} -> {outcome.output}{more}")


def show_summary(summary: Summary, request: Request, env: DistributedEnv) -> None:
    """Tell what became of all of them."""
    if request.as_json:
        console.json_line(summary.to_document())
    if not request.quiet and summary.images > 1:
        counts = ", ".join(
            f"{summary.counts[status]} {word}"
            for status, word in (("ok", "translated"), ("skipped", "skipped"), ("failed", "failed"))
        )
        console.say(f"rank {env.rank}: {counts}" if env.world_size > 1 else counts)
