"""Two folders of images as one endless sequence of crops, made by the tests themselves."""

import dataclasses
import itertools
import math
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize as torchvision_resize

from cyclegan_cli.config import TrainConfig
from cyclegan_cli.data import dataset as dataset_module
from cyclegan_cli.data import decode as decode_module
from cyclegan_cli.data.cache import CachePlan, ImageCache
from cyclegan_cli.data.dataset import (
    MIN_REDUCED_SCALE,
    PREFETCHED_STEPS,
    Batch,
    UnpairedDataset,
    center_crop,
    load_training_image,
    loader,
    random_order,
)
from cyclegan_cli.data.decode import decode, decode_opaque
from cyclegan_cli.data.image import to_depth
from cyclegan_cli.errors import DataError
from cyclegan_cli.runtime.distributed_env import Shard
from images import display_p3_profile, saved, srgb_profile, with_orientation
from images import noise as noise_image

SINGLE = TrainConfig(crop_size=32, load_size=32, flip=False)  # crops are whole images
CROPPED = TrainConfig(crop_size=32, load_size=40, flip=True)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads of tiny tensors only wait for each other when the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def flat_images(folder: Path, count: int) -> list[Path]:
    """Images 0 to ``count - 1``, each of one level: its number."""
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        Image.new("RGB", (36, 32), (number,) * 3).save(path)
    return paths


def noise_images(folder: Path, count: int, side: int = 48) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        levels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(levels).save(path)
    return paths


def ramp(width: int, height: int) -> Image.Image:
    """Red is the column and green the row."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    return Image.fromarray(np.stack([columns, rows, np.zeros_like(rows)], axis=-1))


def number_of(crop: Tensor) -> int:
    """Which of the flat images a crop shows."""
    assert crop.unique().numel() == 1
    return int(crop.flatten()[0])


def shown(dataset: UnpairedDataset, items: range) -> tuple[list[int], list[int]]:
    """Which images of A and of B some items show."""
    batches = [dataset[n] for n in items]
    return [number_of(b.real_a) for b in batches], [number_of(b.real_b) for b in batches]


def same(one: Batch, other: Batch) -> bool:
    return (
        torch.equal(one.real_a, other.real_a)
        and torch.equal(one.real_b, other.real_b)
        and one.skipped == other.skipped
    )


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noise")
    return UnpairedDataset(noise_images(folder / "a", 3), noise_images(folder / "b", 5), CROPPED)


# --- one number, one item --------------------------------------------------------------------


def test_dataset_items_are_deterministic(noise):
    forwards = [noise[n] for n in range(12)]
    other = UnpairedDataset(noise.images["a"], noise.images["b"], noise.config)
    backwards = [other[n] for n in reversed(range(12))]
    assert all(map(same, forwards, reversed(backwards)))
    assert not any(itertools.starmap(same, itertools.combinations(forwards, 2)))


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("first_step", [0, 3])
def test_loader_is_deterministic_for_any_workers_and_first_step(noise, workers, first_step):
    config = dataclasses.replace(noise.config, batch_size=2)
    dataset = UnpairedDataset(noise.images["a"], noise.images["b"], config)
    batches = list(loader(dataset, 2 * first_step, 6 - first_step, workers, pin_memory=False))
    assert len(batches) == 6 - first_step
    for step, batch in enumerate(batches, start=first_step):
        items = [noise[2 * step], noise[2 * step + 1]]
        assert torch.equal(batch.real_a, torch.cat([item.real_a for item in items]))
        assert torch.equal(batch.real_b, torch.cat([item.real_b for item in items]))


def test_loader_of_zero_steps_is_empty(noise):
    assert list(loader(noise, 4, 0, workers=0, pin_memory=False)) == []


@pytest.mark.parametrize("ranks", [2, 3])
def test_loader_shards_items_across_ranks(noise, ranks):
    config = dataclasses.replace(noise.config, batch_size=2)
    dataset = UnpairedDataset(noise.images["a"], noise.images["b"], config)
    shares = [
        list(loader(dataset, 5, 4, 0, pin_memory=False, share=Shard(rank, ranks)))
        for rank in range(ranks)
    ]
    for step in range(4):
        together = torch.cat([batches[step].real_a for batches in shares])
        numbers = range(5 + step * 2 * ranks, 5 + (step + 1) * 2 * ranks)
        assert torch.equal(together, torch.cat([noise[number].real_a for number in numbers]))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_loader_prefetch_is_bounded(noise, monkeypatch, workers):
    asked: list[int] = []
    real = UnpairedDataset.__getitem__
    monkeypatch.setattr(
        UnpairedDataset, "__getitem__", lambda self, n: (asked.append(n), real(self, n))[1]
    )
    with closing(loader(noise, 0, 10**9, workers, pin_memory=False)) as batches:
        next(batches)
        next(batches)
    assert len(asked) <= 2 + (PREFETCHED_STEPS + workers if workers else 0)
    assert sorted(asked) == list(range(len(asked)))


def test_closing_loader_ends_threads(noise):
    before = threading.active_count()
    with closing(loader(noise, 0, 10**9, workers=3, pin_memory=False)) as batches:
        next(batches)
        assert before < threading.active_count() <= before + 3
    assert threading.active_count() == before


def test_loading_threads_start_no_openmp_team(noise, monkeypatch):
    """OpenMP would have a second team then, and make all threads wait briefly."""
    torch.set_num_threads(2)
    seen: set[tuple[bool, int]] = set()
    real = UnpairedDataset.__getitem__

    def watched(self, number):
        seen.add((threading.current_thread() is threading.main_thread(), torch.get_num_threads()))
        return real(self, number)

    monkeypatch.setattr(UnpairedDataset, "__getitem__", watched)
    list(loader(noise, 0, 4, workers=2, pin_memory=False))
    assert seen == {(False, 1)}
    assert torch.get_num_threads() == 2


# --- images kept in memory -------------------------------------------------------------------


def test_cached_image_is_read_once(noise, monkeypatch):
    expected = [noise[n] for n in range(20)]
    open_image: list[Path] = []
    real = dataset_module.decode_opaque
    monkeypatch.setattr(
        dataset_module,
        "decode_opaque",
        lambda path, to: (open_image.append(path), real(path, to))[1],
    )
    cache = ImageCache(CachePlan(10**6, 10**6, 0))
    dataset = UnpairedDataset(noise.images["a"], noise.images["b"], noise.config, cache)
    assert all(map(same, expected, [dataset[n] for n in range(20)]))
    assert sorted(open_image) == sorted(noise.images["a"] + noise.images["b"])


def test_partial_cache_does_not_change_items(noise):
    one_image = 3 * 40 * 40
    cache = ImageCache(CachePlan(10**6, 2 * one_image, 0))
    dataset = UnpairedDataset(noise.images["a"], noise.images["b"], noise.config, cache)
    assert all(same(noise[n], dataset[n]) for n in range(20))
    assert cache.size == 2 * one_image


def test_items_do_not_share_memory_with_cache(tmp_path):
    """Without a crop or flip an item could be the kept image itself."""
    [path] = noise_images(tmp_path / "one", 1, side=32)
    dataset = UnpairedDataset([path], [path], SINGLE, ImageCache(CachePlan(10**6, 10**6, 0)))
    before = dataset[0].real_a.clone()
    dataset[0].real_a.zero_()
    assert torch.equal(dataset[0].real_a, before)


# --- JPEGs at a reduced scale -----------------------------------------------------------------


def photo(width: int, height: int) -> Image.Image:
    """Soft shapes, sharp discs and a little noise."""
    random = np.random.default_rng(0)
    coarse = random.integers(40, 216, (6, 8, 3)).astype(np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(60):
        x, y = int(random.integers(width)), int(random.integers(height))
        side = int(random.integers(8, height // 4))
        draw.ellipse([x, y, x + side, y + side], fill=tuple(map(int, random.integers(0, 256, 3))))
    levels = np.asarray(image) + random.integers(-4, 5, (height, width, 3))
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def from_the_whole(path: Path, config: TrainConfig) -> Tensor:
    """A training image the slow way: every pixel decoded, then resized by torchvision."""
    whole = torch.from_numpy(to_depth(decode(path).on_white(0), 8).copy()).permute(2, 0, 1)
    height, width = whole.shape[-2:]
    short = min(height, width)
    size = [round(side * config.load_size / short) for side in (height, width)]
    if config.resize_mode == "stretch":
        size = [config.load_size, config.load_size]
    return torchvision_resize(whole, size, InterpolationMode.BICUBIC, antialias=True)


def differences(path: Path, config: TrainConfig) -> Tensor:
    """Between the two ways, in levels of 255."""
    found, expected = load_training_image(path, config), from_the_whole(path, config)
    assert found.shape == expected.shape
    return (found.float() - expected.float()).abs()


def scale_of(path: Path, load_size: int) -> float:
    """How many of a side's pixels become one before the resizing."""
    levels, (width, _) = decode_opaque(path, math.ceil(MIN_REDUCED_SCALE * load_size))
    return width / levels.shape[1]


REDUCED = [
    ((400, 300), 100, 2), ((800, 600), 100, 4), ((1600, 1200), 100, 8), ((2400, 1600), 100, 8),
    ((401, 301), 100, 2), ((807, 605), 100, 4), ((1607, 1205), 100, 8), ((300, 403), 100, 2),
]  # fmt: skip


@pytest.mark.parametrize(("size", "load_size", "scale"), REDUCED)
@pytest.mark.parametrize("resize_mode", ["short-side", "stretch"])
def test_jpeg_decoded_at_reduced_scale_is_close_to_full_scale(
    tmp_path, size, load_size, scale, resize_mode
):
    path = saved(tmp_path / "x.jpg", photo(*size), quality=90)
    assert round(scale_of(path, load_size)) == scale
    config = TrainConfig(load_size=load_size, crop_size=32, resize_mode=resize_mode)
    found = differences(path, config)
    assert found.mean() < 1.5
    assert found.flatten().quantile(0.99) < 20  # Where edges are sharp.
    # Nowhere is it shifted, least of all at the end of a side that is not a multiple.
    assert found[:, -4:].mean() < 2
    assert found[..., -4:].mean() < 2


@pytest.mark.parametrize("size", [(249, 186), (250, 200), (64, 64), (90, 1000)])
def test_jpeg_near_load_size_is_decoded_at_full_scale(tmp_path, size):
    path = saved(tmp_path / "x.jpg", photo(*size), quality=90)
    assert scale_of(path, 100) == 1
    assert differences(path, TrainConfig(load_size=100, crop_size=32)).max() == 0


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(400, 304), (401, 301)])
def test_rotated_jpeg_at_reduced_scale_is_upright(tmp_path, size, orientation):
    exif = with_orientation(orientation)
    path = saved(tmp_path / "x.jpg", photo(*size), quality=90, exif=exif)
    found = differences(path, TrainConfig(load_size=100, crop_size=32))
    assert found.mean() < 1.5
    assert found[:, :4].mean() < 2
    assert found[..., :4].mean() < 2


@pytest.mark.parametrize("name", ["grey", "cmyk", "p3", "p3 grey", "srgb", "mpo", "progressive"])
@pytest.mark.parametrize("size", [(400, 304), (150, 120)])
def test_jpeg_colour_variants(tmp_path, name, size):
    image, options = photo(*size), {"quality": 90}
    kinds: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "grey": (image.convert("L"), {}),
        "cmyk": (image.convert("CMYK"), {}),
        "p3": (image, {"icc_profile": display_p3_profile()}),
        "p3 grey": (image.convert("L"), {"icc_profile": display_p3_profile()}),
        "srgb": (image, {"icc_profile": srgb_profile()}),
        "mpo": (image, {"format": "MPO", "save_all": True, "append_images": [noise_image()]}),
        "progressive": (image, {"progressive": True}),
    }  # fmt: skip
    image, more = kinds[name]
    path = saved(tmp_path / "x.jpg", image, **options | more)
    found = differences(path, TrainConfig(load_size=100, crop_size=32))
    assert found.mean() < (1.5 if size[0] == 400 else 1e-9)


def test_training_reads_only_first_frame_of_animation(tmp_path, monkeypatch):
    frames = [noise_image(seed=seed) for seed in range(3)]
    path = tmp_path / "x.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    expected = decode(path).frames[0]
    loaded: list[int] = []
    real = decode_module._pixels

    def noting(image, page, *arguments):
        loaded.append(page)
        return real(image, page, *arguments)

    monkeypatch.setattr(decode_module, "_pixels", noting)
    levels, _ = decode_opaque(path, 32)
    assert np.array_equal(levels, expected)
    assert loaded == [0]


# --- order -----------------------------------------------------------------------------------


@pytest.fixture
def flat(tmp_path):
    """Eight images of A and three of B."""
    return UnpairedDataset(flat_images(tmp_path / "a", 8), flat_images(tmp_path / "b", 3), SINGLE)


def test_every_epoch_uses_each_image_once(flat):
    shown_a, shown_b = shown(flat, range(24))
    for first in range(0, 24, 8):
        assert sorted(shown_a[first : first + 8]) == list(range(8))
    for first in range(0, 24, 3):
        assert sorted(shown_b[first : first + 3]) == list(range(3))


def test_every_epoch_is_shuffled_differently(flat):
    shown_a, _ = shown(flat, range(32))
    passes = {tuple(shown_a[first : first + 8]) for first in range(0, 32, 8)}
    assert len(passes) == 4
    assert tuple(range(8)) not in passes


def test_the_seed_changes_the_order(flat):
    before = shown(flat, range(8))[0]
    flat.config = dataclasses.replace(flat.config, seed=1)
    assert shown(flat, range(8))[0] != before


def test_the_seed_changes_every_crop(noise):
    config = dataclasses.replace(noise.config, seed=1)
    other = UnpairedDataset(noise.images["a"], noise.images["b"], config)
    assert not any(same(noise[n], other[n]) for n in range(12))


def test_domains_are_shuffled_independently(tmp_path):
    images = flat_images(tmp_path / "both", 8)
    shown_a, shown_b = shown(UnpairedDataset(images, images, SINGLE), range(8))
    assert shown_a != shown_b


def test_random_order_is_a_permutation_by_seed():
    order = random_order("x", 100)
    random_order.cache_clear()
    assert random_order("x", 100) == order
    assert sorted(order) == list(range(100))
    assert random_order("y", 100) != order


def test_dataset_of_one_image(tmp_path):
    images = flat_images(tmp_path / "one", 1)
    assert shown(UnpairedDataset(images, images, SINGLE), range(3)) == ([0] * 3, [0] * 3)


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
def test_images_are_resized_by_their_short_side_or_stretched(
    tmp_path, size, options, height_and_width
):
    Image.new("RGB", size, (1, 2, 3)).save(tmp_path / "x.png")
    found = load_training_image(tmp_path / "x.png", dataclasses.replace(SINGLE, **options))
    assert (found.shape, found.dtype) == ((3, *height_and_width), torch.uint8)
    assert found[:, 0, 0].tolist() == [1, 2, 3]


def test_resize_preserves_coordinates(tmp_path):
    ramp(128, 64).save(tmp_path / "x.png")
    found = load_training_image(tmp_path / "x.png", SINGLE).float()
    columns, rows = torch.meshgrid(torch.arange(64.0), torch.arange(32.0), indexing="xy")
    assert (found[0] - (2 * columns + 0.5)).abs().max() <= 1
    assert (found[1] - (2 * rows + 0.5)).abs().max() <= 1


def test_resize_is_antialiased(tmp_path):
    stripes = np.zeros((128, 128), dtype=np.uint8)
    stripes[:, ::4] = 200
    Image.fromarray(stripes).save(tmp_path / "x.png")
    found = load_training_image(tmp_path / "x.png", SINGLE).float()
    assert found[:, 4:-4, 4:-4].sub(50).abs().max() <= 2


def test_random_crops_cover_all_positions(tmp_path):
    ramp(38, 36).save(tmp_path / "x.png")
    config = dataclasses.replace(CROPPED, load_size=36, flip=False)
    dataset = UnpairedDataset([tmp_path / "x.png"], [tmp_path / "x.png"], config)
    image = load_training_image(tmp_path / "x.png", config)
    places = set()
    for n in range(200):
        crop = dataset[n].real_a[0]
        left, top = crop[:2, 0, 0].tolist()
        assert torch.equal(crop, image[:, top : top + 32, left : left + 32])
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
def ramps(tmp_path):
    ramp(32, 32).save(tmp_path / "x.png")
    config = dataclasses.replace(SINGLE, flip=True)
    return UnpairedDataset([tmp_path / "x.png"], [tmp_path / "x.png"], config)


def test_flip_probability_is_one_half_per_domain(ramps):
    in_a, in_b = mirrored(ramps, 300)
    assert 110 < sum(in_a) < 190
    assert 110 < sum(in_b) < 190
    assert 110 < sum(a == b for a, b in zip(in_a, in_b, strict=True)) < 190


def test_horizontal_flip(ramps):
    upright = load_training_image(ramps.images["a"][0], ramps.config)
    for n in range(10):
        assert any(torch.equal(ramps[n].real_a[0], p) for p in (upright, upright.flip(-1)))


def test_no_flip(ramps):
    ramps.config = SINGLE
    in_a, in_b = mirrored(ramps, 50)
    assert not any(in_a + in_b)


@pytest.mark.parametrize("alpha", [0, 64, 255])
def test_transparent_images_lie_on_white(tmp_path, alpha):
    Image.new("RGBA", (32, 32), (100, 0, 200, alpha)).save(tmp_path / "x.png")
    found = load_training_image(tmp_path / "x.png", SINGLE)[:, 5, 5].tolist()
    on_white = [255 + (level - 255) * alpha / 255 for level in (100, 0, 200)]
    assert found == pytest.approx(on_white, abs=1)


def test_center_crop():
    image = torch.arange(3 * 6 * 8, dtype=torch.uint8).view(3, 6, 8)
    assert torch.equal(center_crop(image, 4), image[:, 1:5, 2:6])


# --- images that cannot be read ------------------------------------------------------------


def test_unreadable_training_image_is_skipped_with_warning(flat):
    expected_a, expected_b = shown(flat, range(16))
    flat.images["a"][5].write_text("not an image")
    found = [flat[n] for n in range(16)]
    for n, (batch, number) in enumerate(zip(found, expected_a, strict=True)):
        if number == 5:
            pass_start = n // 8 * 8
            number = expected_a[pass_start + (n + 1 - pass_start) % 8]
            assert len(batch.skipped) == 1
            assert str(flat.images["a"][5]) in batch.skipped[0]
        else:
            assert batch.skipped == []
        assert number_of(batch.real_a) == number
    assert [number_of(batch.real_b) for batch in found] == expected_b


@pytest.mark.parametrize("workers", [0, 1])
def test_batch_collects_the_warnings_of_its_items(flat, workers):
    flat.config = dataclasses.replace(flat.config, batch_size=8)
    for number in (2, 3):
        flat.images["a"][number].unlink()
    (batch,) = loader(flat, 0, 1, workers, pin_memory=False)
    assert batch.real_a.shape == (8, 3, 32, 32)
    for number in (2, 3):
        assert any(str(flat.images["a"][number]) in sentence for sentence in batch.skipped)


@pytest.mark.parametrize("domain", ["a", "b"])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_domain_without_readable_images_is_an_error(flat, domain, workers):
    for path in flat.images[domain]:
        path.write_text("not an image")
    with pytest.raises(DataError) as refusal:
        list(loader(flat, 0, 2, workers, pin_memory=False))
    assert refusal.value.message.startswith(f"no image of domain {domain.upper()} can be read: ")
    assert "\n" not in refusal.value.message
    assert refusal.value.exit_code == 3


@pytest.mark.parametrize("size", [(2, 33), (33, 2), (1, 1000)])
def test_too_elongated_training_image_is_refused(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "thin.png")
    with pytest.raises(DataError, match=rf"thin\.png is {size[0]}x{size[1]}: too narrow"):
        load_training_image(tmp_path / "thin.png", SINGLE)


@pytest.mark.parametrize(("side", "is_tiny"), [(7, True), (8, False)])
def test_too_small_training_image_is_refused(tmp_path, side, is_tiny):
    path = tmp_path / "icon.png"
    Image.new("RGB", (side, side)).save(path)
    config = dataclasses.replace(SINGLE, load_size=40)
    if is_tiny:
        with pytest.raises(DataError, match=r"icon\.png is 7x7: too small for crops of 32 pixels"):
            load_training_image(path, config)
    else:
        assert load_training_image(path, config).shape == (3, 40, 40)


@pytest.mark.parametrize("size", [(8, 128), (128, 8)])
def test_training_image_at_aspect_ratio_limit_is_read(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "thin.png")
    found = load_training_image(tmp_path / "thin.png", SINGLE)
    assert sorted(found.shape) == [3, 32, 512]
