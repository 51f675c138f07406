"""Convolutions before a norm, which train faster on a CPU.

A norm subtracts each channel's mean, so a bias before it changes nothing, and its gradient is zero.
torch computes that gradient all the same: of a transposed convolution in bf16 it takes longer than
those of input and weight together. Here the bias is left out, and its gradient is zeros.

Under autocast each pass casts the weight, and its gradient back. Here the weight is cast once for
all passes of a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from cyclegan_cli.models.winograd_training import WinogradConv2d, computes_in, workspace

Conv = nn.Conv2d | nn.ConvTranspose2d

# Pixels of a batch's results up to which one matrix product computes a weight's gradient faster
# than torch's convolutions, which reorder the weight however few pixels there are.
MOST_PIXELS = 512


@dataclass
class _Kernel:
    """A weight cast to another dtype, and what it was cast from."""

    cast: Tensor | None = None
    cast_from: tuple[Any, ...] = ()


_kernels: WeakKeyDictionary[nn.Module, _Kernel] = WeakKeyDictionary()


def keep_kernels(network: nn.Module) -> None:
    """From now on cast the weights of a network once, until this is called again.

    To be called after each update: the weights' versions do not tell, as torch's fused optimisers
    change them without counting. The weights of other networks are cast in each pass.
    """
    for module in network.modules():
        if isinstance(module, Conv):
            _kernels[module] = _Kernel()


def convolve_before_norm(conv: Conv, x: Tensor) -> Tensor:
    """``conv(x)`` but for what an instance norm subtracts.

    In fp32, on other devices and without gradients it is ``conv(x)``.

    Args:
        conv: Padded with zeros, if at all.
        x: ``[B, C, H, W]``.

    Returns:
        ``[B, C', H', W']``; of the bias the gradient is zeros.
    """
    if not _trains_here(conv, x) or (isinstance(conv, WinogradConv2d) and conv.pays(x)):
        return conv(x)  # type: ignore[no-any-return]
    dtype = computes_in(x)
    return _Convolution.apply(x.to(dtype), conv.weight, conv.bias, _kernel(conv, dtype), conv)  # type: ignore[no-any-return]


def _trains_here(conv: Conv, x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and computes_in(x) != torch.float32  # There a step took 5 % longer.
        and torch.is_grad_enabled()
        and (x.requires_grad or conv.weight.requires_grad)
        and not torch.compiler.is_compiling()
        and not torch.compiler.is_exporting()
    )


def _kernel(conv: Conv, dtype: torch.dtype) -> Tensor:
    weight = conv.weight.detach()
    kept = _kernels.get(conv)
    if kept is None or weight.dtype == dtype:
        return weight.to(dtype)
    version = (dtype, weight.data_ptr(), conv.weight._version)
    if kept.cast is None or kept.cast_from != version:
        kept.cast, kept.cast_from = weight.to(dtype), version
    return kept.cast


class _Convolution(torch.autograd.Function):
    """A convolution without bias, its kernel the weight in the dtype of the input."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, kernel: Tensor, conv: Conv
    ) -> Tensor:
        del bias
        ctx.save_for_backward(x, kernel)
        ctx.conv, ctx.dtype = conv, weight.dtype
        return torch.convolution(x, kernel, None, *_geometry(conv))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_output: Tensor) -> tuple[Tensor | None, ...]:
        x, kernel = ctx.saved_tensors
        conv = ctx.conv
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        as_product = needs_weight and _is_product(conv, d_output)
        d_x, d_weight = None, None
        if needs_x or (needs_weight and not as_product):
            d_x, d_weight, _ = torch.ops.aten.convolution_backward(
                d_output, x, kernel, None, *_geometry(conv),
                [needs_x, needs_weight and not as_product, False],
            )  # fmt: skip
        if as_product:
            d_weight = _weight_gradient(conv, x, d_output)
        d_weight = d_weight.to(ctx.dtype) if d_weight is not None else None
        d_bias = d_output.new_zeros(conv.out_channels, dtype=ctx.dtype) if needs_bias else None
        return d_x, d_weight, d_bias, None, None


def _geometry(conv: Conv) -> tuple[Any, ...]:
    """The arguments of torch's convolutions: stride, padding, dilation and so on."""
    return (
        conv.stride, conv.padding, conv.dilation, conv.transposed, conv.output_padding, conv.groups,
    )  # fmt: skip


def _is_product(conv: Conv, d_output: Tensor) -> bool:
    pixels = len(d_output) * d_output.shape[2] * d_output.shape[3]
    return (
        pixels <= MOST_PIXELS
        and not conv.transposed
        and conv.groups == 1
        and conv.dilation == (1, 1)
    )


def _weight_gradient(conv: Conv, x: Tensor, d_output: Tensor) -> Tensor:
    """``[O, C, k, k]``, channels-last: all pixels' gradients times the inputs that they saw."""
    assert not isinstance(conv.padding, str)
    down, right = conv.padding
    if down or right:
        x = F.pad(x, [right, right, down, down])
    batch, out, height, width = d_output.shape
    image, row, column, channel = x.permute(0, 2, 3, 1).stride()
    (high, wide), channels = conv.kernel_size, conv.in_channels
    overlapping = x.as_strided(
        (batch, height, width, high, wide, channels),
        (image, conv.stride[0] * row, conv.stride[1] * column, row, column, channel),
    )
    seen = workspace(0, overlapping.shape, x).copy_(overlapping).view(batch * height * width, -1)
    d_pixels = d_output.permute(0, 2, 3, 1).reshape(-1, out)
    return torch.mm(d_pixels.t(), seen).view(out, high, wide, channels).permute(0, 3, 1, 2)
