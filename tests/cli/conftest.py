"""What the tests of ``cyclegan translate`` share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def here(
    tmp_path: Path, run_folder: Path, draw: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The current folder: a run below ``runs``, and ``photos`` with three images."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run_folder, "runs/day2night")
    for name in ("a.png", "b.jpg", "sub/c.png"):
        draw(Path("photos") / name)
    return tmp_path
