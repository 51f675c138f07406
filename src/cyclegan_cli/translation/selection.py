"""The frames of a video or an animation that are translated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclegan_cli.translation.video.reader import VideoInfo


@dataclass(frozen=True)
class Selection:
    """The frames to translate.

    Attributes:
        start: In seconds from the first frame.
        end: In seconds; the frame at this time is not translated. None: the last frame, too.
        every: The first of every N frames is translated.
    """

    start: float = 0.0
    end: float | None = None
    every: int = 1

    def bounds(self, info: VideoInfo) -> tuple[int, int | None]:
        """Return the first timestamp, and the one that ends the selection."""
        # To the nearest unit: a time such as 0.3 is not a multiple of the time base.
        first = info.start + round(self.start / float(info.time_base))
        end = None if self.end is None else info.start + round(self.end / float(info.time_base))
        return first, end

    def count(self, info: VideoInfo) -> int:
        """Return the number of selected frames, estimated; 0 if unknown."""
        if not info.frames:
            return 0
        last = min(self.end or info.frames / info.rate, info.frames / info.rate)
        return max(-int(-(last - self.start) * info.rate // self.every), 0)


ALL_FRAMES = Selection()
