"""The original implementation's generator, written down from its description alone.

With ``antialias`` it is the generator of CUT (Park et al. 2020), by the same authors. Its parameter
names are those of one ``nn.Sequential`` and of ``conv_block`` within it; tests save
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


class CutDownsample(nn.Module):
    """Every second pixel of a blur with [1, 2, 1], one output at a time by its definition."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0])
        kernel = line[:, None] * line[None, :]
        self.register_buffer("filt", (kernel / kernel.sum()).repeat(channels, 1, 1, 1))
        self.pad = nn.ReflectionPad2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(self.pad(x), self.filt, stride=2, groups=x.shape[1])


class CutUpsample(nn.Module):
    """A transposed convolution with [1, 3, 3, 1] of the replicated input, cut to twice its size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([1.0, 3.0, 3.0, 1.0])
        kernel = line[:, None] * line[None, :]
        self.register_buffer("filt", (4 * kernel / kernel.sum()).repeat(channels, 1, 1, 1))
        self.pad = nn.ReplicationPad2d(1)

    def forward(self, x: Tensor) -> Tensor:
        doubled = nn.functional.conv_transpose2d(
            self.pad(x), self.filt, stride=2, padding=2, groups=x.shape[1]
        )
        return doubled[:, :, 1:-1, 1:-1]


class OriginalGenerator(nn.Module):
    def __init__(
        self,
        width: int = 4,
        blocks: int = 2,
        channels: tuple[int, int] = (3, 3),
        dropout: bool = False,
        affine: bool = False,
        norm: type[nn.Module] = nn.InstanceNorm2d,
        antialias: bool = False,
        antialias_up: bool | None = None,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(channels[0], width, 7)]
        layers += [norm(width, affine=affine), nn.ReLU(True)]
        for wide in (2 * width, 4 * width):
            layers += [nn.Conv2d(wide // 2, wide, 3, stride=1 if antialias else 2, padding=1)]
            layers += [norm(wide, affine=affine), nn.ReLU(True)]
            layers += [CutDownsample(wide)] if antialias else []
        layers += [OriginalBlock(4 * width, norm, dropout, affine) for _ in range(blocks)]
        for wide in (2 * width, width):
            if antialias if antialias_up is None else antialias_up:
                layers += [CutUpsample(2 * wide), nn.Conv2d(2 * wide, wide, 3, padding=1)]
            else:
                layers += [nn.ConvTranspose2d(2 * wide, wide, 3, 2, padding=1, output_padding=1)]
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
