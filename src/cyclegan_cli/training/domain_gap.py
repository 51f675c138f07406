"""How two domains differ apart from their content: in color, framing and resolution.

A discriminator uses every difference (docs/training-your-own.md). Those that need no training to
remove, or that were not intended, are reported before it.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from cyclegan_cli.data.dataset import center_crop
from cyclegan_cli.data.tensors import to_unit_range
from cyclegan_cli.metrics.distances import mean_luminance, sliced_wasserstein_distance

MAX_IMAGES = 64  # Per domain, whose pixels are compared.
MIN_IMAGES = 16
MAX_SIZE = 128  # Of the compared center crops.
PROJECTIONS = 64
# Distances between the domains, relative to that between two halves of one. Before a match of
# histograms in one direction and in both; smaller ones are noise.
MIN_LARGER, MIN_SMALLER = 2.0, 1.5
# After it, larger of both directions. Recolored photos: 0.6 to 0.9; photos and maps 1.7 to 2.8, day
# and night 2.5 to 4.0.
EXPLAINED_BELOW = 1.15
ASPECT_FACTOR = 1.25
ENLARGED = 1.5
FRACTION_DIFFERENCE = 0.5  # Of images with borders, or smaller than the load size.
BORDER = 0.02  # Width of a border, as a fraction of the side.
BORDER_DEVIATION = 3.0  # In 8-bit pixel values.


@dataclass
class DomainSample:
    """Decoded images of a domain.

    Attributes:
        crops: Center crops by path, ``[3, S, S]`` uint8, of at most :data:`MAX_SIZE` pixels.
        borders: By path, whether the image has a border of a single color.
        is_wide: By path, whether the image is wider than high.
    """

    crops: dict[Path, Tensor] = field(default_factory=dict)
    borders: dict[Path, bool] = field(default_factory=dict)
    is_wide: dict[Path, bool] = field(default_factory=dict)

    def add(self, path: Path, image: Tensor, crop_size: int) -> None:
        """Add an image. Threads may add images in any order.

        Args:
            path: Its path.
            image: The image as the training loads it, ``[3, H, W]`` uint8.
            crop_size: Size of the crops of the training.
        """
        self.crops[path] = center_crop(image, min(crop_size, MAX_SIZE)).clone()
        self.borders[path] = has_border(image)
        self.is_wide[path] = image.shape[2] > image.shape[1]

    def images(self, count: int) -> Tensor:
        """Return the first ``count`` crops by path: ``[N, 3, S, S]`` in [-1, 1]."""
        chosen = [self.crops[path] for path in sorted(self.crops)[:count]]
        return to_unit_range(torch.stack(chosen))


def has_border(image: Tensor) -> bool:
    """Return whether two opposite sides of an image have an equal, uniform border.

    Args:
        image: ``[3, H, W]`` uint8.
    """
    for side in (image, image.transpose(1, 2)):
        width = max(1, round(BORDER * side.shape[1]))
        ends = torch.cat([side[:, :width], side[:, -width:]], dim=1).float()
        inside = side[:, width:-width].float()
        if ends.std(dim=(1, 2)).max() < BORDER_DEVIATION < inside.std(dim=(1, 2)).max():
            return True
    return False


def color_warning(names: tuple[str, str], a: DomainSample, b: DomainSample) -> str:
    """Return a warning if the domains differ mainly in brightness, contrast or color, or "".

    The histograms of each channel of one domain are matched to the other's. The warning follows if
    the sliced Wasserstein distance between the domains then is about that between two halves of
    one domain, in both directions.

    Args:
        names: Names of the domains.
        a: Images of domain A.
        b: Images of domain B.
    """
    count = min(len(a.crops), len(b.crops))
    if count < MIN_IMAGES:
        return ""
    real_a, real_b = a.images(count), b.images(count)
    before, after = [], []
    for real, target in ((real_a, real_b), (real_b, real_a)):
        within = _distance(target[::2], target[1::2])
        before.append(_distance(real, target) / within)
        after.append(_distance(match_histograms(real, target), target) / within)
    if max(before) < MIN_LARGER or min(before) < MIN_SMALLER or max(after) > EXPLAINED_BELOW:
        return ""
    means = [mean_luminance(real) for real in (real_a, real_b)]
    deviations = [float(real.std() * 127.5) for real in (real_a, real_b)]
    return (
        "the domains differ mainly in brightness, contrast or color: the mean luminance is "
        f"{means[0]:.0f} ({names[0]}) and {means[1]:.0f} ({names[1]}), the contrast "
        f"{deviations[0]:.0f} and {deviations[1]:.0f}; the distance between the domains (SWD) is "
        f"{max(before):.1f} times that between two halves of one, and {max(after):.1f} times once "
        "the histograms of the channels are equal, so a color adjustment may be enough; if another "
        "difference is intended, make the colors of the two folders alike"
    )


def match_histograms(images: Tensor, reference: Tensor) -> Tensor:
    """Map the pixel values of each channel so that its histogram is that of the reference.

    Args:
        images: ``[N, 3, H, W]`` in [-1, 1].
        reference: ``[M, 3, H', W']`` in [-1, 1].

    Returns:
        ``[N, 3, H, W]`` in [-1, 1].
    """
    matched = []
    for channel in range(images.shape[1]):
        pixels = images[:, channel].add(1).mul(127.5).round().clamp(0, 255).long()
        wanted = reference[:, channel].flatten().sort().values
        fractions = torch.bincount(pixels.flatten(), minlength=256).cumsum(0) / pixels.numel()
        below = torch.cat([torch.zeros(1), fractions[:-1]])
        # Each value maps to the median of the reference's pixels of the same ranks.
        ranks = ((below + fractions) / 2 * (len(wanted) - 1)).round().long()
        matched.append(wanted[ranks][pixels])
    return torch.stack(matched, dim=1)


def framing_warning(
    names: tuple[str, str],
    sizes: tuple[Sequence[tuple[int, int]], Sequence[tuple[int, int]]],
    samples: tuple[DomainSample, DomainSample],
    load_size: int,
) -> str:
    """Return a warning if the domains differ in shape, resolution or borders, or "".

    Args:
        names: Names of the domains.
        sizes: Width and height of the images of each domain, at least one each.
        samples: Decoded images of each domain.
        load_size: Short side to which images are resized.
    """
    found = []
    aspects = [statistics.median(max(size) / min(size) for size in one) for one in sizes]
    if max(aspects) > ASPECT_FACTOR * min(aspects):
        found.append(f"their median aspect ratios are {aspects[0]:.2f} and {aspects[1]:.2f}")
    small = [statistics.fmean(min(size) < load_size / ENLARGED for size in one) for one in sizes]
    if abs(small[0] - small[1]) > FRACTION_DIFFERENCE:
        found.append(
            f"{small[0]:.0%} and {small[1]:.0%} are enlarged by more than {ENLARGED:g} to the "
            f"--load-size of {load_size}, which blurs them"
        )
    if min(len(one.crops) for one in samples) >= MIN_IMAGES:
        wide = [statistics.fmean(one.is_wide.values()) for one in samples]
        if min(aspects) > ASPECT_FACTOR and abs(wide[0] - wide[1]) > FRACTION_DIFFERENCE:
            found.append(f"{wide[0]:.0%} and {wide[1]:.0%} are wider than high")
        borders = [statistics.fmean(one.borders.values()) for one in samples]
        if abs(borders[0] - borders[1]) > FRACTION_DIFFERENCE:
            found.append(f"{borders[0]:.0%} and {borders[1]:.0%} have a border of a single color")
    if not found:
        return ""
    return (
        f"the images of {names[0]} and {names[1]} are framed differently: {'; '.join(found)}; the "
        "discriminators learn such differences, so crop or resize the images of one folder"
    )


def _distance(images: Tensor, reference: Tensor) -> float:
    return statistics.fmean(sliced_wasserstein_distance(images, reference, projections=PROJECTIONS))
