"""Periodic patterns in images, by the power spectrum of their even areas."""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_cli.metrics.distances import luminance

TILE = 32
EVEN_TILES = 0.25  # Fraction of the tiles of an image.
# Of a generator with two strides of 2, in cycles per 32 pixels: rows, columns.
STRIDE_FREQUENCIES = (
    (16, 0), (0, 16), (16, 16), (8, 0), (0, 8), (8, 8), (16, 8), (8, 16)
)  # fmt: skip


def pattern_ratio(images: Tensor, reference: Tensor) -> float:
    """Return the strength of periodic patterns in images, relative to real ones.

    Transposed convolutions cause checkerboard artifacts with the periods of their strides (Odena
    et al. 2016), most visible in even areas. JPEG blocks and textures have such periods too, which
    is why the peaks are compared with those of real images.

    Args:
        images: Translations, ``[N, 3, H, W]`` in [-1, 1], at least 32 pixels per side.
        reference: Real images of the target domain, likewise.

    Returns:
        The largest peak of the power spectrum of even areas at a stride frequency
        (:func:`stride_peaks`), geometric mean over images, relative to that of ``reference`` where
        the latter is above 1. About 1 without a pattern.
    """
    peaks, real = (_mean_stride_peaks(one) for one in (images, reference))
    return float((peaks / real.clamp(min=1)).max())


def _mean_stride_peaks(images: Tensor) -> Tensor:
    """Return the geometric mean over ``[N, 3, H, W]`` in [-1, 1], rounded to 8 bits: ``[8]``."""
    pixels = luminance(images.float().add(1).mul(127.5).round())
    peaks = torch.stack([stride_peaks(even_spectrum(image)) for image in pixels])
    return peaks.log().mean(dim=0).exp()


def even_spectrum(image: Tensor) -> Tensor:
    """Return the mean power spectrum of the most even tiles of an image.

    Args:
        image: Luminance in 8-bit pixel values, ``[H, W]``; at least 32 pixels per side.

    Returns:
        Power of the fourth of its 32×32 tiles with the smallest deviation, ``[32, 32]``.
    """
    tiles = image.unfold(0, TILE, TILE // 2).unfold(1, TILE, TILE // 2).flatten(0, 1)
    evenest = tiles.std(dim=(1, 2)).argsort()[: max(1, round(EVEN_TILES * len(tiles)))]
    tiles = tiles[evenest]
    window = torch.hann_window(TILE, device=image.device)
    tiles = (tiles - tiles.mean(dim=(1, 2), keepdim=True)) * window * window[:, None]
    return torch.fft.fft2(tiles).abs().square().mean(dim=0)  # type: ignore[no-any-return]


def stride_peaks(spectrum: Tensor) -> Tensor:
    """Return the peaks of a power spectrum at the frequencies of the generator's strides.

    These are 1/2 and 1/4 cycles per pixel along rows, columns and both: the periods of
    checkerboard artifacts of transposed convolutions (Odena et al. 2016).

    Args:
        spectrum: From :func:`even_spectrum`, ``[32, 32]``.

    Returns:
        Power at each of the 8 frequencies over the mean power around it, ``[8]``: about 1 without
        a pattern. The power of 8-bit rounding is added to both, so that tiles of a single color
        have 1.
    """
    window = torch.hann_window(TILE, device=spectrum.device).square().sum()
    rounding = float(window.square()) / 12
    offsets = [(i, j) for i in range(-4, 5) for j in range(-4, 5)]
    # Beyond the main lobe of the window.
    around = [(i, j) for i, j in offsets if max(abs(i), abs(j)) in (3, 4)]
    ratios = []
    for row, column in STRIDE_FREQUENCIES:
        near = torch.stack([spectrum[(row + i) % TILE, (column + j) % TILE] for i, j in around])
        ratios.append((spectrum[row, column] + rounding) / (near.mean() + rounding))
    return torch.stack(ratios)
