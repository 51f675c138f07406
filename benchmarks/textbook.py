"""CycleGAN's generator as a textbook has it: stock modules, one after the other.

What the benchmarks compare with: eager, fp32, NCHW, nothing done for speed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cyclegan_cli.models.networks import ResnetGenerator


class TextbookBlock(nn.Module):
    """A residual block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to the same shape."""
        return x + self.layers(x)  # type: ignore[no-any-return]


def textbook_generator(channels: int, blocks: int) -> nn.Sequential:
    """The network of Zhu et al. 2017, sec. 7.2."""
    c = channels
    layers: list[nn.Module] = [nn.ReflectionPad2d(3), *_norm_relu(nn.Conv2d(3, c, 7))]
    layers += _norm_relu(nn.Conv2d(c, 2 * c, 3, stride=2, padding=1))
    layers += _norm_relu(nn.Conv2d(2 * c, 4 * c, 3, stride=2, padding=1))
    layers += [TextbookBlock(4 * c) for _ in range(blocks)]
    for wide in (4 * c, 2 * c):
        up = nn.ConvTranspose2d(wide, wide // 2, 3, stride=2, padding=1, output_padding=1)
        layers += _norm_relu(up)
    layers += [nn.ReflectionPad2d(3), nn.Conv2d(c, 3, 7), nn.Tanh()]
    return nn.Sequential(*layers)


def _norm_relu(conv: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    return [conv, nn.InstanceNorm2d(conv.out_channels), nn.ReLU(inplace=True)]


@torch.no_grad()
def generator_like(generator: ResnetGenerator) -> nn.Sequential:
    """A textbook generator with the weights of one of ours: both list them in the same order."""
    config = generator.config
    network = textbook_generator(config.base_channels, config.residual_blocks).eval()
    for copy, original in zip(network.parameters(), generator.parameters(), strict=True):
        copy.copy_(original)
    return network.requires_grad_(False)
