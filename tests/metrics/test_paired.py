"""L1, PSNR and SSIM equal scikit-image's."""

import numpy as np
import pytest
import torch
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from cyclegan_cli.metrics import paired


def photos(size: tuple[int, int], seed: int) -> torch.Tensor:
    """Smooth uint8 images with noise."""
    random = np.random.default_rng(seed)
    small = torch.from_numpy(random.uniform(0, 255, (3, 3, 5, 6)))
    smooth = torch.nn.functional.interpolate(small, size=size, mode="bicubic", align_corners=False)
    noise = torch.from_numpy(random.normal(0, 12, (3, 3, *size)))
    return (smooth + noise).round().clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("size", [(64, 64), (37, 50), (11, 11)])
def test_metrics_equal_those_of_scikit_image(size: tuple[int, int]) -> None:
    images, truth = photos(size, 0), photos(size, 1)
    truth[1] = (images[1].float() * 0.8 + 20).to(torch.uint8)
    arrays = [one.permute(0, 2, 3, 1).numpy() for one in (images, truth)]
    for index, (image, other) in enumerate(zip(*arrays, strict=True)):
        similarity = structural_similarity(
            image,
            other,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
        )
        assert float(paired.ssim(images, truth)[index]) == pytest.approx(similarity, abs=1e-6)
        ratio = peak_signal_noise_ratio(image, other, data_range=255)
        assert float(paired.psnr(images, truth)[index]) == pytest.approx(ratio, abs=1e-6)
        error = mean_squared_error(image.astype(float), other.astype(float))
        assert ratio == pytest.approx(10 * np.log10(255**2 / error))
        distance = np.abs(image.astype(float) - other).mean()
        assert float(paired.l1(images, truth)[index]) == pytest.approx(distance, abs=1e-9)


def test_equal_images() -> None:
    images = photos((32, 32), 0)
    assert paired.l1(images, images).tolist() == [0, 0, 0]
    assert paired.psnr(images, images).tolist() == [paired.MAX_PSNR] * 3
    assert paired.ssim(images, images).tolist() == pytest.approx([1, 1, 1])


def test_l1_of_black_and_white_is_255() -> None:
    black = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    assert paired.l1(black, black + 255).tolist() == [255]
    assert paired.psnr(black, black + 255).tolist() == pytest.approx([0], abs=1e-9)
