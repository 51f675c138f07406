"""Two small domains to train on."""

import numpy as np
import pytest
from PIL import Image

from runs import make_config


@pytest.fixture
def config(tmp_path):
    """Five and four noisy images; the smallest networks."""
    noise = np.random.default_rng(0)
    for name, count in (("day", 5), ("night", 4)):
        (tmp_path / name).mkdir()
        for i in range(count):
            pixels = noise.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    return make_config(tmp_path, run_dir=tmp_path / "run")
