"""How near one set of images is to another, without pairs and without downloaded networks.

``benchmarks/judge.py`` measures translations with it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Karras et al. 2018, sec. 5 and app. A: patches of 7×7, 128 of them an image and level.
PATCH_SIZE = 7
PATCHES_A_IMAGE = 128
PROJECTIONS = 512
SMALLEST_LEVEL = 16
AREAS, DIVERSITY_AREAS = 16, 32
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def sliced_wasserstein_distance(
    images: Tensor, reference: Tensor, seed: int = 0, projections: int = PROJECTIONS
) -> list[float]:
    """Sliced Wasserstein distance of Laplacian pyramid patches (Karras et al. 2018, sec. 5).

    Each level of the pyramid compares structure of one scale, the last one the low-frequency rest
    that carries brightness and colour. Unlike in the paper, patches of both sets are normalised
    by the *reference's* mean and deviation: normalising each set by its own would hide exactly the
    difference between day and night.

    Args:
        images: ``[N, 3, H, W]`` in [-1, 1].
        reference: ``[M, 3, H, W]`` in [-1, 1], on the same device; M may differ from N.
        seed: Of the patches and projections.
        projections: Directions that the patches are compared along.

    Returns:
        The distance a level, finest first, times 1000 as in the paper; 0 for equal sets.
    """
    random = torch.Generator().manual_seed(seed)
    levels = zip(laplacian_pyramid(images), laplacian_pyramid(reference), strict=True)
    return [1000 * _level_distance(own, other, random, projections) for own, other in levels]


def laplacian_pyramid(images: Tensor) -> list[Tensor]:
    """What each halving of the resolution loses, finest first, and the rest that is left.

    Args:
        images: ``[N, 3, H, W]``, any range.

    Returns:
        ``[N, 3, H, W]``, ``[N, 3, H/2, W/2]``, ... down to a short side of at least 16. Adding
        them up again, each doubled in size, gives the images.
    """
    levels = []
    while min(images.shape[-2:]) >= 2 * SMALLEST_LEVEL:
        smaller = F.interpolate(
            images, scale_factor=0.5, mode="bilinear", antialias=True, align_corners=False
        )
        levels.append(images - enlarge(smaller, images))
        images = smaller
    return [*levels, images]


def enlarge(smaller: Tensor, like: Tensor) -> Tensor:
    """Resize to the size of ``like``, as the pyramid does."""
    return F.interpolate(smaller, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _level_distance(
    images: Tensor, reference: Tensor, random: torch.Generator, projections: int
) -> float:
    # As many patches of each set: sorted projections are then compared one to one.
    count = PATCHES_A_IMAGE * max(len(images), len(reference))
    own, other = _patches(images, count, random), _patches(reference, count, random)
    deviation, mean = torch.std_mean(other, dim=(0, 2), keepdim=True)
    own, other = ((set_ - mean) / (deviation + 1e-8) for set_ in (own, other))
    directions = torch.randn(own[0].numel(), projections, generator=random).to(own.device)
    directions /= directions.norm(dim=0, keepdim=True)
    projected = (own.flatten(1) @ directions, other.flatten(1) @ directions)
    sorted_own, sorted_other = (values.sort(dim=0).values for values in projected)
    return float((sorted_own - sorted_other).abs().mean())


def _patches(images: Tensor, count: int, random: torch.Generator) -> Tensor:
    """``count`` random patches, as evenly over the images as they go: ``[count, 3, 49]``."""
    number, _, height, width = images.shape
    image = torch.arange(count) % number
    top = torch.randint(height - PATCH_SIZE + 1, (count,), generator=random)
    left = torch.randint(width - PATCH_SIZE + 1, (count,), generator=random)
    offset = torch.arange(PATCH_SIZE)
    rows = (top[:, None] + offset)[:, :, None]
    columns = (left[:, None] + offset)[:, None, :]
    return images[image[:, None, None], :, rows, columns].permute(0, 3, 1, 2).flatten(2)


def histogram_distance(images: Tensor, reference: Tensor) -> float:
    """How far apart the colours of two sets are.

    The mean over channels of the one-dimensional Wasserstein distance between their histograms.

    Args:
        images: ``[N, 3, H, W]`` in [-1, 1].
        reference: ``[M, 3, H', W']`` in [-1, 1].

    Returns:
        In levels of 8 bits: 0 for equal histograms, 255 for black against white.
    """
    shares = [_cumulative_histogram(channel) for channel in _channels(images)]
    others = [_cumulative_histogram(channel) for channel in _channels(reference)]
    # In one dimension the distance is the area between the cumulative histograms.
    areas = [float((a - b).abs().sum()) for a, b in zip(shares, others, strict=True)]
    return sum(areas) / len(areas)


def _channels(images: Tensor) -> tuple[Tensor, ...]:
    return images.transpose(0, 1).flatten(1).unbind(0)


def _cumulative_histogram(values: Tensor) -> Tensor:
    """Shard of pixels at or below each of the 256 levels."""
    levels = values.add(1).mul(127.5).round().clamp(0, 255)
    return torch.histc(levels, bins=256, min=0, max=255).cumsum(0) / values.numel()


def mean_luminance(images: Tensor) -> float:
    """Mean brightness (ITU-R BT.601) of ``[N, 3, H, W]`` in [-1, 1], in levels of 8 bits."""
    return float((luminance(images) + 1).mean() * 127.5)


def luminance(images: Tensor) -> Tensor:
    """Brightness (ITU-R BT.601): ``[N, 3, H, W]`` to ``[N, H, W]``, in the same range."""
    weights = torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1)


def luminance_correlation(images: Tensor, translated: Tensor) -> float:
    """Whether what is bright in images is bright in their translations.

    Args:
        images: ``[N, 3, H, W]``, any range.
        translated: Likewise, one for each of them.

    Returns:
        Pearson's correlation over the areas of an image (a grid of 16×16), mean over images:
        1 for translations that only brighten or darken, -1 for negatives, 0 where either image
        has one brightness all over.
    """
    before, after = (
        F.adaptive_avg_pool2d(luminance(one), AREAS).flatten(1) for one in (images, translated)
    )
    before, after = (one - one.mean(dim=1, keepdim=True) for one in (before, after))
    return float(F.cosine_similarity(before, after, dim=1).mean())


def diversity(images: Tensor) -> float:
    """How different images are from each other.

    Args:
        images: ``[N, 3, H, W]``, any range.

    Returns:
        Mean absolute difference of two of them, seen at 32×32 areas so that noise does not count;
        0 for equal images, or for a single one.
    """
    small = F.adaptive_avg_pool2d(images, DIVERSITY_AREAS).flatten(1)
    if len(small) < 2:
        return 0.0
    return float(F.pdist(small, p=1).mean() / small.shape[1])
