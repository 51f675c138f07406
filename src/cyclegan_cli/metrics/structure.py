"""Whether edges stay where they are: correlation of gradients, whatever their contrast and sign.

The gradient of luma, ``g (cos a, sin a)``, is written with the double angle, ``g (cos 2a, sin
2a)``: an edge from dark to light and one from light to dark in the same place are then equal, and
the inner product of two such vectors is ``g h (2 cos² d - 1)`` for an angle ``d`` between the
edges. Its square of a cosine is the measure of Haber and Modersitzki 2006 ("Intensity gradient
based registration and fusion of multi-modal images", MICCAI), which compares images of different
modalities. Each gradient is divided by the local mean of its image, so that an edge counts the same
in light and shadow. The score is the normalized correlation of these vectors over the image, the
mean over three scales.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from cyclegan_cli.data.image import LUMA, PixelArray, to_depth

# Larger images are scaled down to this short side: a score refers to shifts of 1/256 of it.
SHORT_SIDE = 256
LEVELS, SMALLEST_LEVEL = 3, 16
DERIVATIVE_SIGMA, DERIVATIVE_RADIUS = 1.0, 3
# Half a side of the square over which gradients are averaged.
LOCAL_RADIUS = 14
# Gradients far below the mean of the image, or below a quarter of a pixel value, are noise.
FLOOR_SHARE, FLOOR = 0.1, 1 / 1020
# Gradients that rounding leaves in flat images.
ROUNDING = 1e-6


def structure_score(image: PixelArray, other: PixelArray) -> float:
    """Return how well edges of two images of the same scene agree in place and direction.

    Args:
        image: ``[H, W, 3]`` or ``[H, W]``, uint8 or uint16, sRGB; or fp32 in [0, 1].
        other: Of the same size; its type and channels may differ.

    Returns:
        1 for the same edges, about 0 for unrelated ones, in [-1, 1]. 1 for two images without
        edges, 0 if only one has edges.

    Raises:
        ValueError: The sizes differ.
    """
    if image.shape[:2] != other.shape[:2]:
        raise ValueError(f"images of different sizes: {image.shape[:2]} and {other.shape[:2]}")
    size = small_size(image.shape[1], image.shape[0])
    return score_of_lumas(small_luma(image, size), small_luma(other, size))


def small_size(width: int, height: int) -> tuple[int, int]:
    """Return width and height at which images are compared."""
    scale = min(1.0, SHORT_SIDE / min(width, height))
    return max(round(width * scale), 1), max(round(height * scale), 1)


def small_luma(image: PixelArray, size: tuple[int, int]) -> PixelArray:
    """Return luma in [0, 1] at a reduced size, averaged over areas.

    Args:
        image: ``[H, W, C]`` or ``[H, W]``, uint8 or uint16, or fp32 in [0, 1]; with other numbers
            of channels than three, their mean is taken.
        size: Width and height of the result.

    Returns:
        ``[height, width]`` fp32.
    """
    if image.dtype.kind == "f":
        plane = image if image.ndim == 2 else _gray(image)
        small = Image.fromarray(np.ascontiguousarray(plane, np.float32))
        return np.asarray(small.resize(size, Image.Resampling.BOX))
    pixels = Image.fromarray(np.ascontiguousarray(to_depth(image, 8)))
    small_pixels = np.asarray(pixels.resize(size, Image.Resampling.BOX), np.float32) / 255
    return small_pixels if small_pixels.ndim == 2 else _gray(small_pixels)


def _gray(image: PixelArray) -> PixelArray:
    weights = np.array(LUMA, np.float32)
    gray: PixelArray = image @ weights if image.shape[2] == 3 else image.mean(axis=2)
    return gray


def score_of_lumas(luma: PixelArray, other: PixelArray, weights: PixelArray | None = None) -> float:
    """Return the score of :func:`structure_score`.

    Args:
        luma: ``[H, W]`` in [0, 1].
        other: The same shape and range.
        weights: ``[H, W]``: how much each pixel counts; None: all the same.
    """
    counts = np.ones(luma.shape, np.float32) if weights is None else weights
    scores = []
    for level in range(LEVELS):
        if level and min(luma.shape) < 2 * SMALLEST_LEVEL:
            break
        if level:
            luma, other, counts = _halved(luma), _halved(other), _halved(counts)
        scores.append(_correlation(_edges(luma), _edges(other), counts))
    return float(np.mean(scores))


def _correlation(edges: PixelArray, others: PixelArray, counts: PixelArray) -> float:
    energies = [(counts * (one * one).sum(axis=0)).sum() for one in (edges, others)]
    if min(energies) == 0:
        return float(max(energies) == 0)
    product = (counts * (edges * others).sum(axis=0)).sum()
    return float(product / np.sqrt(energies[0] * energies[1]))


def _edges(luma: PixelArray) -> PixelArray:
    """Return gradients with the double angle, divided by their local mean: ``[2, H, W]``."""
    offsets = np.arange(-DERIVATIVE_RADIUS, DERIVATIVE_RADIUS + 1)
    smooth = np.exp(-(offsets**2) / (2 * DERIVATIVE_SIGMA**2))
    smooth = (smooth / smooth.sum()).astype(np.float32)
    slope = (offsets * smooth / DERIVATIVE_SIGMA**2).astype(np.float32)
    x = _filtered(_filtered(luma, slope, 1), smooth, 0)
    y = _filtered(_filtered(luma, slope, 0), smooth, 1)
    magnitude = np.hypot(x, y)
    magnitude[magnitude < ROUNDING] = 0
    square = magnitude * magnitude
    local = np.sqrt(_local_mean(square)) + FLOOR_SHARE * np.sqrt(square.mean()) + FLOOR
    double = np.stack([x * x - y * y, 2 * x * y])
    edges: PixelArray = np.where(
        magnitude > 0, double / (np.maximum(magnitude, ROUNDING) * local), 0
    )
    return edges


def _filtered(plane: PixelArray, kernel: PixelArray, axis: int) -> PixelArray:
    """Correlate each row (axis 1) or column (axis 0), with edges replicated."""
    radius, length = len(kernel) // 2, plane.shape[axis]
    widths = [(radius, radius) if one == axis else (0, 0) for one in (0, 1)]
    padded = np.pad(plane, widths, mode="edge")
    result = np.zeros_like(plane)
    for shift, weight in enumerate(kernel):
        result += weight * padded.take(range(shift, shift + length), axis=axis)
    return result


def _local_mean(plane: PixelArray) -> PixelArray:
    """Return means over squares, of which only the part inside of the image counts."""
    mean = plane
    for axis in (0, 1):
        length = mean.shape[axis]
        ends = np.arange(length)
        first, last = (ends - LOCAL_RADIUS).clip(0), (ends + LOCAL_RADIUS + 1).clip(max=length)
        zero = np.zeros_like(mean.take([0], axis=axis))
        sums = np.concatenate([zero, mean.cumsum(axis=axis, dtype=np.float64)], axis=axis)
        counts = (last - first).reshape((-1, 1) if axis == 0 else (1, -1))
        mean = (sums.take(last, axis=axis) - sums.take(first, axis=axis)) / counts
    return mean.clip(0)


def _halved(plane: PixelArray) -> PixelArray:
    height, width = (side // 2 * 2 for side in plane.shape)
    blocks = plane[:height, :width].reshape(height // 2, 2, width // 2, 2)
    halved: PixelArray = blocks.mean(axis=(1, 3))
    return halved
