"""An image in memory: pixels as arrays, and what its file said besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from cyclegan_cli.data.metadata import NO_METADATA, Metadata

Levels = np.ndarray[Any, np.dtype[Any]]
BitDepth = Literal[8, 16]
Mode = Literal["RGB", "L", "CMYK", "P", "1"]


@dataclass(frozen=True)
class Animation:
    """What makes frames an animation.

    Attributes:
        durations: How long each frame is shown, in milliseconds.
        plays: How often the whole is shown; 0 for ever.
        still_first: Whether the first frame is only for programs that show no animations (PNG).
    """

    durations: tuple[float, ...]
    plays: int = 0
    still_first: bool = False


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """A decoded image, upright, in sRGB.

    Attributes:
        frames: An array for each frame or page: ``[H, W, 3]``, uint8 or uint16 (all levels in
            use: white is 255 or 65535). Nearly always one.
        alphas: The opacity of each frame, ``[H, W]`` uint8 or uint16, or None where it has none.
            Empty where no frame has any.
        format: Pillow's name of the file's format, e.g. ``JPEG``.
        mode: What its pixels were in the file; opacity does not count, nor does depth.
        profile: The colour profile that the file had, if it was a usable one.
        metadata: What the file said besides, as true of these frames.
        animation: How its frames are shown; None where they are pages, or only one.
        encoding: What a writer of the same format needs to match the file's quality.
        full_size: Width and height of the whole image where it was decoded at a reduced scale.
        remarks: Sentences on what the file holds and these attributes do not.
    """

    frames: tuple[Levels, ...]
    alphas: tuple[Levels | None, ...] = ()
    format: str = "PNG"
    mode: Mode = "RGB"
    profile: bytes | None = None
    metadata: Metadata = NO_METADATA
    animation: Animation | None = None
    encoding: dict[str, Any] = field(default_factory=dict)
    full_size: tuple[int, int] | None = None
    remarks: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the first frame, in pixels, however small it was decoded."""
        return self.full_size or _size(self.frames[0])

    @property
    def width(self) -> int:
        """In pixels, upright."""
        return self.size[0]

    @property
    def height(self) -> int:
        """In pixels, upright."""
        return self.size[1]

    @property
    def bit_depth(self) -> BitDepth:
        """Of its deepest frame."""
        return 16 if any(frame.dtype == np.uint16 for frame in self.frames) else 8

    def alpha(self, index: int) -> Levels | None:
        """The opacity of a frame: ``[H, W]``, or None."""
        return self.alphas[index] if self.alphas else None

    def on_white(self, index: int) -> Levels:
        """A frame with its transparency laid on white: ``[H, W, 3]``, opaque."""
        frame, alpha = self.frames[index], self.alpha(index)
        if alpha is None:
            return frame
        alpha = to_depth(alpha, 8 * frame.dtype.itemsize)
        highest = np.uint32(np.iinfo(frame.dtype).max)
        opacity = alpha[..., None].astype(np.uint32)
        # 65535² and half of 65535 just fit 32 bits.
        light = frame * opacity + highest * (highest - opacity)
        return ((light + highest // 2) // highest).astype(frame.dtype)

    def with_frames(self, frames: Sequence[Levels]) -> DecodedImage:
        """The same image with other pixels, e.g. translated ones.

        Args:
            frames: An array for each frame, ``[H, W, 3]`` uint8 or uint16, of the frame's size
                (of the whole image's where it was decoded at a reduced scale).

        Raises:
            ValueError: Their number or sizes differ.
        """
        sizes = [self.full_size or _size(frame) for frame in self.frames]
        if [_size(frame) for frame in frames] != sizes:
            raise ValueError(f"frames of {[_size(f) for f in frames]}, not {sizes} pixels")
        return replace(self, frames=tuple(frames), full_size=None)


def to_depth(levels: Levels, bit_depth: int) -> Levels:
    """The same at 8 or 16 bits a channel, rounded to the nearest level."""
    if bit_depth == 8 and levels.dtype == np.uint16:
        return ((levels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if bit_depth == 16 and levels.dtype == np.uint8:
        return levels.astype(np.uint16) * np.uint16(257)
    return levels


def _size(frame: Levels) -> tuple[int, int]:
    return frame.shape[1], frame.shape[0]


@dataclass(frozen=True)
class EncodeOptions:
    """How an image is written.

    Attributes:
        quality: 1 to 100, for formats that lose some; None: that of the file it came from where
            that was of the same format, else a high one.
        bit_depth: Bits a channel; None: the image's, where the format has them.
        keep_profile: Convert back to the colour profile that the file had, instead of sRGB.
        keep_mode: Write grey, CMYK or palette where the file had it, instead of RGB.
    """

    quality: int | None = None
    bit_depth: BitDepth | None = None
    keep_profile: bool = False
    keep_mode: bool = False
