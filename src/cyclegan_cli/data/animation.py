"""Animations: how long each frame is shown, and how often all of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from PIL import Image

from cyclegan_cli.data.image import Animation

READ_AS_ANIMATIONS = frozenset({"AVIF", "FLI", "GIF", "PNG", "WEBP"})
WRITTEN_AS_ANIMATIONS = frozenset({"AVIF", "GIF", "PNG", "WEBP"})
GIF_LEAVES_NOTHING = 2  # GIF89a, 23: before the next frame the canvas is cleared.
MOST_SECONDS = 65535  # APNG: a delay's numerator and denominator have 16 bits.
PNG_REPLACES = 0  # APNG: a frame's pixels replace those below it, the transparent ones, too.
PNG_KEEPS, PNG_CLEARS = 0, 1  # APNG: what becomes of a frame's pixels before the next.


def read_animation(image: Image.Image, durations: Sequence[float]) -> Animation | None:
    """How frames are shown; None where they are pages.

    Args:
        image: Their file, open.
        durations: Of each frame, in milliseconds.
    """
    if image.format not in READ_AS_ANIMATIONS:
        return None
    loop = image.info.get("loop")
    plays = int(loop) if isinstance(loop, int) else 0
    if image.format == "GIF":
        # A GIF says how often it is shown again, if it says anything.
        plays = 1 if loop is None else plays + 1 if plays else 0
    return Animation(tuple(durations), plays, bool(image.info.get("default_image")))


def animation_options(
    animation: Animation, format: str, frames: Sequence[Image.Image], has_alpha: bool
) -> dict[str, Any]:
    """As Pillow's writer of a format takes it.

    Args:
        animation: How the frames are shown.
        format: Pillow's name of the format.
        frames: The images of the animation, without a still first one.
        has_alpha: Whether they are written with their opacity.
    """
    shown = animation.durations[1:] if animation.still_first else animation.durations
    durations = [round(duration) for duration in shown]
    options: dict[str, Any] = {"save_all": True, "duration": durations}
    if format == "PNG":
        # Unlike the others it is exact to fractions of a millisecond.
        options |= {"duration": [_writable(duration) for duration in shown]}
        options |= {"blend": PNG_REPLACES, "loop": animation.plays}
        options |= {"disposal": _apng_disposals(frames)}
        options |= {"default_image": animation.still_first}
    elif format == "WEBP":
        options |= {"loop": animation.plays}
    elif format == "GIF":
        options |= {"disposal": GIF_LEAVES_NOTHING} if has_alpha else {}
        options |= {"loop": max(animation.plays - 1, 0)} if animation.plays != 1 else {}
    return options


def _apng_disposals(frames: Sequence[Image.Image]) -> list[int]:
    """Disposals that keep every frame.

    Pillow's writer drops a frame that equals the one before it, unless their disposals differ.
    """
    disposals = [PNG_KEEPS]
    for before, frame in itertools.pairwise(image.convert("RGBA").tobytes() for image in frames):
        clears = before == frame and disposals[-1] == PNG_KEEPS
        disposals.append(PNG_CLEARS if clears else PNG_KEEPS)
    return disposals


def _writable(duration: float) -> float:
    """The nearest duration, in milliseconds, that is a fraction of two 16-bit numbers of seconds.

    An APNG has no others, and Pillow's writer refuses them.
    """
    seconds = min(Fraction(duration / 1000), Fraction(MOST_SECONDS))
    finest = MOST_SECONDS if seconds < 1 else int(MOST_SECONDS / seconds)
    return float(seconds.limit_denominator(finest) * 1000)
