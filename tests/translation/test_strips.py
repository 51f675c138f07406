"""Strips equal the network on the whole image, in bounded memory."""

import copy
import errno
import os
import statistics
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cyclegan_cli.config import Norms, Resampling
from cyclegan_cli.errors import DeviceError
from cyclegan_cli.files import is_disk_full
from cyclegan_cli.models.networks import ResnetGenerator
from cyclegan_cli.models.winograd import WinogradConv
from cyclegan_cli.translation import arena
from cyclegan_cli.translation.arena import Location, StoredRows
from cyclegan_cli.translation.strips import StripGenerator, StripPlan
from generators import generator

RESAMPLING, NORMS = get_args(Resampling), get_args(Norms)

pytestmark = pytest.mark.cpu_features


def translate_in_strips(
    network: ResnetGenerator,
    whole: Tensor,
    rows: int,
    keep_full: bool = False,
    location: Location | None = None,
) -> Tensor:
    """The image through the network in strips, put together again."""
    plan = StripPlan(rows, keep_full, location)
    return through(StripGenerator(copy.deepcopy(network)), whole, plan)


def through(strip_generator: StripGenerator, whole: Tensor, plan: StripPlan) -> Tensor:
    """The image's translation in one piece."""
    translated: list[Tensor] = []

    def sink(top: int, strip: Tensor) -> None:
        assert top == sum(part.shape[2] for part in translated)
        translated.append(strip.clone())

    strip_generator.translate(StoredRows(whole, whole.device), plan, sink)
    return torch.cat(translated, dim=2)


def image(height: int, width: int, seed: int = 0) -> Tensor:
    """One whose upper and lower half differ, as the statistics of strips do then."""
    random = torch.Generator().manual_seed(seed)
    pixels = torch.rand(1, 3, height, width, generator=random) * 0.4
    pixels[:, :, height // 2 :] -= 0.6
    return pixels


def psnr(found: Tensor, expected: Tensor) -> float:
    """In dB, of values in [-1, 1]."""
    mse = float((found.float() - expected.float()).square().mean())
    return float(10 * torch.log10(torch.tensor(4 / max(mse, 1e-20))))


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(2, 16),
    columns=st.integers(2, 12),
    strip=st.integers(1, 20),
    channels=st.integers(1, 4),
    blocks=st.integers(1, 3),
    keep_full=st.booleans(),
    resampling=st.sampled_from(RESAMPLING),
    norms=st.sampled_from(NORMS),
    skips=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_strips_of_any_height_equal_network(
    rows: int,
    columns: int,
    strip: int,
    channels: int,
    blocks: int,
    keep_full: bool,
    resampling: Resampling,
    norms: Norms,
    skips: bool,
    seed: int,
) -> None:
    skips = skips and norms == "residual"
    network = generator(channels, blocks, seed, resampling=resampling, norms=norms, skips=skips)
    whole = image(4 * rows, 4 * columns, seed)
    with torch.inference_mode():
        expected = network(whole)
    found = translate_in_strips(network, whole, strip, keep_full)
    assert psnr(found, expected) > 60
    assert float((found - expected).abs().max()) < 1 / 127.5


@pytest.mark.parametrize(
    ("resampling", "norms", "skips"),
    [
        *((kind, "all", False) for kind in RESAMPLING),
        ("blur", "residual", False),
        ("blur", "residual", True),
    ],
)
@pytest.mark.parametrize("blocks", [6, 9])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_strips_equal_network_at_paper_depths(
    blocks: int, layout: torch.memory_format, resampling: Resampling, norms: Norms, skips: bool
) -> None:
    network = generator(8, blocks, resampling=resampling, norms=norms, skips=skips)
    whole = image(72, 52)
    with torch.inference_mode():
        expected = network(whole)
    found = translate_in_strips(network.to(memory_format=layout), whole.to(memory_format=layout), 3)
    assert psnr(found, expected) > 100


@pytest.mark.parametrize("resampling", RESAMPLING)
@pytest.mark.parametrize(("rows", "keep_full"), [(1, False), (5, True), (8, False), (50, True)])
def test_strips_equal_network_with_winograd(
    rows: int, keep_full: bool, resampling: Resampling
) -> None:
    network, whole = generator(16, 3, resampling=resampling), image(76, 60)
    assert isinstance(StripGenerator(copy.deepcopy(network)).blocks[0].first, WinogradConv)
    with torch.inference_mode():
        expected = network(whole)
    found = translate_in_strips(network, whole, rows, keep_full)
    assert psnr(found, expected) > 90
    assert float((found - expected).abs().max()) < 1 / 127.5


def test_arena_is_reused_for_images_of_any_size():
    network = generator(8, 2)
    shared = StripGenerator(copy.deepcopy(network))
    sizes = [(48, 64), (48, 64), (16, 20), (80, 40), (48, 64)]
    held = []
    for number, (height, width) in enumerate(sizes):
        whole, plan = image(height, width, number), StripPlan(3, keep_full=number % 2 == 0)
        expected = translate_in_strips(network, whole, 3, plan.keep_full)
        assert torch.equal(through(shared, whole, plan), expected)
        held.append(shared.arena.nbytes)
    full = [4 * 8 * height * width for height, width in sizes]
    assert held == [full[0], full[0], full[0], full[0], full[0]]


def test_large_arena_is_freed(monkeypatch):
    network, whole = generator(8, 1), image(32, 32)
    shared = StripGenerator(network)
    through(shared, whole, StripPlan(3))
    assert shared.arena.nbytes == 4 * 8 * 32 * 32 / 2
    through(shared, whole, StripPlan(3, location="disk"))
    assert shared.arena.nbytes == 0
    monkeypatch.setattr(arena, "KEEP_BYTES", 1000)
    through(shared, whole, StripPlan(3))
    assert shared.arena.nbytes == 0


@pytest.mark.parametrize("resampling", RESAMPLING)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.usefixtures("each_cpu")
def test_feature_maps_on_disk_give_same_pixels(dtype: torch.dtype, resampling: Resampling) -> None:
    network = generator(4, 2, resampling=resampling).to(dtype)
    whole = image(48, 40).to(dtype)
    held = translate_in_strips(network, whole, 3)
    assert torch.equal(translate_in_strips(network, whole, 3, location="disk"), held)
    elsewhere = translate_in_strips(network, whole, 3, location=torch.device("cpu"))
    assert torch.equal(elsewhere, held)


def test_full_temporary_folder_raises_device_error(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No arena left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(
        DeviceError, match=r"cannot hold 0\.0 GB in .*: no arena left on device"
    ) as raised:
        translate_in_strips(generator(2, 1), image(16, 16), 2, location="disk")
    # That would end the whole run, though only this image is too large for what is there.
    assert not is_disk_full(raised.value)


def test_strip_generator_is_thread_safe():
    """Threads share the workspace and must take turns."""
    network = generator(16, 2)
    images = [image(48, 64, seed) for seed in range(4)]
    shared = StripGenerator(copy.deepcopy(network))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda whole: through(shared, whole, StripPlan(3)), images))
    for whole, translated in zip(images, found, strict=True):
        assert torch.equal(translated, translate_in_strips(network, whole, 3))


@pytest.mark.parametrize("channels_in", [1, 3])
@pytest.mark.parametrize("channels_out", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("resampling", RESAMPLING)
@pytest.mark.usefixtures("each_cpu")
def test_strips_equal_network_with_affine_norms_and_grey_images(
    channels_in: int, channels_out: int, dtype: torch.dtype, resampling: Resampling
) -> None:
    channels = {"input_channels": channels_in, "output_channels": channels_out}
    network = generator(4, 2, **channels, affine_norm=True, resampling=resampling).to(dtype)
    whole = image(72, 52)[:, :channels_in].to(dtype)
    with torch.inference_mode():
        expected = network(whole)
    found = translate_in_strips(network, whole, 3)
    assert found.shape == expected.shape == (1, channels_out, 72, 52)
    assert found.dtype == dtype
    assert psnr(found, expected) > (100 if dtype == torch.float32 else 25)


def test_independent_tiles_differ_from_network():
    """The comparison above fails for tiles that are normalised by themselves."""
    network, whole = generator(8, 2), image(64, 64)
    with torch.inference_mode():
        expected = network(whole)
        tiles = torch.cat([network(whole[:, :, :32]), network(whole[:, :, 32:])], dim=2)
    assert psnr(tiles, expected) < 30


@pytest.mark.parametrize("resampling", RESAMPLING)
@pytest.mark.usefixtures("each_cpu")
def test_bf16_strips_err_no_more_than_network(resampling: Resampling) -> None:
    differences = []
    for seed in range(12):  # Of one network they deviate by more than 1 dB, in either direction.
        network, whole = generator(8, 3, seed, resampling=resampling), image(64, 48, seed)
        with torch.inference_mode():
            exact = network(whole)
            untiled = network.bfloat16()(whole.bfloat16())
        found = translate_in_strips(network, whole.bfloat16(), 5)
        assert found.dtype == torch.bfloat16
        differences.append(psnr(found, exact) - psnr(untiled, exact))
    assert statistics.mean(differences) > -1


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numbers = max(self.numbers, result.numel())
        return result


@pytest.mark.parametrize("resampling", RESAMPLING)
def test_no_tensor_exceeds_trunk_maps_and_strip(resampling: Resampling) -> None:
    network, whole = generator(8, 1, resampling=resampling), image(512, 32)
    trunk = 2 * 32 * (512 // 4) * (32 // 4)
    # At full resolution: 8 channels of a strip of four times two rows, with the halos of those
    # who read it, and reflected columns.
    strip = 8 * (4 * 2 + 12) * (32 + 6) * (2 if resampling == "cut" else 1)
    with Largest() as largest:
        translate_in_strips(network, whole, 2)
    assert largest.numbers <= max(trunk, strip, whole.numel())
    with Largest() as largest, torch.inference_mode():
        network(whole)
    assert largest.numbers >= 8 * 512 * 32  # The untiled network does make a full-size map.
