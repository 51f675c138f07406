"""Antialiased downsampling and upsampling with fixed kernels.

A strided convolution discards frequencies above the new Nyquist frequency only if its weights
learn to; otherwise they alias (Zhang 2019). A transposed convolution of stride 2 computes odd and
even pixels with different weights, which shows as a checkerboard pattern (Odena et al. 2016). The
3×3 binomial kernel is zero at the Nyquist frequency: after it there is no such pattern, whatever
the weights.

The kernels are constants instead of buffers: they are in no state dict, and modules that are built
on the meta device need no initialization of them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from cyclegan_cli.models.padding import reflection_pad

BINOMIAL = ((1, 2, 1), (2, 4, 2), (1, 2, 1))  # Divided by 16: [1, 2, 1] / 4 in both directions.


def blur(x: Tensor) -> Tensor:
    """Blur with the 3×3 binomial kernel and reflection padding of 1.

    Args:
        x: ``[B, C, H, W]``, fp32, fp64 or bf16; H and W at least 2.

    Returns:
        A tensor of the same shape and dtype.
    """
    if x.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _Blur.apply(x)  # type: ignore[no-any-return]
    return blur_padded(reflection_pad(x, 1))


def blur_padded(x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """Blur with the 3×3 binomial kernel: ``[B, C, H + 2, W + 2]`` to ``[B, C, H, W]``.

    Args:
        x: The padded feature map, fp32, fp64 or bf16.
        stride: Distance of the outputs; 2 halves the size.
        padding: Further zero padding.
    """
    channels = x.shape[1]
    if torch.compiler.is_compiling() or torch.compiler.is_exporting():
        kernel = _new_kernel(channels, x.dtype, x.device)
    else:
        kernel = _kernel(channels, x.dtype, x.device)
    return F.conv2d(x, kernel, stride=stride, padding=padding, groups=channels)


def _new_kernel(channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the kernel ``[C, 1, 3, 3]`` of a depthwise convolution."""
    kernel = torch.tensor(BINOMIAL, dtype=dtype, device=device) / 16  # Exact in every dtype.
    return kernel.expand(channels, 1, 3, 3).contiguous()


@lru_cache(maxsize=64)
def _kernel(channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return _new_kernel(channels, dtype, device)


class _Blur(torch.autograd.Function):
    """The blur, whose gradient is a blur with zero padding and folded edges.

    Autograd would keep the padded input and sum the gradient of the padding separately, which takes
    twice as long, and on GPUs is not deterministic.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        del ctx
        return blur_padded(reflection_pad(x, 1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_output: Tensor) -> Tensor:
        del ctx
        d_padded = blur_padded(d_output, padding=2)  # [B, C, H + 2, W + 2]
        for dim in (2, 3):
            last = d_padded.shape[dim] - 1
            for outside, inside in ((0, 2), (last, last - 2)):
                d_padded.select(dim, inside).add_(d_padded.select(dim, outside))
        return d_padded[:, :, 1:-1, 1:-1]


def blur_downsample(x: Tensor) -> Tensor:
    """Blur and keep every second row and column (CUT's ``Downsample``).

    Args:
        x: ``[B, C, H, W]``, fp32, fp64 or bf16; H and W even.

    Returns:
        ``[B, C, H / 2, W / 2]`` in the dtype of ``x``.
    """
    return blur_padded(reflection_pad(x, 1), stride=2)


def bilinear_upsample(x: Tensor) -> Tensor:
    """Double the size by bilinear interpolation (CUT's ``Upsample``).

    Its transposed convolution with the kernel [1, 3, 3, 1] and replication padding equals bilinear
    interpolation between pixel centers.

    Args:
        x: ``[B, C, H, W]``, fp32, fp64 or bf16.

    Returns:
        ``[B, C, 2 H, 2 W]`` in the dtype of ``x``.
    """
    if x.dtype == torch.float32:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    # Autocast would interpolate an fp32 copy.
    with torch.autocast(x.device.type, enabled=False):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
