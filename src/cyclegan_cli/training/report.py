"""Grids of sample images, for people to look at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclegan_cli.data.encode import encode
from cyclegan_cli.data.image import DecodedImage
from cyclegan_cli.data.tensors import tensor_to_array

GAP = 2  # Pixels between the images of a grid.
GRID_COLUMNS = ("real_a", "fake_b", "rec_a", "real_b", "fake_a", "rec_b")


def save_sample_grid(path: Path, images: Mapping[str, Tensor]) -> None:
    """Write a grid with a row an image: real, fake, reconstruction of A, then of B.

    Args:
        path: Where to, a ``.jpg``.
        images: ``real_a``, ``fake_b``, ``rec_a``, ``real_b``, ``fake_a``, ``rec_b``, each
            ``[N, 3, H, W]`` in [-1, 1].

    Raises:
        OutputError: It cannot be written.
    """
    columns = [images[name] for name in GRID_COLUMNS]
    rows = torch.stack([column.cpu() for column in columns], dim=1)
    encode(DecodedImage((tensor_to_array(_grid(rows)),)), path, "JPEG")


def _grid(rows: Tensor) -> Tensor:
    """Images with white between them: ``[rows, columns, 3, H, W]`` to ``[1, 3, H', W']``."""
    framed = F.pad(rows, (GAP, 0, GAP, 0), value=1.0)  # to the left and above
    grid = framed.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2).unsqueeze(0)
    return F.pad(grid, (0, GAP, 0, GAP), value=1.0)
