"""KID and FID equal torch-fidelity's, and independent formulas where that has none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from cyclegan_cli.metrics import features as metrics
from cyclegan_cli.metrics.bootstrap import resample_counts
from cyclegan_cli.metrics.features import (
    frechet_distance,
    kernel_distance,
    resampled_frechet_distance,
    resampled_kernel_distance,
)


def drawn(count: int, width: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    """Correlated positive features, fp64."""
    random = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    values = torch.randn(count, width, generator=random, dtype=torch.float64)
    return (values @ mix / width**0.5 + shift).abs()


def kid_of_torch_fidelity(one: torch.Tensor, other: torch.Tensor) -> float:
    options = {"kid_subsets": 1, "kid_subset_size": len(one), "verbose": False}
    found = kid_features_to_metric(one, other, **options)
    return float(found["kernel_inception_distance_mean"])


def fid_of_torch_fidelity(one: torch.Tensor, other: torch.Tensor) -> float:
    statistics = [fid_features_to_statistics(features) for features in (one, other)]
    found = fid_statistics_to_metric(*statistics, verbose=False)
    return float(found["frechet_inception_distance"])


@pytest.mark.parametrize(("count", "width"), [(40, 64), (200, 32), (33, 2048)])
def test_kernel_distance_equals_that_of_torch_fidelity(count: int, width: int) -> None:
    one, other = drawn(count, width, 0), drawn(count, width, 1, shift=0.3)
    assert kernel_distance(one, other) == pytest.approx(kid_of_torch_fidelity(one, other), abs=1e-6)


@pytest.mark.parametrize(
    ("count", "others", "width"), [(200, 150, 32), (40, 31, 64), (500, 20, 48)]
)
def test_frechet_distance_equals_that_of_torch_fidelity(
    count: int, others: int, width: int
) -> None:
    one, other = drawn(count, width, 0), drawn(others, width, 1, shift=0.3)
    # Eigenvalues of a rank-deficient product are exact to the square root of the precision.
    assert frechet_distance(one, other) == pytest.approx(
        fid_of_torch_fidelity(one, other), abs=1e-4
    )


def test_frechet_distance_equals_its_definition() -> None:
    one, other = drawn(300, 24, 0), drawn(250, 24, 1, shift=0.5)
    covariances = [np.cov(features.numpy(), rowvar=False) for features in (one, other)]
    difference = (one.mean(dim=0) - other.mean(dim=0)).square().sum()
    root = sqrtm(covariances[0] @ covariances[1]).real
    expected = float(difference) + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(one, other) == pytest.approx(expected, abs=1e-8)


def test_kernel_distance_of_unequal_numbers_equals_its_definition() -> None:
    one, other = drawn(7, 16, 0).numpy(), drawn(12, 16, 1).numpy()

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    within = [
        np.mean([kernel(x, y) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j])
        for rows in (one, other)
    ]
    between = np.mean([kernel(x, y) for x in one for y in other])
    expected = float(sum(within) - 2 * between)
    found = kernel_distance(torch.from_numpy(one), torch.from_numpy(other))
    assert found == pytest.approx(expected, abs=1e-9)


def test_kernel_distance_of_blocks_is_close_to_that_of_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, other = drawn(400, 16, 0), drawn(300, 16, 1, shift=1.0)
    whole = kernel_distance(one, other)
    monkeypatch.setattr(metrics, "KID_BLOCK", 100)
    blocks = kernel_distance(one, other)
    assert blocks != whole
    assert blocks == pytest.approx(whole, rel=0.05)


def test_bootstrap_samples_are_those_of_repeated_rows() -> None:
    one, other = drawn(20, 8, 0), drawn(15, 8, 1)
    counts = [resample_counts(len(rows), 3, resamples=1) for rows in (one, other)]
    repeated = [
        rows.repeat_interleave(count[0].long(), dim=0)
        for rows, count in zip((one, other), counts, strict=True)
    ]
    found = float(resampled_frechet_distance(one, other, *counts)[0])
    assert found == pytest.approx(frechet_distance(*repeated), abs=1e-9)


def test_kernel_distance_of_bootstrap_samples_is_unbiased() -> None:
    one, other = drawn(60, 8, 0), drawn(60, 8, 1, shift=0.5)
    counts = [resample_counts(60, seed, resamples=2000) for seed in (0, 1)]
    found = resampled_kernel_distance(one, other, *counts)
    error = float(found.std()) / len(found) ** 0.5
    assert abs(float(found.mean()) - kernel_distance(one, other)) < 4 * error
