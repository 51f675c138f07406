"""Grids of sample pictures, for people to look at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torchvision.utils import make_grid

from cyclegan_cli.data.encoding import encode
from cyclegan_cli.data.picture import Picture
from cyclegan_cli.data.tensors import tensor_to_array

GAP = 2  # Pixels between the pictures of a grid.


def save_sample_grid(path: Path, pictures: Mapping[str, Tensor]) -> None:
    """Write a grid with a row a picture: real, fake, reconstruction of A, then of B.

    Args:
        path: Where to, a ``.jpg``.
        pictures: ``real_a``, ``fake_b``, ``rec_a``, ``real_b``, ``fake_a``, ``rec_b``, each
            ``[N, 3, H, W]`` in [-1, 1].

    Raises:
        OutputError: It cannot be written.
    """
    columns = [pictures[n] for n in ("real_a", "fake_b", "rec_a", "real_b", "fake_a", "rec_b")]
    in_rows = torch.stack([column.cpu() for column in columns], dim=1).flatten(0, 1)
    grid = make_grid(in_rows, nrow=len(columns), padding=GAP, pad_value=1.0)
    encode(Picture((tensor_to_array(grid.unsqueeze(0)),)), path, "JPEG")
