"""The two networks of CycleGAN, layer by layer (Zhu et al. 2017, sec. 7.2).

Shapes in the comments are for the paper's sizes: 64 channels, 256×256 images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cyclegan_cli.config import DiscriminatorConfig, GeneratorConfig
from cyclegan_cli.models.normalization import instance_norm
from cyclegan_cli.models.winograd_training import WinogradConv2d


def reflect(x: Tensor, rim: int) -> Tensor:
    """Reflect ``rim`` pixels at each side: ``[B, C, H, W]`` to ``[B, C, H + 2 rim, W + 2 rim]``."""
    if x.dtype == torch.float32:
        return F.pad(x, [rim] * 4, mode="reflect")
    # Autocast would do it in fp32, on a copy, and leave another copy to the convolution.
    with torch.autocast(x.device.type, enabled=False):
        return F.pad(x, [rim] * 4, mode="reflect")


class InstanceNorm(nn.Module):
    """Instance norm as a layer; the paper's, not affine, has no parameters.

    Attributes:
        weight: The scale, ``[C]``; None if not affine.
        bias: The shift, ``[C]``; None if not affine.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, channels: int, affine: bool) -> None:
        super().__init__()
        self.register_parameter("weight", nn.Parameter(torch.ones(channels)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(channels)) if affine else None)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to the same shape and dtype."""
        return instance_norm(x, self.weight, self.bias)


class ConvNormReLU(nn.Module):
    """Convolution (also transposed), instance norm and ReLU; reflection padding first, if any."""

    def __init__(
        self, conv: nn.Conv2d | nn.ConvTranspose2d, affine: bool, reflect: int = 0
    ) -> None:
        super().__init__()
        self.conv = conv
        self.norm = InstanceNorm(conv.out_channels, affine)
        self.reflect = reflect

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, C', H', W']``, values >= 0."""
        if self.reflect:
            x = reflect(x, self.reflect)
        return F.relu(self.norm(self.conv(x)))


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions whose result is added to their input (He et al. 2016)."""

    def __init__(self, channels: int, affine: bool) -> None:
        super().__init__()
        self.first = ConvNormReLU(WinogradConv2d(channels, channels, 3), affine, reflect=1)
        self.second = WinogradConv2d(channels, channels, 3)
        self.norm = InstanceNorm(channels, affine)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to the same shape."""
        residual = reflect(self.first(x), 1)
        return x + self.norm(self.second(residual))  # type: ignore[no-any-return]


class ResnetGenerator(nn.Module):
    """Translates images of one domain into the other (Johnson et al. 2016, as Zhu et al. use it).

    Fully convolutional: any image whose sides are multiples of 4 and at least 8 pixels.

    Args:
        config: Width, depth, colours and norm. 9 blocks of 64 channels have 11,378,179 parameters.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        c, affine = config.base_channels, config.affine_norm
        stem = nn.Conv2d(config.input_channels, c, 7)
        self.stem = ConvNormReLU(stem, affine, reflect=3)  # [B, 64, 256, 256]
        self.down = nn.Sequential(
            ConvNormReLU(_halving_conv(c, 2 * c), affine),  # [B, 128, 128, 128]
            ConvNormReLU(_halving_conv(2 * c, 4 * c), affine),  # [B, 256, 64, 64]
        )
        blocks = (ResidualBlock(4 * c, affine) for _ in range(config.residual_blocks))
        self.trunk = nn.Sequential(*blocks)
        self.up = nn.Sequential(
            ConvNormReLU(_doubling_conv(4 * c, 2 * c), affine),  # [B, 128, 128, 128]
            ConvNormReLU(_doubling_conv(2 * c, c), affine),  # [B, 64, 256, 256]
        )
        self.head = nn.Conv2d(c, config.output_channels, 7)

    def forward(self, x: Tensor) -> Tensor:
        """Translate a batch of images.

        Args:
            x: ``[B, input_channels, H, W]`` in [-1, 1]; H and W multiples of 4, at least 8.

        Returns:
            ``[B, output_channels, H, W]`` in [-1, 1].
        """
        if torch.compiler.is_exporting():
            x = _zero_if_constant(x)
        x = self.up(self.trunk(self.down(self.stem(x))))
        return torch.tanh(self.head(reflect(x, 3)))

    def keep_kernels(self, winograd_bf16: bool) -> None:
        """Keep transformed kernels from pass to pass, see :class:`WinogradConv2d`.

        Args:
            winograd_bf16: Whether Winograd's algorithm is used in bf16, too.
        """
        for module in self.modules():
            if isinstance(module, WinogradConv2d):
                module.keeps_kernels = True
                module.trains_in_bf16 = winograd_bf16

    def forget_kernels(self) -> None:
        """To be called when the weights have changed, see :meth:`WinogradConv2d.forget_kernels`."""
        for module in self.modules():
            if isinstance(module, WinogradConv2d):
                module.forget_kernels()


def _zero_if_constant(x: Tensor) -> Tensor:
    """Make images of a single colour zero, ``[B, C, H, W]``.

    It changes no result: the first norm subtracts the colour. Norms of other runtimes would
    amplify its rounding error (:mod:`cyclegan_cli.models.normalization`); zeros stay zeros.
    """
    span = (x.amax((2, 3), keepdim=True) - x.amin((2, 3), keepdim=True)).amax(1, keepdim=True)
    return x * (span > 0).to(x.dtype)


def _halving_conv(channels_in: int, channels_out: int) -> nn.Conv2d:
    """The convolution that halves height and width."""
    return nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1)


def _doubling_conv(channels_in: int, channels_out: int) -> nn.ConvTranspose2d:
    """The transposed convolution that doubles height and width."""
    return nn.ConvTranspose2d(channels_in, channels_out, 3, stride=2, padding=1, output_padding=1)


class PatchDiscriminator(nn.Module):
    """Judges every 70×70 patch of an image by itself (Isola et al. 2017; Zhu et al. 2017, sec. 4).

    Args:
        config: Width. 64 channels have 2,764,737 parameters.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        c = config.base_channels
        self.first = nn.Conv2d(3, c, 4, stride=2, padding=1)  # [B, 64, 128, 128], no norm
        self.hidden = nn.ModuleList(
            [
                nn.Conv2d(c, 2 * c, 4, stride=2, padding=1),  # [B, 128, 64, 64]
                nn.Conv2d(2 * c, 4 * c, 4, stride=2, padding=1),  # [B, 256, 32, 32]
                nn.Conv2d(4 * c, 8 * c, 4, stride=1, padding=1),  # [B, 512, 31, 31]
            ]
        )
        self.judge = nn.Conv2d(8 * c, 1, 4, stride=1, padding=1)  # [B, 1, 30, 30]

    def forward(self, x: Tensor) -> Tensor:
        """Judge a batch of images.

        Args:
            x: ``[B, 3, H, W]`` in [-1, 1], H and W at least 32.

        Returns:
            Logits ``[B, 1, h, w]``, unbounded; 256×256 images give 30×30 of them.
        """
        x = F.leaky_relu(self.first(x), 0.2)
        for conv in self.hidden:
            x = F.leaky_relu(instance_norm(conv(x)), 0.2)
        return self.judge(x)  # type: ignore[no-any-return]


def initialise_weights(network: nn.Module, random: torch.Generator) -> None:
    """Draw all weights from N(0, 0.02) and set all biases to 0 (Zhu et al. 2017, sec. 7.1).

    Affine norms begin as plain ones: scale 1, shift 0.

    Args:
        network: One whose parameters are named ``weight`` and ``bias``; changed in place.
        random: Where the numbers come from.
    """
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif name.endswith("norm.weight"):
            nn.init.ones_(parameter)
        else:
            nn.init.normal_(parameter, 0.0, 0.02, generator=random)
