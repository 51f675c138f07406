"""Distances between unpaired sets of images, without pretrained networks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cyclegan_cli.data.image import LUMA
from cyclegan_cli.data.tensors import to_unit_range

# Karras et al. 2018, sec. 5 and app. A: 128 patches of 7×7 per image and pyramid level.
PATCH_SIZE = 7
PATCHES_PER_IMAGE = 128
PROJECTIONS = 512
MIN_PYRAMID_SIZE = 16
AREAS, DIVERSITY_AREAS = 16, 32
# Bounds of memory: images whose pyramids are computed, and projections that are sorted, at a time.
IMAGE_BATCH, PROJECTION_BATCH = 16, 64
RESAMPLED_PROJECTIONS = 16  # Of bootstrap samples, whose spread over images needs no more.


def sliced_wasserstein_distance(
    images: Tensor, reference: Tensor, seed: int = 0, projections: int = PROJECTIONS
) -> list[float]:
    """Sliced Wasserstein distance of Laplacian pyramid patches (Karras et al. 2018, sec. 5).

    Each level of the pyramid compares structure at one scale; the last one holds the low
    frequencies, with luminance and color. Unlike in the paper, the patches of both sets are
    normalized by the mean and standard deviation of the *reference*: normalizing each set by its
    own would hide differences such as between day and night.

    Args:
        images: ``[N, C, H, W]`` in [-1, 1], or uint8 pixel values.
        reference: ``[M, C, H, W]`` likewise, on the same device; M may differ from N.
        seed: Seed for the patches and projections.
        projections: Number of random projections.

    Returns:
        The distance at each level, finest first, times 1000 as in the paper; 0 for equal sets.
    """
    return SlicedWasserstein(images, reference, seed, projections).levels()


class SlicedWasserstein:
    """Patches of two sets of images, for the distance of the sets and of bootstrap samples.

    Holds 376 kB per image of the larger set at 256×256, and as much again for the other set.

    Args:
        images: ``[N, C, H, W]`` in [-1, 1], or uint8 pixel values.
        reference: ``[M, C, H, W]`` likewise, on the same device.
        seed: Seed for the patches and projections.
        projections: Number of random projections.
    """

    def __init__(
        self, images: Tensor, reference: Tensor, seed: int = 0, projections: int = PROJECTIONS
    ) -> None:
        self.sizes = len(images), len(reference)
        # Equal numbers of patches, so that sorted projections pair up.
        self.count = PATCHES_PER_IMAGE * max(self.sizes)
        random = torch.Generator().manual_seed(seed)
        positions: list[list[Tensor]] = [[], []]
        self.directions: list[Tensor] = []
        for height, width in _pyramid_sizes(images.shape[-2], images.shape[-1]):
            for drawn in positions:
                top = torch.randint(height - PATCH_SIZE + 1, (self.count,), generator=random)
                left = torch.randint(width - PATCH_SIZE + 1, (self.count,), generator=random)
                drawn.append(torch.stack([top, left]))
            values = images.shape[1] * PATCH_SIZE**2
            directions = torch.randn(values, projections, generator=random)
            self.directions.append((directions / directions.norm(dim=0)).to(images.device))
        self.own = _patches(images, positions[0])
        self.other = _patches(reference, positions[1])
        for own, other in zip(self.own, self.other, strict=True):
            deviation, mean = torch.std_mean(other, dim=(0, 2), keepdim=True)
            for patches in (own, other):
                patches.sub_(mean).div_(deviation + 1e-8)

    def levels(self) -> list[float]:
        """Return the distance at each level, finest first; see the function."""
        found = []
        for pairs in self._projected(None):
            sums = [
                (own.sort(dim=0).values - other.sort(dim=0).values).abs().mean(dim=0).sum()
                for own, other in pairs
            ]
            found.append(1000 * float(torch.stack(sums).sum()) / self.directions[0].shape[1])
        return found

    def resampled(self, counts: Tensor, reference_counts: Tensor) -> Tensor:
        """Return the distance of bootstrap samples, mean over the levels.

        The patches and 16 of the projections are those of the sets themselves.

        Args:
            counts: ``[R, N]`` fp64: how often each image occurs.
            reference_counts: ``[R, M]`` fp64.

        Returns:
            ``[R]`` fp64.
        """
        shares = (self._of_patches(counts, 0), -self._of_patches(reference_counts, 1))
        weights = np.concatenate(shares, axis=1)
        total = np.zeros(len(weights))
        for pairs in self._projected(RESAMPLED_PROJECTIONS):
            for own, other in pairs:
                # In one dimension the distance is the area between the cumulative histograms.
                values, order = torch.cat([own, other]).T.sort(dim=1)
                gaps = values.diff(dim=1).cpu().numpy()
                # NumPy: threads of torch take longer to start than such sums to compute.
                indices = order.cpu().numpy()
                for sample, weight in enumerate(weights):
                    difference = np.abs(weight[indices].cumsum(axis=1)[:, :-1])
                    total[sample] += np.vdot(difference, gaps)
        projections = min(RESAMPLED_PROJECTIONS, self.directions[0].shape[1])
        return torch.from_numpy(1000 * total / (projections * len(self.directions)))

    def _of_patches(self, counts: Tensor, index: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return weights of patches, which sum to 1, from those of images: ``[R, count]``."""
        weights = counts[:, torch.arange(self.count) % self.sizes[index]]
        return (weights / weights.sum(dim=1, keepdim=True)).float().numpy()

    def _projected(self, limit: int | None) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
        """Yield for each level the projections of both sets, ``[count, P]``, in batches."""
        for own, other, directions in zip(self.own, self.other, self.directions, strict=True):
            batches = torch.split(directions[:, :limit], PROJECTION_BATCH, dim=1)
            yield ((own.flatten(1) @ few, other.flatten(1) @ few) for few in batches)


def _pyramid_sizes(height: int, width: int) -> Iterator[tuple[int, int]]:
    """Yield height and width of each level of the Laplacian pyramid."""
    while min(height, width) >= 2 * MIN_PYRAMID_SIZE:
        yield height, width
        height, width = height // 2, width // 2
    yield height, width


def _patches(images: Tensor, positions: list[Tensor]) -> list[Tensor]:
    """Return patches of each level, evenly distributed over the images: ``[count, C, 49]``.

    Args:
        images: ``[N, C, H, W]`` in [-1, 1], or uint8 pixel values.
        positions: Top and left of the patches of each level, ``[2, count]``.
    """
    count = positions[0].shape[1]
    image_of = torch.arange(count) % len(images)
    found = [
        torch.empty(count, images.shape[1], PATCH_SIZE**2, device=images.device) for _ in positions
    ]
    for start in range(0, len(images), IMAGE_BATCH):
        batch = images[start : start + IMAGE_BATCH]
        batch = to_unit_range(batch) if batch.dtype == torch.uint8 else batch
        chosen = ((image_of >= start) & (image_of < start + IMAGE_BATCH)).nonzero().flatten()
        for level, patches, position in zip(
            laplacian_pyramid(batch), found, positions, strict=True
        ):
            patches[chosen] = _cut(level, image_of[chosen] - start, position[:, chosen])
    return found


def _cut(images: Tensor, image: Tensor, position: Tensor) -> Tensor:
    """Cut patches from ``[N, C, H, W]`` by image, ``[K]``, and top and left, ``[2, K]``."""
    offset = torch.arange(PATCH_SIZE)
    rows = (position[0, :, None] + offset)[:, :, None]
    columns = (position[1, :, None] + offset)[:, None, :]
    return images[image[:, None, None], :, rows, columns].permute(0, 3, 1, 2).flatten(2)


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
