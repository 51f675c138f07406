"""One generator in use: a picture in, its translation out, of exactly the same size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cyclegan_cli.checkpoints.header import Direction
from cyclegan_cli.checkpoints.locate import checkpoint_file
from cyclegan_cli.checkpoints.reading import Domains
from cyclegan_cli.checkpoints.store import load_generator
from cyclegan_cli.data.picture import BitDepth, Levels
from cyclegan_cli.data.tensors import array_to_tensor, tensor_to_array
from cyclegan_cli.devices import choose_device, memory_errors
from cyclegan_cli.models.networks import ResnetGenerator
from cyclegan_cli.models.sizes import reflect_to_multiple
from cyclegan_cli.translation.strips import translate_in_strips

# The untiled network needs about 1 GB a megapixel at 64 channels; strips give the same pixels.
STRIPS_FROM_PIXELS = 2_000_000
STRIP_ROWS = 16  # Of the trunk: 64 rows of the picture.
SMALLER = "Use a smaller picture."
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: how Pillow and the original make grey of RGB.


class Translator:
    """The generator of one direction.

    Args:
        generator: The network, in inference mode, on ``device``.
        target: Name of the domain that it translates to.
        device: Where it computes.
    """

    def __init__(self, generator: ResnetGenerator, target: str, device: torch.device) -> None:
        self.generator = generator
        self.target = target
        self.device = device

    @classmethod
    def load(
        cls,
        checkpoint: str | Path,
        direction: Direction = "a2b",
        device: str = "auto",
        domains: Domains | None = None,
    ) -> Translator:
        """Load the generator of one direction, and nothing else, from a checkpoint.

        Args:
            checkpoint: A run folder, a ``.safetensors`` file, or a ``.pth`` file of the original
                implementation.
            direction: ``a2b`` or ``b2a``.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
            domains: Names of the domains A and B in place of the checkpoint's own.

        Raises:
            CheckpointError: There is none, or it is damaged or foreign.
            DeviceError: The device is missing.
            UsageError: Not a device's name.
        """
        chosen = choose_device(device)
        generator, info = load_generator(checkpoint_file(Path(checkpoint)), direction, domains)
        generator.to(chosen)
        return cls(generator, info.target(direction), chosen)

    @torch.inference_mode()
    def translate(self, pictures: Tensor) -> Tensor:
        """Translate a batch of pictures of any size.

        Args:
            pictures: ``[B, 3, H, W]`` in [-1, 1], fp32, on any device.

        Returns:
            ``[B, 3, H, W]`` in [-1, 1], fp32, on the translator's device.

        Raises:
            DeviceError: Not enough memory.
        """
        height, width = pictures.shape[-2:]
        with memory_errors(f"translating {width}x{height} pixels", SMALLER):
            colours = to_channels(pictures.to(self.device), self.generator.config.input_channels)
            translated = self._run(reflect_to_multiple(colours))[..., :height, :width]
            return to_channels(translated, 3)

    def _run(self, padded: Tensor) -> Tensor:
        pixels = padded.shape[-2] * padded.shape[-1]
        if len(padded) == 1 and pixels >= STRIPS_FROM_PIXELS:
            return translate_in_strips(self.generator, padded, STRIP_ROWS)
        return self.generator(padded)  # type: ignore[no-any-return]

    def __call__(self, image: Image.Image) -> Image.Image:
        """Translate a picture of any size; the result has mode ``RGB`` and the same size."""
        return Image.fromarray(self.translate_levels(np.asarray(image.convert("RGB"))))

    def translate_levels(self, levels: Levels, bit_depth: BitDepth | None = None) -> Levels:
        """Translate a picture of any size, given as an array.

        Args:
            levels: ``[H, W, 3]``, uint8 or uint16, sRGB.
            bit_depth: Bits a channel of the result; None: those of ``levels``.

        Returns:
            ``[H, W, 3]``, uint8 or uint16.

        Raises:
            DeviceError: Not enough memory.
        """
        height, width = levels.shape[:2]
        depth = bit_depth or (16 if levels.dtype == np.uint16 else 8)
        with memory_errors(f"translating {width}x{height} pixels", SMALLER):
            return tensor_to_array(self.translate(array_to_tensor(levels)), depth)


def to_channels(pictures: Tensor, channels: int) -> Tensor:
    """Make grey pictures of RGB ones, or RGB of grey; those of ``channels`` stay as they are.

    Args:
        pictures: ``[B, 3, H, W]`` or ``[B, 1, H, W]`` in [-1, 1].
        channels: 3 or 1.

    Returns:
        ``[B, channels, H, W]`` in [-1, 1].
    """
    if pictures.shape[1] == channels:
        return pictures
    if channels == 3:
        return pictures.expand(-1, 3, -1, -1)
    weights = pictures.new_tensor(LUMA).view(3, 1, 1)
    return (pictures * weights).sum(dim=1, keepdim=True)
