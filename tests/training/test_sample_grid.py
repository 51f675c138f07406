import pytest
import torch
from PIL import Image

from cyclegan_cli.training.callbacks.samples import GAP, save_sample_grid


def test_sample_grid_columns(tmp_path):
    names = ("real_a", "fake_b", "rec_a", "real_b", "fake_a", "rec_b")
    size, count = 16, 3
    # Column i has grey 40 * i.
    images = {
        name: torch.full((count, 3, size, size), 40 * i / 127.5 - 1) for i, name in enumerate(names)
    }
    save_sample_grid(tmp_path / "samples" / "grid.jpg", images)
    with Image.open(tmp_path / "samples" / "grid.jpg") as grid:
        assert grid.size == (6 * (size + GAP) + GAP, count * (size + GAP) + GAP)
        middle = GAP + size // 2
        for i in range(6):
            for j in range(count):
                found = grid.getpixel((i * (size + GAP) + middle, j * (size + GAP) + middle))
                assert found == pytest.approx((40 * i,) * 3, abs=8)
