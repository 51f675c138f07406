"""The networks' layers as plain arithmetic: shapes, operations and memory, without torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cyclegan_cli.config import DiscriminatorConfig, GeneratorConfig


@dataclass(frozen=True)
class Layer:
    """A convolution, and its norm if it has one.

    Attributes:
        conv: Name of the convolution's parameters, e.g. ``stem.conv``.
        norm: Name of its norm's parameters; empty where there is no norm.
        channels_in: Channels that come in.
        channels_out: Channels that go out.
        kernel: Side of its kernel.
        stride: 2 where it halves height and width.
        doubles: Whether it is transposed, and doubles them.
    """

    conv: str
    norm: str
    channels_in: int
    channels_out: int
    kernel: int
    stride: int = 1
    doubles: bool = False

    def weight_shape(self) -> tuple[int, int, int, int]:
        """Shape of its weights: transposed convolutions have the incoming channels first."""
        channels = (self.channels_out, self.channels_in)
        channels = channels[::-1] if self.doubles else channels
        return (*channels, self.kernel, self.kernel)


def generator_layers(config: GeneratorConfig) -> Iterator[Layer]:
    """The generator's layers in their order (Zhu et al. 2017, sec. 7.2)."""
    c = config.base_channels
    yield Layer("stem.conv", "stem.norm", config.input_channels, c, 7)
    yield Layer("down.0.conv", "down.0.norm", c, 2 * c, 3, stride=2)
    yield Layer("down.1.conv", "down.1.norm", 2 * c, 4 * c, 3, stride=2)
    for block in range(config.residual_blocks):
        name = f"trunk.{block}"
        yield Layer(f"{name}.first.conv", f"{name}.first.norm", 4 * c, 4 * c, 3)
        yield Layer(f"{name}.second", f"{name}.norm", 4 * c, 4 * c, 3)
    yield Layer("up.0.conv", "up.0.norm", 4 * c, 2 * c, 3, doubles=True)
    yield Layer("up.1.conv", "up.1.norm", 2 * c, c, 3, doubles=True)
    yield Layer("head", "", c, config.output_channels, 7)


def discriminator_layers(config: DiscriminatorConfig) -> Iterator[Layer]:
    """The discriminator's layers in their order; its norms have no parameters."""
    c = config.base_channels
    yield Layer("first", "", 3, c, 4, stride=2)
    yield Layer("hidden.0", "", c, 2 * c, 4, stride=2)
    yield Layer("hidden.1", "", 2 * c, 4 * c, 4, stride=2)
    yield Layer("hidden.2", "", 4 * c, 8 * c, 4)
    yield Layer("judge", "", 8 * c, 1, 4)


def generator_shapes(config: GeneratorConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of all parameters of ``ResnetGenerator(config)``."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in generator_layers(config):
        shapes[f"{layer.conv}.weight"] = layer.weight_shape()
        shapes[f"{layer.conv}.bias"] = (layer.channels_out,)
        if config.affine_norm and layer.norm:
            shapes[f"{layer.norm}.weight"] = shapes[f"{layer.norm}.bias"] = (layer.channels_out,)
    return shapes


def generator_flops(config: GeneratorConfig, height: int, width: int) -> int:
    """Floating-point operations of one translation: a multiplication and an addition each.

    Those of the convolutions; norms and activations come to less than a hundredth of them.
    """
    return sum(_flops(layer, scale, height, width) for layer, scale in _scaled(config))


def _flops(layer: Layer, scale: int, height: int, width: int) -> int:
    """Operations of a layer whose result has a ``scale``-th of the image's height and width.

    A transposed convolution works once for every pixel that comes *in*: a quarter of those that
    go out.
    """
    pixels = (height // scale) * (width // scale) // (4 if layer.doubles else 1)
    return 2 * pixels * layer.channels_in * layer.channels_out * layer.kernel**2


def _scaled(config: GeneratorConfig) -> Iterator[tuple[Layer, int]]:
    """The layers, and by what the image's sides are divided after each."""
    scale = 1
    for layer in generator_layers(config):
        scale = scale // 2 if layer.doubles else scale * layer.stride
        yield layer, scale


def discriminator_flops(config: DiscriminatorConfig, height: int, width: int) -> int:
    """The same of one judgement; unlike the generator it shrinks an image by its borders too."""
    total = 0
    for layer in discriminator_layers(config):
        # Kernels of 4 with one pixel of padding.
        height, width = ((side + 2 - 4) // layer.stride + 1 for side in (height, width))
        total += 2 * height * width * layer.channels_in * layer.channels_out * layer.kernel**2
    return total


def activation_bytes(config: GeneratorConfig, height: int, width: int) -> int:
    """Bytes of the feature maps that are alive at once at the network's widest, in fp32.

    For the network over the whole image: a layer's input, its convolution's result and, where
    there is a norm, the normalised result. A runtime's own work space comes on top.
    """
    widest, before = 0, config.input_channels * height * width
    for layer, scale in _scaled(config):
        after = layer.channels_out * (height // scale) * (width // scale)
        alive = before + (2 * after if layer.norm else after)
        widest, before = max(widest, alive), after
    return 4 * widest


def receptive_field(layers: Iterator[Layer]) -> int:
    """Side, in pixels, of the square of the image that one pixel of the result depends on.

    Through the convolutions alone: instance norm looks at the whole image.
    """
    field, step = 1.0, 1.0
    for layer in layers:
        if layer.doubles:
            # Of a 3x3 kernel of stride 2, a pixel that goes out sees at most two that come in.
            field, step = field + step, step / 2
        else:
            field += (layer.kernel - 1) * step
            step *= layer.stride
    return round(field)
