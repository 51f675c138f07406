"""Layer shapes, FLOPs and memory of the networks, computed without torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cyclegan_cli.config import BOTH_DIRECTIONS, DiscriminatorConfig, GeneratorConfig, TrainConfig


@dataclass(frozen=True)
class Layer:
    """A convolution or resampling, and its optional norm.

    Attributes:
        conv: Name of the convolution module, e.g. ``stem.conv``.
        norm: Name of the norm module; empty if there is none.
        in_channels: Number of input channels.
        out_channels: Number of output channels.
        kernel_size: Side of the square kernel.
        stride: Stride; for transposed convolutions the upsampling factor is 2.
        transposed: Whether the convolution is transposed, or the resampling doubles the size.
        fixed: Whether it is a resampling: it filters each channel with a constant kernel.
    """

    conv: str
    norm: str
    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int = 1
    transposed: bool = False
    fixed: bool = False

    def weight_shape(self) -> tuple[int, int, int, int]:
        """Shape of the weight; transposed convolutions have the input channels first."""
        channels = (self.out_channels, self.in_channels)
        channels = channels[::-1] if self.transposed else channels
        return (*channels, self.kernel_size, self.kernel_size)


def generator_layers(config: GeneratorConfig) -> Iterator[Layer]:
    """Layers of the generator in order (Zhu et al. 2017, sec. 7.2)."""
    c = config.base_channels
    yield Layer("stem.conv", _stage_norm("stem", config), config.input_channels, c, 7)
    yield from _downsampling("down.0", c, config)
    yield from _downsampling("down.1", 2 * c, config)
    for block in range(config.residual_blocks):
        name = f"trunk.{block}"
        yield Layer(f"{name}.first.conv", f"{name}.first.norm", 4 * c, 4 * c, 3)
        yield Layer(f"{name}.second", f"{name}.norm", 4 * c, 4 * c, 3)
    yield from _upsampling("up.0", 4 * c, config)
    yield from _upsampling("up.1", 2 * c, config)
    yield Layer("head", "", c, config.output_channels, 7)


def _stage_norm(name: str, config: GeneratorConfig) -> str:
    return f"{name}.norm" if config.norms == "all" else ""


def _downsampling(name: str, channels: int, config: GeneratorConfig) -> Iterator[Layer]:
    conv, norm, wide = f"{name}.conv", _stage_norm(name, config), 2 * channels
    if config.resampling == "cut":
        yield Layer(conv, norm, channels, wide, 3)
        yield Layer(f"{name}.blur", "", wide, wide, 3, stride=2, fixed=True)
        return
    if config.resampling == "blur":
        yield Layer(f"{name}.blur", "", channels, channels, 3, fixed=True)
    yield Layer(conv, norm, channels, wide, 3, stride=2)


def _upsampling(name: str, channels: int, config: GeneratorConfig) -> Iterator[Layer]:
    conv, norm, narrow = f"{name}.conv", _stage_norm(name, config), channels // 2
    if config.resampling == "cut":
        yield Layer(f"{name}.upsample", "", channels, channels, 2, transposed=True, fixed=True)
        yield Layer(conv, norm, channels, narrow, 3)
    elif config.resampling == "blur":
        yield Layer(conv, "", channels, narrow, 3, transposed=True)
        yield Layer(f"{name}.blur", norm, narrow, narrow, 3, fixed=True)
    else:
        yield Layer(conv, norm, channels, narrow, 3, transposed=True)


def discriminator_layers(config: DiscriminatorConfig) -> Iterator[Layer]:
    """Layers of a PatchGAN in order; its norms have no parameters."""
    c = config.base_channels
    yield Layer("first", "", config.input_channels, c, 4, stride=2)
    yield Layer("hidden.0", "", c, 2 * c, 4, stride=2)
    yield Layer("hidden.1", "", 2 * c, 4 * c, 4, stride=2)
    yield Layer("hidden.2", "", 4 * c, 8 * c, 4)
    # Named so in the files of all versions.
    yield Layer("judge", "", 8 * c, 1, 4)


def generator_shapes(config: GeneratorConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all parameters of ``ResnetGenerator(config)``."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in generator_layers(config):
        if not layer.fixed:
            shapes[f"{layer.conv}.weight"] = layer.weight_shape()
            shapes[f"{layer.conv}.bias"] = (layer.out_channels,)
        if config.affine_norm and layer.norm:
            shapes[f"{layer.norm}.weight"] = shapes[f"{layer.norm}.bias"] = (layer.out_channels,)
    return shapes


def generator_flops(config: GeneratorConfig, height: int, width: int) -> int:
    """FLOPs of one forward pass, counting a multiply-add as two.

    Only convolutions are counted, blurs included; interpolation, norms and activations add less
    than 1 %.
    """
    return sum(_flops(layer, scale, height, width) for layer, scale in _scaled(config))


def _flops(layer: Layer, scale: int, height: int, width: int) -> int:
    """FLOPs of a layer whose output is the image's size divided by ``scale``.

    A transposed convolution applies its kernel once per *input* pixel: a quarter of the output.
    """
    pixels = (height // scale) * (width // scale) // (4 if layer.transposed else 1)
    if layer.fixed:
        return 0 if layer.transposed else 2 * pixels * layer.out_channels * layer.kernel_size**2
    return 2 * pixels * layer.in_channels * layer.out_channels * layer.kernel_size**2


def _scaled(config: GeneratorConfig) -> Iterator[tuple[Layer, int]]:
    """Yield each layer with the factor by which the image is downsampled after it."""
    scale = 1
    for layer in generator_layers(config):
        scale = scale // 2 if layer.transposed else scale * layer.stride
        yield layer, scale


def discriminator_flops(config: DiscriminatorConfig, height: int, width: int) -> int:
    """FLOPs of one forward pass of the discriminator, counting a multiply-add as two."""
    total = 0
    for scale in range(config.scales):
        rows, columns = height >> scale, width >> scale
        for layer in discriminator_layers(config):
            # Kernel size 4, padding 1.
            rows, columns = ((side + 2 - 4) // layer.stride + 1 for side in (rows, columns))
            kernel = layer.in_channels * layer.out_channels * layer.kernel_size**2
            total += 2 * rows * columns * kernel
    return total


def step_flops(config: TrainConfig) -> int:
    """FLOPs of a training step, counting a backward pass as two forward passes.

    Both generators translate, reconstruct and, with an identity loss, map images of their target
    domain. Both discriminators classify the translations, and then real and pooled images.
    """
    size = (config.crop_size, config.crop_size)
    passes = 3 if config.identity_weight else 2
    flops = sum(
        passes * generator_flops(config.generator_config(direction), *size)
        for direction in BOTH_DIRECTIONS
    )
    flops += sum(3 * discriminator_flops(config.discriminator_config(d), *size) for d in "ab")
    return 3 * config.batch_size * flops


def activation_bytes(config: GeneratorConfig, height: int, width: int) -> int:
    """Peak size of the live feature maps of one forward pass in fp32, in bytes.

    Counts the input of a layer, the output of its convolution and, if there is a norm, the
    normalized output. The workspace of the runtime is not included.
    """
    peak, before = 0, config.input_channels * height * width
    for layer, scale in _scaled(config):
        after = layer.out_channels * (height // scale) * (width // scale)
        live = before + (2 * after if layer.norm else after)
        peak, before = max(peak, live), after
    return 4 * peak


def receptive_field(layers: Iterator[Layer]) -> int:
    """Receptive field of one output pixel in pixels, per side.

    Counts convolutions and resampling; instance norm depends on the whole image. After upsampling
    it depends on the position of the pixel, and the largest is returned.
    """
    from_last = list(layers)[::-1]
    widest = 0
    for position in range(4):
        first = last = position
        for layer in from_last:
            if layer.fixed and layer.transposed:  # Between the two nearest pixels.
                first, last = (first - 1) // 2, (last + 1) // 2
            elif layer.transposed:  # Input pixel i contributes to output pixels 2i - 1 to 2i + 1.
                first, last = first // 2, (last + 1) // 2
            else:
                padding = (layer.kernel_size - 1) // 2
                first = first * layer.stride - padding
                last = last * layer.stride - padding + layer.kernel_size - 1
        widest = max(widest, last - first + 1)
    return widest
