"""What the options of ``translate`` select for videos."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from cyclegan_cli.config import Smoothing, TranslateConfig, VideoCodec
from cyclegan_cli.data.video_formats import CODECS_OF, HIGHEST_CRF, container_of
from cyclegan_cli.errors import UsageError
from cyclegan_cli.translation.selection import ALL_FRAMES, Selection


@dataclass(frozen=True)
class VideoSettings:
    """How videos are translated.

    Attributes:
        codec: The codec; None: the container's default.
        crf: The quality; None: the codec's default.
        selection: The frames.
        smoothing: The share of earlier frames in the statistics of instance norms, or ``shot``:
            they are fixed over each shot.
    """

    codec: VideoCodec | None = None
    crf: int | None = None
    selection: Selection = ALL_FRAMES
    smoothing: Smoothing = 0.9

    @classmethod
    def of(cls, config: TranslateConfig) -> VideoSettings:
        """Return the settings of the options."""
        selection = Selection(config.start_seconds or 0.0, config.end_seconds, config.every)
        return cls(config.codec, config.crf, selection, config.smoothing)

    def codec_for(self, output: str) -> VideoCodec:
        """Return the codec of an output.

        Raises:
            UsageError: Its container does not hold that codec, or the codec has no such quality.
        """
        extension = os.path.splitext(output)[1]
        held = CODECS_OF[container_of(extension) or "mp4"]
        codec = self.codec or held[0]
        if codec not in held:
            raise UsageError(
                f"--codec {codec}: {extension} files are not written with it",
                f"Use one of {', '.join(held)}, or the extension .mkv or .mov.",
            )
        highest = HIGHEST_CRF.get(codec)
        if self.crf is not None and (highest is None or self.crf > highest):
            limit = "has no such setting" if highest is None else f"ends at {highest}"
            raise UsageError(f"--crf {self.crf}: {codec} {limit}", "Leave --crf out.")
        return codec


class VideoEvents(Protocol):
    """Receives the progress of videos; called in the thread of the network."""

    def on_video(self, name: str, done: int, frames: int) -> None:
        """Begin a video of which ``done`` frames exist already, of ``frames``; 0 if unknown."""

    def on_frame(self, name: str, index: int, seconds: float, is_cut: bool) -> None:
        """Report a translated frame: its number, from 0, and its time in the video."""

    def on_video_end(self) -> None:
        """End the video."""

    def on_message(self, sentence: str) -> None:
        """Report something else."""


StopRequested = Callable[[], int | None]
Record = dict[str, Any]
