"""How an image is fitted into the memory that there is."""

from __future__ import annotations

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


def test_the_maps_of_12_megapixels_need_what_they_need() -> None:
    """By hand: 128 channels, 1500 × 2000, 4 bytes; or the trunk's two of 256, 750 × 1000."""
    assert TWELVE_MEGAPIXELS.half_map == 128 * 1500 * 2000 * 4 == 2 * 256 * 750 * 1000 * 4


def test_small_images_keep_their_maps_and_large_ones_do_not() -> None:
    assert plan_strips(MemoryEstimate(GeneratorConfig(), 768, 1024, 4), 10e9, CPU).keep_full
    assert not plan_strips(TWELVE_MEGAPIXELS, 100e9, CPU).keep_full


def test_less_memory_means_lower_strips_and_then_the_disk() -> None:
    plans = [plan_strips(TWELVE_MEGAPIXELS, budget, CPU) for budget in (4e9, 1.72e9, 0.3e9)]
    assert plans[0].rows > plans[1].rows >= 1
    assert [plan.location for plan in plans] == [None, None, "disk"]


def test_a_gpus_maps_move_to_the_host() -> None:
    plan = plan_strips(TWELVE_MEGAPIXELS, 1e9, torch.device("cuda"))
    assert plan.location == CPU


def test_what_fits_nowhere_is_one_sentence() -> None:
    with pytest.raises(DeviceError, match=r"translating 4000x3000 pixels needs .* GB .* at least"):
        plan_strips(TWELVE_MEGAPIXELS, 1e6, CPU)


@given(
    height=st.integers(2, 3000).map(lambda n: 4 * n),
    width=st.integers(2, 3000).map(lambda n: 4 * n),
    budget=st.floats(1e5, 1e11),
    channels=st.integers(1, 128),
)
def test_a_plan_stays_within_the_budget(
    height: int, width: int, budget: float, channels: int
) -> None:
    needs = MemoryEstimate(GeneratorConfig(channels), height, width, 4)
    try:
        plan = plan_strips(needs, budget, CPU)
    except DeviceError:
        assert needs.strip(1) + needs.levels > budget
    else:
        assert needs.total(plan) <= budget
        assert plan.rows >= 1


def test_a_limit_is_of_the_whole_process() -> None:
    rss = psutil.Process().memory_info().rss
    assert abs(memory_budget(CPU, rss + 10**8) - 10**8) < 5e7


def test_what_torch_caches_of_a_gpu_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * 10**9, 10**10))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 10**9)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 7 * 10**9)
    gpu = torch.device("cuda")
    assert memory_budget(gpu, None) == pytest.approx(8e9 * (1 - RESERVED_FRACTION))
    assert memory_budget(gpu, 6 * 10**9) == 5 * 10**9
    assert memory_budget(gpu, 20 * 10**9) == 8 * 10**9


def test_without_a_limit_something_is_spared() -> None:
    assert 0 < memory_budget(CPU, None) < psutil.virtual_memory().available
