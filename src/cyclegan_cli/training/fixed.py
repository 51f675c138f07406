"""Images that a run looks at again and again: the same ones in the same places."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from cyclegan_cli.config import TrainConfig
from cyclegan_cli.data.dataset import center_crop, load_training_image
from cyclegan_cli.data.tensors import to_unit_range
from cyclegan_cli.errors import DataError


def fixed_images(paths: Iterable[Path], config: TrainConfig, count: int, domain: str) -> Tensor:
    """The middles of the first ``count`` images that can be read.

    Args:
        paths: In the order of choice.
        config: The load and crop size, and how to resize.
        count: How many, at most.
        domain: ``A`` or ``B``, for the error message.

    Returns:
        ``[count, 3, crop, crop]`` in [-1, 1], on the CPU.

    Raises:
        DataError: None can be read.
    """
    found: list[Tensor] = []
    reason = ""
    for path in paths:
        try:
            image = load_training_image(path, config)
        except DataError as error:
            reason = f": {error.message}"
            continue  # The loader says so when its turn comes.
        found.append(center_crop(image, config.crop_size))
        if len(found) == count:
            break
    if not found:
        raise DataError(f"no image of domain {domain} can be read{reason}")
    return to_unit_range(torch.stack(found))
