"""The pipeline's stages for images and videos together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cyclegan_cli.data.video_formats import is_sequence, is_video
from cyclegan_cli.translation.file_stages import FileStages
from cyclegan_cli.translation.outputs import TranslationJob
from cyclegan_cli.translation.pipeline import Outcome

if TYPE_CHECKING:
    from cyclegan_cli.translation.video.stages import VideoStages


@dataclass(frozen=True)
class MixedStages:
    """Stages of a pipeline whose jobs are images and videos.

    Attributes:
        images: The stages of images.
        load_videos: Returns the stages of videos, which are loaded for the first video.
    """

    images: FileStages
    load_videos: Callable[[], VideoStages]

    @cached_property
    def _videos(self) -> VideoStages:
        return self.load_videos()

    def _of(self, job: TranslationJob) -> FileStages | VideoStages:
        return self._videos if is_video_job(job) else self.images

    def is_done(self, job: TranslationJob) -> bool:
        """Return whether to skip a job."""
        return self._of(job).is_done(job)

    def pixel_bytes(self, job: TranslationJob) -> int:
        """Return the size of the image's pixels."""
        return self._of(job).pixel_bytes(job)

    def decode(self, job: TranslationJob) -> Any:
        """Read the image."""
        return self._of(job).decode(job)

    def translate(self, image: Any) -> Any:
        """Translate the image, or all frames of the video."""
        stages = self._videos if isinstance(image, TranslationJob) else self.images
        return stages.translate(image)

    def skip(self, job: TranslationJob) -> Outcome:
        """Return the outcome of a job that is skipped."""
        return self._of(job).skip(job)

    def encode(self, job: TranslationJob, image: Any) -> Outcome:
        """Write the translation."""
        return self._of(job).encode(job, image)


def is_video_job(job: TranslationJob) -> bool:
    """Return whether a job reads or writes a video."""
    if is_video(job.input) or is_video(job.output):
        return True
    return is_sequence(job.output) and not is_sequence(job.input)
