"""Distances between sets of features: Kernel and Fréchet Inception Distance."""

from __future__ import annotations

import torch
from torch import Tensor

# Images per block of the kernel distance, as clean-fid's subsets: memory is linear in the images.
KID_BLOCK = 1000
MIN_PER_BLOCK = 20  # Of the smaller set: a bootstrap sample then has different images.


def kernel_distance(features: Tensor, reference: Tensor) -> float:
    """Return the Kernel Inception Distance (Bińkowski et al. 2018) of two sets of features.

    This is the unbiased estimate of the squared maximum mean discrepancy with the kernel
    ``(x·y / D + 1)³``. Sets of more than 1000 images are divided into blocks at random, and the
    estimates of the blocks are averaged.

    Args:
        features: ``[N, D]``, N of at least 2.
        reference: ``[M, D]``, M of at least 2.

    Returns:
        The distance: 0 on average for two samples of one distribution, so that it may be negative.
    """
    ones = [torch.ones(1, len(one), dtype=torch.float64) for one in (features, reference)]
    return float(resampled_kernel_distance(features, reference, *ones)[0])


def resampled_kernel_distance(
    features: Tensor, reference: Tensor, counts: Tensor, reference_counts: Tensor
) -> Tensor:
    """Return the Kernel Inception Distance of bootstrap samples.

    Pairs of an image with its own copy are left out, as pairs of an image with itself are.

    Args:
        features: ``[N, D]``.
        reference: ``[M, D]``.
        counts: ``[R, N]`` fp64: how often each image occurs.
        reference_counts: ``[R, M]`` fp64.

    Returns:
        ``[R]`` fp64.
    """
    blocks = -(-max(len(features), len(reference)) // KID_BLOCK)
    blocks = max(1, min(blocks, min(len(features), len(reference)) // MIN_PER_BLOCK))
    random = torch.Generator().manual_seed(0)
    parts = [
        torch.randperm(len(one), generator=random).tensor_split(blocks)
        if blocks > 1
        else (torch.arange(len(one)),)
        for one in (features, reference)
    ]
    estimates = [
        _mmd(
            features[own].double(),
            reference[other].double(),
            counts[:, own],
            reference_counts[:, other],
        )
        for own, other in zip(*parts, strict=True)
    ]
    return torch.stack(estimates).mean(dim=0)


def _mmd(x: Tensor, y: Tensor, counts_x: Tensor, counts_y: Tensor) -> Tensor:
    total_x, total_y = counts_x.sum(dim=1), counts_y.sum(dim=1)
    between = ((counts_x @ _kernel(x, y)) * counts_y).sum(dim=1) / (total_x * total_y)
    return _within(x, counts_x) + _within(y, counts_y) - 2 * between


def _within(x: Tensor, counts: Tensor) -> Tensor:
    """Return the mean kernel of pairs of different images, ``[R]``."""
    kernel = _kernel(x, x).fill_diagonal_(0)
    pairs = counts.sum(dim=1).square() - counts.square().sum(dim=1)
    return ((counts @ kernel) * counts).sum(dim=1) / pairs


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """Return the Fréchet Inception Distance (Heusel et al. 2017) of two sets of features.

    With fewer images than features the covariances are rank-deficient, and the distance depends
    on the number of images.

    Args:
        features: ``[N, D]``, N of at least 2.
        reference: ``[M, D]``, M of at least 2.
    """
    ones = [torch.ones(1, len(one), dtype=torch.float64) for one in (features, reference)]
    return float(resampled_frechet_distance(features, reference, *ones)[0])


def resampled_frechet_distance(
    features: Tensor, reference: Tensor, counts: Tensor, reference_counts: Tensor
) -> Tensor:
    """Return the Fréchet Inception Distance of bootstrap samples.

    Args:
        features: ``[N, D]``.
        reference: ``[M, D]``.
        counts: ``[R, N]`` fp64: how often each image occurs.
        reference_counts: ``[R, M]`` fp64.

    Returns:
        ``[R]`` fp64.
    """
    x, y = features.double(), reference.double()
    found = []
    for count_x, count_y in zip(counts, reference_counts, strict=True):
        mean_x, root_x = _deviations(x, count_x)
        mean_y, root_y = _deviations(y, count_y)
        distance = (mean_x - mean_y).square().sum()
        traces = root_x.square().sum() + root_y.square().sum()
        found.append(distance + traces - 2 * _trace_of_root(root_x, root_y))
    return torch.stack(found)


def _deviations(x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean, and R with ``Rᵀ R`` the covariance: ``[D]`` and ``[N, D]``."""
    x, counts = x[counts > 0], counts[counts > 0]
    total = counts.sum()
    mean = counts @ x / total
    return mean, (x - mean) * (counts / (total - 1)).sqrt()[:, None]


def _trace_of_root(root_x: Tensor, root_y: Tensor) -> Tensor:
    """Return the trace of the square root of the product of two covariances.

    The eigenvalues of ``Xᵀ X Yᵀ Y`` are the squared singular values of ``X Yᵀ``. With more images
    than features, X and Y are replaced by square matrices of the same covariance.
    """
    if min(len(root_x), len(root_y)) > root_x.shape[1]:
        root_x, root_y = (torch.linalg.qr(root).R for root in (root_x, root_y))
    singular_values: Tensor = torch.linalg.svdvals(root_x @ root_y.T)
    return singular_values.sum()
