"""Two small domains to train on."""

import pytest

from runs import make_config
from trainings import draw_domains


@pytest.fixture
def config(tmp_path):
    """Five and four noisy images; the smallest networks."""
    draw_domains(tmp_path, 5, 4, (48, 40))
    return make_config(tmp_path, run_dir=tmp_path / "run")
