"""A decoded image in memory: pixel arrays and metadata of its file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cyclegan_cli.data.metadata import NO_METADATA, Metadata

if TYPE_CHECKING:
    from cyclegan_cli.data.color import Pixels
    from cyclegan_cli.data.masks import Masking

PixelArray = np.ndarray[Any, np.dtype[Any]]
BitDepth = Literal[8, 16]
Mode = Literal["RGB", "L", "CMYK", "P", "1"]
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow and the original implementation.


@dataclass(frozen=True)
class Animation:
    """Timing of an animation.

    Attributes:
        durations: Duration of each frame in milliseconds.
        plays: Number of times the animation plays; 0 for endless.
        has_default_image: Whether the first frame is only for viewers without animation (APNG).
    """

    durations: tuple[float, ...]
    plays: int = 0
    has_default_image: bool = False


@dataclass(frozen=True, eq=False)
class Measures:
    """Values of an image before its translation, and measures of the translation.

    Attributes:
        lumas: Luma of each frame at a reduced size, ``[H, W]`` fp32 in [0, 1].
        cycle_error: Mean absolute difference to the image translated there and back, as a share of
            the range of values; None: not measured.
    """

    lumas: tuple[PixelArray, ...] = ()
    cycle_error: float | None = None


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """A decoded image, upright, in sRGB.

    Attributes:
        frames: Pixels of each frame or page, ``[H, W, 3]`` uint8 or uint16 over the full range:
            white is 255 or 65535. Nearly always one.
        alphas: Alpha channel of each frame, ``[H, W]`` uint8 or uint16, or None. Empty if no frame
            has one.
        format: Pillow's name of the file's format, e.g. ``JPEG``.
        mode: Pixel format in the file, regardless of alpha and bit depth.
        profile: ICC profile of the file, if usable.
        metadata: Metadata of the file, adjusted to the upright frames.
        animation: Timing of the frames; None for pages or a single frame.
        encoding: Options with which a writer of the same format reaches the file's quality.
        full_size: Width and height of the whole image if it was decoded at a reduced scale.
        remarks: Messages about contents of the file that are not in these attributes.
        stored: Pixels of each frame in the colors of the file, if they were asked for.
        altered: How these differ from the pixels in the file; empty if they do not.
        masking: The pixels before the translation, and where they are kept; None: nowhere.
        measures: Measures of the translation; None: not asked for.
    """

    frames: tuple[PixelArray, ...]
    alphas: tuple[PixelArray | None, ...] = ()
    format: str = "PNG"
    mode: Mode = "RGB"
    profile: bytes | None = None
    metadata: Metadata = NO_METADATA
    animation: Animation | None = None
    encoding: dict[str, Any] = field(default_factory=dict)
    full_size: tuple[int, int] | None = None
    remarks: tuple[str, ...] = ()
    stored: tuple[Pixels, ...] = ()
    altered: str = ""
    masking: Masking | None = None
    measures: Measures | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the first frame in pixels, at full scale."""
        return self.full_size or _size(self.frames[0])

    @property
    def width(self) -> int:
        """Width in pixels, upright."""
        return self.size[0]

    @property
    def height(self) -> int:
        """Height in pixels, upright."""
        return self.size[1]

    @property
    def bit_depth(self) -> BitDepth:
        """Largest bit depth of the frames."""
        return 16 if any(frame.dtype == np.uint16 for frame in self.frames) else 8

    def alpha(self, index: int) -> PixelArray | None:
        """Return the alpha channel of a frame: ``[H, W]``, or None."""
        return self.alphas[index] if self.alphas else None

    def on_white(self, index: int) -> PixelArray:
        """Composite a frame on white: ``[H, W, 3]``, of the same dtype."""
        frame, alpha = self.frames[index], self.alpha(index)
        if alpha is None:
            return frame
        alpha = to_depth(alpha, 8 * frame.dtype.itemsize)
        highest = np.uint32(np.iinfo(frame.dtype).max)
        opacity = alpha[..., None].astype(np.uint32)
        # 65535² plus half of 65535 just fits into 32 bits.
        light = frame * opacity + highest * (highest - opacity)
        return ((light + highest // 2) // highest).astype(frame.dtype)

    def with_masking(self, masking: Masking) -> DecodedImage:
        """Return the same image, whose pixels outside of a mask are kept when it is written."""
        return replace(self, masking=masking)

    def with_frames(self, frames: Sequence[PixelArray]) -> DecodedImage:
        """Return the same image with other pixels, e.g. translated ones.

        Args:
            frames: Pixels of each frame, ``[H, W, 3]`` uint8 or uint16, of the frame's size at full
                scale.

        Raises:
            ValueError: The number or the sizes of the frames differ.
        """
        sizes = [self.full_size or _size(frame) for frame in self.frames]
        if [_size(frame) for frame in frames] != sizes:
            raise ValueError(f"frames of {[_size(f) for f in frames]}, not {sizes} pixels")
        return replace(self, frames=tuple(frames), full_size=None)


def to_depth(pixels: PixelArray, bit_depth: int) -> PixelArray:
    """Convert uint8 or uint16 pixel values to 8 or 16 bits per channel, rounded to nearest."""
    if bit_depth == 8 and pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if bit_depth == 16 and pixels.dtype == np.uint8:
        return pixels.astype(np.uint16) * np.uint16(257)
    return pixels


def _size(frame: PixelArray) -> tuple[int, int]:
    return frame.shape[1], frame.shape[0]


@dataclass(frozen=True)
class EncodeOptions:
    """How to encode an image.

    Attributes:
        quality: Quality of lossy formats, 1 to 100; None keeps the quality of a source file of the
            same format, or else uses a high one.
        bit_depth: Bits per channel; None keeps those of the image if the format supports them.
        keep_profile: Whether to convert back to the file's ICC profile instead of sRGB.
        keep_mode: Whether to write grey, CMYK or palette images as such instead of RGB.
    """

    quality: int | None = None
    bit_depth: BitDepth | None = None
    keep_profile: bool = False
    keep_mode: bool = False
