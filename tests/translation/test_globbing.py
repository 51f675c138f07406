"""Globs match what Python's own match, in a fixed order."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import pytest

from cyclegan_cli.translation.inputs import iglob_sorted


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.jpg", ".h.png", "x/a.png", "x/y/c.png", "x/y/.h.png", ".d/e.png",
                 "z/b.jpg", "z/y/d.jpg", "[q].png"):  # fmt: skip
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return tmp_path


@pytest.mark.parametrize(
    "pattern",
    ["*", "*.png", "?.png", "[ab].*", "*/*", "*/*.png", "**", "**/*", "**/*.png", "x/**", "x/**/*",
     "**/y/*", "**/y/**/*.png", "*/y/*.jpg", ".*", ".*/*", "**/.h.png", "nothing*", "nothing/*",
     "a.png/*", "./*.png", "x/../*.png", "**/**/c.png", "[[]q].png"],
)  # fmt: skip
def test_it_matches_what_glob_matches(tree: Path, pattern: str) -> None:
    expected = {
        os.path.normpath(path)
        for path in glob.glob(pattern, recursive=True)
        if os.path.isfile(path)
    }
    found = [*iglob_sorted(pattern)]
    assert {os.path.normpath(path) for path in found} == expected
    absolute = [*iglob_sorted(str(tree / pattern))]
    assert {os.path.relpath(path) for path in absolute} == expected


def test_each_folder_is_sorted(tree: Path) -> None:
    assert [*iglob_sorted("*/*")] == ["x/a.png", "z/b.jpg"]
    assert [*iglob_sorted("**/*.png")] == ["[q].png", "a.png", "x/a.png", "x/y/c.png"]


def test_a_link_to_a_folder_above_is_no_endless_way(tree: Path) -> None:
    Path("x/up").symlink_to(tree)
    assert [*iglob_sorted("**/c.png")] == ["x/y/c.png"]
    assert [*iglob_sorted("x/up/x/y/*")] == ["x/up/x/y/c.png"]
