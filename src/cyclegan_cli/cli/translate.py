"""``cyclegan translate``."""

from __future__ import annotations

import glob
import io
import signal
import sys
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cyclegan_cli.cli import console
from cyclegan_cli.cli.interrupts import StopRequest, leave_at_once, stop_request
from cyclegan_cli.cli.options import config_options
from cyclegan_cli.cli.video_display import VideoDisplay
from cyclegan_cli.config import (
    STDOUT_NAMES,
    STREAM,
    BandFormat,
    TranslateConfig,
)
from cyclegan_cli.data.video_formats import is_video
from cyclegan_cli.errors import (
    DataError,
    InterruptedRunError,
    OutputError,
    SomeFailedError,
    UsageError,
)
from cyclegan_cli.runtime.threads import divide_threads, limit_openmp_spin

if TYPE_CHECKING:
    from cyclegan_cli.checkpoints.locate import Checkpoint
    from cyclegan_cli.data.image import EncodeOptions
    from cyclegan_cli.runtime.distributed_env import DistributedEnv, Shard
    from cyclegan_cli.translation.labels import LabelCopier
    from cyclegan_cli.translation.masks import Masks
    from cyclegan_cli.translation.mixed_stages import MixedStages
    from cyclegan_cli.translation.outputs import TranslationJob, TranslationPlan
    from cyclegan_cli.translation.pipeline import Outcome, Pipeline, TranslationSummary
    from cyclegan_cli.translation.translator import Translator
    from cyclegan_cli.translation.video.stages import VideoStages

RERUN = "Run the same command again: existing outputs are skipped."


@config_options(TranslateConfig)
def translate_command(config: TranslateConfig) -> None:
    """Translate images and videos into the other domain.

    Outputs have exactly the size of their input. Existing outputs are skipped; inputs are never
    overwritten. Exit code 6: some images failed, all others are written.
    """  # fmt: skip
    from cyclegan_cli.data.formats import output_extension
    from cyclegan_cli.data.open_image import limit_pixels
    from cyclegan_cli.runtime.distributed_env import parse_shard, read_distributed_env
    from cyclegan_cli.translation.outputs import output_format

    limit_openmp_spin()
    env = read_distributed_env()
    if config.is_stream:
        _refuse_for_stream(config, env)
    checkpoint = _read_checkpoint(config, env)
    direction = checkpoint.info.choose_direction(config.to, config.direction)
    if config.max_megapixels is not None:
        limit_pixels(round(config.max_megapixels * 1e6))
    extension = output_extension(config.format)
    shard = parse_shard(config.shard).subdivide(env.shard)
    source_format, target_format = checkpoint.info.formats_of(direction)
    if config.resize is not None and (source_format or target_format):
        raise UsageError("--resize is for models between RGB domains", "Leave it out.")
    target = checkpoint.info.target(direction)
    target_format = output_format(config, target_format)
    images = _resolve_images(config, env, target, extension, shard, target_format)
    masks: Masks | None = None
    labels: LabelCopier | None = None
    if config.mask is not None:
        from cyclegan_cli.translation.masks import choose_masks

        masks = choose_masks(config, source_format, target_format)
    if config.copy_labels is not None:
        from cyclegan_cli.translation.labels import choose_labels

        labels = choose_labels(config, images.jobs)
    if is_video(config.output or "") and (config.codec or config.crf is not None):
        from cyclegan_cli.translation.video.settings import VideoSettings

        VideoSettings.of(config).codec_for(config.output or "")  # Refuses it now.

    from cyclegan_cli.runtime.memory import keep_freed_memory  # Loads ctypes.
    from cyclegan_cli.translation.translator import Translator, TranslatorOptions

    keep_freed_memory()
    divide_threads(env.local_world_size)
    options = TranslatorOptions(
        config.device, config.precision, config.max_memory_bytes, config.resize, config.compile, env
    )
    translator = Translator.load(checkpoint, direction, options=options)
    translator.target_format = target_format
    _translate(config, env, images, translator, masks, labels)


def _read_checkpoint(config: TranslateConfig, env: DistributedEnv) -> Checkpoint:
    """Read the header of the selected checkpoint, and report the default one."""
    from cyclegan_cli.checkpoints.locate import (
        chosen_checkpoint,
        default_checkpoint,
        pretrained_file,
        read_checkpoint,
    )

    if config.checkpoint is not None:
        file = chosen_checkpoint(config.checkpoint, config.which)
    else:
        file = default_checkpoint(config.which)
        if env.is_rank_zero and not config.quiet:
            is_packaged = file == pretrained_file(file.stem)
            name = f"{file.stem}, a model that comes with cyclegan-cli" if is_packaged else file
            console.info(f"checkpoint: {name}")
    return read_checkpoint(file, config.domain_names)


@dataclass(frozen=True)
class ResolvedImages:
    """The images to translate, and where they are read and written.

    Attributes:
        jobs: The images of this process.
        count: Number of these images.
        encoding: How outputs are encoded.
        extension: The extension that ``--format`` selects; None: the input's format.
        stdin: Standard input, if the image is read from it.
        stdout: Standard output, if the image is written to it.
    """

    jobs: TranslationPlan | list[TranslationJob]
    count: int
    encoding: EncodeOptions
    extension: str | None
    stdin: BinaryIO | None = None
    stdout: BinaryIO | None = None


def _resolve_images(
    config: TranslateConfig,
    env: DistributedEnv,
    target: str,
    extension: str | None,
    shard: Shard,
    band_format: BandFormat | None,
) -> ResolvedImages:
    from cyclegan_cli.translation.inputs import PathList
    from cyclegan_cli.translation.outputs import plan_outputs

    listed = None
    if config.files_from is not None:
        if config.files_from == STREAM and env.world_size > 1:
            raise UsageError("--files-from -: several processes cannot share standard input",
                             "Write the list to a file.")  # fmt: skip
        stdin = sys.stdin.buffer if sys.stdin else None
        listed = PathList.open(config.files_from, config.null, stdin)
    jobs, encoding = plan_outputs(config, target, extension, listed, shard, band_format)
    if isinstance(jobs, list):
        stdin = _piped_stdin() if jobs[0].input == STREAM else None
        stdout = console.binary_stdout() if jobs[0].output == STREAM else None
        return ResolvedImages(jobs, 1, encoding, extension, stdin, stdout)
    if env.is_rank_zero:
        if jobs.skipped:
            console.warn(jobs.skipped)
        if len(jobs) < jobs.images and not config.quiet:
            console.info(f"{len(jobs)} of {jobs.images} images are in this process's shard")
    return ResolvedImages(jobs, len(jobs), encoding, extension)


def _piped_stdin() -> BinaryIO:
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError(
            "INPUT -: nothing is piped into standard input",
            "Pipe an image into it, as in: curl URL | cyclegan translate -",
        )
    return sys.stdin.buffer


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
    if is_video(config.inputs[0]) or is_video(config.output or ""):
        raise UsageError(
            "a video is neither read from standard input nor written to standard output (-)",
            "Name a file.",
        )
    name = config.inputs[0]
    several = len(config.inputs) > 1 or Path(name).is_dir()
    if several or (glob.has_magic(name) and not Path(name).exists()):
        raise UsageError(
            "- is a single image on standard input or output, but the inputs may be several",
            "Name one image, or an output folder.",
        )


def _translate(
    config: TranslateConfig,
    env: DistributedEnv,
    images: ResolvedImages,
    translator: Translator,
    masks: Masks | None,
    labels: LabelCopier | None,
) -> None:
    from cyclegan_cli.translation.file_stages import default_workers
    from cyclegan_cli.translation.pipeline import Pipeline, PipelineLimits, wait_for_all_ranks

    progress = _Progress(config.json, config.quiet, config.verbose, env)
    progress.show_setup(translator)
    translator.observer = progress.image
    images = replace(images, stdin=_buffered(images.stdin))
    limits = PipelineLimits(config.workers or default_workers(translator.device))
    with stop_request("finishing the images in progress", leave_at_once) as stop_requested:
        pipeline = Pipeline(
            images.jobs,
            _stages(config, images, translator, masks, labels, stop_requested),
            limits,
            config.ordered,
            config.fail_fast,
            stop_requested,
            images.count,
        )
        progress.consume(pipeline, stop_requested)
        if env.is_torchrun and pipeline.summary.stopped is None:
            wait_for_all_ranks(env, stop_requested)
    if labels is not None and env.is_rank_zero and not isinstance(images.jobs, list):
        for sentence in labels.write_coco(images.jobs.outputs()):
            if not config.quiet:
                console.info(sentence)
    _raise_for(pipeline.summary, stop_requested)


def _stages(
    config: TranslateConfig,
    images: ResolvedImages,
    translator: Translator,
    masks: Masks | None,
    labels: LabelCopier | None,
    stop_requested: StopRequest,
) -> MixedStages:
    """Return the stages of images and videos; those of videos are loaded if there are any."""
    from cyclegan_cli.translation.animations import AnimationSettings
    from cyclegan_cli.translation.file_stages import FileStages
    from cyclegan_cli.translation.measuring import choose_measuring
    from cyclegan_cli.translation.mixed_stages import MixedStages
    from cyclegan_cli.translation.video.settings import VideoSettings
    from cyclegan_cli.translation.volume_stages import VolumeOptions

    video = VideoSettings.of(config)
    of_images = FileStages(
        translator,
        config.existing,
        images.encoding,
        images.stdin,
        images.stdout,
        images.extension,
        masks,
        labels,
        choose_measuring(translator, config.min_structure, config.json, config.cycle_error),
        VolumeOptions(config.slice_axis, config.array, config.anonymize),
        AnimationSettings(video.smoothing, video.selection),
    )

    def load_videos() -> VideoStages:
        from cyclegan_cli.translation.video.stages import VideoStages

        return VideoStages(
            translator,
            video,
            VideoDisplay(config.json_frames, config.quiet),
            stop_requested,
            config.existing,
            images.encoding,
            masks,
            config.min_structure is not None or config.cycle_error,
        )

    return MixedStages(of_images, load_videos)


def _buffered(stdin: BinaryIO | None) -> BinaryIO | None:
    """Read standard input to its end, here: a thread that reads it cannot be interrupted."""
    try:
        return None if stdin is None else io.BytesIO(stdin.read())
    except OSError as error:
        raise DataError(f"cannot read standard input: {(error.strerror or '').lower()}") from error


class _Progress:
    """Shows the outcomes of a pipeline."""

    def __init__(self, json: bool, quiet: bool, verbose: bool, env: DistributedEnv) -> None:
        self.json, self.quiet, self.verbose = json, quiet, verbose
        self.is_rank_zero = env.is_rank_zero
        self.prefix = f"rank {env.rank}: " if env.world_size > 1 else ""
        from cyclegan_cli.cli.image_progress import ImageProgress  # Loads torch.

        # Displays of several processes would overwrite one another.
        self.image = ImageProgress(quiet or env.world_size > 1)

    def show_setup(self, translator: Translator) -> None:
        """Show the choices made for a translator."""
        if not self.is_rank_zero or self.quiet:
            return
        for sentence in (*translator.remarks, *(translator.setup if self.verbose else ())):
            console.info(sentence)

    def consume(self, pipeline: Pipeline, stop_requested: StopRequest) -> None:
        """Run the pipeline to its end, and show and count its outcomes.

        Raises:
            OutputError: The disk is full.
        """
        summary, started = pipeline.summary, time.monotonic()
        try:
            with closing(self.image), closing(pipeline.outcomes()) as outcomes:
                for outcome in outcomes:
                    self._show(outcome)
        except OutputError:
            summary.stopped, summary.seconds = "disk full", time.monotonic() - started
            self._show_summary(summary)
            raise
        summary.seconds = time.monotonic() - started
        if summary.counts.total() < summary.images:
            if stop_requested.signal_number:
                summary.stopped = signal.Signals(stop_requested.signal_number).name
            elif pipeline.fail_fast and summary.counts["failed"]:
                summary.stopped = "failure"
        self._show_summary(summary)

    def _show(self, outcome: Outcome) -> None:
        self.image.close()
        if self.json:
            console.json_line(outcome.to_document())
        for warning in outcome.warnings:
            console.warn(f"{outcome.input}: {warning}")
        if outcome.status == "failed":
            error = outcome.error or ""
            # The translator's errors name no file.
            is_named = any(name in error for name in (outcome.input, outcome.output))
            is_stream = outcome.input == STREAM
            console.warn(error if is_named or is_stream else f"{outcome.input}: {error}")
        elif not self.quiet and not self.json:
            more = " (exists, skipped)" if outcome.status == "skipped" else ""
            if outcome.status == "rejected":
                more = f" (rejected: its structure score is {outcome.structure})"
            if self.verbose and not more:
                more = f" ({outcome.width}x{outcome.height}, {outcome.seconds:.2f} s)"
            console.info(f"{outcome.input} -> {outcome.output}{more}")

    def _show_summary(self, summary: TranslationSummary) -> None:
        if self.json:
            console.json_line(summary.to_document())
        if not self.quiet and summary.images > 1:
            counts = ", ".join(
                f"{summary.counts[status]} {word}"
                for status, word in (
                    ("ok", "translated"),
                    ("skipped", "skipped"),
                    ("rejected", "rejected"),
                    ("failed", "failed"),
                )
                if summary.counts[status] or status != "rejected"
            )
            console.info(self.prefix + counts)


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
