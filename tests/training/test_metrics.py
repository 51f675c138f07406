import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cyclegan_cli.training.metrics import (
    STRIDE_FREQUENCIES,
    TILE,
    enlarge,
    even_spectrum,
    histogram_distance,
    laplacian_pyramid,
    mean_luminance,
    pattern_ratio,
    sliced_wasserstein_distance,
    stride_peaks,
)


def random_images(count: int, seed: int = 0, size: int = 64) -> torch.Tensor:
    return torch.rand((count, 3, size, size), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def flat(level: float, count: int = 2) -> torch.Tensor:
    """Images of one grey, given in 8-bit levels."""
    return torch.full((count, 3, 32, 32), level / 127.5 - 1)


def test_adding_the_pyramid_up_gives_the_images():
    images = random_images(2, size=80)
    rebuilt, *finer = reversed(laplacian_pyramid(images))
    for level in finer:
        rebuilt = level + enlarge(rebuilt, level)
    torch.testing.assert_close(rebuilt, images)


def test_the_pyramid_ends_at_sixteen_pixels():
    assert [level.shape[-1] for level in laplacian_pyramid(random_images(1))] == [64, 32, 16]


def test_the_distance_of_a_set_to_another_sample_of_its_kind_is_small():
    near = sliced_wasserstein_distance(random_images(8), random_images(8, seed=1))
    far = sliced_wasserstein_distance(random_images(8) * 0.3, random_images(8, seed=1))
    assert all(n < f / 5 for n, f in zip(near, far, strict=True))


def test_brightness_moves_the_coarsest_level_alone():
    images = random_images(8)
    near = sliced_wasserstein_distance(images, images)
    moved = sliced_wasserstein_distance(images + 0.5, images)
    assert moved[:-1] == pytest.approx(near[:-1], abs=1e-2)
    assert moved[-1] > 10 * near[-1]


def test_blur_is_seen_at_the_finest_level():
    images = random_images(8)
    blurred = torch.nn.functional.avg_pool2d(images, 3, stride=1, padding=1)
    before = sliced_wasserstein_distance(images, random_images(8, seed=1))
    after = sliced_wasserstein_distance(blurred, random_images(8, seed=1))
    assert after[0] > 5 * before[0]


def test_the_distance_depends_on_nothing_but_images_and_seed():
    first = sliced_wasserstein_distance(random_images(3), random_images(5, seed=1), seed=4)
    torch.rand(10)
    again = sliced_wasserstein_distance(random_images(3), random_images(5, seed=1), seed=4)
    assert first == again


@given(st.integers(0, 255), st.integers(0, 255))
def test_the_histogram_distance_of_two_greys_is_their_difference(first, second):
    distance = histogram_distance(flat(first), flat(second, count=3))
    assert distance == pytest.approx(abs(first - second), abs=1e-3)


def test_the_histogram_distance_ignores_where_pixels_are():
    images = random_images(2)
    assert histogram_distance(images.flip(-1), images) == pytest.approx(0, abs=1e-3)


def test_luminance_weighs_the_channels():
    green = torch.full((1, 3, 8, 8), -1.0)
    green[:, 1] = 1
    assert mean_luminance(green) == pytest.approx(0.587 * 255, abs=1e-3)
    assert mean_luminance(flat(200)) == pytest.approx(200, abs=1e-3)


def grained(seed: int, size: int = 96) -> torch.Tensor:
    """Gray images with normally distributed noise of two pixel values."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn((4, 3, size, size), generator=random) * (2 * 3**0.5 / 127.5)


@pytest.mark.parametrize("frequency", STRIDE_FREQUENCIES)
def test_waves_of_the_strides_are_patterns(frequency):
    y, x = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    wave = torch.cos(2 * torch.pi * (frequency[0] * y + frequency[1] * x) / TILE) / 127.5
    assert pattern_ratio(grained(0) + 2 * wave, grained(1)) > 10
    peaks = stride_peaks(even_spectrum(60 * wave))
    assert STRIDE_FREQUENCIES[int(peaks.argmax())] == frequency


def test_noise_and_other_waves_are_no_patterns():
    other = torch.cos(2 * torch.pi * torch.arange(96) * 5 / TILE) / 127.5
    for images in (grained(2), grained(2) + 4 * other, torch.zeros(4, 3, 96, 96)):
        assert pattern_ratio(images, grained(1)) < 2


def test_pattern_of_the_target_domain_is_not_counted():
    """Blocks of JPEG, for example."""
    wave = torch.tensor([2.0, -2.0]).repeat(48) / 127.5
    assert pattern_ratio(grained(0) + wave, grained(1) + wave) < 2
    assert pattern_ratio(grained(0) + wave, grained(1)) > 10


def test_pattern_below_the_rounding_to_8_bits_is_not_counted():
    wave = torch.tensor([0.02, -0.02]).repeat(48) / 127.5
    assert pattern_ratio(torch.full((4, 3, 96, 96), 100 / 127.5 - 1) + wave, grained(1)) < 2
