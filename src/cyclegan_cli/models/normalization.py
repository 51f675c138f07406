"""Instance norm (Ulyanov et al. 2016) that passes on no rounding noise.

Where a feature map is constant, instance norm is a gain of ``1 / sqrt(EPSILON)`` = 316 and nothing
else: what it amplifies is the rounding error of the layer before it. A generator has about twenty
norms in a row, so for an image of a single colour the noise grows until it is the whole output,
and in bf16 the gradient grows until it overflows. In exact arithmetic both are zero: an image
of a single colour has the output of a black one, and no gradient reaches the layers before a
constant map. Both are made so here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

EPSILON = 1e-5
# A variance that is rounding error: a convolution's result of 1 has an error of about 1e-6 in
# fp32. A change of one 8-bit value in one pixel of an image of 256×256 gives 1e-9.
CONSTANT_BELOW = 1e-10
# Here the gain is within 1 % of that of a constant map, and the gradient is mostly that gain.
NO_GRADIENT_BELOW = EPSILON / 100


# Variance over the mean's square below which it is computed again.
IMPRECISE_BELOW = 1e-4


def refine_moments(x: Tensor, mean: Tensor, variance: Tensor) -> None:
    """Compute the moments of channels of low variance again, precisely.

    torch's CPU kernels add up pixels one by one: the mean of 65,536 equal values is wrong by up
    to 5e-4 of it, and the variance by the square of that.

    Args:
        x: ``[1, C, H, W]``, on the CPU.
        mean: ``[C]`` as the kernel computes it; changed in place.
        variance: ``[C]``, likewise.
    """
    low = variance < IMPRECISE_BELOW * mean.square() + CONSTANT_BELOW
    if low.any():
        channels = x[0, low].flatten(1).to(mean.dtype)
        variance[low], mean[low] = torch.var_mean(channels, dim=1, correction=0)


def instance_norm(x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """Normalise every channel of every image over all of its pixels.

    No running statistics: the paper's networks have none. A channel whose variance is below
    ``CONSTANT_BELOW`` is normalised to zero; one whose variance is below ``NO_GRADIENT_BELOW``
    passes no gradient on to its input.

    Args:
        x: ``[B, C, H, W]`` with H·W > 1, fp32 or bf16 (statistics are computed in fp32).
        scale: ``[C]``, what the normalised channels are multiplied with; None: with nothing.
        shift: ``[C]``, what is added to them then; None: nothing.

    Returns:
        The same shape and dtype: for every image and channel mean 0 and variance 1, scaled
        and shifted.
    """
    # Always a scale and shift in full precision, even where they change nothing: without them
    # torch's CPU kernels round the statistics of bf16 maps to bf16 before they use them.
    precise = torch.promote_types(x.dtype, torch.float32)
    channels = x.shape[1]
    scale = torch.ones(channels, device=x.device) if scale is None else scale
    shift = torch.zeros(channels, device=x.device) if shift is None else shift
    scale, shift = scale.to(precise), shift.to(precise)
    if torch.compiler.is_exporting():
        return F.instance_norm(x, weight=scale, bias=shift, eps=EPSILON)
    if len(x) == 1 and x.device.type == "cpu" and not torch.compiler.is_compiling():
        output, mean, inverse_std = _normalise(x, scale, shift)
        if not _has_low_variance(mean, inverse_std):
            return output  # With torch's own backward pass, which costs no Python.
    return _InstanceNorm.apply(x, scale, shift)  # type: ignore[no-any-return]


def _normalise(image: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Batch norm in training mode, which for one image is instance norm.

    Its CPU kernel keeps channels-last tensors as they are; that of instance norm copies them to
    and fro.

    Returns:
        ``[1, C, H, W]``, the mean ``[C]`` and ``1 / sqrt(variance + EPSILON)`` ``[C]``.
    """
    return torch.native_batch_norm(image, scale, shift, None, None, True, 0.0, EPSILON)


def _has_low_variance(mean: Tensor, inverse_std: Tensor) -> bool:
    """Whether any channel, on the CPU, may need more than the kernel's moments and gradient."""
    enough = (mean * inverse_std).square_().mul_(IMPRECISE_BELOW)
    enough.addcmul_(inverse_std, inverse_std, value=EPSILON + NO_GRADIENT_BELOW)
    return bool(enough.max() > 1)


def _normalise_each(x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Every image by itself: ``[B, C, H, W]``, the means ``[B, C]`` and their ``1 / std``."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        normalised, means, inverse_stds = zip(
            *(_normalise(image, scale, shift) for image in torch.split(x, 1)), strict=True
        )
        return torch.cat(normalised), torch.stack(means), torch.stack(inverse_stds)
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
    """Instance norm, image by image, with gradients where there is variance alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        # Only a CPU can be asked without waiting for it.
        can_ask = x.device.type == "cpu" and not torch.compiler.is_compiling()
        output, mean, inverse_std = _normalise_each(x, scale, shift)
        ctx.has_low_variance = not can_ask or _has_low_variance(mean, inverse_std)
        if can_ask and ctx.has_low_variance:
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
