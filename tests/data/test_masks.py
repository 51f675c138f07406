"""Masks: compositing in linear light, feathers, and reading them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclegan_cli.data import masks
from cyclegan_cli.data.masks import FULL, composite, composite_values, feathered, read_mask
from cyclegan_cli.errors import DataError


def levels(dtype: str, *values: float) -> np.ndarray:
    return np.array([values], dtype=dtype)


def test_half_of_black_and_white_is_half_the_light():
    # 0.5 ** (1 / 2.4) * 1.055 - 0.055 = 0.7354: 187.5 of 255, and not 127.5.
    half = levels("uint16", FULL / 2)
    assert composite(levels("uint8", 0), levels("uint8", 255), half)[0, 0] == 188
    # In 16 bits 0.73536 of 65535; a weight of 32767 is 0.49999.
    assert composite(levels("uint16", 0), levels("uint16", 65535), half)[0, 0] == 48191
    # Below 0.04045 the curve is a line: a quarter from 2 to 10 is 4.
    quarter = levels("uint16", FULL // 4)
    assert composite(levels("uint8", 2), levels("uint8", 10), quarter)[0, 0] == 4


def test_values_are_mixed_as_they_are():
    half = levels("uint16", FULL / 2 + 1)
    assert composite(levels("int16", -100), levels("int16", 300), half, "values")[0, 0] == 100
    mixed = composite(levels("float32", -1e4), levels("float32", 1e4), half, "values")
    assert abs(mixed[0, 0]) < 1
    none = composite(levels("uint8", 0, 0), levels("uint8", 255, 255),
                     levels("uint16", 32767, 32768), "none")  # fmt: skip
    assert none.tolist() == [[0, 255]]


@pytest.mark.parametrize(("nodata", "moved"), [(0, 1), (255, 254)])
def test_no_mixed_value_is_written_as_no_data(nodata, moved):
    values = np.full((1, 2, 1), nodata, np.uint8)
    mixed = composite_values(values, values, levels("uint16", 0, FULL), None, nodata)
    assert mixed.ravel().tolist() == [nodata, moved]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("rows_at_once", [3, 256])
def test_outside_is_identical_and_inside_is_the_translation(dtype, rows_at_once, monkeypatch):
    monkeypatch.setattr(masks, "ROWS_AT_ONCE", rows_at_once)
    random = np.random.default_rng(0)
    original = (random.random((40, 30, 3)) * 200).astype(dtype)
    if dtype == "float32":
        original[0, 0] = np.nan
    translated = (random.random((40, 30, 3)) * 200).astype(dtype)
    weights = random.choice([0, 100, 40000, FULL], (40, 30)).astype(np.uint16)
    weights[0, 0] = 0
    before = translated.copy()
    blend = "values" if dtype == "float32" else "light"
    result = composite(original, translated, weights, blend)
    assert result.dtype == original.dtype
    assert result[weights == 0].tobytes() == original[weights == 0].tobytes()
    assert np.array_equal(result[weights == FULL], translated[weights == FULL])
    assert np.array_equal(translated, before)
    low, high = np.minimum(original, translated), np.maximum(original, translated)
    inside = weights > 0
    assert (result[inside] >= low[inside]).all()
    assert (result[inside] <= high[inside]).all()


def test_feather_is_a_ramp_inside_the_mask():
    weights = np.full((9, 9), FULL, np.uint16)
    weights[:, 0] = 0
    ramp = feathered(weights, 3)[4]
    # Distances 1, 2, 3 of 4; the border of the image at the right is no edge.
    assert ramp.tolist() == [0, 16384, 32768, 49151, *[FULL] * 5]
    assert feathered(weights, 0) is weights


def test_feather_uses_euclidean_distance_and_multiplies_gray():
    weights = np.full((9, 9), FULL, np.uint16)
    weights[0, 0] = 0
    weights[1, 1] = FULL // 2
    found = feathered(weights, 4) / FULL
    assert found[1, 1] == pytest.approx(0.5 * 2**0.5 / 5, abs=1e-4)
    assert found[2, 1] == pytest.approx(5**0.5 / 5, abs=1e-4)
    assert found[3, 4] == 1  # At a distance of 5.
    assert found[3, 3] == pytest.approx(18**0.5 / 5, abs=1e-4)


@pytest.mark.parametrize("pixels", [1, 4, 30])
def test_feather_in_blocks_equals_brute_force(pixels, monkeypatch):
    random = np.random.default_rng(1)
    weights = np.where(random.random((37, 23)) < 0.03, 0, FULL).astype(np.uint16)
    weights[20:] = FULL
    y, x = np.nonzero(weights == 0)
    rows, columns = np.mgrid[:37, :23]
    squares = ((rows[..., None] - y) ** 2 + (columns[..., None] - x) ** 2).min(axis=2)
    expected = np.rint(np.minimum(np.sqrt(squares) / (pixels + 1), 1) * weights)
    for rows_at_once in (5, 256):
        monkeypatch.setattr(masks, "ROWS_AT_ONCE", rows_at_once)
        assert np.array_equal(feathered(weights, pixels), expected)


def test_masks_of_many_kinds(tmp_path):
    gray = np.array([[0, 255, 128]], np.uint8)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    Image.fromarray(gray > 127).save(tmp_path / "bits.png")
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(np.repeat(gray[..., None], 3, 2)).save(tmp_path / "color.tif")
    # White paint on a transparent layer, whose hidden color is white, too.
    layer = np.full((1, 3, 4), 255, np.uint8)
    layer[..., 3] = gray
    Image.fromarray(layer).save(tmp_path / "layer.png")
    soft = [[0, FULL, 128 * 257]]
    for name in ("gray.png", "deep.png", "color.tif", "layer.png"):
        assert read_mask(tmp_path / name)[0].tolist() == soft, name
    assert read_mask(tmp_path / "bits.png")[0].tolist() == [[0, FULL, FULL]]


def test_lossy_masks_are_rounded(tmp_path):
    block = np.zeros((16, 16), np.uint8)
    block[:, 8:] = 255
    block[3, 3] = 90
    Image.fromarray(block).save(tmp_path / "mask.jpg", quality=30)
    with Image.open(tmp_path / "mask.jpg") as image:
        assert len(set(image.tobytes())) > 2
    [mask] = read_mask(tmp_path / "mask.jpg")
    assert sorted(set(mask.ravel())) == [0, FULL]


def test_unreadable_mask_is_named(tmp_path):
    (tmp_path / "mask.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"mask\.png is not an image"):
        read_mask(Path(tmp_path / "mask.png"))
