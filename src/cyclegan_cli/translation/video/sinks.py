"""Where translated frames go: into segments of packets, or into image files."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from cyclegan_cli.data.encode import encode
from cyclegan_cli.data.formats import writable_format
from cyclegan_cli.data.image import DecodedImage, EncodeOptions
from cyclegan_cli.data.video_formats import frame_path
from cyclegan_cli.translation.video.encoder import SegmentEncoder, VideoFormat
from cyclegan_cli.translation.video.reader import Frame
from cyclegan_cli.translation.video.segments import SegmentState, WorkFolder


class FrameSink(Protocol):
    """Receives translated frames, in one thread."""

    def write(self, frame: Frame) -> None:
        """Add a frame."""

    def end_segment(self, state: SegmentState) -> None:
        """Store all frames so far, and what the next one depends on."""


class EncodedFrames:
    """Encodes frames into segments.

    Args:
        work: The segments.
        video: How frames are encoded.
    """

    def __init__(self, work: WorkFolder, video: VideoFormat) -> None:
        self._work, self._video = work, video
        self._encoder: SegmentEncoder | None = None

    def write(self, frame: Frame) -> None:
        """Encode a frame."""
        self._encoder = self._encoder or SegmentEncoder(self._video)
        self._encoder.write(frame)

    def end_segment(self, state: SegmentState) -> None:
        """Store the packets since the last segment."""
        if self._encoder is None:
            return
        self._encoder.finish()
        self._work.add(self._encoder.packets, self._encoder.durations, state)
        self._encoder = None


class ImageSequence:
    """Writes each frame as an image file.

    Args:
        work: Records how many frames are written.
        pattern: The path, with a number like ``%05d``.
        options: How images are encoded.
    """

    def __init__(self, work: WorkFolder, pattern: str, options: EncodeOptions) -> None:
        self._work, self._pattern, self._options = work, pattern, options
        self._number = work.state.frames

    def write(self, frame: Frame) -> None:
        """Write a frame; the first number is 1."""
        self._number += 1
        path = Path(frame_path(self._pattern, self._number))
        image = DecodedImage((frame.pixels,))
        encode(image, path, writable_format(path.suffix) or "PNG", self._options)

    def end_segment(self, state: SegmentState) -> None:
        """Record how many frames are written."""
        self._work.add((), {}, state)
