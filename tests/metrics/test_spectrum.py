"""Periodic patterns."""

import pytest
import torch

from cyclegan_cli.metrics.spectrum import (
    STRIDE_FREQUENCIES,
    TILE,
    even_spectrum,
    pattern_ratio,
    stride_peaks,
)


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
