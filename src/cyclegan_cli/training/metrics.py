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


def sliced_wasserstein_distance(
    images: Tensor, reference: Tensor, seed: int = 0, projections: int = PROJECTIONS
) -> list[float]:
    """Sliced Wasserstein distance of Laplacian pyramid patches (Karras et al. 2018, sec. 5).

    Each level of the pyramid compares structure at one scale; the last one holds the low
    frequencies, with luminance and color. Unlike in the paper, the patches of both sets are
    normalized by the mean and standard deviation of the *reference*: normalizing each set by its
    own would hide differences such as between day and night.

    Args:
        images: ``[N, C, H, W]`` in [-1, 1].
        reference: ``[M, C, H, W]`` in [-1, 1], on the same device; M may differ from N.
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
        images: ``[N, C, H, W]``, any range.

    Returns:
        ``[N, C, H, W]``, ``[N, C, H/2, W/2]``, ... down to a short side of at least 16.
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
    """Return ``count`` random patches, evenly distributed over the images: ``[count, C, 49]``."""
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
        images: ``[N, C, H, W]`` in [-1, 1].
        reference: ``[M, C, H', W']`` in [-1, 1].

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
    """Return the mean luminance (ITU-R BT.601) of ``[N, C, H, W]`` in [-1, 1], in [0, 255]."""
    return float((luminance(images) + 1).mean() * 127.5)


def luminance(images: Tensor) -> Tensor:
    """Return the luminance of images of any number of channels.

    Args:
        images: ``[N, C, H, W]``, any range.

    Returns:
        ``[N, H, W]``, same range: by ITU-R BT.601 of three channels, else the mean of the channels.
    """
    if images.shape[1] != len(LUMA):
        return images.mean(dim=1)
    weights = torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1)


def luminance_correlation(images: Tensor, translated: Tensor) -> float:
    """Return the correlation of luminance between images and their translations.

    Args:
        images: ``[N, C, H, W]``, any range.
        translated: The translations, ``[N, C, H, W]``.

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
        images: ``[N, C, H, W]``, any range.

    Returns:
        Mean absolute difference between pairs, averaged over 32×32 areas to suppress noise; 0 for
        equal images or a single one.
    """
    small = F.adaptive_avg_pool2d(images, DIVERSITY_AREAS).flatten(1)
    if len(small) < 2:
        return 0.0
    return float(F.pdist(small, p=1).mean() / small.shape[1])
