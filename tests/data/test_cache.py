"""The image cache stays within its memory budget."""

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from cyclegan_cli.config import TrainConfig
from cyclegan_cli.data import cache as module
from cyclegan_cli.data.cache import MEMORY_CHECK_BYTES, CachePlan, ImageCache, plan_cache

GIGABYTE = 10**9
STRETCHED = TrainConfig(load_size=100, crop_size=32, resize_mode="stretch")
ALL = 1000 * 3 * 100 * 100  # Bytes of 1,000 images stretched to that load size.


def planned(free: int, **changes: Any) -> CachePlan:
    return plan_cache(dataclasses.replace(STRETCHED, **changes), 1000, free)


def image(level: int, size: int = 300) -> Tensor:
    return torch.full((size,), level, dtype=torch.uint8)


def loads(level: int, size: int = 300) -> Callable[[], Tensor]:
    return lambda: image(level, size)


def must_not_load() -> Tensor:
    raise AssertionError("it is not kept")


def test_all_images_are_counted():
    assert planned(GIGABYTE).needed == ALL
    # Resized by the short side, photos are estimated to be larger by half.
    assert planned(GIGABYTE, resize_mode="short-side").needed == ALL * 3 // 2


@pytest.mark.parametrize(("free", "kept"), [(4 * ALL, True), (4 * ALL - 4, False)])
def test_cache_auto_uses_quarter_of_free_memory_or_nothing(free, kept):
    plan = planned(free)
    assert (plan.budget > 0) == kept
    assert not plan.is_short
    assert str(plan) == ("all, about 0.03 GB" if kept else "none (about 0.03 GB for all)")


@pytest.mark.parametrize(("free", "is_short"), [(2 * ALL, False), (ALL, True)])
def test_cache_ram_budget(free, is_short):
    plan = planned(free, cache="ram")
    assert (plan.budget, plan.reserved) == (free * 4 // 5, free // 5)
    assert plan.is_short == is_short
    words = "up to 0.024 GB of about 0.03 GB, the rest is decoded in every pass"
    assert str(plan) == (words if is_short else "all, about 0.03 GB")


def test_cache_none_has_no_budget():
    assert planned(1000 * GIGABYTE, cache="none").budget == 0


def test_plan_cache_measures_free_memory(monkeypatch):
    monkeypatch.setattr(module, "host_memory_free", lambda: 4 * ALL)
    assert plan_cache(STRETCHED, 1000) == planned(4 * ALL)


def test_image_is_cached():
    cache = ImageCache(CachePlan(0, 1000, 0))
    first = cache.get("a", loads(1))
    assert cache.get("a", must_not_load) is first
    assert int(cache.get("b", loads(2))[0]) == 2


def test_concurrent_loads_of_one_image_count_once():
    cache = ImageCache(CachePlan(0, 1000, 0))

    def load_while_another_does():
        cache.get("a", loads(1))
        return image(1)

    cache.get("a", load_while_another_does)
    assert cache.size == 300


def test_disabled_cache_loads_again():
    for cache in (ImageCache(), ImageCache(CachePlan(0, 0, 0))):
        assert int(cache.get("a", loads(1))[0]) == 1
        assert int(cache.get("a", loads(2))[0]) == 2
        assert cache.images == {}


def test_cache_keeps_first_images_within_budget():
    cache = ImageCache(CachePlan(0, 700, 0))
    for number in range(5):
        cache.get(number, loads(number))
    assert list(cache.images) == [0, 1]
    assert cache.size == 600
    assert int(cache.get(4, loads(44))[0]) == 44
    cache.get("small", loads(9, size=100))
    assert cache.size == 700


def test_cache_stops_growing_when_memory_is_low(monkeypatch):
    free = GIGABYTE
    monkeypatch.setattr(module, "host_memory_free", lambda: free)
    cache = ImageCache(CachePlan(0, 10 * GIGABYTE, reserved=GIGABYTE // 5))
    half = MEMORY_CHECK_BYTES // 2 + 1
    cache.get(0, loads(0, half))
    cache.get(1, loads(1, half))
    assert len(cache.images) == 2
    free = GIGABYTE // 5 - 1
    for number in range(2, 6):
        cache.get(number, loads(number, half))
    kept = len(cache.images)
    assert kept < 6
    free = GIGABYTE  # For good: it may have been this run that needed it.
    cache.get(9, loads(9, half))
    assert len(cache.images) == kept


def test_cache_is_thread_safe():
    cache = ImageCache(CachePlan(0, 300 * 20, 0))
    with ThreadPoolExecutor(8) as pool:
        numbers = [number % 40 for number in range(2000)]
        found = pool.map(lambda number: int(cache.get(number, loads(number))[0]), numbers)
        assert list(found) == numbers
    assert cache.size == 300 * len(cache.images) == 300 * 20
