"""Fixtures of the tests of the command line."""

import shutil
from pathlib import Path

import pytest

from cyclegan_cli.training import estimate


@pytest.fixture
def here(tmp_path, run_folder, draw, monkeypatch):
    """The current folder: a run below ``runs``, and ``photos`` with three images."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run_folder, "runs/day2night")
    for name in ("a.png", "b.jpg", "sub/c.png"):
        draw(Path("photos") / name)
    return tmp_path


@pytest.fixture
def known_cost(monkeypatch):
    """``train --dry-run`` takes 2 s and 500 MB for a step, without a process that measures."""
    cost = estimate.StepCost(memory=500_000_000, seconds=2.0, steps=5)
    monkeypatch.setattr(estimate, "measure_steps", lambda plan: cost)
