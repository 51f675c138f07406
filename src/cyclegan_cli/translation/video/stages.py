"""The pipeline's stages for videos.

The stage of the network reads, translates and encodes all frames of a video, with a decoding and an
encoding thread of its own. The stage of encoding joins the segments.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclegan_cli.config import Existing
from cyclegan_cli.data.decode import decode
from cyclegan_cli.data.encode import encode
from cyclegan_cli.data.formats import ANIMATED_FORMATS, writable_format
from cyclegan_cli.data.image import Animation, DecodedImage, EncodeOptions
from cyclegan_cli.data.open_image import max_pixels
from cyclegan_cli.data.video_formats import container_of, frame_path, is_sequence, is_video
from cyclegan_cli.errors import DataError, OutputError
from cyclegan_cli.files import atomic_path, sha256_of
from cyclegan_cli.translation.file_stages import keeps_output
from cyclegan_cli.translation.masks import Masks
from cyclegan_cli.translation.outputs import TranslationJob
from cyclegan_cli.translation.pipeline import JobStopped, Outcome
from cyclegan_cli.translation.progress import TranslationObserver
from cyclegan_cli.translation.video.animation import AnimationSource
from cyclegan_cli.translation.video.encoder import VideoFormat, choose_format
from cyclegan_cli.translation.video.frame_masks import FrameMasks
from cyclegan_cli.translation.video.muxer import VideoFile
from cyclegan_cli.translation.video.reader import FrameSource, VideoReader, import_av
from cyclegan_cli.translation.video.segments import WorkFolder
from cyclegan_cli.translation.video.settings import StopRequested, VideoEvents, VideoSettings
from cyclegan_cli.translation.video.sinks import (
    EncodedFrames,
    FrameSink,
    ImageSequence,
)
from cyclegan_cli.translation.video.translation import VideoTranslation

if TYPE_CHECKING:
    from cyclegan_cli.translation.translator import Translator

MAX_GIF_RATE = 50  # Viewers slow down frames of less than 20 ms.


@dataclass(frozen=True)
class VideoOutcome(Outcome):
    """The result of a video.

    Attributes:
        frames: Number of translated frames, if ok.
    """

    frames: int | None = None


@dataclass
class FinishedFrames:
    """A video all of whose frames are translated.

    Attributes:
        work: Its segments.
        source: The input.
        video: How its frames are encoded; None: as images.
        damage: Sentences about what could not be read.
    """

    work: WorkFolder
    source: FrameSource
    video: VideoFormat | None
    damage: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class VideoStages:
    """Read, translate and write videos.

    Attributes:
        translator: The translator.
        settings: How videos are translated.
        events: Receives the progress.
        stop_requested: Called before each frame. If it does not return None, the video ends there.
        existing: What to do about an existing output.
        options: How the images of a sequence are encoded.
        masks: Where frames are translated; None: everywhere.
        is_measured: Whether options ask for measures of each image, which videos do not have.
    """

    translator: Translator
    settings: VideoSettings
    events: VideoEvents
    stop_requested: StopRequested
    existing: Existing = "skip"
    options: EncodeOptions = EncodeOptions()
    masks: Masks | None = None
    is_measured: bool = False

    def is_done(self, job: TranslationJob) -> bool:
        """Return whether the output exists and is kept."""
        first = job
        if is_sequence(job.output):
            if WorkFolder.path_for(job.output).is_dir():
                return False
            first = TranslationJob(job.input, frame_path(job.output, 1))
        return keeps_output(first, self.existing, self.masks)

    def pixel_bytes(self, job: TranslationJob) -> int:
        """Return 0: the memory for frames is limited separately."""
        del job
        return 0

    def decode(self, job: TranslationJob) -> TranslationJob:
        """Return the job: frames are decoded while they are translated."""
        return job

    def translate(self, job: TranslationJob) -> FinishedFrames:
        """Translate all frames.

        Raises:
            DataError: The video cannot be read or written.
            DeviceError: There is not enough memory.
            JobStopped: A signal ended the video early.
        """
        if self.translator.source_format or self.translator.target_format:
            raise DataError(
                f"{job.input} is a video, and the model is not between RGB domains",
                "Translate images.",
            )
        if self.is_measured:
            raise DataError(
                f"{job.input} is a video, and --min-structure and --cycle-error are for images",
                "Leave them out.",
            )
        source = VideoReader(job.input) if is_video(job.input) else AnimationSource(job.input)
        observer = self.translator.observer
        self.translator.observer = TranslationObserver()  # The progress is that of the video.
        try:
            return self._translate(job, source)
        finally:
            self.translator.observer = observer
            source.close()

    def _translate(self, job: TranslationJob, source: FrameSource) -> FinishedFrames:
        info = source.info
        video = None
        if is_video(job.output):
            codec = self.settings.codec_for(job.output)
            video = choose_format(info, codec, self.settings.crf)
        work = WorkFolder(job.output, self._record(job, video))
        finished = FinishedFrames(work, source, video)
        remark = self.translator.scale_remark(info.width, info.height)
        for sentence in filter(None, (*(video.remarks if video else info.remarks), remark)):
            self.events.on_message(f"{job.input}: {sentence}")
        masks = None if self.masks is None else FrameMasks(self.masks, job, source)
        run = VideoTranslation(
            self.translator, self.settings, self.events, self.stop_requested, job.input, masks
        )
        is_complete = run.translate(source, work, self._sink(job, finished))
        finished.damage = list(source.damage)
        if not is_complete:
            self._stop(job, finished)
        return finished

    def _sink(self, job: TranslationJob, finished: FinishedFrames) -> FrameSink:
        if finished.video is not None:
            return EncodedFrames(finished.work, finished.video)
        if is_sequence(job.output):
            return ImageSequence(finished.work, job.output, self.options)
        if writable_format(Path(job.output).suffix) not in ANIMATED_FORMATS:
            raise OutputError(
                f"{job.output} cannot hold a video",
                "Name an output such as night.mp4, night.gif or frames/%05d.png.",
            )
        return ImageSequence(finished.work, self._stored_frame(finished.work), EncodeOptions())

    def _stored_frame(self, work: WorkFolder) -> str:
        return os.path.join(work.folder, "%06d.png")

    def _record(self, job: TranslationJob, video: VideoFormat | None) -> dict[str, Any]:
        """Return everything that the frames depend on."""
        entry = os.stat(job.input)
        settings, translator = self.settings, self.translator
        return {
            "input": [os.path.realpath(job.input), entry.st_size, entry.st_mtime_ns],
            "checkpoint": self._fingerprint,
            "direction": translator.direction,
            "precision": translator.precision,
            "resize": translator.options.resize,
            "device": translator.device.type,
            "selection": [*vars(settings.selection).values()],
            "smoothing": settings.smoothing,
            "images": repr(self.options),
            "mask": self._mask_record(job),
            "encoding": [video.codec, video.crf, video.pixel_format] if video else None,
            "libraries": repr(import_av(job.input).library_versions) if video else None,
        }

    @cached_property
    def _fingerprint(self) -> str | None:
        """A digest of the checkpoint's file, or of the names and times in its folder."""
        checkpoint = self.translator.checkpoint
        if checkpoint is None or not checkpoint.is_dir():
            return None if checkpoint is None else sha256_of(checkpoint)
        entries = sorted((p.name, p.stat().st_mtime_ns) for p in checkpoint.iterdir())
        return hashlib.sha256(repr(entries).encode()).hexdigest()

    def _mask_record(self, job: TranslationJob) -> list[Any] | None:
        if self.masks is None or (file := self.masks.file_of(job)) is None:
            return None
        entry = file.stat()
        return [str(file), entry.st_mtime_ns, self.masks.invert, self.masks.feather]

    def _stop(self, job: TranslationJob, finished: FinishedFrames) -> None:
        """Write a playable file of the frames so far.

        Raises:
            JobStopped: Always.
        """
        frames, partial = finished.work.state.frames, partial_path(job.output)
        if not frames:
            raise JobStopped
        if is_sequence(job.output):
            partial = f"{frame_path(job.output, 1)} to {frame_path(job.output, frames)}"
        else:
            times, durations = finished.work.times()
            if not finished.work.claim_partial(partial):
                self.events.on_message(
                    f"{job.input}: stopped; {partial} is not replaced, because it was not written "
                    "by this command; the same command continues"
                )
                raise JobStopped
            info, last = finished.source.info, max(times, default=0)
            seconds = float((last + durations.get(last, 0) - info.start) * info.time_base)
            self._write(TranslationJob(job.input, partial), finished, seconds)
        frames_named = "1 frame" if frames == 1 else f"{frames} frames"
        self.events.on_message(
            f"{job.input}: stopped after {frames_named}, which are in {partial}; the same command "
            "continues"
        )
        raise JobStopped

    def skip(self, job: TranslationJob) -> Outcome:
        """Return the outcome of a video whose translation exists."""
        return Outcome(job.input, job.output, "skipped")

    def encode(self, job: TranslationJob, finished: FinishedFrames) -> Outcome:
        """Write the output.

        Raises:
            DataError: A part of the input could not be read; the output has all others.
        """
        info, frames = finished.source.info, finished.work.state.frames
        if not frames:
            raise DataError(
                f"{job.input}: none of its frames can be decoded"
                if finished.damage
                else f"{job.input} has no frames between --start and --end"
            )
        warnings: tuple[str, ...] = ()
        if not is_sequence(job.output):
            warnings = self._write(job, finished)
        finished.work.remove()
        if finished.work.has_partial:
            with suppress(OSError):
                os.unlink(partial_path(job.output))
        if finished.damage:
            raise DataError(
                f"{job.input} is damaged: {'; '.join(finished.damage)}; {job.output} has the "
                f"other {frames} frames"
            )
        share = finished.work.state.masked / (frames * info.width * info.height)
        return VideoOutcome(
            job.input, job.output, "ok",
            width=info.width, height=info.height, warnings=warnings,
            mask_share=share if self.masks else None, frames=frames,
        )  # fmt: skip

    def _write(
        self, job: TranslationJob, finished: FinishedFrames, end: float | None = None
    ) -> tuple[str, ...]:
        """Write the frames so far, and sound up to ``end`` or to that of the selection."""
        times, durations = finished.work.times()
        info, selection = finished.source.info, self.settings.selection
        if end is not None:
            selection = replace(selection, end=end)
        if finished.video is None:
            return self._write_animation(job, finished)
        source = job.input if is_video(job.input) else None
        shift = selection.bounds(info)[0] if selection.start else 0
        container = container_of(Path(job.output).suffix) or "mp4"
        file = VideoFile(
            finished.video, source, selection, shift, has_gaps=container in ("mp4", "mov")
        )
        with atomic_path(Path(job.output)) as temporary:
            return file.write(temporary, container, times, durations, finished.work.packets)

    def _write_animation(self, job: TranslationJob, finished: FinishedFrames) -> tuple[str, ...]:
        info = finished.source.info
        count = finished.work.state.frames
        if info.width * info.height * count > max_pixels():
            raise OutputError(
                f"cannot write {job.output}: an animation of {count} frames is held in memory, and "
                "has more pixels than --max-megapixels",
                "Write a video, such as night.mp4, or raise the limit.",
            )
        pattern = self._stored_frame(finished.work)
        images = [decode(Path(frame_path(pattern, one + 1))) for one in range(count)]
        milliseconds = max(
            round(1000 * self.settings.selection.every / info.rate), 1000 // MAX_GIF_RATE
        )
        animation = Animation((float(milliseconds),) * count)
        image = DecodedImage(
            tuple(image.frames[0] for image in images), format="GIF", animation=animation
        )
        return encode(image, Path(job.output), writable_format(Path(job.output).suffix) or "GIF")


def partial_path(output: str) -> str:
    """Return where the frames of a stopped video are written: ``night.partial.mp4``."""
    stem, extension = os.path.splitext(output)
    return f"{stem}.partial{extension}"
