"""What is said of two domains before a training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from cyclegan_cli.training import domain_gap
from cyclegan_cli.training.domain_gap import (
    DomainSample,
    color_warning,
    framing_warning,
    has_border,
    match_histograms,
)
from cyclegan_cli.training.plan import plan_new
from cyclegan_cli.training.preflight import DRY_RUN, START, preflight
from runs import make_config

NAMES = ("day", "night")


def scenes(seed: int, coarse: int = 8, count: int = 24) -> Tensor:
    """Smooth random images: ``[count, 3, 64, 64]`` in [0, 255]."""
    random = torch.Generator().manual_seed(seed)
    small = torch.rand((count, 3, coarse, coarse), generator=random)
    return 40 + 120 * F.interpolate(small, size=64, mode="bilinear")


def sample(images: Tensor) -> DomainSample:
    found = DomainSample()
    for index, image in enumerate(images.clamp(0, 255).byte()):
        found.add(Path(f"{index:03}.png"), image, 64)
    return found


@pytest.mark.parametrize(
    "recolor",
    [lambda x: x * 0.4 + 130, lambda x: 255 * (x / 255) ** 3, lambda x: 255 - x,
     lambda x: x * torch.tensor([1.3, 0.8, 0.4])[:, None, None]],
)  # fmt: skip
def test_recolored_scenes_differ_in_color(recolor):
    sentence = color_warning(NAMES, sample(scenes(0)), sample(recolor(scenes(1))))
    assert sentence.startswith("the domains differ mainly in brightness, contrast or color")
    assert "a color adjustment may be enough" in sentence
    assert "(day)" in sentence


def test_same_scenes_do_not_differ_in_color():
    assert color_warning(NAMES, sample(scenes(0)), sample(scenes(1))) == ""


def test_darker_scenes_of_other_structure_do_not_differ_mainly_in_color():
    assert color_warning(NAMES, sample(scenes(0)), sample(scenes(1, coarse=32) / 3)) == ""


def test_few_images_are_not_judged():
    few = sample(scenes(0, count=domain_gap.MIN_IMAGES - 1))
    assert color_warning(NAMES, few, sample(scenes(1) * 0.4 + 130)) == ""


def test_matched_histograms_are_equal():
    first, second = (scenes(seed) / 127.5 - 1 for seed in (0, 1))
    matched = match_histograms(first, second**3)
    for channel in range(3):
        wanted = (second**3)[:, channel].flatten().sort().values
        found = matched[:, channel].flatten().sort().values
        assert float((wanted - found).abs().mean()) < 0.01
    # A monotonic map.
    order = first[:, 0].flatten().argsort()
    assert bool((matched[:, 0].flatten()[order].diff() >= -0.02).all())


def test_borders():
    image = scenes(0)[0].byte()
    assert not has_border(image)
    letterbox, pillarbox = image.clone(), image.clone()
    letterbox[:, :8], letterbox[:, -8:] = 0, 0
    pillarbox[..., :8], pillarbox[..., -8:] = 255, 255
    assert has_border(letterbox)
    assert has_border(pillarbox)
    assert not has_border(torch.zeros_like(image))


def framing(sizes_b: list[tuple[int, int]], images_b: Tensor | None = None) -> str:
    samples = sample(scenes(0)), sample(scenes(1) if images_b is None else images_b)
    return framing_warning(NAMES, ([(640, 480)] * 24, sizes_b), samples, 286)


def test_equal_framing_has_no_warning():
    assert framing([(480, 640), (1024, 800)]) == ""


@pytest.mark.parametrize(
    ("size", "part"),
    [((480, 480), "aspect ratios are 1.33 and 1.00"),
     ((200, 150), "0% and 100% are enlarged by more than 1.5 to the --load-size of 286")],
)  # fmt: skip
def test_other_sizes_are_another_framing(size, part):
    sentence = framing([size])
    assert sentence.startswith("the images of day and night are framed differently: ")
    assert part in sentence


def test_borders_of_one_domain_are_another_framing():
    images = scenes(1)
    images[:, :, :6], images[:, :, -6:] = 0, 0
    assert "0% and 100% have a border of a single color" in framing([(640, 480)], images)


def test_orientation_is_another_framing():
    images = F.interpolate(scenes(1), size=(90, 64))
    wide = F.interpolate(scenes(0), size=(64, 90))
    sizes = [(640, 480)]
    sentence = framing_warning(NAMES, (sizes, sizes), (sample(wide), sample(images)), 64)
    assert "100% and 0% are wider than high" in sentence


def test_only_a_dry_run_compares_domains(tmp_path: Path) -> None:
    for name, seed in (("day", 0), ("night", 1)):
        (tmp_path / name).mkdir()
        images = scenes(seed) if name == "day" else scenes(seed) * 0.4 + 130
        for index, image in enumerate(images.byte()):
            pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    config = dataclasses.replace(make_config(tmp_path), load_size=64, crop_size=64)
    plan = plan_new(config)
    assert preflight(plan, START).warnings() == []
    [sentence] = preflight(plan, DRY_RUN).warnings()
    assert "differ mainly in brightness" in sentence
