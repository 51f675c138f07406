"""The original implementation's generator, written down from its description alone.

Its parameter names are those of one ``nn.Sequential`` and of ``conv_block`` within it; tests save
its state and expect this package to find the same network in the file.
"""

import torch
from torch import Tensor, nn


class OriginalBlock(nn.Module):
    def __init__(self, channels: int, norm: type[nn.Module], dropout: bool, affine: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3)]
        layers += [norm(channels, affine=affine), nn.ReLU(True)]
        layers += [nn.Dropout(0.5)] if dropout else []
        layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3)]
        self.conv_block = nn.Sequential(*layers, norm(channels, affine=affine))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class OriginalGenerator(nn.Module):
    def __init__(
        self,
        width: int = 4,
        blocks: int = 2,
        channels: tuple[int, int] = (3, 3),
        dropout: bool = False,
        affine: bool = False,
        norm: type[nn.Module] = nn.InstanceNorm2d,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(channels[0], width, 7)]
        layers += [norm(width, affine=affine), nn.ReLU(True)]
        for wide in (2 * width, 4 * width):
            layers += [nn.Conv2d(wide // 2, wide, 3, stride=2, padding=1)]
            layers += [norm(wide, affine=affine), nn.ReLU(True)]
        layers += [OriginalBlock(4 * width, norm, dropout, affine) for _ in range(blocks)]
        for wide in (2 * width, width):
            layers += [nn.ConvTranspose2d(2 * wide, wide, 3, stride=2, padding=1, output_padding=1)]
            layers += [norm(wide, affine=affine), nn.ReLU(True)]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, channels[1], 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def original_generator(seed: int = 0, **options: object) -> OriginalGenerator:
    """With random weights that make lively images, in evaluation mode."""
    network = OriginalGenerator(**options).eval().requires_grad_(False)
    random = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        scale = 0.2 if parameter.dim() > 1 else 0.5
        parameter.copy_(torch.randn(parameter.shape, generator=random) * scale)
        if parameter.dim() == 1 and name.endswith("weight"):
            parameter.add_(1)
    return network
