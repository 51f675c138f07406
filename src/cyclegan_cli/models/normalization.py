"""Instance norm (Ulyanov et al. 2016) that does not amplify rounding errors.

For a constant feature map, instance norm multiplies its input and its gradient by
``1 / sqrt(EPSILON)`` = 316, so it amplifies the rounding error of the previous layer. A generator
has about twenty norms in sequence: for an image of a single color, rounding errors dominate the
output, and in bf16 gradients grow until they overflow. In exact arithmetic the normalized map is
zero and no gradient passes through it. Both are enforced here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

EPSILON = 1e-5
# Variances below this are rounding errors: a convolution output of 1 has an error of about 1e-6 in
# fp32. A difference of 1/255 in a single pixel of a 256×256 image gives a variance of 1e-9.
CONSTANT_BELOW = 1e-10
# Below this the gain is within 1 % of that of a constant map.
NO_GRADIENT_BELOW = EPSILON / 100

# Ratio of the variance to the squared mean below which the variance is recomputed.
IMPRECISE_BELOW = 1e-4


def refine_moments(x: Tensor, mean: Tensor, variance: Tensor) -> None:
    """Recompute the moments of low-variance channels precisely, in place.

    torch's CPU kernels sum pixels sequentially: the mean of 65,536 equal values has a relative
    error of up to 5e-4, and the variance the square of it.

    Args:
        x: ``[1, C, H, W]``, on the CPU.
        mean: ``[C]`` as computed by the kernel.
        variance: ``[C]`` as computed by the kernel.
    """
    low = variance < IMPRECISE_BELOW * mean.square() + CONSTANT_BELOW
    if low.any():
        channels = x[0, low].flatten(1).to(mean.dtype)
        variance[low], mean[low] = torch.var_mean(channels, dim=1, correction=0)


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the mean and variance of each channel, without a gradient.

    Args:
        x: ``[1, C, H, W]``, fp32 or bf16.

    Returns:
        Mean and variance, ``[C]`` each, fp32.
    """
    if x.device.type == "cpu":
        # The statistics of batch norm in training: ten times as fast as separate means and
        # squares. The fp32 running statistics make it compute in fp32 for bf16 rows, too.
        old = torch.zeros(x.shape[1])
        mean, variance = torch.batch_norm_update_stats(x, old, old.clone(), 0.0)
        refine_moments(x, mean, variance)
        return mean, variance
    pixels = x[0].flatten(1).float()
    variance, mean = torch.var_mean(pixels, dim=1, correction=0)
    return mean, variance


def normalize_with(
    x: Tensor, mean: Tensor, variance: Tensor, scale: Tensor | None, shift: Tensor | None
) -> Tensor:
    """Normalize with given moments.

    Args:
        x: ``[B, C, H, W]``, fp32 or bf16.
        mean: ``[C]``, fp32.
        variance: ``[C]``, fp32; channels below ``CONSTANT_BELOW`` are normalized to zero.
        scale: ``[C]``; None for 1.
        shift: ``[C]``; None for 0.

    Returns:
        A tensor of the same shape and dtype.
    """
    # Division by infinity gives zero.
    variance = torch.where(variance < CONSTANT_BELOW, torch.inf, variance)
    scale, shift = (None if p is None else p.float() for p in (scale, shift))
    return F.batch_norm(x, mean, variance, scale, shift, eps=EPSILON)


def instance_norm(x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """Apply instance normalization without running statistics.

    Channels with a variance below ``CONSTANT_BELOW`` are normalized to zero. Channels with a
    variance below ``NO_GRADIENT_BELOW`` have a zero gradient with respect to the input.

    Args:
        x: ``[B, C, H, W]`` with H·W > 1, fp32 or bf16; statistics are computed in fp32.
        scale: ``[C]``; None for 1.
        shift: ``[C]``; None for 0.

    Returns:
        A tensor of the same shape and dtype.
    """
    # Without a scale and shift in fp32, torch's CPU kernels round the statistics of bf16 inputs to
    # bf16.
    precise = torch.promote_types(x.dtype, torch.float32)
    channels = x.shape[1]
    scale = torch.ones(channels, device=x.device) if scale is None else scale
    shift = torch.zeros(channels, device=x.device) if shift is None else shift
    scale, shift = scale.to(precise), shift.to(precise)
    if torch.compiler.is_exporting():
        return F.instance_norm(x, weight=scale, bias=shift, eps=EPSILON)
    if len(x) == 1 and x.device.type == "cpu" and not torch.compiler.is_compiling():
        output, mean, inverse_std = _normalize(x, scale, shift)
        if not _has_low_variance(mean, inverse_std):
            return output  # The backward pass is torch's own, without Python overhead.
    return _InstanceNorm.apply(x, scale, shift)  # type: ignore[no-any-return]


def _normalize(image: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Batch norm in training mode, which equals instance norm for a single image.

    Its CPU kernel preserves channels-last; that of instance norm makes contiguous copies.

    Returns:
        The output ``[1, C, H, W]``, the mean ``[C]`` and ``1 / sqrt(variance + EPSILON)`` ``[C]``.
    """
    return torch.native_batch_norm(image, scale, shift, None, None, True, 0.0, EPSILON)


def _has_low_variance(mean: Tensor, inverse_std: Tensor) -> bool:
    """Whether any channel needs refined moments or a zero gradient."""
    enough = (mean * inverse_std).square_().mul_(IMPRECISE_BELOW)
    enough.addcmul_(inverse_std, inverse_std, value=EPSILON + NO_GRADIENT_BELOW)
    return bool(enough.max() > 1)


def _normalize_each(x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize each image: the output ``[B, C, H, W]``, means and ``1 / std`` ``[B, C]``."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        normalized, means, inverse_stds = zip(
            *(_normalize(image, scale, shift) for image in torch.split(x, 1)), strict=True
        )
        return torch.cat(normalized), torch.stack(means), torch.stack(inverse_stds)
    output = torch.empty_like(x)
    mean, inverse_std = torch.empty(2, *x.shape[:2], dtype=scale.dtype)
    parts = (torch.split(x, 1), torch.split(output, 1), mean.unbind(), inverse_std.unbind())
    for image, out, save_mean, save_invstd in zip(*parts, strict=True):
        torch.ops.aten.native_batch_norm.out(
            image, scale, shift, None, None, True, 0.0, EPSILON,
            out=out, save_mean=save_mean, save_invstd=save_invstd,
        )  # fmt: skip
    return output, mean, inverse_std


class _InstanceNorm(torch.autograd.Function):
    """Instance norm whose low-variance channels have zero gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        # On other devices the check would synchronize.
        can_check = x.device.type == "cpu" and not torch.compiler.is_compiling()
        output, mean, inverse_std = _normalize_each(x, scale, shift)
        ctx.has_low_variance = not can_check or _has_low_variance(mean, inverse_std)
        if can_check and ctx.has_low_variance:
            variance = inverse_std.square().reciprocal_().sub_(EPSILON)
            for i in range(len(x)):
                refine_moments(x[i : i + 1], mean[i], variance[i])
            inverse_std = variance.add_(EPSILON).rsqrt_()
        if ctx.has_low_variance:
            constant = inverse_std > (EPSILON + CONSTANT_BELOW) ** -0.5
            as_shift = shift.to(x.dtype).view(1, -1, 1, 1)
            output = torch.where(constant[:, :, None, None], as_shift, output)
        ctx.save_for_backward(x, scale, mean, inverse_std)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_output: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        x, scale, mean, inverse_std = ctx.saved_tensors
        gain = scale.expand_as(mean)
        if ctx.has_low_variance:
            has_gradient = inverse_std < (EPSILON + NO_GRADIENT_BELOW) ** -0.5
            gain = torch.where(has_gradient, scale, 0.0)  # [B, C]
        needed = list(ctx.needs_input_grad)
        parts = [
            torch.ops.aten.native_batch_norm_backward(
                d_output[i : i + 1], x[i : i + 1], gain[i], None, None,
                mean[i], inverse_std[i], True, EPSILON, needed,
            )
            for i in range(len(x))
        ]  # fmt: skip
        d_x, d_scale, d_shift = zip(*parts, strict=True)
        return (
            d_x[0] if len(x) == 1 else torch.cat(d_x),
            torch.stack(d_scale).sum(0) if needed[1] else None,
            torch.stack(d_shift).sum(0) if needed[2] else None,
        )
