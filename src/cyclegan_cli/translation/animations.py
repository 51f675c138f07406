"""Frames of GIF, WebP, PNG and AVIF animations, which are in memory as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from torch import nn

from cyclegan_cli.config import Smoothing
from cyclegan_cli.data.image import DecodedImage, PixelArray
from cyclegan_cli.errors import DataError
from cyclegan_cli.translation.selection import ALL_FRAMES, Selection
from cyclegan_cli.translation.smoothing import CutDetector, NormStatistics, sample_shot


@dataclass(frozen=True)
class AnimationSettings:
    """How animations are translated.

    Attributes:
        smoothing: The share of earlier frames in the statistics of instance norms, or ``shot``:
            they are fixed between scene cuts.
        selection: The frames.
    """

    smoothing: Smoothing = 0.0
    selection: Selection = ALL_FRAMES


FRAME_BY_FRAME = AnimationSettings()


def select_frames(image: DecodedImage, selection: Selection) -> DecodedImage:
    """Return an animation with the selected frames only; other images as they are.

    Raises:
        DataError: No frame is selected.
    """
    animation = image.animation
    if animation is None or selection == ALL_FRAMES:
        return image
    first = int(animation.has_default_image)
    starts = list(accumulate(animation.durations[first:], initial=0.0))[:-1]
    shown = [
        first + index
        for index, milliseconds in enumerate(starts)
        if milliseconds >= 1000 * selection.start
        and (selection.end is None or milliseconds < 1000 * selection.end)
    ]
    if not shown:
        raise DataError("the animation has no frames between --start and --end")
    kept = shown[:: selection.every]
    ends = [*kept[1:], shown[-1] + 1]
    durations = [sum(animation.durations[a:b]) for a, b in zip(kept, ends, strict=True)]
    if first:
        kept, durations = [0, *kept], [animation.durations[0], *durations]
    return replace(
        image,
        frames=tuple(image.frames[index] for index in kept),
        alphas=tuple(image.alphas[index] for index in kept) if image.alphas else (),
        stored=tuple(image.stored[index] for index in kept) if image.stored else (),
        animation=replace(animation, durations=tuple(durations)),
    )


class FrameSmoother:
    """Translates frames with averaged statistics of instance norms.

    Args:
        generator: The generator.
        smoothing: See :class:`AnimationSettings`.
    """

    def __init__(self, generator: nn.Module, smoothing: Smoothing) -> None:
        self._statistics, self._smoothing = NormStatistics(generator), smoothing

    def apply(
        self,
        translate: Callable[[PixelArray], PixelArray],
        frames: Sequence[PixelArray],
        is_animated: bool,
    ) -> list[PixelArray]:
        """Translate all frames.

        Args:
            translate: Translates one of them.
            frames: ``[H, W, 3]`` uint8 or uint16 each.
            is_animated: Whether they follow each other in time, unlike the pages of a document.
        """
        if self._smoothing == 0 or not is_animated:
            return [translate(frame) for frame in frames]
        cuts = CutDetector()
        starts = [index for index, frame in enumerate(frames) if cuts.is_cut(frame)]
        translated: list[PixelArray] = []
        for start, end in pairwise([*starts, len(frames)]):
            self._statistics.reset()
            if self._smoothing == "shot":
                with self._statistics.accumulating():
                    for index in sample_shot(start, end):
                        translate(frames[index])
                with self._statistics.fixed():
                    translated += [translate(frame) for frame in frames[start:end]]
            else:
                with self._statistics.exponential(self._smoothing):
                    translated += [translate(frame) for frame in frames[start:end]]
        return translated
