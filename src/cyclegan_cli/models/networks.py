"""The generator and the discriminator (Zhu et al. 2017, sec. 7.2).

Shapes in comments are for 64 channels and 256×256 images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cyclegan_cli.config import DiscriminatorConfig, GeneratorConfig
from cyclegan_cli.models.normalization import channel_moments, instance_norm, normalize_with
from cyclegan_cli.models.padding import reflection_pad
from cyclegan_cli.models.resampling import bilinear_upsample, blur, blur_downsample
from cyclegan_cli.models.winograd_training import WinogradConv2d

# Of all weights, unless stated otherwise (Zhu et al. 2017, sec. 7.1).
INITIAL_DEVIATION = 0.02

# Maps the mean and variance of an image, ``[C]`` each in fp32, to those to normalize it with.
MomentsFilter = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class InstanceNorm(nn.Module):
    """Instance norm without running statistics; the paper's is not affine.

    Attributes:
        channels: Number of channels.
        weight: Scale ``[C]``; None if not affine.
        bias: Shift ``[C]``; None if not affine.
        moments_filter: In inference, replaces the mean and variance of an image, for example by
            averages over the frames of a video; None: they are used as they are.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, channels: int, affine: bool) -> None:
        super().__init__()
        self.channels = channels
        self.register_parameter("weight", nn.Parameter(torch.ones(channels)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(channels)) if affine else None)
        self.moments_filter: MomentsFilter | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalize ``[B, C, H, W]``; shape and dtype are kept. With a filter, B is 1."""
        if self.moments_filter is not None:
            mean, variance = self.moments_filter(*channel_moments(x))
            return normalize_with(x, mean, variance, self.weight, self.bias)
        return instance_norm(x, self.weight, self.bias)


Resample = Callable[[Tensor], Tensor]


def _unchanged(x: Tensor) -> Tensor:
    return x


class ConvNormReLU(nn.Module):
    """(Transposed) convolution, instance norm and ReLU.

    Args:
        conv: The convolution.
        norm: The norm; None for none.
        padding: Reflection padding before the convolution.
        before_conv: Resampling of the input.
        before_norm: Resampling of the result of the convolution.
        after: Resampling of the output.
    """

    def __init__(
        self,
        conv: nn.Conv2d | nn.ConvTranspose2d,
        norm: InstanceNorm | None,
        padding: int = 0,
        before_conv: Resample = _unchanged,
        before_norm: Resample = _unchanged,
        after: Resample = _unchanged,
    ) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm
        self.padding = padding
        self.before_conv, self.before_norm, self.after = before_conv, before_norm, after

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C, H, W]`` to ``[B, C', H', W']``, non-negative."""
        if self.padding:
            x = reflection_pad(x, self.padding)
        x = self.before_norm(self.conv(self.before_conv(x)))
        return self.after(F.relu(x if self.norm is None else self.norm(x)))


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with a skip connection (He et al. 2016)."""

    def __init__(self, channels: int, affine: bool) -> None:
        super().__init__()
        conv = WinogradConv2d(channels, channels, 3)
        self.first = ConvNormReLU(conv, InstanceNorm(channels, affine), padding=1)
        self.second = WinogradConv2d(channels, channels, 3)
        self.norm = InstanceNorm(channels, affine)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C, H, W]`` to the same shape."""
        residual = reflection_pad(self.first(x), 1)
        return x + self.norm(self.second(residual))  # type: ignore[no-any-return]


class ResnetGenerator(nn.Module):
    """ResNet generator (Johnson et al. 2016; Zhu et al. 2017).

    Fully convolutional: accepts images whose sides are multiples of 4 and at least 8 pixels.

    Args:
        config: Architecture. With 64 channels and 9 blocks it has 11,378,179 parameters.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        c, affine = config.base_channels, config.affine_norm
        stem = nn.Conv2d(config.input_channels, c, 7)
        self.stem = ConvNormReLU(stem, _stage_norm(c, config), padding=3)  # [B, 64, 256, 256]
        self.down = nn.Sequential(
            _downsampling(c, 2 * c, config),  # [B, 128, 128, 128]
            _downsampling(2 * c, 4 * c, config),  # [B, 256, 64, 64]
        )
        blocks = (ResidualBlock(4 * c, affine) for _ in range(config.residual_blocks))
        self.trunk = nn.Sequential(*blocks)
        self.up = nn.Sequential(
            _upsampling(4 * c, 2 * c, config),  # [B, 128, 128, 128]
            _upsampling(2 * c, c, config),  # [B, 64, 256, 256]
        )
        self.head = nn.Conv2d(c, config.output_channels, 7)

    def forward(self, x: Tensor) -> Tensor:
        """Translate images.

        Args:
            x: ``[B, input_channels, H, W]`` in [-1, 1]; H and W multiples of 4, at least 8.

        Returns:
            ``[B, output_channels, H, W]`` in [-1, 1].
        """
        if torch.compiler.is_exporting() and self.config.norms == "all":
            x = _zero_if_constant(x)
        full = self.stem(x)
        half = self.down[0](full)
        x = self.up[0](self.trunk(self.down[1](half)))
        if self.config.skips:
            x = _add_skipped(x, half)
        x = self.up[1](x)
        if self.config.skips:
            x = _add_skipped(x, full)
        return torch.tanh(self.head(reflection_pad(x, 3)))

    def enable_kernel_cache(self, winograd_bf16: bool) -> None:
        """Cache transformed kernels between passes, see :class:`WinogradConv2d`.

        Args:
            winograd_bf16: Whether to use Winograd convolutions in bf16.
        """
        for module in self.modules():
            if isinstance(module, WinogradConv2d):
                module.caches_kernels = True
                module.trains_in_bf16 = winograd_bf16

    def clear_kernel_cache(self) -> None:
        """Clear cached kernels after an update of the weights."""
        for module in self.modules():
            if isinstance(module, WinogradConv2d):
                module.clear_kernel_cache()


def _add_skipped(x: Tensor, skipped: Tensor) -> Tensor:
    """Add a feature map before the residual blocks to one after them, which may be larger.

    It is if a side of the image is not a multiple of 4. Exported models accept such images.
    """
    if torch.compiler.is_exporting():
        # Not slices: torch.export cannot prove that they are within bounds for all sizes.
        for dim in (2, 3):
            x = x.index_select(dim, torch.arange(skipped.shape[dim], device=x.device))
    elif x.shape != skipped.shape:
        x = x[:, :, : skipped.shape[2], : skipped.shape[3]]
    return x + skipped


def _zero_if_constant(x: Tensor) -> Tensor:
    """Set images of a single color to zero, ``[B, C, H, W]``.

    This does not change the output, since the first norm subtracts the color. The norms of other
    runtimes would amplify its rounding error (:mod:`cyclegan_cli.models.normalization`). Without
    that norm, the zero padding of the strided convolutions makes all later feature maps vary.
    """
    span = (x.amax((2, 3), keepdim=True) - x.amin((2, 3), keepdim=True)).amax(1, keepdim=True)
    return x * (span > 0).to(x.dtype)


def _stage_norm(channels: int, config: GeneratorConfig) -> InstanceNorm | None:
    """Return the norm of a stage outside of the residual blocks; None if it has none."""
    return InstanceNorm(channels, config.affine_norm) if config.norms == "all" else None


def _downsampling(in_channels: int, out_channels: int, config: GeneratorConfig) -> ConvNormReLU:
    """Return a stage that halves the size; see :class:`GeneratorConfig` for the kinds."""
    stride = 1 if config.resampling == "cut" else 2
    return ConvNormReLU(
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1),
        _stage_norm(out_channels, config),
        before_conv=blur if config.resampling == "blur" else _unchanged,
        after=blur_downsample if config.resampling == "cut" else _unchanged,
    )


def _upsampling(in_channels: int, out_channels: int, config: GeneratorConfig) -> ConvNormReLU:
    """Return a stage that doubles the size; see :class:`GeneratorConfig` for the kinds."""
    norm = _stage_norm(out_channels, config)
    if config.resampling == "cut":
        conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        return ConvNormReLU(conv, norm, before_conv=bilinear_upsample)
    transposed = nn.ConvTranspose2d(
        in_channels, out_channels, 3, stride=2, padding=1, output_padding=1
    )
    before_norm = blur if config.resampling == "blur" else _unchanged
    return ConvNormReLU(transposed, norm, before_norm=before_norm)


class PatchDiscriminator(nn.Module):
    """70×70 PatchGAN discriminator (Isola et al. 2017; Zhu et al. 2017, sec. 4).

    Args:
        config: Architecture. With 64 channels it has 2,764,737 parameters.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        c = config.base_channels
        # [B, 64, 128, 128], no norm
        self.first = nn.Conv2d(config.input_channels, c, 4, stride=2, padding=1)
        self.hidden = nn.ModuleList(
            [
                nn.Conv2d(c, 2 * c, 4, stride=2, padding=1),  # [B, 128, 64, 64]
                nn.Conv2d(2 * c, 4 * c, 4, stride=2, padding=1),  # [B, 256, 32, 32]
                nn.Conv2d(4 * c, 8 * c, 4, stride=1, padding=1),  # [B, 512, 31, 31]
            ]
        )
        self.judge = nn.Conv2d(8 * c, 1, 4, stride=1, padding=1)  # [B, 1, 30, 30]

    def forward(self, x: Tensor) -> Tensor:
        """Classify the patches of images as real or fake.

        Args:
            x: ``[B, input_channels, H, W]`` in [-1, 1]; H and W at least 32.

        Returns:
            Logits ``[B, 1, h, w]``, unbounded; 30×30 for 256×256 images.
        """
        x = F.leaky_relu(self.first(x), 0.2)
        for conv in self.hidden:
            x = F.leaky_relu(instance_norm(conv(x)), 0.2)
        return self.judge(x)  # type: ignore[no-any-return]


class MultiScaleDiscriminator(nn.Module):
    """PatchGANs on images at full size, half size, and so on (Wang et al. 2018, sec. 3.2).

    A patch of the second one has 140×140 pixels of the image: it sees larger structures and the
    distribution of brightness, which a 70×70 patch does not.

    Args:
        config: Architecture, with at least two scales.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.scales = nn.ModuleList(PatchDiscriminator(config) for _ in range(config.scales))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Classify the patches of images at each scale.

        Args:
            x: ``[B, 3, H, W]`` in [-1, 1]; H and W at least 32 at the coarsest scale.

        Returns:
            Logits ``[B, 1, h, w]`` of each scale, finest first.
        """
        logits = [self.scales[0](x)]
        for discriminator in self.scales[1:]:
            x = F.avg_pool2d(x, 2)
            logits.append(discriminator(x))
        return tuple(logits)


def build_discriminator(
    config: DiscriminatorConfig,
) -> PatchDiscriminator | MultiScaleDiscriminator:
    """Return a discriminator of one scale or of several."""
    return PatchDiscriminator(config) if config.scales == 1 else MultiScaleDiscriminator(config)


def initialize_weights(network: nn.Module, random: torch.Generator) -> None:
    """Initialize weights from N(0, 0.02) and biases to 0 (Zhu et al. 2017, sec. 7.1).

    Affine norms are initialized to scale 1 and shift 0, and convolutions without a norm as
    :func:`unnormalized_deviations` describes.

    Args:
        network: Network, modified in place.
        random: Random number generator.
    """
    unnormalized = unnormalized_deviations(network)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif name.endswith("norm.weight"):
            nn.init.ones_(parameter)
        else:
            deviation = unnormalized.get(parameter, INITIAL_DEVIATION)
            nn.init.normal_(parameter, 0.0, deviation, generator=random)


def all_parameters(networks: Mapping[str, nn.Module]) -> list[Tensor]:
    """Return the parameters of all networks, in a fixed order."""
    return [parameter for network in networks.values() for parameter in network.parameters()]


def unnormalized_deviations(network: nn.Module) -> dict[nn.Parameter, float]:
    """Return the standard deviations of the initial weights of convolutions without a norm.

    Those before a ReLU keep the variance of their input (He et al. 2015). The first one after the
    residual blocks, each of which adds a variance of 1, reduces it to that of their input.

    Args:
        network: A generator with norms in the residual blocks only; all others have none.
    """
    if not isinstance(network, ResnetGenerator) or network.config.norms == "all":
        return {}
    deviations: dict[nn.Parameter, float] = {}
    for stage in (network.stem, *network.down, *network.up):
        conv = stage.conv
        terms = conv.in_channels * math.prod(conv.kernel_size)  # Per element of the output.
        if isinstance(conv, nn.ConvTranspose2d):
            terms /= math.prod(conv.stride)
        if stage is network.up[0]:
            terms *= 1 + len(network.trunk)
        deviations[conv.weight] = math.sqrt(2 / terms)
    return deviations
