"""Colors matched between two domains by optimal transport, for the color loss.

The mean colors of patches of domain A are matched to those of domain B such that the whole
distribution of A is mapped to that of B at the least total distance. This does not know what the
images show, but bright stays brighter than dark, and green stays greener than gray.

The linear part is the optimal transport between two normal distributions (Pitié and Kokaram 2007).
The rest is entropic optimal transport between samples (Cuturi 2013), extended to new patches by its
barycentric projection (Ferradans et al. 2014).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Side of a patch. Smaller ones vary with textures, which the generators are to invent.
PATCH = 8
# Entropic regularization, relative to the total variance of the patches of the target domain.
REGULARIZATION = 0.05
ITERATIONS = 50
# Relative to the regularization: exp(-600) is above the smallest number in fp64.
LARGEST_DISTANCE = 600.0
# Eigenvalues of covariances are at least this fraction of the largest one: domains may have
# channels that are constant or depend on others.
LEAST_EIGENVALUE = 1e-4


class ColorMatching(nn.Module):
    """The color of one domain that corresponds to a patch of the other.

    Patches are compared by the means of their channels and by their contrast, the square root of
    the sum of the variances of the channels.

    Args:
        source: Patches of the source domain, ``[N, C + 1]``, see :func:`patch_features`.
        target: Patches of the target domain, ``[M, C + 1]``.
    """

    linear: Tensor
    shift: Tensor
    points: Tensor
    colors: Tensor
    potential: Tensor

    def __init__(self, source: Tensor, target: Tensor) -> None:
        super().__init__()
        covariance, wanted = source.T.cov(), target.T.cov()
        root, inverse_root = _power(covariance, 0.5), _power(covariance, -0.5)
        linear = inverse_root @ _power(root @ wanted @ root, 0.5) @ inverse_root
        # Distances are relative to the regularization.
        unit = (REGULARIZATION * wanted.trace()).clamp(min=1e-12).sqrt()
        self.register_buffer("linear", linear / unit)
        self.register_buffer("shift", (target.mean(0) - source.mean(0) @ linear) / unit)
        self.register_buffer("points", target / unit)
        self.register_buffer("colors", target[:, :-1])
        # Sinkhorn's iterations, which scale rows and columns to equal sums.
        kernel = torch.exp(-self._distances(source).clamp(max=LARGEST_DISTANCE).double())
        scale = kernel.new_ones(len(target))
        for _ in range(ITERATIONS):
            scale = 1 / ((1 / (kernel @ scale)) @ kernel)
        self.register_buffer("potential", scale.log().float())

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the corresponding mean colors of all patches, without a gradient.

        Args:
            images: Images of the source domain, ``[B, C, H, W]`` in [-1, 1].

        Returns:
            ``[B, C, H // 8, W // 8]`` in [-1, 1], fp32.
        """
        features = patch_features(images)
        weights = torch.softmax(self.potential - self._distances(features.flatten(0, 2)), dim=1)
        colors = (weights @ self.colors).view(*features.shape[:3], -1)
        return colors.permute(0, 3, 1, 2)

    def _distances(self, patches: Tensor) -> Tensor:
        """Squared distances ``[N, M]`` of patches ``[N, C + 1]``, moved by the linear part."""
        moved = patches @ self.linear + self.shift
        # Not by a matrix product: differences of large squares are imprecise.
        return torch.cdist(moved, self.points, compute_mode="donot_use_mm_for_euclid_dist").square()


def patch_features(images: Tensor) -> Tensor:
    """Compute the mean color and the contrast of each patch of 8×8 pixels.

    Args:
        images: ``[B, C, H, W]``. Rows and columns beyond a multiple of 8 are ignored.

    Returns:
        ``[B, H // 8, W // 8, C + 1]``, fp32.
    """
    pixels = images.float()
    means = F.avg_pool2d(pixels, PATCH)
    variances = F.avg_pool2d(pixels.square(), PATCH) - means.square()
    contrast = variances.clamp(min=0).sum(1, keepdim=True).sqrt()
    return torch.cat([means, contrast], dim=1).permute(0, 2, 3, 1)


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """Power of a symmetric matrix without negative eigenvalues."""
    values, vectors = torch.linalg.eigh(matrix)
    least = (LEAST_EIGENVALUE * values[-1]).clamp(min=1e-12)
    result: Tensor = (vectors * values.clamp(min=least) ** exponent) @ vectors.T
    return result
