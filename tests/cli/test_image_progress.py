"""The display of an image that takes long."""

import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from cyclegan_cli.cli import console, image_progress
from cyclegan_cli.cli.image_progress import ImageProgress


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(image_progress, "FIRST_SECONDS", 0)
    monkeypatch.setattr(image_progress, "LINE_SECONDS", 0)


def test_lines_show_the_fraction_and_the_time_left(cyclegan, checkpoint, tmp_path, at_once):
    Image.fromarray(np.zeros((40, 64, 3), np.uint8)).save(tmp_path / "x.png")
    command = ("translate", tmp_path / "x.png", "--checkpoint", checkpoint, "--overwrite")
    answer = cyclegan(*command, "-o", tmp_path / "y.png", "--json")
    assert answer.code == 0
    assert len(answer.documents) == 2
    lines = [line for line in answer.err.splitlines() if line.startswith("translating 64x40")]
    assert len(lines) > 1
    assert lines[-1].endswith("0:00:00 left")
    shares = [int(line.split(": ")[1].split("%")[0]) for line in lines]
    assert shares == sorted(shares)
    assert "translating" not in cyclegan(*command, "-o", tmp_path / "y.png", "-q").err


def test_images_of_seconds_have_no_display(cyclegan, checkpoint, tmp_path):
    Image.fromarray(np.zeros((40, 64, 3), np.uint8)).save(tmp_path / "x.png")
    answer = cyclegan("translate", tmp_path / "x.png", "--checkpoint", checkpoint)
    assert "translating" not in answer.err


def test_terminals_show_a_bar_for_each_image(monkeypatch, at_once):
    text = io.StringIO()
    terminal = Console(file=text, force_terminal=True, width=100)
    monkeypatch.setattr(console, "stderr", lambda: terminal)
    progress = ImageProgress()
    progress.on_message("feature maps are stored")
    for width in (700, 800):
        for done in (0.1, 0.5, 1.0):
            progress.on_progress(width, 600, done)
    progress.close()
    progress.close()
    shown = text.getvalue()
    assert "feature maps are stored" in shown
    assert "translating 700x600 pixels" in shown
    assert "translating 800x600 pixels" in shown
    quiet = ImageProgress(quiet=True)
    text.truncate(0)
    quiet.on_message("nothing")
    quiet.on_progress(700, 600, 0.5)
    quiet.close()
    assert text.getvalue().strip("\0") == ""
