"""The replay pool. Images here are flat: an image is known by the one number it is made of."""

from collections import Counter

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from cyclegan_cli.models.replay import ReplayPool

CPU = torch.device("cpu")
# No deadlines: other work may run on the same cores.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def images(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32).view(-1, 1, 1, 1).repeat(1, 3, 2, 2)


def numbers(batch: Tensor) -> list[int]:
    for image in batch:
        assert (image == image.flatten()[0]).all(), "an image was mixed with another one"
    return [int(image.flatten()[0]) for image in batch]


def remembered(pool: ReplayPool) -> list[int]:
    return numbers(pool.state()["images"])


def full_pool(size: int, seed: int = 0) -> ReplayPool:
    """A pool that remembers the images 0 to ``size - 1``."""
    pool = ReplayPool(size, seed)
    pool.exchange(images(*range(size)))
    return pool


def test_filling_pool_returns_and_stores_images():
    pool = ReplayPool(5, seed=0)
    assert numbers(pool.exchange(images(10, 11))) == [10, 11]
    assert numbers(pool.exchange(images(12, 13, 14))) == [12, 13, 14]
    assert remembered(pool) == [10, 11, 12, 13, 14]


def test_batch_larger_than_the_free_capacity():
    pool = ReplayPool(2, seed=0)
    returned = numbers(pool.exchange(images(10, 11, 12, 13)))
    assert returned[:2] == [10, 11]
    assert Counter(returned + remembered(pool)) == Counter([10, 10, 11, 11, 12, 13])


def test_pool_of_size_zero_is_disabled():
    pool = ReplayPool(0, seed=0)
    for first in range(0, 20, 2):
        assert numbers(pool.exchange(images(first, first + 1))) == [first, first + 1]
    assert "images" not in pool.state()


@unhurried
@given(
    size=st.integers(1, 6),
    seed=st.integers(0, 2**31),
    batch_sizes=st.lists(st.integers(1, 5), max_size=12),
)
def test_full_pool_conserves_images(size, seed, batch_sizes):
    pool = full_pool(size, seed)
    following = size
    for batch_size in batch_sizes:
        before = remembered(pool)
        fakes = list(range(following, following + batch_size))
        following += batch_size
        returned = numbers(pool.exchange(images(*fakes)))
        assert len(returned) == batch_size
        assert Counter(returned + remembered(pool)) == Counter(before + fakes)


@unhurried
@given(size=st.integers(1, 6), seed=st.integers(0, 2**31), count=st.integers(1, 30))
def test_full_pool_returns_the_image_or_swaps_it(size, seed, count):
    pool = full_pool(size, seed)
    for fake in range(size, size + count):
        before = remembered(pool)
        (returned,) = numbers(pool.exchange(images(fake)))
        if returned == fake:
            assert remembered(pool) == before
        else:
            before[before.index(returned)] = fake
            assert remembered(pool) == before


def test_full_pool_swaps_with_probability_one_half():
    pool = full_pool(10)
    fakes = range(10, 4010)
    returned = numbers(pool.exchange(images(*fakes)))
    swapped = sum(old != new for old, new in zip(returned, fakes, strict=True))
    assert swapped / len(fakes) == pytest.approx(0.5, abs=0.03)  # nearly four deviations


def test_stored_images_are_drawn_uniformly():
    chosen: Counter[int] = Counter()
    for seed in range(1500):
        pool = full_pool(3, seed)
        chosen.update(number for number in numbers(pool.exchange(images(9))) if number != 9)
    for number in range(3):
        assert chosen[number] / 1500 == pytest.approx(1 / 6, abs=0.04)


def test_only_the_seed_of_the_pool_determines_the_draws():
    batch = images(*range(10, 60))
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = full_pool(10, 1).exchange(batch)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(full_pool(10, 1).exchange(batch), first)
    assert not torch.equal(full_pool(10, 2).exchange(batch), first)


def test_pool_shares_no_memory_with_its_input_or_output():
    pool = ReplayPool(3, seed=0)
    batch = images(0, 1, 2)
    first = pool.exchange(batch)
    batch.fill_(99)
    first.fill_(98)
    assert remembered(pool) == [0, 1, 2]
    batch = images(*range(3, 23))
    returned = pool.exchange(batch)
    assert numbers(batch) == list(range(3, 23))
    kept = returned.clone()
    pool.exchange(images(*range(23, 63)))
    assert torch.equal(returned, kept)
    ReplayPool(0, seed=0).exchange(batch).fill_(99)
    assert numbers(batch) == list(range(3, 23))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_pool_keeps_dtype_and_memory_format(dtype, layout):
    batch = torch.rand(4, 3, 8, 8).to(dtype, memory_format=layout)
    pool = ReplayPool(2, seed=0)
    for _ in range(3):
        returned = pool.exchange(batch)
        assert returned.dtype == dtype
        assert returned.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("filled", [0, 2, 5, 9])
def test_restored_pool_continues_identically(filled):
    pool = ReplayPool(5, seed=1)
    if filled:
        pool.exchange(images(*range(filled)))
    copy = ReplayPool(5, seed=2)
    copy.exchange(images(70, 71))
    copy.restore(pool.state(), CPU)
    for first in range(100, 160, 3):
        batch = images(first, first + 1, first + 2)
        assert torch.equal(pool.exchange(batch), copy.exchange(batch))
    assert remembered(pool) == remembered(copy)


@pytest.mark.parametrize("filled", [1, 3])
def test_state_is_a_copy_of_the_stored_images(filled):
    pool = ReplayPool(3, seed=0)
    pool.exchange(images(*range(filled)))
    assert pool.state()["images"].shape == (filled, 3, 2, 2)
    copy = ReplayPool(3, seed=0)
    copy.restore(pool.state(), CPU)
    copy.exchange(images(*range(50, 90)))
    assert remembered(pool) == [*range(filled)]


@unhurried
@given(
    size=st.integers(0, 4), before=st.lists(st.integers(1, 3), max_size=6), last=st.integers(1, 5)
)
def test_undo_exchange_restores_the_state(size, before, last):
    pool, other = ReplayPool(size, seed=1), ReplayPool(size, seed=1)
    for i, batch in enumerate(before):
        for each in (pool, other):
            each.exchange(images(*range(10 * i, 10 * i + batch)))
    pool.exchange(images(*range(1000, 1000 + last)))
    pool.undo_exchange()
    torch.testing.assert_close(pool.state(), other.state(), rtol=0, atol=0)
    again = [numbers(each.exchange(images(*range(2000, 2004)))) for each in (pool, other)]
    assert again[0] == again[1]
