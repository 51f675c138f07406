"""Metrics of images with ground truth: L1, PSNR and SSIM."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_PSNR = 100.0  # In dB. The PSNR of equal images is infinite.
# Wang et al. 2004, sec. III-C: a Gaussian window of 11×11 pixels, K1 = 0.01 and K2 = 0.03.
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
SSIM_CONSTANTS = (0.01, 0.03)
PEAK = 255.0


def l1(images: Tensor, truth: Tensor) -> Tensor:
    """Return the mean absolute difference of each image to its ground truth.

    Args:
        images: ``[N, 3, H, W]``, pixel values in [0, 255], uint8 or floating point.
        truth: The same shape and range.

    Returns:
        ``[N]`` fp64, in 8-bit pixel values.
    """
    return (images.double() - truth.double()).abs().mean(dim=(1, 2, 3))


def psnr(images: Tensor, truth: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of each image, at most 100 dB.

    Args:
        images: ``[N, 3, H, W]``, pixel values in [0, 255], uint8 or floating point.
        truth: The same shape and range.

    Returns:
        ``[N]`` fp64, in dB.
    """
    error = (images.double() - truth.double()).square().mean(dim=(1, 2, 3))
    return (10 * torch.log10(PEAK**2 / error)).clamp(max=MAX_PSNR)


def ssim(images: Tensor, truth: Tensor) -> Tensor:
    """Return the structural similarity of each image (Wang et al. 2004), mean over channels.

    Equals ``skimage.metrics.structural_similarity`` with ``gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=255``: only pixels whose window lies inside the image
    count.

    Args:
        images: ``[N, 3, H, W]``, pixel values in [0, 255], uint8 or floating point; H and W of at
            least 11.
        truth: The same shape and range.

    Returns:
        ``[N]`` fp64 in [-1, 1]; 1 for equal images.
    """
    x, y = images.double(), truth.double()
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    variance_x = _window_mean(x * x) - mean_x.square()
    variance_y = _window_mean(y * y) - mean_y.square()
    covariance = _window_mean(x * y) - mean_x * mean_y
    c1, c2 = ((k * PEAK) ** 2 for k in SSIM_CONSTANTS)
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x.square() + mean_y.square() + c1) * (variance_x + variance_y + c2)
    )
    return similarity.mean(dim=(1, 2, 3))


def _window_mean(images: Tensor) -> Tensor:
    """Return Gaussian-weighted means: ``[N, C, H, W]`` to ``[N, C, H - 10, W - 10]``."""
    offset = torch.arange(SSIM_WINDOW, dtype=images.dtype, device=images.device) - SSIM_WINDOW // 2
    window = torch.exp(-offset.square() / (2 * SSIM_SIGMA**2))
    window = window / window.sum()
    planes = images.flatten(0, 1)[:, None]
    planes = F.conv2d(F.conv2d(planes, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
    return planes.view(*images.shape[:2], *planes.shape[-2:])
