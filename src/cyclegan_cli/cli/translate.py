"""``cyclegan translate``."""

from __future__ import annotations

import glob
import io
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cyclegan_cli.cli import console
from cyclegan_cli.cli.interrupts import StopRequest, leave_at_once, stop_request
from cyclegan_cli.cli.options import chosen_direction, config_options
from cyclegan_cli.cli.verbosity import show_environment
from cyclegan_cli.config import (
    STDIN_NAMES,
    STDOUT_NAMES,
    STREAM,
    TranslateConfig,
)
from cyclegan_cli.errors import (
    DataError,
    InterruptedRunError,
    OutputError,
    SomeFailedError,
    UsageError,
)
from cyclegan_cli.runtime.threads import limit_openmp_spin

if TYPE_CHECKING:
    from cyclegan_cli.checkpoints.header import Direction
    from cyclegan_cli.checkpoints.locate import Checkpoint
    from cyclegan_cli.data.image import EncodeOptions
    from cyclegan_cli.runtime.distributed_env import DistributedEnv
    from cyclegan_cli.translation.file_stages import Existing
    from cyclegan_cli.translation.outputs import TranslationJob
    from cyclegan_cli.translation.pipeline import Outcome, Pipeline, TranslationSummary
    from cyclegan_cli.translation.translator import Translator

RERUN = "Run the same command again: existing outputs are skipped."


@dataclass(frozen=True)
class TranslationRun:
    """What the options resolve to, before torch is loaded.

    Attributes:
        config: The options.
        env: The environment of this process.
        checkpoint: The checkpoint, whose header has been read.
        direction: The direction of the translation.
        jobs: The images of this process.
        images: Number of these images.
        encoding: How outputs are encoded.
        extension: The extension that ``--format`` selects for an image on standard output.
        stdin: Standard input, if the image is read from it.
        stdout: Standard output, if the image is written to it.
    """

    config: TranslateConfig
    env: DistributedEnv
    checkpoint: Checkpoint
    direction: Direction
    jobs: Iterable[TranslationJob]
    images: int
    encoding: EncodeOptions
    extension: str | None = None
    stdin: BinaryIO | None = None
    stdout: BinaryIO | None = None


@config_options(TranslateConfig)
def translate_command(config: TranslateConfig) -> None:
    """Translate images into the other domain.

    Outputs have exactly the size of their input. Existing outputs are skipped; inputs are never
    overwritten. Exit code 6: some images failed, all others are written.
    """  # fmt: skip
    limit_openmp_spin()
    run = _resolve(config)
    translator = _load(run)
    _translate(run, translator)


def _resolve(config: TranslateConfig) -> TranslationRun:
    from cyclegan_cli.checkpoints.locate import (
        chosen_checkpoint,
        default_checkpoint,
        pretrained_file,
        read_checkpoint,
    )
    from cyclegan_cli.data.open_image import limit_pixels
    from cyclegan_cli.runtime.distributed_env import read_distributed_env
    from cyclegan_cli.translation.outputs import output_extension

    if config.max_megapixels is not None:
        limit_pixels(round(config.max_megapixels * 1e6))
    env = read_distributed_env()
    if config.is_stream:
        _refuse_for_stream(config, env)
    extension = output_extension(config.format)
    if config.checkpoint is not None:
        file = chosen_checkpoint(config.checkpoint, config.which)
    else:
        file = default_checkpoint(config.which)
        if env.is_rank_zero and not config.quiet:
            is_packaged = file == pretrained_file(file.stem)
            name = f"{file.stem}, a model that comes with cyclegan-cli" if is_packaged else file
            console.info(f"checkpoint: {name}")
    checkpoint = read_checkpoint(file, config.domain_names)
    direction = chosen_direction(checkpoint.info, config.to, config.direction)
    resolve = _resolve_stream if config.is_stream else _resolve_files
    return resolve(config, env, checkpoint, direction, extension)


def _resolve_files(
    config: TranslateConfig,
    env: DistributedEnv,
    checkpoint: Checkpoint,
    direction: Direction,
    extension: str | None,
) -> TranslationRun:
    from cyclegan_cli.runtime.distributed_env import SINGLE_SHARD, parse_shard
    from cyclegan_cli.translation.inputs import Inputs, PathList
    from cyclegan_cli.translation.outputs import (
        TranslationPlan,
        encode_options,
        folder_to_exclude,
        resolve_naming,
    )

    listed = None
    shard = parse_shard(config.shard) if config.shard is not None else SINGLE_SHARD
    if config.files_from is not None:
        if config.files_from == STREAM and env.world_size > 1:
            raise UsageError("--files-from -: several processes cannot share standard input",
                             "Write the list to a file.")  # fmt: skip
        stdin = sys.stdin.buffer if sys.stdin else None
        listed = PathList.open(config.files_from, config.null, stdin)
    root = None if config.root is None else str(config.root)
    excluded = folder_to_exclude(config.output)
    inputs = Inputs(config.inputs, listed, config.recursive, root, excluded)
    naming = resolve_naming(
        config.output,
        inputs.first_two(),
        checkpoint.info.target(direction),
        config.name_template,
        config.suffix,
        extension,
    )
    encoding = encode_options(config, Path(naming.file).suffix if naming.file else extension)
    replace = config.overwrite or config.if_newer
    plan = TranslationPlan(inputs, naming, replace, shard.subdivide(env.shard))
    if env.is_rank_zero:
        if plan.skipped:
            console.warn(plan.skipped)
        if len(plan) < plan.images and not config.quiet:
            console.info(f"{len(plan)} of {plan.images} images are in this process's shard")
    return TranslationRun(config, env, checkpoint, direction, plan, len(plan), encoding)


def _resolve_stream(
    config: TranslateConfig,
    env: DistributedEnv,
    checkpoint: Checkpoint,
    direction: Direction,
    extension: str | None,
) -> TranslationRun:
    from cyclegan_cli.translation.inputs import InputImage, refuse_missing
    from cyclegan_cli.translation.outputs import TranslationJob, encode_options, resolve_naming

    name, stdin, stdout, output = config.inputs[0], None, None, STREAM
    if name in STDIN_NAMES:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError(
                "INPUT -: nothing is piped into standard input",
                "Pipe an image into it, as in: curl URL | cyclegan translate -",
            )
        name, stdin = STREAM, sys.stdin.buffer
    else:
        refuse_missing(name, name)
    if config.output is None or config.output in STDOUT_NAMES:
        stdout = console.binary_stdout()
        encoding = encode_options(config, extension)
    else:
        source = InputImage(STREAM, STREAM)
        file = resolve_naming(config.output, [source], "", extension=extension).file
        if file is None:
            raise UsageError(
                f"-o {config.output} names a folder, but an image on standard input has no name",
                "Name a file.",
            )
        output = file
        encoding = encode_options(config, Path(file).suffix)
    job = TranslationJob(name, output)
    return TranslationRun(
        config, env, checkpoint, direction, [job], 1, encoding, extension, stdin, stdout
    )


def _refuse_for_stream(config: TranslateConfig, env: DistributedEnv) -> None:
    """Refuse options that need files, or that would write other data to standard output."""
    to_stdout = config.output is None or config.output in STDOUT_NAMES
    refused = {
        "--files-from": config.files_from is not None,
        "--suffix": config.suffix is not None,
        "--name-template": config.name_template is not None,
        "--root": config.root is not None,
        "--if-newer": config.if_newer,
        "--shard": config.shard is not None,
        "--json, unless -o names a file": config.json and to_stdout,
        "more than one process": env.world_size > 1,
    }
    for option, is_given in refused.items():
        if is_given:
            raise UsageError(
                f"an image on standard input or output (-) excludes {option}",
                "Leave one of them out.",
            )
    name = config.inputs[0]
    several = len(config.inputs) > 1 or Path(name).is_dir()
    if several or (glob.has_magic(name) and not Path(name).exists()):
        raise UsageError(
            "- is a single image on standard input or output, but the inputs may be several",
            "Name one image, or an output folder.",
        )


def _load(run: TranslationRun) -> Translator:
    """Load the translator onto the device of this process."""
    from cyclegan_cli.runtime.devices import device_for_rank
    from cyclegan_cli.runtime.memory import host_memory_free, keep_freed_memory
    from cyclegan_cli.runtime.threads import divide_threads
    from cyclegan_cli.translation.translator import Translator, TranslatorOptions

    config, env = run.config, run.env
    keep_freed_memory()
    divide_threads(env.local_world_size)
    options = TranslatorOptions(
        device_for_rank(config.device, env.local_rank, env.local_world_size),
        config.precision,
        config.max_memory_bytes,
        config.resize,
        config.compile,
    )
    translator = Translator.load(run.checkpoint, run.direction, options=options)
    if env.is_rank_zero and not config.quiet:
        for remark in translator.remarks:
            console.info(remark)
    if env.is_rank_zero and config.verbose:
        show_environment(translator.device)
        generator = translator.generator.config
        console.info(
            f"{run.checkpoint.path}: {translator.source} -> {translator.target}, "
            f"{generator.base_channels} channels, {generator.residual_blocks} residual blocks, "
            f"in {translator.precision}"
        )
        limit = config.max_memory_bytes
        limited = f"limited to {limit / 1e9:.3g} GB" if limit else "no limit"
        console.info(f"memory: {limited}; {host_memory_free() / 1e9:.3g} GB free on this machine")
    return translator


def _translate(run: TranslationRun, translator: Translator) -> None:
    from cyclegan_cli.translation.file_stages import FileStages, default_workers
    from cyclegan_cli.translation.pipeline import (
        Pipeline,
        PipelineLimits,
        TranslationSummary,
        wait_for_all_ranks,
    )

    config = run.config
    existing: Existing = (
        "overwrite" if config.overwrite else "if-newer" if config.if_newer else "skip"
    )
    stages = FileStages(
        translator, existing, run.encoding, _buffered(run.stdin), run.stdout, run.extension
    )
    limits = PipelineLimits(config.workers or default_workers(translator.device))
    summary = TranslationSummary(run.images)
    with stop_request("finishing the images in progress", leave_at_once) as stop_requested:
        pipeline = Pipeline(
            run.jobs, stages, limits, config.ordered, config.fail_fast, stop_requested
        )
        try:
            _consume(pipeline, summary, config)
        except OutputError:
            summary.stopped = "disk full"
            _show_summary(summary, run)
            raise
        if summary.counts.total() < summary.images:
            if stop_requested.signal_number:
                summary.stopped = signal.Signals(stop_requested.signal_number).name
            elif config.fail_fast and summary.counts["failed"]:
                summary.stopped = "failure"
        _show_summary(summary, run)
        if run.env.is_torchrun and summary.stopped is None:
            wait_for_all_ranks(run.env, stop_requested)
    _raise_for(summary, stop_requested)


def _buffered(stdin: BinaryIO | None) -> BinaryIO | None:
    """Read standard input to its end, here: a thread that reads it cannot be interrupted."""
    try:
        return None if stdin is None else io.BytesIO(stdin.read())
    except OSError as error:
        raise DataError(f"cannot read standard input: {(error.strerror or '').lower()}") from error


def _consume(pipeline: Pipeline, summary: TranslationSummary, config: TranslateConfig) -> None:
    """Run the pipeline, and show and count its outcomes."""
    started = time.monotonic()
    with closing(pipeline.outcomes()) as outcomes:
        try:
            for outcome in outcomes:
                summary.counts[outcome.status] += 1
                _show(outcome, config)
        finally:
            summary.seconds = time.monotonic() - started


def _show(outcome: Outcome, config: TranslateConfig) -> None:
    if config.json:
        console.json_line(outcome.to_document())
    for warning in outcome.warnings:
        console.warn(f"{outcome.input}: {warning}")
    if outcome.status == "failed":
        error = outcome.error or ""
        # The translator's errors name no file.
        is_named = any(name in error for name in (outcome.input, outcome.output))
        console.warn(error if is_named or outcome.input == STREAM else f"{outcome.input}: {error}")
    elif not config.quiet and not config.json:
        more = " (exists, skipped)" if outcome.status == "skipped" else ""
        if config.verbose and not more:
            more = f" ({outcome.width}x{outcome.height}, {outcome.seconds:.2f} s)"
        console.info(f"{outcome.input} -> {outcome.output}{more}")


def _show_summary(summary: TranslationSummary, run: TranslationRun) -> None:
    if run.config.json:
        console.json_line(summary.to_document())
    if not run.config.quiet and summary.images > 1:
        counts = ", ".join(
            f"{summary.counts[status]} {word}"
            for status, word in (("ok", "translated"), ("skipped", "skipped"), ("failed", "failed"))
        )
        console.info(f"rank {run.env.rank}: {counts}" if run.env.world_size > 1 else counts)


def _raise_for(summary: TranslationSummary, stop_requested: StopRequest) -> None:
    """Raise the error whose exit code fits the outcomes.

    Raises:
        InterruptedRunError: A signal stopped the run early.
        SomeFailedError: Some images failed.
    """
    done, failed = summary.counts.total(), summary.counts["failed"]
    so_far = f"{done} of {summary.images} images"
    if stop_requested.signal_number and summary.stopped:
        raise InterruptedRunError(f"stopped after {so_far}", RERUN, stop_requested.signal_number)
    if summary.stopped:
        raise SomeFailedError(f"stopped at the first failure (--fail-fast), after {so_far}", RERUN)
    missing = summary.images - done
    if failed or missing:
        also = f", {missing} no longer existed when they were to be read" if missing else ""
        raise SomeFailedError(f"{failed} of {summary.images} images failed{also}")
