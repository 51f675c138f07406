"""The fraction of an image's work that is done."""

from typing import get_args

import pytest
import torch

from cyclegan_cli.config import Resampling
from cyclegan_cli.translation.arena import StoredRows
from cyclegan_cli.translation.strips import StripGenerator, StripPlan
from generators import generator


@pytest.mark.parametrize("keep_full", [True, False])
@pytest.mark.parametrize("resampling", get_args(Resampling))
@pytest.mark.parametrize(
    ("norms", "skips"), [("all", False), ("residual", False), ("residual", True)]
)
def test_all_work_is_counted_once(norms, skips, resampling, keep_full):
    strips = StripGenerator(generator(4, 2, resampling=resampling, norms=norms, skips=skips))
    image = StoredRows(torch.zeros(1, 3, 64, 32), torch.device("cpu"))
    for rows in (3, 5, 16):
        done: list[float] = []
        plan = StripPlan(rows, keep_full)
        for _ in strips.translated(image, plan, done.append):
            assert done[-1] > 0.5  # Results come last.
        assert done == sorted(done)
        assert done[0] < 0.5
        assert done[-2] < 1
        assert done[-1] == pytest.approx(1)
