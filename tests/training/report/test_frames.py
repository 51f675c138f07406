import base64
import io
import itertools
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan_cli.training.callbacks.samples import GRID_COLUMNS, save_sample_grid
from cyclegan_cli.training.report import frames as frames_module
from cyclegan_cli.training.report.frames import MAX_FRAMES, Frames, document, read_frame


def write_grid(folder: Path, step: int, *, shift: int = 0, count: int = 2, size: int = 16) -> Path:
    """A grid of flat images: row and column decide the grey, ``shift`` that of the real ones."""
    images = {}
    for column, name in enumerate(GRID_COLUMNS):
        grey = torch.tensor([20.0 * column + 60 * row for row in range(count)])
        if name.startswith("real"):
            grey += shift
        images[name] = (grey / 127.5 - 1).reshape(count, 1, 1, 1).expand(count, 3, size, size)
    path = folder / f"step_{step:08d}.jpg"
    save_sample_grid(path, images)
    return path


def decoded(text: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        assert image.format == "JPEG"
        return np.asarray(image.convert("RGB"))


def all_frames(folder: Path, last_step: int = 10**9, most: int = 10**9) -> dict:
    return Frames(folder, most).select(last_step)


def size(frames: dict) -> int:
    """Characters of all images that a page of these frames has."""
    return len("".join(re.findall(r'"([^"]{50,})"', json.dumps(document(frames)))))


def test_sample_grid_is_cut_into_images(tmp_path):
    frame = read_frame(write_grid(tmp_path, 1))
    assert list(frame.images) == list(GRID_COLUMNS)
    for column, name in enumerate(GRID_COLUMNS):
        for row, text in enumerate(frame.images[name]):
            pixels = decoded(text)
            assert pixels.shape == (16, 16, 3)
            assert abs(int(pixels[8, 8, 1]) - (20 * column + 60 * row)) <= 8


def test_large_images_are_made_smaller(tmp_path):
    frame = read_frame(write_grid(tmp_path, 1, size=300, count=1))
    assert decoded(frame.images["fake_b"][0]).shape == (256, 256, 3)


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xe0half"])
def test_files_that_are_not_grids_are_skipped(tmp_path, content):
    write_grid(tmp_path, 1)
    (tmp_path / "step_00000002.jpg").write_bytes(content)
    Image.new("RGB", (9, 9)).save(tmp_path / "step_00000003.jpg")
    (tmp_path / "notes.txt").write_text("mine")
    assert list(all_frames(tmp_path)) == [1]


def test_missing_folder_gives_no_frames(tmp_path):
    assert all_frames(tmp_path / "samples") == {}
    assert document({}) == {"real": [], "frames": []}


@pytest.mark.parametrize("count", [1, 2, MAX_FRAMES, MAX_FRAMES + 1, 5 * MAX_FRAMES])
def test_samples_are_thinned_evenly_with_first_and_last(tmp_path, count):
    first = write_grid(tmp_path, 10)
    for i in range(2, count + 1):
        os.link(first, tmp_path / f"step_{10 * i:08d}.jpg")
    steps = list(all_frames(tmp_path))
    assert len(steps) <= MAX_FRAMES
    assert len(steps) >= min(count, MAX_FRAMES // 2)
    assert (steps[0], steps[-1]) == (10, 10 * count)
    gaps = {b - a for a, b in itertools.pairwise(steps[:-1])}
    assert len(gaps) <= 1


def test_samples_are_thinned_to_the_size_limit(tmp_path):
    for step in range(1, 17):
        write_grid(tmp_path, step)

    everything = size(all_frames(tmp_path))
    frames = all_frames(tmp_path, most=everything * 2 // 5)
    assert size(frames) <= everything * 2 // 5
    assert list(frames) == [1, 5, 9, 13, 16]


def test_changed_real_images_count_toward_the_size_limit(tmp_path):
    for step in range(1, 17):
        write_grid(tmp_path, step, shift=25 * (step % 2))
    everything = size(all_frames(tmp_path))
    frames = all_frames(tmp_path, most=everything // 3)
    assert size(frames) <= everything // 3
    assert 1 < len(frames) < 16


def test_encoded_grids_are_cached(tmp_path, monkeypatch):
    read: list[Path] = []

    def counting(path):
        read.append(path)
        return read_frame(path)

    monkeypatch.setattr(frames_module, "read_frame", counting)
    frames = Frames(tmp_path, 10**9)
    for step in range(1, MAX_FRAMES + 3):
        write_grid(tmp_path, step)
        frames.select(step)
    assert len(read) == MAX_FRAMES + 2


def test_rewritten_grid_is_reloaded(tmp_path):
    frames = Frames(tmp_path, 10**9)
    path = write_grid(tmp_path, 1)
    before = frames.select(1)[1].images["real_a"]
    write_grid(tmp_path, 1, shift=60)
    os.utime(path, ns=(1, 1))
    assert frames.select(1)[1].images["real_a"] != before


def test_report_of_resumed_run_omits_later_rows(tmp_path):
    for step in (1, 2, 3):
        write_grid(tmp_path, step)
    assert list(all_frames(tmp_path, last_step=2)) == [1, 2]


def test_real_images_are_stored_once_unless_changed(tmp_path):
    write_grid(tmp_path, 1)
    write_grid(tmp_path, 2)
    write_grid(tmp_path, 3, shift=25)
    write_grid(tmp_path, 4, shift=25, count=1)
    found = document(all_frames(tmp_path))
    assert [frame["real"] for frame in found["frames"]] == [0, 0, 1, 2]
    assert [frame["step"] for frame in found["frames"]] == [1, 2, 3, 4]
    assert len(found["real"]) == 3
    assert set(found["real"][0]) == {"real_a", "real_b"}
    assert set(found["frames"][0]) == {"step", "real", "fake_b", "rec_a", "fake_a", "rec_b"}
