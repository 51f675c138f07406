"""Images for the calibration of int8 models, and held-out images for their evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cyclegan_cli.config import BandFormat
from cyclegan_cli.data.bands import read_bands, select, to_unit
from cyclegan_cli.data.decode import decode
from cyclegan_cli.data.folder import list_images
from cyclegan_cli.data.image import to_depth
from cyclegan_cli.data.tensors import array_to_tensor, to_pixel_values
from cyclegan_cli.data.volumes import list_parts
from cyclegan_cli.errors import DataError
from cyclegan_cli.models.cyclegan import fill_missing
from cyclegan_cli.models.padding import reflect_to_multiple

MIN_IMAGES = 8
MAX_IMAGES = 128
HELD_OUT_EVERY = 4
CALIBRATION_SIDE = 512  # Activation ranges do not need more pixels, and memory is limited.


@dataclass(frozen=True)
class Calibration:
    """Calibration and evaluation images as inputs of the model.

    Attributes:
        calibrated: For the ranges of activations.
        held_out: For the evaluation; numbered, because their names are private to the user.
    """

    calibrated: list[Tensor]
    held_out: dict[str, Tensor]


def calibration_files(folder: Path) -> list[Path]:
    """Return the images of a folder that are used: at most 128, evenly spaced by name.

    Raises:
        DataError: It is not a folder, or has fewer than 8 images.
    """
    images = list_parts(list_images(folder))
    if len(images) < MIN_IMAGES:
        raise DataError(
            f"--calibration {folder}: found {len(images)} images, int8 needs {MIN_IMAGES} or more",
            "Name a folder of typical images of the source domain.",
        )
    count = min(len(images), MAX_IMAGES)
    return [images[index * len(images) // count] for index in range(count)]


def load_calibration(
    folder: Path, channels: int, image_io: bool, band_format: BandFormat | None = None
) -> Calibration:
    """Load the images of a folder, and hold out every fourth.

    Args:
        folder: Searched recursively.
        channels: Input channels of the model; of RGB images 3, or 1 for gray.
        image_io: Whether the model takes pixels.
        band_format: The images of the source domain, where they are not RGB.

    Raises:
        DataError: There are fewer than 8 images, or one cannot be read.
    """
    inputs = [
        _bands_input(path, band_format, image_io)
        if band_format
        else _input(path, channels, image_io)
        for path in calibration_files(folder)
    ]
    held_out = inputs[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    del inputs[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    numbered = {f"held-out {number}": given for number, given in enumerate(held_out, start=1)}
    return Calibration(inputs, numbered)


def _input(path: Path, channels: int, image_io: bool) -> Tensor:
    """Return ``[1, C, H, W]`` in [-1, 1], or ``[1, H, W, C]`` uint8 with ``image_io``."""
    image = Image.fromarray(to_depth(decode(path).frames[0], 8))
    image.thumbnail((CALIBRATION_SIDE, CALIBRATION_SIDE))
    pixels = np.asarray(image.convert("RGB" if channels == 3 else "L"))
    tensor = array_to_tensor(pixels.reshape(image.height, image.width, channels))
    if image_io:
        return to_pixel_values(tensor).permute(0, 2, 3, 1)
    return reflect_to_multiple(tensor)


def _bands_input(path: Path, chosen: BandFormat, image_io: bool) -> Tensor:
    """Return the center of an image of other channels or values, in the shapes of :func:`_input`.

    Values are not resized: interpolation would mix classes and values without data.
    """
    image = read_bands(path, str(path))
    values = select(image, chosen, str(path))
    top, left = ((side - min(side, CALIBRATION_SIDE)) // 2 for side in values.shape[:2])
    values = values[top : top + CALIBRATION_SIDE, left : left + CALIBRATION_SIDE]
    if image_io:
        return torch.from_numpy(np.ascontiguousarray(values))[None]
    unit = torch.from_numpy(to_unit(values, chosen, image.probe.nodata)).permute(2, 0, 1)[None]
    return reflect_to_multiple(fill_missing(unit))
