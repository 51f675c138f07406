"""Images that an int8 model is calibrated with, and others that it is judged with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from cyclegan_cli.data.decode import decode
from cyclegan_cli.data.folder import list_images
from cyclegan_cli.data.image import to_depth
from cyclegan_cli.data.tensors import array_to_tensor, to_pixel_values
from cyclegan_cli.errors import DataError
from cyclegan_cli.models.sizes import reflect_to_multiple

FEWEST_IMAGES = 8
MOST_IMAGES = 128
HELD_OUT_EVERY = 4
LONGEST_SIDE = 512  # Ranges of activations do not need more pixels; memory would.


@dataclass(frozen=True)
class Calibration:
    """Images as inputs of the model.

    Attributes:
        calibrated: For the ranges of activations.
        held_out: For the judgement; numbered, as their names need not travel with the model.
    """

    calibrated: list[Tensor]
    held_out: dict[str, Tensor]


def calibration_files(folder: Path) -> list[Path]:
    """The images of a folder that are used: at most 128, evenly spread over their names.

    Raises:
        DataError: Not a folder, or with fewer than 8 images.
    """
    images = list_images(folder)
    if len(images) < FEWEST_IMAGES:
        raise DataError(
            f"--calibration {folder}: found {len(images)} images, "
            f"int8 needs {FEWEST_IMAGES} or more",
            "Name a folder of typical images of the domain that is translated from.",
        )
    count = min(len(images), MOST_IMAGES)
    return [images[index * len(images) // count] for index in range(count)]


def load_calibration(folder: Path, channels: int, image_io: bool) -> Calibration:
    """Read a folder; every fourth image is held out.

    Args:
        folder: Searched recursively.
        channels: Of the model's input: 3, or 1 for grey.
        image_io: Whether the model takes pixels.

    Raises:
        DataError: Fewer than 8 images, or one cannot be read.
    """
    inputs = [_input(path, channels, image_io) for path in calibration_files(folder)]
    held_out = inputs[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    del inputs[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    numbered = {f"held-out {number}": given for number, given in enumerate(held_out, start=1)}
    return Calibration(inputs, numbered)


def _input(path: Path, channels: int, image_io: bool) -> Tensor:
    image = Image.fromarray(to_depth(decode(path).frames[0], 8))
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    levels = np.asarray(image.convert("RGB" if channels == 3 else "L"))
    tensor = array_to_tensor(levels.reshape(image.height, image.width, channels))
    if image_io:
        return to_pixel_values(tensor).permute(0, 2, 3, 1)
    return reflect_to_multiple(tensor)
