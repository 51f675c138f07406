"""Translate the frames of one video."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from cyclegan_cli.data.image import BitDepth
from cyclegan_cli.data.masks import composite
from cyclegan_cli.translation.smoothing import (
    CutDetector,
    Moments,
    NormStatistics,
    sample_shot,
)
from cyclegan_cli.translation.video.frame_masks import FrameMasks
from cyclegan_cli.translation.video.reader import Frame, FrameSource, VideoInfo
from cyclegan_cli.translation.video.segments import SegmentState, WorkFolder
from cyclegan_cli.translation.video.settings import StopRequested, VideoEvents, VideoSettings
from cyclegan_cli.translation.video.sinks import FrameSink
from cyclegan_cli.translation.video.threads import Consumer, Prefetcher, queue_length

if TYPE_CHECKING:
    from cyclegan_cli.translation.translator import Translator

# A killed process loses the frames of one segment; larger frames take longer. Each segment begins
# with a key frame, which needs more bits than others.
LONGEST_SEGMENT, SHORTEST_SEGMENT = 100, 25
PIXELS_PER_SEGMENT = LONGEST_SEGMENT * 1280 * 720


def segment_frames(info: VideoInfo) -> int:
    """Return the number of frames per segment."""
    fitting = PIXELS_PER_SEGMENT // (info.width * info.height)
    return min(max(fitting, SHORTEST_SEGMENT), LONGEST_SEGMENT)


@dataclass(frozen=True)
class Shots:
    """The frames between scene cuts.

    Attributes:
        starts: Index of the first frame of each shot.
        moments: Statistics of each shot.
    """

    starts: list[int] = field(default_factory=list)
    moments: list[Moments] = field(default_factory=list)

    def at(self, index: int) -> int:
        """Return the number of the shot of a frame."""
        return max(int(np.searchsorted(self.starts, index, side="right")) - 1, 0)


@dataclass
class VideoTranslation:
    """Translates the frames of one video, with threads for decoding and encoding.

    Args:
        translator: The translator.
        settings: How videos are translated.
        events: Receives the progress.
        stop_requested: Called before each frame; a result other than None ends the translation.
        name: The video in events.
        masks: Where frames are translated; None: everywhere.
    """

    translator: Translator
    settings: VideoSettings
    events: VideoEvents
    stop_requested: StopRequested
    name: str
    masks: FrameMasks | None = None

    def __post_init__(self) -> None:
        self._statistics = NormStatistics(self.translator.generator)
        self._cuts = CutDetector()
        self._shots = Shots()

    def translate(self, source: FrameSource, work: WorkFolder, sink: FrameSink) -> bool:
        """Translate the frames behind those in ``work``.

        Args:
            source: The video.
            work: The segments of earlier runs.
            sink: Receives the frames.

        Returns:
            Whether all frames are translated.

        Raises:
            DataError: The mask cannot be read, or does not fit the video.
            DeviceError: There is not enough memory.
            OutputError: A segment cannot be written.
        """
        info, selection = source.info, self.settings.selection
        if self.masks is not None and not self.masks.match(self.stop_requested):
            return False
        if self.settings.smoothing == "shot" and not self._find_shots(source, work):
            return False
        mask_bytes = info.width * info.height * 2 if self.masks is not None else 0
        length = queue_length(_frame_bytes(info) + mask_bytes)
        self._restore(work.state)
        source.damaged_at[:] = work.state.damaged
        self.events.on_video(self.name, work.state.frames, selection.count(info))
        found = source.frames(selection, work.state.last)
        if self.masks is not None:
            found = self.masks.attached(found, selection, work.state.last)
        frames = Prefetcher(found, length)
        writer = Consumer(_writer(sink), length)
        try:
            with self._smoothing():
                is_complete = self._run(frames, writer, work.state, source)
            writer.finish()
        except BaseException:
            writer.abandon()
            raise
        finally:
            frames.close()
            self.events.on_video_end()
        return is_complete

    def _run(
        self,
        frames: Prefetcher[Frame],
        writer: Consumer[tuple[Frame | None, SegmentState | None]],
        state: SegmentState,
        source: FrameSource,
    ) -> bool:
        """Translate the frames; return whether to the end."""
        info = source.info
        depth: BitDepth = 8 if info.bits <= 8 else 16
        index, last, per_segment = state.frames, state.last, segment_frames(info)
        is_complete, is_stored = True, True
        for frame in frames:
            if self.stop_requested() is not None:
                is_complete = False
                break
            is_cut = self._begin_frame(index, frame)
            pixels = self.translator.translate_array(frame.pixels, depth)
            if frame.weights is not None:
                pixels = composite(frame.pixels, pixels, frame.weights)
                self._masked += int(np.count_nonzero(frame.weights))
            seconds = float((frame.pts - info.start) * info.time_base)
            self.events.on_frame(self.name, index, seconds, is_cut)
            index, last = index + 1, frame.pts
            is_stored = index % per_segment == 0
            snapshot = self._snapshot(index, last, source) if is_stored else None
            writer.put((Frame(frame.pts, frame.duration, pixels), snapshot))
        if not is_stored:
            writer.put((None, self._snapshot(index, last, source)))
        return is_complete

    def _begin_frame(self, index: int, frame: Frame) -> bool:
        """Begin another shot if the frame does; return whether it does."""
        if self.settings.smoothing == "shot":
            shot = self._shots.at(index)
            is_first = self._shots.starts[shot] == index
            if is_first or index == self._resumed_at:
                self._statistics.moments = self._shots.moments[shot]
            return is_first
        if self.settings.smoothing == 0:
            return False
        is_cut = self._cuts.is_cut(frame.pixels)
        if is_cut:
            self._statistics.reset()
        return is_cut

    def _smoothing(self) -> AbstractContextManager[None]:
        if self.settings.smoothing == "shot":
            return self._statistics.fixed()
        if self.settings.smoothing == 0:
            return nullcontext()
        return self._statistics.exponential(self.settings.smoothing)

    def _restore(self, state: SegmentState) -> None:
        self._resumed_at, self._masked = state.frames, state.masked
        self._cuts.histogram = state.histogram
        self._statistics.moments = state.moments

    def _snapshot(self, index: int, last: int | None, source: FrameSource) -> SegmentState:
        # The decoder is some frames ahead.
        until = float((last or 0) * source.info.time_base)
        damaged = [seconds for seconds in list(source.damaged_at) if seconds <= until]
        if isinstance(self.settings.smoothing, str) or self.settings.smoothing == 0:
            return SegmentState(index, last, damaged=damaged, masked=self._masked)
        moments, histogram = self._statistics.moments, self._cuts.histogram
        return SegmentState(index, last, moments, histogram, damaged, self._masked)

    def _find_shots(self, source: FrameSource, work: WorkFolder) -> bool:
        """Find the scene cuts and the statistics between them; return False if stopped."""
        if work.shots is not None:
            self._shots = Shots(*work.shots)
            return True
        starts, count = [], 0
        for frame in self._all_frames(source):
            if self.stop_requested() is not None:
                return False
            if self._cuts.is_cut(frame.pixels):
                starts.append(count)
            count += 1
        samples = [sample_shot(*bounds) for bounds in pairwise([*starts, count])]
        moments = self._gather(source, samples)
        if moments is None:
            return False
        self._shots = Shots(starts, moments)
        work.shots = (starts, moments)
        return True

    def _all_frames(self, source: FrameSource) -> Iterator[Frame]:
        length = queue_length(_frame_bytes(source.info))
        frames = Prefetcher(source.frames(self.settings.selection), length)
        try:
            yield from frames
        finally:
            frames.close()

    def _gather(self, source: FrameSource, samples: list[list[int]]) -> list[Moments] | None:
        """Return the statistics of each shot, averaged over its samples; None if stopped."""
        last_of_shot = {one[-1] for one in samples}
        wanted = {index for one in samples for index in one}
        moments: list[Moments] = []
        with self._statistics.accumulating():
            for index, frame in enumerate(self._all_frames(source)):
                if index not in wanted:
                    continue
                if self.stop_requested() is not None:
                    return None
                self.translator.translate_array(frame.pixels)
                if index in last_of_shot:
                    average = self._statistics.moments
                    assert average is not None
                    moments.append(average)
                    self._statistics.reset()
        return moments


def _frame_bytes(info: VideoInfo) -> int:
    return info.width * info.height * 3 * (1 if info.bits <= 8 else 2)


def _writer(sink: FrameSink) -> Any:
    def write(item: tuple[Frame | None, SegmentState | None]) -> None:
        frame, state = item
        if frame is not None:
            sink.write(frame)
        if state is not None:
            sink.end_segment(state)

    return write
