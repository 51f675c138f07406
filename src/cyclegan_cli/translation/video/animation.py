"""GIF, WebP, PNG and AVIF animations as frames of a video."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

from cyclegan_cli.data.decode import decode
from cyclegan_cli.data.image import to_depth
from cyclegan_cli.errors import DataError
from cyclegan_cli.translation.selection import Selection
from cyclegan_cli.translation.video.color import FULL, RGB, ColorTags
from cyclegan_cli.translation.video.reader import Frame, VideoInfo

MILLISECOND = Fraction(1, 1000)
SRGB = ColorTags(RGB, FULL, primaries=1, transfer=13)


class AnimationSource:
    """The frames of an animation, on white, with their times in milliseconds.

    Args:
        path: The file.

    Attributes:
        info: What its output shares with it.
        damage: Empty: damaged animations are refused.
        damaged_at: Empty.

    Raises:
        DataError: It cannot be read, or is a single image.
    """

    def __init__(self, path: str) -> None:
        image = decode(Path(path))
        if image.animation is None:
            raise DataError(
                f"{path} is a single image, which cannot be written as a video",
                "Name an output with the extension of an image.",
            )
        self._image = image
        self._first = 1 if image.animation.has_default_image else 0
        durations = [max(round(one), 1) for one in image.animation.durations[self._first :]]
        self._times = [0, *accumulate(durations)]
        self._durations = durations
        self.damage: list[str] = []
        self.damaged_at: list[float] = []
        remarks = ("its transparency is lost: videos are written without",) if image.alphas else ()
        self.info = VideoInfo(
            image.width, image.height, 8, MILLISECOND,
            Fraction(1000 * len(durations), self._times[-1]),
            tags=SRGB, frames=len(durations), remarks=remarks,
        )  # fmt: skip

    def frames(self, selection: Selection, after: int | None = None) -> Iterator[Frame]:
        """Yield the selected frames; with ``after``, those behind that selected timestamp."""
        first, end = selection.bounds(self.info)
        shown = [
            index
            for index, time in enumerate(self._times[:-1])
            if time >= first and (end is None or time < end)
        ]
        for index in shown[:: selection.every]:
            if after is None or self._times[index] > after:
                pixels = to_depth(self._image.on_white(self._first + index), 8)
                yield Frame(self._times[index], self._durations[index] * selection.every, pixels)

    def timestamps(self) -> Iterator[int]:
        """Yield the timestamp of each frame."""
        yield from self._times[:-1]

    def close(self) -> None:
        """Do nothing: the file is in memory."""
