"""Two folders of pictures as one endless sequence of crops, made by the tests themselves."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import sys
from collections.abc import Iterator
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cyclegan_cli.config import TrainConfig
from cyclegan_cli.data.unpaired import (
    Batch,
    UnpairedDataset,
    center_crop,
    load_training_picture,
    loader,
    random_order,
)
from cyclegan_cli.errors import DataError

WHOLE = TrainConfig(crop_size=32, load_size=32, flip=False)  # crops are whole pictures
CROPPED = TrainConfig(crop_size=32, load_size=40, flip=True)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of tiny tensors only wait for each other when the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def flat_pictures(folder: Path, count: int) -> list[Path]:
    """Pictures 0 to ``count - 1``, each of one level: its number."""
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        Image.new("RGB", (36, 32), (number,) * 3).save(path)
    return paths


def noise_pictures(folder: Path, count: int, side: int = 48) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        levels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(levels).save(path)
    return paths


def ramp(width: int, height: int) -> Image.Image:
    """Red tells the column and green the row."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    return Image.fromarray(np.stack([columns, rows, np.zeros_like(rows)], axis=-1))


def number_of(crop: Tensor) -> int:
    """Which of the flat pictures a crop shows."""
    assert crop.unique().numel() == 1
    return int(crop.flatten()[0])


def shown(dataset: UnpairedDataset, items: range) -> tuple[list[int], list[int]]:
    """Which pictures of A and of B some items show."""
    batches = [dataset[n] for n in items]
    return [number_of(b.real_a) for b in batches], [number_of(b.real_b) for b in batches]


def same(one: Batch, other: Batch) -> bool:
    return (
        torch.equal(one.real_a, other.real_a)
        and torch.equal(one.real_b, other.real_b)
        and one.skipped == other.skipped
    )


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> UnpairedDataset:
    folder = tmp_path_factory.mktemp("noise")
    return UnpairedDataset(
        noise_pictures(folder / "a", 3), noise_pictures(folder / "b", 5), CROPPED
    )


# --- one number, one item --------------------------------------------------------------------


def test_an_item_is_the_same_in_every_dataset_and_after_any_others(noise: UnpairedDataset) -> None:
    forwards = [noise[n] for n in range(12)]
    other = UnpairedDataset(noise.pictures["a"], noise.pictures["b"], noise.config)
    backwards = [other[n] for n in reversed(range(12))]
    assert all(map(same, forwards, reversed(backwards)))
    assert not any(itertools.starmap(same, itertools.combinations(forwards, 2)))


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("first_step", [0, 3])
def test_a_loader_gives_the_same_items_with_any_number_of_workers_from_any_step_on(
    noise: UnpairedDataset, workers: int, first_step: int
) -> None:
    config = dataclasses.replace(noise.config, batch_size=2)
    dataset = UnpairedDataset(noise.pictures["a"], noise.pictures["b"], config)
    batches = list(loader(dataset, first_step, 6, workers, pin_memory=False))
    assert len(batches) == 6 - first_step
    for step, batch in enumerate(batches, start=first_step):
        items = [noise[2 * step], noise[2 * step + 1]]
        assert torch.equal(batch.real_a, torch.cat([item.real_a for item in items]))
        assert torch.equal(batch.real_b, torch.cat([item.real_b for item in items]))


def test_a_loader_with_nothing_left_to_load_is_empty(noise: UnpairedDataset) -> None:
    assert list(loader(noise, 4, 4, workers=0, pin_memory=False)) == []


@pytest.mark.skipif(sys.platform == "win32", reason="processes get no signals there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_go_on_when_a_terminal_or_scheduler_asks_all_processes_to_stop(
    noise: UnpairedDataset, number: int
) -> None:
    # Jobs in the background inherit other answers than these.
    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, usual)
    try:
        batches = iter(loader(noise, 0, 12, workers=1, pin_memory=False))
        next(batches)  # From here on the worker has begun its work.
        (worker,) = active_children()
        assert worker.pid is not None
        os.kill(worker.pid, number)
        assert len(list(batches)) == 11
    finally:
        signal.signal(number, before)


# --- order -----------------------------------------------------------------------------------


@pytest.fixture
def flat(tmp_path: Path) -> UnpairedDataset:
    """Eight pictures of A and three of B."""
    return UnpairedDataset(
        flat_pictures(tmp_path / "a", 8), flat_pictures(tmp_path / "b", 3), WHOLE
    )


def test_every_picture_comes_once_before_any_comes_again(flat: UnpairedDataset) -> None:
    shown_a, shown_b = shown(flat, range(24))
    for first in range(0, 24, 8):
        assert sorted(shown_a[first : first + 8]) == list(range(8))
    for first in range(0, 24, 3):
        assert sorted(shown_b[first : first + 3]) == list(range(3))


def test_every_pass_has_an_order_of_its_own(flat: UnpairedDataset) -> None:
    shown_a, _ = shown(flat, range(32))
    passes = {tuple(shown_a[first : first + 8]) for first in range(0, 32, 8)}
    assert len(passes) == 4
    assert tuple(range(8)) not in passes


def test_the_seed_changes_the_order(flat: UnpairedDataset) -> None:
    before = shown(flat, range(8))[0]
    flat.config = dataclasses.replace(flat.config, seed=1)
    assert shown(flat, range(8))[0] != before


def test_the_seed_changes_every_crop(noise: UnpairedDataset) -> None:
    config = dataclasses.replace(noise.config, seed=1)
    other = UnpairedDataset(noise.pictures["a"], noise.pictures["b"], config)
    assert not any(same(noise[n], other[n]) for n in range(12))


def test_the_domains_have_orders_of_their_own(tmp_path: Path) -> None:
    pictures = flat_pictures(tmp_path / "both", 8)
    shown_a, shown_b = shown(UnpairedDataset(pictures, pictures, WHOLE), range(8))
    assert shown_a != shown_b


def test_an_order_is_a_permutation_that_its_seed_alone_decides() -> None:
    order = random_order("x", 100)
    random_order.cache_clear()
    assert random_order("x", 100) == order
    assert sorted(order) == list(range(100))
    assert random_order("y", 100) != order


def test_a_single_picture_comes_again_and_again(tmp_path: Path) -> None:
    pictures = flat_pictures(tmp_path / "one", 1)
    assert shown(UnpairedDataset(pictures, pictures, WHOLE), range(3)) == ([0] * 3, [0] * 3)


# --- crops -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "options", "height_and_width"),
    [
        ((80, 40), {}, (32, 64)),
        ((40, 80), {}, (64, 32)),
        ((50, 50), {}, (32, 32)),
        ((10, 20), {}, (64, 32)),
        ((100, 33), {}, (32, 97)),
        ((80, 40), {"load_size": 40}, (40, 80)),
        ((80, 40), {"resize_mode": "stretch"}, (32, 32)),
        ((10, 20), {"resize_mode": "stretch", "load_size": 44}, (44, 44)),
    ],
)
def test_pictures_are_resized_by_their_short_side_or_stretched(
    tmp_path: Path, size: tuple[int, int], options: Any, height_and_width: tuple[int, int]
) -> None:
    Image.new("RGB", size, (1, 2, 3)).save(tmp_path / "x.png")
    found = load_training_picture(tmp_path / "x.png", dataclasses.replace(WHOLE, **options))
    assert (found.shape, found.dtype) == ((3, *height_and_width), torch.uint8)
    assert found[:, 0, 0].tolist() == [1, 2, 3]


def test_resizing_shows_the_same_picture(tmp_path: Path) -> None:
    ramp(128, 64).save(tmp_path / "x.png")
    found = load_training_picture(tmp_path / "x.png", WHOLE).float()
    columns, rows = torch.meshgrid(torch.arange(64.0), torch.arange(32.0), indexing="xy")
    assert (found[0] - (2 * columns + 0.5)).abs().max() <= 1
    assert (found[1] - (2 * rows + 0.5)).abs().max() <= 1


def test_detail_too_fine_for_the_new_size_becomes_its_mean(tmp_path: Path) -> None:
    stripes = np.zeros((128, 128), dtype=np.uint8)
    stripes[:, ::4] = 200
    Image.fromarray(stripes).save(tmp_path / "x.png")
    found = load_training_picture(tmp_path / "x.png", WHOLE).float()
    assert found[:, 4:-4, 4:-4].sub(50).abs().max() <= 2


def test_crops_are_windows_of_the_picture_at_every_place(tmp_path: Path) -> None:
    ramp(38, 36).save(tmp_path / "x.png")
    config = dataclasses.replace(CROPPED, load_size=36, flip=False)
    dataset = UnpairedDataset([tmp_path / "x.png"], [tmp_path / "x.png"], config)
    picture = load_training_picture(tmp_path / "x.png", config)
    places = set()
    for n in range(200):
        crop = dataset[n].real_a[0]
        left, top = crop[:2, 0, 0].tolist()
        assert torch.equal(crop, picture[:, top : top + 32, left : left + 32])
        places.add((left, top))
    assert {left for left, _ in places} == set(range(7))
    assert {top for _, top in places} == set(range(5))


def mirrored(dataset: UnpairedDataset, count: int) -> tuple[list[bool], list[bool]]:
    """For each item, whether A and B show the ramp from right to left."""
    batches = [dataset[n] for n in range(count)]
    return (
        [bool(b.real_a[0, 0, 0, 0] > b.real_a[0, 0, 0, -1]) for b in batches],
        [bool(b.real_b[0, 0, 0, 0] > b.real_b[0, 0, 0, -1]) for b in batches],
    )


@pytest.fixture
def ramps(tmp_path: Path) -> UnpairedDataset:
    ramp(32, 32).save(tmp_path / "x.png")
    config = dataclasses.replace(WHOLE, flip=True)
    return UnpairedDataset([tmp_path / "x.png"], [tmp_path / "x.png"], config)


def test_about_half_of_the_pictures_are_mirrored_each_domain_by_itself(
    ramps: UnpairedDataset,
) -> None:
    in_a, in_b = mirrored(ramps, 300)
    assert 110 < sum(in_a) < 190
    assert 110 < sum(in_b) < 190
    assert 110 < sum(a == b for a, b in zip(in_a, in_b, strict=True)) < 190


def test_a_mirrored_crop_is_the_picture_from_right_to_left(ramps: UnpairedDataset) -> None:
    upright = load_training_picture(ramps.pictures["a"][0], ramps.config)
    for n in range(10):
        assert any(torch.equal(ramps[n].real_a[0], p) for p in (upright, upright.flip(-1)))


def test_without_flip_no_picture_is_mirrored(ramps: UnpairedDataset) -> None:
    ramps.config = WHOLE
    in_a, in_b = mirrored(ramps, 50)
    assert not any(in_a + in_b)


@pytest.mark.parametrize("alpha", [0, 64, 255])
def test_transparent_pictures_lie_on_white(tmp_path: Path, alpha: int) -> None:
    Image.new("RGBA", (32, 32), (100, 0, 200, alpha)).save(tmp_path / "x.png")
    found = load_training_picture(tmp_path / "x.png", WHOLE)[:, 5, 5].tolist()
    on_white = [255 + (level - 255) * alpha / 255 for level in (100, 0, 200)]
    assert found == pytest.approx(on_white, abs=1)


def test_a_center_crop_is_the_middle() -> None:
    picture = torch.arange(3 * 6 * 8, dtype=torch.uint8).view(3, 6, 8)
    assert torch.equal(center_crop(picture, 4), picture[:, 1:5, 2:6])


# --- pictures that cannot be read ------------------------------------------------------------


def test_an_unreadable_picture_is_replaced_by_the_next_with_one_sentence(
    flat: UnpairedDataset,
) -> None:
    expected_a, expected_b = shown(flat, range(16))
    flat.pictures["a"][5].write_text("not a picture")
    found = [flat[n] for n in range(16)]
    for n, (batch, number) in enumerate(zip(found, expected_a, strict=True)):
        if number == 5:
            pass_start = n // 8 * 8
            number = expected_a[pass_start + (n + 1 - pass_start) % 8]
            assert len(batch.skipped) == 1
            assert str(flat.pictures["a"][5]) in batch.skipped[0]
        else:
            assert batch.skipped == []
        assert number_of(batch.real_a) == number
    assert [number_of(batch.real_b) for batch in found] == expected_b


@pytest.mark.parametrize("workers", [0, 1])
def test_the_sentences_of_a_batch_are_those_of_its_items(
    flat: UnpairedDataset, workers: int
) -> None:
    flat.config = dataclasses.replace(flat.config, batch_size=8)
    for number in (2, 3):
        flat.pictures["a"][number].unlink()
    (batch,) = loader(flat, 0, 1, workers, pin_memory=False)
    assert batch.real_a.shape == (8, 3, 32, 32)
    for number in (2, 3):
        assert any(str(flat.pictures["a"][number]) in sentence for sentence in batch.skipped)


@pytest.mark.parametrize("domain", ["a", "b"])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_when_no_picture_of_a_domain_can_be_read_one_sentence_says_so(
    flat: UnpairedDataset, domain: str, workers: int
) -> None:
    for path in flat.pictures[domain]:
        path.write_text("not a picture")
    with pytest.raises(DataError) as refusal:
        list(loader(flat, 0, 2, workers, pin_memory=False))
    assert refusal.value.message.startswith(f"no picture of domain {domain.upper()} can be read: ")
    assert "\n" not in refusal.value.message
    assert refusal.value.exit_code == 3


@pytest.mark.parametrize("size", [(2, 33), (33, 2), (1, 1000)])
def test_a_picture_more_than_sixteen_times_as_long_as_wide_is_refused(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    Image.new("RGB", size).save(tmp_path / "thin.png")
    with pytest.raises(DataError, match=rf"thin\.png is {size[0]}x{size[1]}: too narrow"):
        load_training_picture(tmp_path / "thin.png", WHOLE)


@pytest.mark.parametrize("size", [(2, 32), (32, 2)])
def test_a_picture_sixteen_times_as_long_as_wide_is_read(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    Image.new("RGB", size).save(tmp_path / "thin.png")
    found = load_training_picture(tmp_path / "thin.png", WHOLE)
    assert sorted(found.shape) == [3, 32, 512]
