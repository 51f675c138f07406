"""One generator in use: images in, their translations out, of exactly the same size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from cyclegan_cli.checkpoints.header import Direction, ModelInfo
from cyclegan_cli.checkpoints.locate import checkpoint_file
from cyclegan_cli.checkpoints.reading import Domains, read_model
from cyclegan_cli.checkpoints.store import load_generator
from cyclegan_cli.config import PrecisionChoice
from cyclegan_cli.data.decode import from_pillow
from cyclegan_cli.data.image import BitDepth, PixelArray, to_depth
from cyclegan_cli.data.tensors import array_to_tensor, tensor_to_array
from cyclegan_cli.errors import DeviceError, UsageError
from cyclegan_cli.models.networks import ResnetGenerator
from cyclegan_cli.models.sizes import padded_size, reflect_to_multiple
from cyclegan_cli.runtime.devices import choose_device
from cyclegan_cli.runtime.memory import memory_errors
from cyclegan_cli.translation.levels import LevelRows, LevelSink, to_channels
from cyclegan_cli.translation.memory import Needs, memory_budget, plan_strips, refuse_too_little
from cyclegan_cli.translation.precision import settle_precision
from cyclegan_cli.translation.stages import Rows
from cyclegan_cli.translation.stored import StoredRows
from cyclegan_cli.translation.strips import Sink

SMALLER = "Use a smaller image, or --resize."
NOT_COMPILED = "--compile: not compiled, as on a CPU the network is faster in strips"
# The network as it is written down holds so many full-size feature maps at once.
MAPS_UNTILED = 4
IMAGES = "a tensor of images must be [B, 3, H, W] of floating-point numbers in [-1, 1]"
LEVELS = "an array must be [H, W, 3] of uint8 or uint16"
# Images this many times larger than those trained on come out with textures too fine for them.
LARGEST_SCALE = 4

AnyImage = TypeVar("AnyImage", Image.Image, Tensor, PixelArray)


@dataclass(frozen=True)
class TranslatorOptions:
    """How a :class:`Translator` works.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``auto``, ``fp32``, ``tf32`` or ``bf16``; on a GPU it decides for the whole
            process whether torch computes fp32 in TF32.
        max_memory: Bytes that the process may use (on a GPU: of its memory); None: what is free.
        resize: Images whose short side is longer are scaled down to this many pixels before
            they are translated, and up again behind it; None: never.
        compile: Whether the network is compiled for images that need no strips, where that can
            repay.
    """

    device: str = "auto"
    precision: PrecisionChoice = "auto"
    max_memory: int | None = None
    resize: int | None = None
    compile: bool = False


class Translator:
    """The generator of one direction.

    Args:
        generator: The network, in inference mode, fp32, on ``device``; it is taken over.
        info: What the checkpoint says of it.
        direction: Its direction.
        device: Where it computes.
        options: How.

    Attributes:
        generator: The network, in the precision that was settled on.
        target: Name of the domain that it translates to.
        remarks: A sentence each about how the precision was chosen and why the network was not
            compiled, if there is something to say.
    """

    def __init__(
        self,
        generator: ResnetGenerator,
        info: ModelInfo,
        direction: Direction,
        device: torch.device,
        options: TranslatorOptions = TranslatorOptions(),
    ) -> None:
        self.device, self.options = device, options
        self.info, self.direction = info, direction
        self.target = info.target(direction)
        self.checkpoint: Path | None = None
        self.strips, remark = settle_precision(generator, options.precision, device)
        self.generator = self.strips.generator
        self._like = next(self.generator.parameters())
        self._is_compiled = options.compile and repays_compiling(device)
        self._whole = self._compile() if self._is_compiled else self.generator
        not_compiled = options.compile and not self._is_compiled
        self.remarks = tuple(filter(None, (remark, NOT_COMPILED if not_compiled else "")))

    @torch.inference_mode()
    def _compile(self) -> Callable[[Tensor], Tensor]:
        """The network compiled for any size, and tried."""
        compiled = torch.compile(self.generator, dynamic=True)
        image = torch.zeros(1, self.generator.config.input_channels, 64, 96).to(self._like)
        try:
            compiled(image.contiguous(memory_format=torch.channels_last))
        except Exception as error:
            # Whatever compilers and their callers raise; it would be the same for every image.
            reason = str(error).strip().split("\n")[0]
            raise DeviceError(
                f"--compile: the network cannot be compiled here: {reason}",
                "Leave --compile out, or install a C++ compiler.",
            ) from error
        return compiled

    @classmethod
    def load(
        cls,
        checkpoint: str | Path,
        direction: Direction | None = None,
        device: str = "auto",
        domains: Domains | None = None,
        options: TranslatorOptions | None = None,
    ) -> Translator:
        """Load the generator of one direction, and nothing else, from a checkpoint.

        Args:
            checkpoint: A run folder, a ``.safetensors`` file, or a ``.pth`` file of the original
                implementation.
            direction: ``a2b`` or ``b2a``; None: the first that the checkpoint has.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
            domains: Names of the domains A and B in place of the checkpoint's own.
            options: More of how it works; its device is taken, if given.

        Raises:
            CheckpointError: There is none, or it is damaged or foreign.
            DeviceError: The device is missing, has no tf32, or its memory is not enough for any
                image.
            UsageError: Not a device's name.
        """
        options = options or TranslatorOptions(device=device)
        chosen = choose_device(options.device)
        file = checkpoint_file(Path(checkpoint))
        direction = direction or read_model(file).directions[0]
        generator, info = load_generator(file, direction, domains)
        translator = cls(generator.to(chosen), info, direction, chosen, options)
        refuse_too_little(chosen, options.max_memory)
        translator.checkpoint = file
        return translator

    def scale_remark(self, width: int, height: int) -> str:
        """A sentence where an image is far larger than those trained on; else empty."""
        trained = self.info.training.get("load_size")
        if type(trained) is not int or trained < 1 or self.options.resize:
            return ""
        scale = min(width, height) / trained
        if scale <= LARGEST_SCALE:
            return ""
        return (
            f"{width}x{height} pixels are {scale:.0f} times the scale that was trained on, so "
            f"what changes is finer than in training; --resize {trained} translates at that scale"
        )

    def to(self, target: str) -> Translator:
        """The translator to the domain named ``target``, of the same checkpoint.

        Raises:
            UsageError: The checkpoint knows no such domain, or the translator was made of a
                network and not loaded from a checkpoint, which alone has the other one.
            CheckpointError: It cannot be read any more, or has no such direction.
        """
        direction = self.info.direction_to(target)
        if direction == self.direction:
            return self
        if self.checkpoint is None:
            raise UsageError(
                f"this translator is one network, which translates to {self.target}, not {target}",
                "Use Translator.load: a checkpoint has the other direction, too.",
            )
        return Translator.load(
            self.checkpoint,
            direction,
            domains=(self.info.name_a, self.info.name_b),
            options=self.options,
        )

    def __call__(self, image: AnyImage) -> AnyImage:
        """Translate an image of any size.

        Args:
            image: A Pillow image of any mode, levels ``[H, W, 3]`` uint8 or uint16 (sRGB), or a
                tensor ``[B, 3, H, W]`` in [-1, 1].

        Returns:
            The same kind and size. Of an image: sRGB with 8 bits, upright, ``RGBA`` where it has
            transparency, else ``RGB``; without the rest of its EXIF data, and of an animation the
            frame that it is at. Of a tensor: fp32, on the translator's device.

        Raises:
            DeviceError: Not enough memory.
            ValueError: An array or tensor of another shape or type, or an image of floating-point
                numbers.
        """
        if isinstance(image, Tensor):
            _refuse_unless(image.ndim == 4 and image.shape[1] == 3, image, IMAGES)
            _refuse_unless(image.is_floating_point() and image.numel() > 0, image, IMAGES)
            return self.translate(image)
        if isinstance(image, np.ndarray):
            _refuse_unless(image.ndim == 3 and image.shape[2] == 3, image, LEVELS)
            _refuse_unless(image.dtype in (np.uint8, np.uint16) and image.size > 0, image, LEVELS)
            return self.translate_levels(image)
        colours, alpha = from_pillow(image)
        translated = Image.fromarray(self.translate_levels(colours, 8))
        if alpha is not None:
            translated.putalpha(Image.fromarray(to_depth(alpha, 8)))
        return translated

    @torch.inference_mode()
    def translate(self, images: Tensor) -> Tensor:
        """Translate a batch of images of any size.

        Args:
            images: ``[B, 3, H, W]`` in [-1, 1], on any device.

        Returns:
            ``[B, 3, H, W]`` in [-1, 1], fp32, on the translator's device.

        Raises:
            DeviceError: Not enough memory.
        """
        height, width = images.shape[-2:]
        with memory_errors(f"translating {width}x{height} pixels", SMALLER):
            colours = to_channels(images.to(self._like), self.generator.config.input_channels)
            padded = reflect_to_multiple(colours).contiguous(memory_format=torch.channels_last)
            if self._whole_at_once(padded.shape[2], padded.shape[3], len(padded)):
                translated = self._whole(padded)
            else:
                translated = torch.cat([self._one_in_strips(one) for one in torch.split(padded, 1)])
            return to_channels(translated.float()[..., :height, :width], 3)

    def _one_in_strips(self, padded: Tensor) -> Tensor:
        shape = (1, self.generator.config.output_channels, *padded.shape[2:])
        translated = torch.empty(shape, dtype=padded.dtype, device=padded.device)

        def sink(top: int, rows: Tensor) -> None:
            translated[:, :, top : top + rows.shape[2]] = rows

        self._in_strips(StoredRows(padded, padded.device), padded.shape[3], sink)
        return translated

    def translate_levels(
        self,
        levels: PixelArray,
        bit_depth: BitDepth | None = None,
        size: tuple[int, int] | None = None,
    ) -> PixelArray:
        """Translate an image of any size, given as an array.

        Args:
            levels: ``[H, W, 3]``, uint8 or uint16, sRGB.
            bit_depth: Bits a channel of the result; None: those of ``levels``.
            size: Width and height of the result; None: those of ``levels``.

        Returns:
            ``[height, width, 3]``, uint8 or uint16.

        Raises:
            DeviceError: Not enough memory.
        """
        height, width = levels.shape[:2]
        size = size or (width, height)
        depth = bit_depth or (16 if levels.dtype == np.uint16 else 8)
        with memory_errors(f"translating {width}x{height} pixels", SMALLER):
            resize = self.options.resize
            if size != (width, height) or (resize and min(height, width) > resize):
                return self._resized(levels, depth, size)
            return self._translate_levels(levels, depth)

    def _resized(self, levels: PixelArray, depth: BitDepth, size: tuple[int, int]) -> PixelArray:
        """Translate at the scale of ``--resize``, and scale the result to ``size``."""
        small = _scaled_levels(levels, _short_side_of(levels, self.options.resize), 16)
        width, height = size
        shown = _shown_by(levels, width, height)
        translated = _scaled_levels(self._translate_levels(small, 16), shown, depth)
        return np.ascontiguousarray(translated[:height, :width])

    @torch.inference_mode()
    def _translate_levels(self, levels: PixelArray, depth: BitDepth) -> PixelArray:
        height, width = levels.shape[:2]
        sink = LevelSink(height, width, depth)
        image = LevelRows(levels, self.generator.config.input_channels, self._like)
        if self._whole_at_once(image.height, padded_size(width)):
            sink(0, self._whole(image.read(0, image.height)))
        else:
            self._in_strips(image, padded_size(width), sink)
        return sink.levels

    def _whole_at_once(self, height: int, width: int, batch: int = 1) -> bool:
        """Whether images go through the network as it is written down.

        On a GPU that is fastest where they fit; on a CPU, strips are (docs/performance.md).
        """
        if self.device.type == "cpu" and not self._is_compiled:
            return False
        needed = MAPS_UNTILED * self._needs(height, width).full_map * batch
        return needed <= self._budget()

    def _in_strips(self, image: Rows, width: int, sink: Sink) -> None:
        plan = plan_strips(self._needs(image.height, width), self._budget(), self.device)
        self.strips.translate(image, plan, sink)

    def _budget(self) -> float:
        """Bytes for the next image, those held since the last one included."""
        return memory_budget(self.device, self.options.max_memory) + self.strips.space.held

    def _needs(self, height: int, width: int) -> Needs:
        return Needs(self.generator.config, height, width, self._like.itemsize)


def repays_compiling(device: torch.device) -> bool:
    """Whether the compiled network may be faster than what else there is for a device.

    On CPUs it takes 1.9 times as long as the strips (docs/performance.md).
    """
    return device.type != "cpu"


def _refuse_unless(fits: bool, image: Tensor | PixelArray, wanted: str) -> None:
    if not fits:
        raise ValueError(f"{wanted}, found {list(image.shape)} of {image.dtype}")


def _short_side_of(levels: PixelArray, short: int | None) -> tuple[int, int]:
    """Height and width of an image scaled down to a short side; of a smaller one, its own."""
    height, width = levels.shape[:2]
    scale = min(1.0, (short or height) / min(height, width))
    return max(round(height * scale), 1), max(round(width * scale), 1)


def _shown_by(levels: PixelArray, width: int, height: int) -> tuple[int, int]:
    """Height and width of what a frame shows of an image of some width and height.

    Decoded at a half, quarter or eighth, its last row and column may reach beyond the image.
    """
    for scale in (2, 4, 8):
        if levels.shape[:2] == (math.ceil(height / scale), math.ceil(width / scale)):
            return levels.shape[0] * scale, levels.shape[1] * scale
    return height, width


def _scaled_levels(levels: PixelArray, size: tuple[int, int], depth: BitDepth) -> PixelArray:
    """An image scaled to height and width, antialiased."""
    images = array_to_tensor(levels)
    if images.shape[-2:] != size:
        images = F.interpolate(images, size, mode="bicubic", antialias=True).clamp_(-1, 1)
    return tensor_to_array(images, depth)
