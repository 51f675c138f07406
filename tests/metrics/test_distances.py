import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cyclegan_cli.metrics.distances import (
    enlarge,
    histogram_distance,
    laplacian_pyramid,
    mean_luminance,
    sliced_wasserstein_distance,
)


def random_images(count: int, seed: int = 0, size: int = 64) -> torch.Tensor:
    return torch.rand((count, 3, size, size), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def flat(level: float, count: int = 2) -> torch.Tensor:
    """Images of one grey, given in 8-bit levels."""
    return torch.full((count, 3, 32, 32), level / 127.5 - 1)


def test_laplacian_pyramid_reconstructs_the_images():
    images = random_images(2, size=80)
    rebuilt, *finer = reversed(laplacian_pyramid(images))
    for level in finer:
        rebuilt = level + enlarge(rebuilt, level)
    torch.testing.assert_close(rebuilt, images)


def test_laplacian_pyramid_ends_at_16_pixels():
    assert [level.shape[-1] for level in laplacian_pyramid(random_images(1))] == [64, 32, 16]


def test_swd_of_two_samples_of_one_distribution_is_small():
    near = sliced_wasserstein_distance(random_images(8), random_images(8, seed=1))
    far = sliced_wasserstein_distance(random_images(8) * 0.3, random_images(8, seed=1))
    assert all(n < f / 5 for n, f in zip(near, far, strict=True))


def test_brightness_changes_only_the_coarsest_swd():
    images = random_images(8)
    near = sliced_wasserstein_distance(images, images)
    moved = sliced_wasserstein_distance(images + 0.5, images)
    assert moved[:-1] == pytest.approx(near[:-1], abs=1e-2)
    assert moved[-1] > 10 * near[-1]


def test_blur_changes_the_finest_swd():
    images = random_images(8)
    blurred = torch.nn.functional.avg_pool2d(images, 3, stride=1, padding=1)
    before = sliced_wasserstein_distance(images, random_images(8, seed=1))
    after = sliced_wasserstein_distance(blurred, random_images(8, seed=1))
    assert after[0] > 5 * before[0]


def test_swd_is_deterministic_for_a_seed():
    first = sliced_wasserstein_distance(random_images(3), random_images(5, seed=1), seed=4)
    torch.rand(10)
    again = sliced_wasserstein_distance(random_images(3), random_images(5, seed=1), seed=4)
    assert first == again


@given(st.integers(0, 255), st.integers(0, 255))
def test_histogram_distance_of_two_greys_is_their_difference(first, second):
    distance = histogram_distance(flat(first), flat(second, count=3))
    assert distance == pytest.approx(abs(first - second), abs=1e-3)


def test_histogram_distance_ignores_pixel_positions():
    images = random_images(2)
    assert histogram_distance(images.flip(-1), images) == pytest.approx(0, abs=1e-3)


def test_luminance_has_bt601_weights():
    green = torch.full((1, 3, 8, 8), -1.0)
    green[:, 1] = 1
    assert mean_luminance(green) == pytest.approx(0.587 * 255, abs=1e-3)
    assert mean_luminance(flat(200)) == pytest.approx(200, abs=1e-3)
