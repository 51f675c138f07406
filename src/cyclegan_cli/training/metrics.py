"""Distances between unpaired sets of images, without pretrained networks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cyclegan_cli.data.tensors import LUMA

# Karras et al. 2018, sec. 5 and app. A: 128 patches of 7×7 per image and pyramid level.
PATCH_SIZE = 7
PATCHES_PER_IMAGE = 128
PROJECTIONS = 512
MIN_PYRAMID_SIZE = 16
AREAS, DIVERSITY_AREAS = 16, 32
TILE = 32
EVEN_TILES = 0.25  # Fraction of the tiles of an image.
# Of a generator with two strides of 2, in cycles per 32 pixels: rows, columns.
STRIDE_FREQUENCIES = (
    (16, 0), (0, 16), (16, 16), (8, 0), (0, 8), (8, 8), (16, 8), (8, 16)
)  # fmt: skip


def sliced_wasserstein_distance(
    images: Tensor, reference: Tensor, seed: int = 0, projections: int = PROJECTIONS
) -> list[float]:
    """Sliced Wasserstein distance of Laplacian pyramid patches (Karras et al. 2018, sec. 5).

    Each level of the pyramid compares structure at one scale; the last one holds the low
    frequencies, with luminance and color. Unlike in the paper, the patches of both sets are
    normalized by the mean and standard deviation of the *reference*: normalizing each set by its
    own would hide differences such as between day and night.

    Args:
        images: ``[N, 3, H, W]`` in [-1, 1].
        reference: ``[M, 3, H, W]`` in [-1, 1], on the same device; M may differ from N.
        seed: Seed for the patches and projections.
        projections: Number of random projections.

    Returns:
        The distance at each level, finest first, times 1000 as in the paper; 0 for equal sets.
    """
    random = torch.Generator().manual_seed(seed)
    levels = zip(laplacian_pyramid(images), laplacian_pyramid(reference), strict=True)
    return [1000 * _level_distance(own, other, random, projections) for own, other in levels]


def laplacian_pyramid(images: Tensor) -> list[Tensor]:
    """Return the Laplacian pyramid, finest level first, with the low-pass residual last.

    Args:
        images: ``[N, 3, H, W]``, any range.

    Returns:
        ``[N, 3, H, W]``, ``[N, 3, H/2, W/2]``, ... down to a short side of at least 16.
        Upsampling and adding them gives the images.
    """
    levels = []
    while min(images.shape[-2:]) >= 2 * MIN_PYRAMID_SIZE:
        smaller = F.interpolate(
            images, scale_factor=0.5, mode="bilinear", antialias=True, align_corners=False
        )
        levels.append(images - enlarge(smaller, images))
        images = smaller
    return [*levels, images]


def enlarge(smaller: Tensor, like: Tensor) -> Tensor:
    """Resize to the size of ``like``, as in the pyramid."""
    return F.interpolate(smaller, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _level_distance(
    images: Tensor, reference: Tensor, random: torch.Generator, projections: int
) -> float:
    # Equal numbers of patches, so that sorted projections pair up.
    count = PATCHES_PER_IMAGE * max(len(images), len(reference))
    own, other = _patches(images, count, random), _patches(reference, count, random)
    deviation, mean = torch.std_mean(other, dim=(0, 2), keepdim=True)
    own, other = ((set_ - mean) / (deviation + 1e-8) for set_ in (own, other))
    directions = torch.randn(own[0].numel(), projections, generator=random).to(own.device)
    directions /= directions.norm(dim=0, keepdim=True)
    projected = (own.flatten(1) @ directions, other.flatten(1) @ directions)
    sorted_own, sorted_other = (values.sort(dim=0).values for values in projected)
    return float((sorted_own - sorted_other).abs().mean())


def _patches(images: Tensor, count: int, random: torch.Generator) -> Tensor:
    """Return ``count`` random patches, evenly distributed over the images: ``[count, 3, 49]``."""
    number, _, height, width = images.shape
    image = torch.arange(count) % number
    top = torch.randint(height - PATCH_SIZE + 1, (count,), generator=random)
    left = torch.randint(width - PATCH_SIZE + 1, (count,), generator=random)
    offset = torch.arange(PATCH_SIZE)
    rows = (top[:, None] + offset)[:, :, None]
    columns = (left[:, None] + offset)[:, None, :]
    return images[image[:, None, None], :, rows, columns].permute(0, 3, 1, 2).flatten(2)


def histogram_distance(images: Tensor, reference: Tensor) -> float:
    """Return the distance between the color histograms of two sets.

    This is the mean over channels of the one-dimensional Wasserstein distance between their
    histograms.

    Args:
        images: ``[N, 3, H, W]`` in [-1, 1].
        reference: ``[M, 3, H', W']`` in [-1, 1].

    Returns:
        In 8-bit pixel values: 0 for equal histograms, 255 for black and white.
    """
    cumulative = [_cumulative_histogram(channel) for channel in _channels(images)]
    others = [_cumulative_histogram(channel) for channel in _channels(reference)]
    # In one dimension the distance is the area between the cumulative histograms.
    areas = [float((a - b).abs().sum()) for a, b in zip(cumulative, others, strict=True)]
    return sum(areas) / len(areas)


def _channels(images: Tensor) -> tuple[Tensor, ...]:
    return images.transpose(0, 1).flatten(1).unbind(0)


def _cumulative_histogram(values: Tensor) -> Tensor:
    """Return the fraction of pixels at or below each of the 256 pixel values: ``[256]``."""
    pixels = values.add(1).mul(127.5).round().clamp(0, 255)
    return torch.histc(pixels, bins=256, min=0, max=255).cumsum(0) / values.numel()


def mean_luminance(images: Tensor) -> float:
    """Return the mean luminance (ITU-R BT.601) of ``[N, 3, H, W]`` in [-1, 1], in [0, 255]."""
    return float((luminance(images) + 1).mean() * 127.5)


def luminance(images: Tensor) -> Tensor:
    """Return the luminance (ITU-R BT.601): ``[N, 3, H, W]`` to ``[N, H, W]``, same range."""
    weights = torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1)


def luminance_correlation(images: Tensor, translated: Tensor) -> float:
    """Return the correlation of luminance between images and their translations.

    Args:
        images: ``[N, 3, H, W]``, any range.
        translated: The translations, ``[N, 3, H, W]``.

    Returns:
        Pearson correlation over a 16×16 grid of areas, mean over images: 1 if translations only
        change brightness or contrast, -1 for negatives, 0 if either image is uniform.
    """
    before, after = (
        F.adaptive_avg_pool2d(luminance(one), AREAS).flatten(1) for one in (images, translated)
    )
    before, after = (one - one.mean(dim=1, keepdim=True) for one in (before, after))
    return float(F.cosine_similarity(before, after, dim=1).mean())


def diversity(images: Tensor) -> float:
    """Return the diversity of a set of images.

    Args:
        images: ``[N, 3, H, W]``, any range.

    Returns:
        Mean absolute difference between pairs, averaged over 32×32 areas to suppress noise; 0 for
        equal images or a single one.
    """
    small = F.adaptive_avg_pool2d(images, DIVERSITY_AREAS).flatten(1)
    if len(small) < 2:
        return 0.0
    return float(F.pdist(small, p=1).mean() / small.shape[1])


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
