"""The structure score: what it sees, and what it does not."""

import numpy as np
import pytest
from PIL import Image

from cyclegan_cli.metrics.structure import score_of_lumas, small_luma, structure_score


def scene(seed: int = 0, shift: int = 0) -> np.ndarray:
    """Rectangles of random colors, 128 pixels wide, and moved to the right."""
    random = np.random.default_rng(seed)
    pixels = np.full((128, 160, 3), 128, np.uint8)
    for _ in range(40):
        x, y = random.integers(0, 150), random.integers(0, 120)
        w, h = random.integers(5, 40, 2)
        pixels[y : y + h, x : x + w] = random.integers(0, 256, 3)
    return pixels[:, 16 - shift : 144 - shift]


def test_edges_that_stay_score_1_whatever_their_colors():
    image = scene()
    assert structure_score(image, image) == pytest.approx(1)
    assert structure_score(image, 255 - image) > 0.999
    # A line through the values keeps all directions; 16 bits and gray are the same image.
    assert structure_score(image, image // 3 + 60) > 0.98
    assert structure_score(image, image.astype(np.uint16) * 257) > 0.999
    assert structure_score(image, np.asarray(Image.fromarray(image).convert("L"))) > 0.99
    gamma = (255 * (image / 255) ** 2.2).astype(np.uint8)
    assert structure_score(image, gamma) > 0.9


def test_score_falls_with_the_distance_of_edges():
    scores = [structure_score(scene(), scene(shift=shift)) for shift in (0, 1, 2, 4, 8)]
    assert scores == sorted(scores, reverse=True)
    assert scores[1] < 0.95
    assert scores[3] < 0.5
    assert abs(structure_score(scene(0), scene(1))) < 0.2


def test_direction_counts_and_not_the_amount_of_edges_alone():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::8] = stripes[:, 1::8] = 255
    # Edges at right angles: the double angle is opposite wherever both have edges.
    assert structure_score(stripes, stripes.T) < -0.3


def test_flat_images():
    flat = np.full((20, 30, 3), 90, np.uint8)
    assert structure_score(flat, flat + np.uint8(50)) == 1
    assert structure_score(flat, scene()[40:60, 40:70]) == 0


def test_scale_of_comparison_and_small_images():
    large = np.asarray(Image.fromarray(scene()).resize((1280, 1280), Image.Resampling.NEAREST))
    moved = np.asarray(
        Image.fromarray(scene(shift=1)).resize((1280, 1280), Image.Resampling.NEAREST)
    )
    # 10 of 1280 pixels are 2 of 256.
    assert structure_score(large, moved) == pytest.approx(
        structure_score(large.repeat(1, 0)[::5, ::5], moved[::5, ::5]), abs=0.1
    )
    assert structure_score(scene()[:1, :1], scene()[:1, :1]) == 1
    with pytest.raises(ValueError, match="different sizes"):
        structure_score(scene(), scene()[:-1])


def test_weights_select_pixels():
    image, other = scene(), scene()
    other[:, 64:] = scene(1)[:, 64:]
    lumas = [small_luma(one, (128, 128)) for one in (image, other)]
    left = np.zeros((128, 128), np.float32)
    left[:, :40] = 1
    assert score_of_lumas(lumas[0], lumas[1], left) > 0.95
    assert score_of_lumas(lumas[0], lumas[1], 1 - left) < 0.7
