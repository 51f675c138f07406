"""Strips give the whole picture's pixels, and hold no more than they say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cyclegan_cli.config import GeneratorConfig
from cyclegan_cli.models.networks import ResnetGenerator
from cyclegan_cli.translation.strips import Gathering, strips, translate_in_strips


def generator(channels: int, blocks: int, seed: int = 0, **others: Any) -> ResnetGenerator:
    """With weights that are far from their start, so that every layer matters."""
    config = GeneratorConfig(channels, blocks, **others)
    network = ResnetGenerator(config).eval().requires_grad_(False)
    random = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.2)
    return network


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    """One whose upper and lower half differ, as the statistics of strips do then."""
    random = torch.Generator().manual_seed(seed)
    pixels = torch.rand(1, 3, height, width, generator=random) * 0.4
    pixels[:, :, height // 2 :] -= 0.6
    return pixels


def psnr(found: Tensor, expected: Tensor) -> float:
    """In dB, of values in [-1, 1]."""
    mse = float((found.float() - expected.float()).square().mean())
    return float(10 * torch.log10(torch.tensor(4 / max(mse, 1e-20))))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(2, 16),
    columns=st.integers(2, 12),
    strip=st.integers(1, 20),
    channels=st.integers(1, 4),
    blocks=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_strips_of_any_height_give_the_whole_pictures_pixels(
    rows: int, columns: int, strip: int, channels: int, blocks: int, seed: int
) -> None:
    network, whole = generator(channels, blocks, seed), picture(4 * rows, 4 * columns, seed)
    with torch.inference_mode():
        expected = network(whole)
    found = translate_in_strips(network, whole, strip)
    assert psnr(found, expected) > 60
    assert float((found - expected).abs().max()) < 1 / 127.5


@pytest.mark.parametrize("blocks", [6, 9])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_papers_depths_are_exact_in_both_memory_formats(
    blocks: int, layout: torch.memory_format
) -> None:
    network, whole = generator(8, blocks), picture(72, 52)
    with torch.inference_mode():
        expected = network(whole)
    found = translate_in_strips(network.to(memory_format=layout), whole.to(memory_format=layout), 3)
    assert psnr(found, expected) > 100


@pytest.mark.parametrize("channels_in", [1, 3])
@pytest.mark.parametrize("channels_out", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_affine_norms_and_grey_pictures_are_exact_too(
    channels_in: int, channels_out: int, dtype: torch.dtype
) -> None:
    network = generator(
        4, 2, input_channels=channels_in, output_channels=channels_out, affine_norm=True
    ).to(dtype)
    whole = picture(72, 52)[:, :channels_in].to(dtype)
    with torch.inference_mode():
        expected = network(whole)
    found = translate_in_strips(network, whole, 3)
    assert found.shape == expected.shape == (1, channels_out, 72, 52)
    assert found.dtype == dtype
    assert psnr(found, expected) > (100 if dtype == torch.float32 else 25)


def test_naive_tiles_are_not() -> None:
    """What strips are for: the test above would fail if each had statistics of its own."""
    network, whole = generator(8, 2), picture(64, 64)
    with torch.inference_mode():
        expected = network(whole)
        tiles = torch.cat([network(whole[:, :, :32]), network(whole[:, :, 32:])], dim=2)
    assert psnr(tiles, expected) < 30


def test_bf16_errs_as_little_as_the_untiled_network_does() -> None:
    network, whole = generator(8, 3), picture(64, 48)
    with torch.inference_mode():
        exact = network(whole)
        untiled = network.bfloat16()(whole.bfloat16())
    found = translate_in_strips(network, whole.bfloat16(), 5)
    assert found.dtype == torch.bfloat16
    assert psnr(found, exact) > psnr(untiled, exact) - 1


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


def test_nothing_larger_than_the_trunks_map_and_a_strip_is_ever_made() -> None:
    network, whole = generator(8, 1), picture(512, 32)
    trunk = 32 * (512 // 4) * (32 // 4)
    # At full resolution: 8 channels of a strip of four times two rows, with the halos of those
    # who read it, and reflected columns.
    strip = 8 * (4 * 2 + 12) * (32 + 6)
    with Largest() as largest:
        translate_in_strips(network, whole, 2)
    assert largest.numbers <= max(trunk, strip, whole.numel())
    with Largest() as largest, torch.inference_mode():
        network(whole)
    assert largest.numbers >= 8 * 512 * 32  # The untiled network does make a full-size map.


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.floats(-100, 100))
def test_gathered_statistics_are_those_of_all_rows(heights: list[int], offset: float) -> None:
    random = torch.Generator().manual_seed(len(heights))
    parts = [torch.randn(1, 3, height, 4, generator=random) * height + offset for height in heights]
    gathering = Gathering()
    for part in parts:
        gathering.add(part)
    variance, mean = torch.var_mean(torch.cat(parts, dim=2).double(), (0, 2, 3), correction=0)
    found = gathering.finish()
    torch.testing.assert_close(found.mean.double(), mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.variance.double(), variance, rtol=1e-4, atol=1e-5)


@given(st.integers(1, 100), st.integers(1, 30))
def test_strips_cover_all_rows_once(height: int, strip: int) -> None:
    rows = [row for top, bottom in strips(height, strip) for row in range(top, bottom)]
    assert rows == list(range(height))
    assert all(bottom - top <= strip for top, bottom in strips(height, strip))
