"""Conversion between the pixels of video frames and RGB arrays.

8-bit frames are converted by swscale, which rounds to the nearest value. Of more bits, swscale
scales white to 65280 instead of 65535, so there it only resamples the chroma, and the matrix is
applied here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cyclegan_cli.data.image import PixelArray

# AVColorSpace to the weights of red and blue in luma (ITU-T H.273, table 4).
LUMA_WEIGHTS = {
    1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114),
    7: (0.212, 0.087), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593),
}  # fmt: skip
# AVColorSpace to swscale's numbers of the same matrices.
SWSCALE = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
RGB, BT709, UNSPECIFIED, BT601 = 0, 1, 2, 6
LIMITED, FULL = 1, 2
HD_HEIGHT = 720  # Without a tag, players take videos from here on for BT.709.
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
SIXTEEN_BITS = 65535.0


@dataclass(frozen=True)
class ColorTags:
    """How the values of a video are to be understood, with the numbers of ITU-T H.273.

    Attributes:
        matrix: From RGB to luma and chroma; ``RGB``: there is none.
        range: ``LIMITED`` or ``FULL``.
        primaries: The primaries.
        transfer: The transfer characteristics.
    """

    matrix: int = BT709
    range: int = LIMITED
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED


HD_TAGS = ColorTags()


def tags_of(frame: Any) -> ColorTags:
    """Return the tags of a decoded frame; a missing matrix follows from the height."""
    matrix, is_full = frame.colorspace, frame.color_range == FULL
    if frame.format.is_rgb:
        matrix, is_full = RGB, True
    elif matrix not in LUMA_WEIGHTS:
        matrix = BT709 if frame.height >= HD_HEIGHT else BT601
    if frame.format.name.startswith("yuvj"):
        is_full = True
    return ColorTags(matrix, FULL if is_full else LIMITED, frame.color_primaries, frame.color_trc)


def bits_of(frame: Any) -> int:
    """Return the bits per channel of a frame."""
    return max(int(component.bits) for component in frame.format.components)


def frame_to_rgb(frame: Any, tags: ColorTags) -> PixelArray:
    """Convert a decoded frame.

    Args:
        frame: A frame of PyAV.
        tags: Its tags.

    Returns:
        ``[H, W, 3]``, uint8 or, of more than 8 bits, uint16.
    """
    bits = bits_of(frame)
    if tags.matrix == RGB or frame.format.name.startswith("gray"):
        if bits <= 8:
            return _reformatted(frame, "rgb24", BT709, tags.range, FULL).to_ndarray()  # type: ignore[no-any-return]
        return _deep_rgb(frame, tags, bits)
    if bits <= 8:
        return _reformatted(frame, "rgb24", tags.matrix, tags.range, FULL).to_ndarray()  # type: ignore[no-any-return]
    planes = _planes(_reformatted(frame, "yuv444p16le", tags.matrix, tags.range, tags.range))
    offset, scale = _offset_and_scale(tags.range, bits)
    values = planes.astype(np.float32) / 2 ** (16 - bits)
    if len(frame.planes) > 1 and frame.planes[1].width == frame.width:
        # Without chroma to interpolate, swscale may repeat the highest bits in the lowest.
        values = np.floor(values)
    unit = (values - offset) / scale
    return _to_sixteen_bits(unit @ _to_rgb_matrix(tags.matrix).T)


def rgb_to_frame(pixels: PixelArray, pixel_format: str, tags: ColorTags) -> Any:
    """Convert an array to a frame.

    Args:
        pixels: ``[H, W, 3]``, uint8 or uint16.
        pixel_format: FFmpeg's name of the frame's format; one of more than 8 bits takes uint16.
        tags: How its values are to be understood.

    Returns:
        A frame of PyAV, with these tags.
    """
    import av

    bits = av.VideoFormat(pixel_format).components[0].bits
    if bits <= 8 and pixels.dtype == np.uint8:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        matrix = BT709 if tags.matrix == RGB else tags.matrix
        frame = _reformatted(frame, pixel_format, matrix, FULL, tags.range)
    elif tags.matrix == RGB:
        values = np.rint(pixels * ((2**bits - 1) / SIXTEEN_BITS)).astype(np.uint16)
        frame = _from_planes(values[..., [1, 2, 0]], pixel_format)  # Planes G, B, R.
    else:
        if pixels.dtype == np.uint8:  # A codec of 10 bits.
            pixels = pixels.astype(np.uint16) * np.uint16(257)
        offset, scale = _offset_and_scale(tags.range, bits)
        unit = (pixels / np.float32(SIXTEEN_BITS)) @ np.linalg.inv(_to_rgb_matrix(tags.matrix)).T
        values = np.rint((unit * scale + offset).clip(0, 2**bits - 1))
        planes = _from_planes((values * 2 ** (16 - bits)).astype(np.uint16), "yuv444p16le")
        frame = _reformatted(planes, pixel_format, tags.matrix, tags.range, tags.range)
    frame.colorspace, frame.color_range = tags.matrix, tags.range
    frame.color_primaries, frame.color_trc = tags.primaries, tags.transfer
    return frame


def upright(pixels: PixelArray, display: tuple[int, int, int, int]) -> PixelArray:
    """Apply a display matrix to ``[H, W, 3]``.

    Args:
        pixels: The frame as it is stored.
        display: The signs of its elements ``a, b, c, d``: a pixel ``(x, y)`` is shown at
            ``(a x + c y, b x + d y)``.
    """
    a, b, c, d = display
    if b and c:
        pixels, across, down = pixels.swapaxes(0, 1), c, b
    else:
        across, down = a, d
    return np.ascontiguousarray(pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


def _reformatted(frame: Any, pixel_format: str, matrix: int, source: int, target: int) -> Any:
    from av.video.reformatter import Interpolation as Flags

    flags = Flags.BICUBIC | Flags.FULL_CHR_H_INT | Flags.FULL_CHR_H_INP | Flags.ACCURATE_RND
    number = SWSCALE[matrix]
    return frame.reformat(
        format=pixel_format,
        src_colorspace=number,
        dst_colorspace=number,
        src_color_range=source,
        dst_color_range=target,
        interpolation=int(flags),
    )


def _deep_rgb(frame: Any, tags: ColorTags, bits: int) -> PixelArray:
    """Convert gray or RGB frames of more than 8 bits to ``[H, W, 3]`` uint16."""
    if frame.format.name.startswith("gray"):
        gray = _planes(_reformatted(frame, "gray16le", BT709, tags.range, tags.range))
        offset, scale = _offset_and_scale(tags.range, bits)
        unit = (gray[..., :1].astype(np.float32) / 2 ** (16 - bits) - offset[0]) / scale[0]
        return _to_sixteen_bits(np.repeat(unit, 3, axis=2))
    planes = _planes(_reformatted(frame, "gbrp16le", BT709, FULL, FULL))[..., [2, 0, 1]]
    # swscale shifts values to 16 bits, or repeats their highest bits, which is the same above.
    highest = 2**bits - 1
    values = planes >> np.uint16(16 - bits)
    return _to_sixteen_bits(values.astype(np.float32) / highest)


def _to_sixteen_bits(unit: PixelArray) -> PixelArray:
    return np.rint(unit.clip(0, 1) * np.float32(SIXTEEN_BITS)).astype(np.uint16)


def _planes(frame: Any) -> PixelArray:
    """Return the planes of a frame of 16 bits: ``[H, W, planes]`` uint16."""
    height, width = frame.height, frame.width
    return np.stack(
        [
            np.frombuffer(plane, np.uint16).reshape(height, -1)[:, :width]
            for plane in frame.planes
        ],
        axis=2,
    )  # fmt: skip


def _from_planes(values: PixelArray, pixel_format: str) -> Any:
    """Return a frame with the planes ``[H, W, 3]`` uint16."""
    import av

    height, width, _ = values.shape
    frame = av.VideoFrame(width, height, pixel_format)
    for index, plane in enumerate(frame.planes):
        padded = np.zeros((height, plane.line_size // 2), np.uint16)
        padded[:, :width] = values[..., index]
        plane.update(padded.tobytes())
    return frame


def _offset_and_scale(color_range: int, bits: int) -> tuple[PixelArray, PixelArray]:
    """Return the values of black and no chroma, and of full luma and chroma, at a bit depth."""
    unit, highest = 2.0 ** (bits - 8), 2.0**bits - 1
    if color_range == FULL:
        scale = [highest] * 3
        offset = [0.0, 128 * unit, 128 * unit]
    else:
        scale = [219 * unit, 224 * unit, 224 * unit]
        offset = [16 * unit, 128 * unit, 128 * unit]
    return np.array(offset, np.float32), np.array(scale, np.float32)


def _to_rgb_matrix(matrix: int) -> PixelArray:
    """Return the matrix from luma and chroma (Cb, Cr in [-0.5, 0.5]) to RGB."""
    red, blue = LUMA_WEIGHTS[matrix]
    green = 1 - red - blue
    return np.array(
        [
            [1, 0, 2 * (1 - red)],
            [1, -2 * blue * (1 - blue) / green, -2 * red * (1 - red) / green],
            [1, 2 * (1 - blue), 0],
        ],
        np.float32,
    )
