import pytest
import torch

from cyclegan_cli.metrics.bootstrap import interval, mean_interval, resample_counts
from cyclegan_cli.metrics.distances import SlicedWasserstein


def test_samples_have_as_many_images_and_depend_on_the_seed_alone() -> None:
    counts = resample_counts(7, 0)
    assert counts.sum(dim=1).tolist() == [7] * len(counts)
    assert torch.equal(counts, resample_counts(7, 0))
    assert not torch.equal(counts, resample_counts(7, 1))


def test_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, low, high = mean_interval(values, 0)
    assert mean == pytest.approx(float(values.mean()))
    half_width = 1.96 * float(values.std()) / 20
    assert (high - low) / 2 == pytest.approx(half_width, rel=0.2)
    assert low < mean < high


def test_interval_is_shifted_by_the_bias() -> None:
    low, high = interval(1.0, torch.linspace(2, 4, 101, dtype=torch.float64))
    assert (low, high) == pytest.approx((0.05, 1.95))


def test_undefined_samples_are_left_out() -> None:
    assert interval(1.0, torch.tensor([torch.nan])) == (1.0, 1.0)
    assert interval(1.0, torch.tensor([torch.nan, 0.5])) == (1.0, 1.0)


def test_sliced_wasserstein_distance_of_the_sample_itself() -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, 64, 64, generator=random) * 2 - 1
    reference = torch.rand(5, 3, 64, 64, generator=random) - 1
    sliced = SlicedWasserstein(images, reference, projections=16)
    ones = [torch.ones(1, count, dtype=torch.float64) for count in (3, 5)]
    levels = sliced.levels()
    # Of three images, 640 patches are drawn, so that two images have one patch more.
    assert float(sliced.resampled(*ones)) == pytest.approx(sum(levels) / len(levels), rel=1e-3)


def test_sliced_wasserstein_distance_of_one_image_of_a_sample() -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 32, 32, generator=random) * 2 - 1
    images[1] = -1
    sliced = SlicedWasserstein(images, images[:1].repeat(2, 1, 1, 1), projections=16)
    both = torch.ones(1, 2, dtype=torch.float64)
    near = sliced.resampled(torch.tensor([[2.0, 0.0]], dtype=torch.float64), both)
    far = sliced.resampled(torch.tensor([[0.0, 2.0]], dtype=torch.float64), both)
    assert float(near) < float(far) / 10


def test_pixel_values_are_measured_as_floating_point_images() -> None:
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (20, 3, 32, 32), generator=random).to(torch.uint8)
    expected = SlicedWasserstein(pixels / 127.5 - 1, pixels / 255 - 1, projections=8).levels()
    assert SlicedWasserstein(pixels, pixels / 255 - 1, projections=8).levels() == pytest.approx(
        expected, rel=1e-4
    )
