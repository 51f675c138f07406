"""Calibration images of int8 models."""

import numpy as np
import pytest
import torch

from cyclegan_cli.config import BandFormat
from cyclegan_cli.errors import DataError
from cyclegan_cli.exporting.calibration import calibration_files, load_calibration


def test_every_fourth_image_is_held_out(images):
    found = load_calibration(images, channels=3, image_io=False)
    assert (len(found.calibrated), list(found.held_out)) == (7, ["held-out 1", "held-out 2"])


@pytest.mark.parametrize(
    ("channels", "image_io", "shape", "dtype"),
    [
        (3, False, (1, 3, 36, 40), torch.float32),
        (1, False, (1, 1, 36, 40), torch.float32),
        (3, True, (1, 33, 40, 3), torch.uint8),
    ],
)
def test_calibration_images_have_the_shape_of_the_input(images, channels, image_io, shape, dtype):
    first = load_calibration(images, channels, image_io).calibrated[0]
    assert (first.shape, first.dtype) == (shape, dtype)


def test_large_calibration_images_are_reduced(draw, tmp_path):
    for index in range(8):
        draw(tmp_path / f"{index}.png", size=(1030, 260))
    assert load_calibration(tmp_path, 3, image_io=True).calibrated[0].shape == (1, 129, 512, 3)


def test_calibration_files_are_evenly_spaced(tmp_path):
    for index in range(300):
        (tmp_path / f"{index:03d}.png").touch()
    names = [path.name for path in calibration_files(tmp_path)]
    assert (len(names), names[0]) == (128, "000.png")
    assert names[-1] > "295.png"
    assert len(set(names)) == 128


@pytest.mark.parametrize("count", [0, 7])
def test_too_few_images_are_refused(tmp_path, count):
    for index in range(count):
        (tmp_path / f"{index}.png").touch()
    with pytest.raises(DataError, match=f"found {count} images, int8 needs 8 or more"):
        calibration_files(tmp_path)


def test_unreadable_calibration_image_is_named(draw, tmp_path):
    for index in range(8):
        draw(tmp_path / f"{index}.png")
    (tmp_path / "3.png").write_text("no image")
    with pytest.raises(DataError, match=r"3\.png"):
        load_calibration(tmp_path, 3, image_io=False)


def test_arrays_are_calibrated_with_their_center_in_the_range_of_the_domain(tmp_path):
    values = np.full((600, 20, 2), 500, np.int16)
    values[:44] = 1000  # Above the central 512 rows.
    values[44, 0] = -9  # No data: filled with the mean of the channel.
    for index in range(8):
        np.save(tmp_path / f"{index}.npy", values)
    chosen = BandFormat(2, "int16", (0.0,), (1000.0,), nodata=-9.0)
    [first, *_] = load_calibration(tmp_path, 2, False, chosen).calibrated
    assert first.shape == (1, 2, 512, 20)
    assert torch.equal(first, torch.zeros_like(first))
    with pytest.raises(DataError, match="2 channels, and its domain 5"):
        load_calibration(tmp_path, 5, False, BandFormat(5, "int16", (0.0,), (1000.0,)))
