"""Translate images of any size with the generator of one direction."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from cyclegan_cli.checkpoints.header import Direction, ModelInfo
from cyclegan_cli.checkpoints.locate import Checkpoint, checkpoint_file, read_checkpoint
from cyclegan_cli.checkpoints.store import load_generator
from cyclegan_cli.config import Domains, PrecisionChoice
from cyclegan_cli.data.bands import avoid_value, nodata_value
from cyclegan_cli.data.decode import from_pillow
from cyclegan_cli.data.image import BitDepth, PixelArray, to_depth
from cyclegan_cli.data.tensors import array_to_tensor, tensor_to_array
from cyclegan_cli.errors import DeviceError, UsageError
from cyclegan_cli.models.networks import InstanceNorm, ResnetGenerator
from cyclegan_cli.models.padding import padded_size, reflect_to_multiple
from cyclegan_cli.runtime.devices import choose_device, describe_environment, device_for_rank
from cyclegan_cli.runtime.distributed_env import SINGLE_PROCESS, DistributedEnv
from cyclegan_cli.runtime.memory import (
    RESERVED_FRACTION,
    host_memory_free,
    memory_budget,
    memory_errors,
)
from cyclegan_cli.translation.arena import StoredRows
from cyclegan_cli.translation.layers import Rows
from cyclegan_cli.translation.memory import MemoryEstimate, plan_strips, refuse_too_little
from cyclegan_cli.translation.pixel_rows import PixelRows, PixelSink, to_channels
from cyclegan_cli.translation.precision import build_strip_generator
from cyclegan_cli.translation.progress import TranslationObserver
from cyclegan_cli.translation.strips import Sink, StripPlan

SMALLER = "Use a smaller image, or --resize."
NOT_COMPILED = "--compile has no effect on a CPU, where strips are faster"
# Full-resolution feature maps that the network holds at once if called directly.
MAPS_OF_NETWORK = 4
IMAGES = "a tensor of images must be [B, 3, H, W] of floating-point numbers in [-1, 1]"
PIXELS = "an array must be [H, W, 3] of uint8 or uint16"
# Above this ratio to the training scale, generated textures are too fine.
LARGEST_SCALE = 4

AnyImage = TypeVar("AnyImage", Image.Image, Tensor, PixelArray)


@dataclass(frozen=True)
class TranslatorOptions:
    """Options of a :class:`Translator`.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``auto``, ``fp32``, ``tf32`` or ``bf16``; on a GPU it sets for the whole process
            whether torch computes fp32 in TF32.
        max_memory: Limit in bytes of the process, or of the GPU's memory; None: the free memory.
        resize: Images with a longer short side are scaled down to this many pixels, translated,
            and scaled back up; None: never.
        compile: Whether to compile the network for images that need no strips, on a GPU.
        env: The process among several, which share the GPUs of a machine.
    """

    device: str = "auto"
    precision: PrecisionChoice = "auto"
    max_memory: int | None = None
    resize: int | None = None
    compile: bool = False
    env: DistributedEnv = SINGLE_PROCESS


class Translator:
    """The generator of one direction.

    Args:
        generator: The network, in inference mode, fp32, on ``device``; it is modified.
        info: The model's description in the checkpoint.
        direction: The direction.
        device: The computing device.
        options: The options.

    Attributes:
        generator: The network, in the chosen precision.
        source: Name of the source domain.
        target: Name of the target domain.
        source_format: How images of the source domain are read; None: as RGB.
        target_format: How images of the target domain are written; None: as RGB.
        like: A tensor with the dtype and device of the network's inputs.
        remarks: Sentences about the choice of precision and about compilation, if any.
        observer: Is informed about the progress of each image.
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
        self.source, self.target = info.source(direction), info.target(direction)
        self.source_format, self.target_format = info.formats_of(direction)
        self.checkpoint: Path | None = None
        self.observer = TranslationObserver()
        # The output of bf16 has 8 significant bits, too few for values of other types.
        exact = options.precision == "auto" and self.target_format is not None
        precision: PrecisionChoice = "fp32" if exact else options.precision
        self.strips, remark = build_strip_generator(generator, precision, device)
        self.generator = self.strips.generator
        self.like = next(self.generator.parameters())
        self._is_compiled = options.compile and is_compiling_faster(device)
        self._whole = self._compile() if self._is_compiled else self.generator
        not_compiled = options.compile and not self._is_compiled
        self.remarks = tuple(filter(None, (remark, NOT_COMPILED if not_compiled else "")))

    @torch.inference_mode()
    def _compile(self) -> Callable[[Tensor], Tensor]:
        """Compile the network for any size, and call it once."""
        compiled = torch.compile(self.generator, dynamic=True)
        image = torch.zeros(1, self.generator.config.input_channels, 64, 96).to(self.like)
        try:
            compiled(image.contiguous(memory_format=torch.channels_last))
        except Exception as error:
            # Compilers raise many types; the error would be the same for every image.
            reason = str(error).strip().split("\n")[0]
            raise DeviceError(
                f"--compile: the network cannot be compiled here: {reason}",
                "Leave --compile out, or install a C++ compiler.",
            ) from error
        return compiled

    @classmethod
    def load(
        cls,
        checkpoint: str | Path | Checkpoint,
        direction: Direction | None = None,
        device: str = "auto",
        domains: Domains | None = None,
        options: TranslatorOptions | None = None,
    ) -> Translator:
        """Load the generator of one direction from a checkpoint.

        Args:
            checkpoint: A run folder, a ``.safetensors`` file, a ``.pth`` file of the original
                implementation, or a checkpoint whose header has been read.
            direction: ``a2b`` or ``b2a``; None: the first in the checkpoint.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
            domains: Names of domains A and B, replacing the checkpoint's.
            options: Further options; their device replaces ``device``.

        Raises:
            CheckpointError: The checkpoint is missing, damaged or of another program.
            DeviceError: The device is missing, does not support tf32, or has too little memory.
            UsageError: The device's name is unknown.
        """
        options = options or TranslatorOptions(device=device)
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = read_checkpoint(checkpoint_file(Path(checkpoint)), domains)
        env = options.env
        chosen = choose_device(
            device_for_rank(options.device, env.local_rank, env.local_world_size)
        )
        direction = direction or checkpoint.info.directions[0]
        generator, info = load_generator(checkpoint, direction)
        translator = cls(generator.to(chosen), info, direction, chosen, options)
        refuse_too_little(chosen, options.max_memory)
        translator.checkpoint = checkpoint.path
        return translator

    @property
    def setup(self) -> tuple[str, ...]:
        """Sentences about the versions, the device, the network and the memory."""
        generator, limit = self.generator.config, self.options.max_memory
        limited = f"limited to {limit / 1e9:.3g} GB" if limit else "no limit"
        return (
            describe_environment(self.device),
            f"{self.checkpoint}: {self.source} -> {self.target}, {generator.base_channels} "
            f"channels, {generator.residual_blocks} residual blocks, in {self.precision}",
            f"memory: {limited}; {host_memory_free() / 1e9:.3g} GB free on this machine",
        )

    def scale_remark(self, width: int, height: int) -> str:
        """Return a warning if an image is far larger than the training images, else ``""``."""
        trained = self.info.training.get("load_size")
        if type(trained) is not int or trained < 1 or self.options.resize:
            return ""
        scale = min(width, height) / trained
        if scale <= LARGEST_SCALE:
            return ""
        return (
            f"{width}x{height} pixels are {scale:.0f} times the training scale, so generated "
            f"details are finer than in training; --resize {trained} translates at that scale"
        )

    @property
    def precision(self) -> str:
        """The precision of the convolutions: ``fp32``, ``tf32`` or ``bf16``."""
        if self.like.dtype == torch.bfloat16:
            return "bf16"
        return "tf32" if self.options.precision == "tf32" else "fp32"

    def to(self, target: str) -> Translator:
        """Return the translator to the domain ``target`` of the same checkpoint.

        Raises:
            UsageError: The checkpoint has no such domain, or the translator was created from a
                network instead of a checkpoint.
            CheckpointError: The checkpoint cannot be read, or lacks this direction.
        """
        direction = self.info.direction_to(target)
        if direction == self.direction:
            return self
        if self.checkpoint is None:
            raise UsageError(
                f"this translator has one network, which translates to {self.target}, not {target}",
                "Use Translator.load, which also loads the other direction.",
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
            image: A Pillow image of any mode, an sRGB array ``[H, W, 3]`` of uint8 or uint16, or a
                tensor ``[B, 3, H, W]`` in [-1, 1]. If the domains are not both RGB: an array
                ``[H, W, C]`` (or ``[H, W]`` of one channel) with the values of the source domain,
                or a tensor ``[B, C, H, W]`` in [-1, 1].

        Returns:
            The same type and size; with the channels, type and range of the target domain if it is
            not RGB. A Pillow image is 8-bit sRGB, upright, ``RGBA`` if it has
            transparency, else ``RGB``, without EXIF data; of an animation only the current frame
            is translated. A tensor is fp32, on the translator's device.

        Raises:
            DeviceError: There is not enough memory.
            ValueError: An array or tensor has another shape or dtype, or the image has
                floating-point pixel values.
        """
        if self.source_format or self.target_format:
            return self._call_with_bands(image)
        if isinstance(image, Tensor):
            _refuse_unless(image.ndim == 4 and image.shape[1] == 3, image, IMAGES)
            _refuse_unless(image.is_floating_point() and image.numel() > 0, image, IMAGES)
            return self.translate(image)
        if isinstance(image, np.ndarray):
            _refuse_unless(image.ndim == 3 and image.shape[2] == 3, image, PIXELS)
            _refuse_unless(image.dtype in (np.uint8, np.uint16) and image.size > 0, image, PIXELS)
            return self.translate_array(image)
        colors, alpha = from_pillow(image)
        translated = Image.fromarray(self.translate_array(colors, 8))
        if alpha is not None:
            translated.putalpha(Image.fromarray(to_depth(alpha, 8)))
        return translated

    def _call_with_bands(self, image: AnyImage) -> AnyImage:
        source = self.source_format
        channels = source.channels if source else 3
        if isinstance(image, Tensor):
            fits = image.ndim == 4 and image.shape[1] == channels
            fits = fits and image.is_floating_point() and image.numel() > 0
            _refuse_unless(fits, image, IMAGES.replace("3", str(channels)))
            return self.translate(image)
        if not isinstance(image, np.ndarray):
            raise ValueError("this model takes arrays [H, W, C] or tensors, not Pillow images")
        pixels = image[..., None] if image.ndim == 2 and channels == 1 else image
        types = (source.dtype,) if source else ("uint8", "uint16")
        wanted = f"an array must be [H, W, {channels}] of {' or '.join(types)}"
        fits = pixels.ndim == 3 and pixels.shape[2] == channels and pixels.size > 0
        _refuse_unless(fits and str(pixels.dtype) in types, image, wanted)
        return self.translate_bands(pixels)[0]

    def translate_bands(
        self, pixels: PixelArray, nodata: float | None = None
    ) -> tuple[PixelArray, PixelArray | None]:
        """Translate an image where a domain is not RGB.

        Args:
            pixels: ``[H, W, C]`` with the values of the source domain; of an RGB domain uint8 or
                uint16.
            nodata: A value without data that the file declares, in addition to that of the domain.

        Returns:
            ``[H, W, C]`` with the values of the target domain, and which pixels lack data: ``[H,
            W]`` bool, or None. They have the target domain's value without data.

        Raises:
            DeviceError: There is not enough memory.
            UsageError: ``--resize`` is given.
        """
        if self.options.resize:
            raise UsageError(
                "--resize is for models between RGB domains", "Translate at the full size."
            )
        height, width = pixels.shape[:2]
        with memory_errors(f"translating {width}x{height} pixels", SMALLER):
            source = self.source_format
            channels = self.generator.config.input_channels
            image = PixelRows(pixels, channels, self.like, source)
            missing = np.zeros((height, width), dtype=bool)
            lacks_data = source is not None and image.fill(nodata, missing)
            translated = self._translate_rows(image, height, width, 8)
            if not lacks_data:
                return translated, None
            if self.target_format:
                own = source.nodata if source and source.nodata is not None else nodata
                value = nodata_value(self.target_format, own)
                avoid_value(translated, value)
                translated[missing] = value
            return translated, missing

    @torch.inference_mode()
    def translate(self, images: Tensor) -> Tensor:
        """Translate a batch of images.

        Args:
            images: ``[B, 3, H, W]`` in [-1, 1], on any device; the channels of the source domain
                if it is not RGB.

        Returns:
            ``[B, 3, H, W]`` in [-1, 1], fp32, on the translator's device; the channels of the
            target domain if it is not RGB.

        Raises:
            DeviceError: There is not enough memory.
        """
        height, width = images.shape[-2:]
        with memory_errors(f"translating {width}x{height} pixels", SMALLER):
            colors = images.to(self.like)
            if self.source_format is None:
                colors = to_channels(colors, self.generator.config.input_channels)
            padded = reflect_to_multiple(colors).contiguous(memory_format=torch.channels_last)
            if self._fits_network(padded.shape[2], padded.shape[3], len(padded)):
                translated = self._call_network(padded)
            else:
                translated = torch.cat(
                    [self._translate_in_strips(one) for one in torch.split(padded, 1)]
                )
            translated = translated.float()[..., :height, :width]
            return translated if self.target_format else to_channels(translated, 3)

    def _translate_in_strips(self, padded: Tensor) -> Tensor:
        shape = (1, self.generator.config.output_channels, *padded.shape[2:])
        translated = torch.empty(shape, dtype=padded.dtype, device=padded.device)

        def sink(top: int, rows: Tensor) -> None:
            translated[:, :, top : top + rows.shape[2]] = rows

        self._in_strips(StoredRows(padded, padded.device), padded.shape[3], sink)
        return translated

    def translate_array(
        self,
        pixels: PixelArray,
        bit_depth: BitDepth | None = None,
        size: tuple[int, int] | None = None,
    ) -> PixelArray:
        """Translate an image given as an array.

        Args:
            pixels: ``[H, W, 3]``, uint8 or uint16, sRGB.
            bit_depth: Bits per channel of the result; None: those of ``pixels``.
            size: Width and height of the result; None: those of ``pixels``.

        Returns:
            ``[height, width, 3]``, uint8 or uint16.

        Raises:
            DeviceError: There is not enough memory.
        """
        height, width = pixels.shape[:2]
        size = size or (width, height)
        depth = bit_depth or (16 if pixels.dtype == np.uint16 else 8)
        with memory_errors(f"translating {width}x{height} pixels", SMALLER):
            resize = self.options.resize
            if size != (width, height) or (resize and min(height, width) > resize):
                return self._resized(pixels, depth, size)
            return self._translate_array(pixels, depth)

    def _resized(self, pixels: PixelArray, depth: BitDepth, size: tuple[int, int]) -> PixelArray:
        """Translate at the scale of ``--resize``, and scale the result to ``size``."""
        small = _scaled(pixels, _scaled_size(pixels, self.options.resize), 16)
        width, height = size
        full = _full_size(pixels, width, height)
        translated = _scaled(self._translate_array(small, 16), full, depth)
        return np.ascontiguousarray(translated[:height, :width])

    def _translate_array(self, pixels: PixelArray, depth: BitDepth) -> PixelArray:
        image = PixelRows(pixels, self.generator.config.input_channels, self.like)
        height, width = pixels.shape[:2]
        return self._translate_rows(image, height, width, depth)

    @torch.inference_mode()
    def _translate_rows(
        self, image: PixelRows, height: int, width: int, depth: BitDepth
    ) -> PixelArray:
        sink = PixelSink(height, width, depth, self.target_format)
        if self._fits_network(image.height, padded_size(width)):
            sink(0, self._call_network(image.read(0, image.height)))
        else:
            # The output, and the encoder's copy of it.
            self._in_strips(image, padded_size(width), sink, 2 * sink.pixels.nbytes)
        return sink.pixels

    def _call_network(self, images: Tensor) -> Tensor:
        """Call the compiled network, or the generator itself while its norms have a filter."""
        norms = (m for m in self.generator.modules() if isinstance(m, InstanceNorm))
        is_filtered = any(norm.moments_filter is not None for norm in norms)
        return self.generator(images) if is_filtered else self._whole(images)

    def _fits_network(self, height: int, width: int, batch: int = 1) -> bool:
        """Return whether to call the network directly instead of in strips.

        On a GPU that is fastest if the images fit; on a CPU, strips are (docs/performance.md).
        """
        if self.device.type == "cpu" and not self._is_compiled:
            return False
        maps = MAPS_OF_NETWORK + self.generator.config.skips  # One is kept for its skip.
        needed = maps * self._estimate(height, width).full_map * batch
        return needed <= self.budget()

    def _in_strips(
        self, image: Rows, width: int, sink: Sink, pixel_bytes: float | None = None
    ) -> None:
        plan = self.plan(image.height, width, pixel_bytes)
        self.strips.translate(image, plan, sink, self._reporter(width, image.height))

    def plan(self, height: int, width: int, pixel_bytes: float | None = None) -> StripPlan:
        """Return the fastest strips for the available memory.

        Args:
            height: Height of the padded image.
            width: Width of the padded image.
            pixel_bytes: Bytes of pixels that are held in addition, see :class:`MemoryEstimate`.

        Raises:
            DeviceError: There is not enough memory.
        """
        estimate = self._estimate(height, width, pixel_bytes)
        plan = plan_strips(estimate, self.budget(), self.device)
        if plan.location == "disk":
            self.observer.on_message(
                f"{width}x{height} pixels: {estimate.half_map / 1e9:.3g} GB of feature maps are "
                f"stored in a temporary file in {tempfile.gettempdir()}"
            )
        return plan

    def translated(
        self, image: PixelRows, width: int, plan: StripPlan
    ) -> Generator[tuple[int, Tensor]]:
        """Translate an image, strip by strip. The iterator must be exhausted or closed.

        Args:
            image: The image.
            width: Its width in pixels.
            plan: The strips.

        Yields:
            From top to bottom, the index of a row and the rows from it on: ``[1, C, h, W']`` in
            [-1, 1].

        Raises:
            DeviceError: The disk has too little space for the feature maps.
        """
        return self.strips.translated(image, plan, self._reporter(width, image.height))

    def _reporter(self, width: int, height: int) -> Callable[[float], None]:
        return partial(self.observer.on_progress, width, height)

    def budget(self) -> float:
        """Bytes for the next image, including the arena kept from the last one."""
        return memory_budget(self.device, self.options.max_memory) + self.strips.arena.nbytes

    def host_budget(self) -> float:
        """Bytes of host memory for the next image's pixels."""
        if self.device.type == "cpu":
            return self.budget()
        return host_memory_free() * (1 - RESERVED_FRACTION)

    def _estimate(
        self, height: int, width: int, pixel_bytes: float | None = None
    ) -> MemoryEstimate:
        return MemoryEstimate(self.generator.config, height, width, self.like.itemsize, pixel_bytes)


def is_compiling_faster(device: torch.device) -> bool:
    """Return whether the compiled network can be faster than strips.

    On CPUs it takes 1.9 times as long (docs/performance.md).
    """
    return device.type != "cpu"


def _refuse_unless(fits: bool, image: Tensor | PixelArray, wanted: str) -> None:
    if not fits:
        raise ValueError(f"{wanted}, found {list(image.shape)} of {image.dtype}")


def _scaled_size(pixels: PixelArray, short: int | None) -> tuple[int, int]:
    """Return height and width after scaling a longer short side down to ``short``."""
    height, width = pixels.shape[:2]
    scale = min(1.0, (short or height) / min(height, width))
    return max(round(height * scale), 1), max(round(width * scale), 1)


def _full_size(pixels: PixelArray, width: int, height: int) -> tuple[int, int]:
    """Return height and width of a frame at the scale of the whole image.

    The last row and column of a frame decoded at 1/2, 1/4 or 1/8 may extend beyond the image.
    """
    for scale in (2, 4, 8):
        if pixels.shape[:2] == (math.ceil(height / scale), math.ceil(width / scale)):
            return pixels.shape[0] * scale, pixels.shape[1] * scale
    return height, width


def _scaled(pixels: PixelArray, size: tuple[int, int], depth: BitDepth) -> PixelArray:
    """Resize ``[H, W, 3]`` to height and width, antialiased."""
    images = array_to_tensor(pixels)
    if images.shape[-2:] != size:
        images = F.interpolate(images, size, mode="bicubic", antialias=True).clamp_(-1, 1)
    return tensor_to_array(images, depth)
