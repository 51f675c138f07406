"""No exported file that computes anything else than its network gets past this."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cyclegan_cli.errors import ExportError
from cyclegan_cli.exporting.verify import CHECKED_SIZES, verify
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.models.networks import ResnetGenerator

Model = Callable[[Tensor], Tensor]


@pytest.fixture
def generator(tiny_model: CycleGAN) -> ResnetGenerator:
    return tiny_model.generator_a2b


def wrong_at(size: tuple[int, int, int], generator: ResnetGenerator) -> Model:
    """A model that is wrong in a single pixel, at a single size."""

    def run(pictures: Tensor) -> Tensor:
        translated = generator(pictures).clone()
        if (pictures.shape[0], *pictures.shape[2:]) == size:
            translated[0, 0, 0, 0] += 2e-4
        return translated

    return run


def test_the_network_itself_has_no_difference(generator: ResnetGenerator) -> None:
    verification = verify(generator, generator)
    assert verification.largest_difference == 0
    assert verification.sizes == CHECKED_SIZES


def test_the_largest_difference_is_told(generator: ResnetGenerator) -> None:
    verification = verify(lambda pictures: generator(pictures) + 5e-5, generator)
    assert verification.largest_difference == pytest.approx(5e-5, rel=0.01)


def test_at_least_three_sizes_are_compared_and_4_does_not_divide_all() -> None:
    assert len(CHECKED_SIZES) >= 3
    assert len({batch for batch, _, _ in CHECKED_SIZES}) > 1
    assert any(height % 4 and width % 4 for _, height, width in CHECKED_SIZES)


@pytest.mark.parametrize("size", CHECKED_SIZES)
def test_one_wrong_pixel_at_one_size_is_refused(
    generator: ResnetGenerator, size: tuple[int, int, int]
) -> None:
    with pytest.raises(ExportError, match=rf"by 0\.0002 at {size[2]}x{size[1]}, more than 0\.0001"):
        verify(wrong_at(size, generator), generator)


def test_a_pixel_that_is_no_number_is_refused(generator: ResnetGenerator) -> None:
    with pytest.raises(ExportError, match="differs from the network by nan"):
        verify(lambda pictures: generator(pictures) * torch.nan, generator)


@pytest.mark.parametrize(
    ("shape", "model"),
    [
        ("rows", lambda translated: translated[..., 1:, :]),
        ("batch", lambda translated: translated[:1].expand(3, -1, -1, -1)),
        ("no batch", lambda translated: translated[0]),
    ],
)
def test_another_shape_is_refused(generator: ResnetGenerator, shape: str, model: Model) -> None:
    with pytest.raises(ExportError, match=r"the exported model makes \[.*nothing is written"):
        verify(lambda pictures: model(generator(pictures)), generator)


def test_the_inputs_are_the_same_every_time_and_fill_the_range(generator: ResnetGenerator) -> None:
    seen: list[Tensor] = []

    def run(pictures: Tensor) -> Tensor:
        seen.append(pictures)
        return generator(pictures)

    verify(run, generator)
    verify(run, generator)
    for first, second in zip(seen[:3], seen[3:], strict=True):
        assert torch.equal(first, second)
        assert first.min() < -0.9
        assert first.max() > 0.9


def test_what_was_compared_is_plain_json(generator: ResnetGenerator) -> None:
    document = verify(generator, generator).to_document()
    assert json.loads(json.dumps(document)) == {
        "sizes": [list(size) for size in CHECKED_SIZES],
        "largest_difference": 0.0,
    }
