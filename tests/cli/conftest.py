"""Fixtures of the tests of ``cyclegan translate``."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def here(tmp_path, run_folder, draw, monkeypatch):
    """The current folder: a run below ``runs``, and ``photos`` with three images."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run_folder, "runs/day2night")
    for name in ("a.png", "b.jpg", "sub/c.png"):
        draw(Path("photos") / name)
    return tmp_path
