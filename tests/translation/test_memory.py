"""Choice of strips for the available memory."""

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cyclegan_cli.config import GeneratorConfig
from cyclegan_cli.errors import DeviceError
from cyclegan_cli.runtime.memory import RESERVED_FRACTION
from cyclegan_cli.translation.memory import MemoryEstimate, memory_budget, plan_strips

CPU = torch.device("cpu")
TWELVE_MEGAPIXELS = MemoryEstimate(GeneratorConfig(), 3000, 4000, 4)


def test_memory_estimate_of_12_megapixels():
    """By hand: 128 channels, 1500 × 2000, 4 bytes; or the trunk's two of 256, 750 × 1000."""
    assert TWELVE_MEGAPIXELS.half_map == 128 * 1500 * 2000 * 4 == 2 * 256 * 750 * 1000 * 4


def test_full_maps_are_stored_for_small_images_only():
    assert plan_strips(MemoryEstimate(GeneratorConfig(), 768, 1024, 4), 10e9, CPU).keep_full
    assert not plan_strips(TWELVE_MEGAPIXELS, 100e9, CPU).keep_full


def test_less_memory_leads_to_lower_strips_then_disk():
    plans = [plan_strips(TWELVE_MEGAPIXELS, budget, CPU) for budget in (4e9, 1.72e9, 0.3e9)]
    assert plans[0].rows > plans[1].rows >= 1
    assert [plan.location for plan in plans] == [None, None, "disk"]


def test_gpu_feature_maps_move_to_host_memory():
    plan = plan_strips(TWELVE_MEGAPIXELS, 1e9, torch.device("cuda"))
    assert plan.location == CPU


def test_image_that_does_not_fit_raises_device_error():
    with pytest.raises(DeviceError, match=r"translating 4000x3000 pixels needs .* GB .* at least"):
        plan_strips(TWELVE_MEGAPIXELS, 1e6, CPU)


@given(
    height=st.integers(2, 3000).map(lambda n: 4 * n),
    width=st.integers(2, 3000).map(lambda n: 4 * n),
    budget=st.floats(1e5, 1e11),
    channels=st.integers(1, 128),
)
def test_plan_stays_within_budget(height, width, budget, channels):
    needs = MemoryEstimate(GeneratorConfig(channels), height, width, 4)
    try:
        plan = plan_strips(needs, budget, CPU)
    except DeviceError:
        assert needs.strip(1) + needs.output > budget
    else:
        assert needs.total(plan) <= budget
        assert plan.rows >= 1


def test_memory_limit_applies_to_whole_process():
    rss = psutil.Process().memory_info().rss
    assert abs(memory_budget(CPU, rss + 10**8) - 10**8) < 5e7


def test_cached_gpu_memory_counts_as_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * 10**9, 10**10))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 10**9)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 7 * 10**9)
    gpu = torch.device("cuda")
    assert memory_budget(gpu, None) == pytest.approx(8e9 * (1 - RESERVED_FRACTION))
    assert memory_budget(gpu, 6 * 10**9) == 5 * 10**9
    assert memory_budget(gpu, 20 * 10**9) == 8 * 10**9


def test_memory_budget_without_limit_leaves_reserve():
    assert 0 < memory_budget(CPU, None) < psutil.virtual_memory().available
