"""Inputs: files, folders, globs and lists of paths."""

import glob
import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyclegan_cli.errors import DataError, UsageError
from cyclegan_cli.files import TEMPORARY_PREFIX
from cyclegan_cli.translation.inputs import (
    CHUNK_BYTES,
    LONGEST_PATH,
    InputImage,
    Inputs,
    PathList,
    iglob_sorted,
)
from images import lock

PATHS = st.text(st.characters(exclude_characters="\0\r\n\ufeff", codec="utf-8"), min_size=1)


def listed(content: bytes, null: bool = False) -> list[str]:
    return [*PathList(io.BytesIO(content), "list.txt", null)]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("p/a.jpg", "p/sub/b.png", "p/sub/deep/c.png", f"p/{TEMPORARY_PREFIX}12.tmp"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return tmp_path


# Lists


@given(st.lists(PATHS))
def test_path_list_yields_one_path_per_line(paths):
    assert listed("".join(f"{path}\n" for path in paths).encode()) == paths
    assert listed("\n".join(paths).encode()) == paths
    assert listed("\0".join(paths).encode(), null=True) == paths


def test_path_list_accepts_crlf_and_empty_lines():
    assert listed(b"a.jpg\r\n\r\n\nb.jpg\r\n") == ["a.jpg", "b.jpg"]
    assert listed(b"") == []
    assert listed(b"a\nb.jpg\0\0c.jpg\0", null=True) == ["a\nb.jpg", "c.jpg"]


def test_path_list_longer_than_chunk_can_be_iterated_twice():
    paths = [f"{number:06d}.jpg" for number in range(2 * CHUNK_BYTES // 10)]
    path_list = PathList(io.BytesIO("\n".join(paths).encode()), "x", False)
    assert [*path_list] == [*path_list] == paths


def test_path_list_ignores_utf8_bom():
    assert listed(b"\xef\xbb\xbfa.jpg\nb.jpg\n") == ["a.jpg", "b.jpg"]
    assert listed(b"\xef\xbb\xbfa.jpg\0", null=True) == ["\ufeffa.jpg"]


def test_unreadable_folder_in_path_list_is_yielded(here, monkeypatch):
    lock(monkeypatch, here / "p")
    inputs = Inputs(listed=PathList(io.BytesIO(b"p\nx.jpg\n"), "list", False))
    assert [source.path for source in inputs.checked()] == ["p", "x.jpg"]
    assert [source.path for source in inputs] == ["p", "x.jpg"]


def test_path_list_preserves_non_utf8_names():
    assert listed(b"\xff\xfe.jpg\n") == ["\udcff\udcfe.jpg"]


@pytest.mark.parametrize(
    ("content", "null", "hint"),
    [
        (b"a.jpg\0b.jpg\0", False, "Use -0 if NUL bytes separate the paths."),
        (b"x" * (LONGEST_PATH + CHUNK_BYTES + 1), False, "Use -0 if NUL bytes separate the paths."),
        (b"a.jpg\n" * (LONGEST_PATH // 2), True, "Leave out -0 if newlines separate the paths."),
    ],
)
def test_path_list_refuses_wrong_separator(content, null, hint):
    with pytest.raises(UsageError, match="not a list of paths") as caught:
        listed(content, null)
    assert caught.value.hint == hint


@pytest.mark.parametrize("null", [False, True])
@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_path_list_refuses_utf16(codec, null):
    with pytest.raises(UsageError, match="UTF-16") as caught:
        listed("\ufeffa.jpg\n".encode(codec), null)
    assert "iconv" in caught.value.hint


def test_inaccessible_input_is_not_reported_as_missing(here, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "lstat", refuse)
    with pytest.raises(DataError, match="cannot access locked/a.jpg: permission denied"):
        list(Inputs(["locked/a.jpg"]).checked())


def test_missing_path_list_is_named(tmp_path):
    with pytest.raises(DataError, match="cannot read the list nothing.txt: no such file"):
        PathList.open("nothing.txt", False, None)
    with pytest.raises(DataError, match="is a directory"):
        PathList.open(str(tmp_path), False, None)
    with pytest.raises(UsageError, match="standard input is closed"):
        PathList.open("-", False, None)


# Arguments


def test_path_list_takes_names_literally_and_expands_folders(here):
    Path("[x]*.jpg").touch()
    inputs = Inputs(listed=PathList(io.BytesIO(b"[x]*.jpg\nnothing.jpg\np/sub\n*.jpg"), "x", False))
    expected = [
        InputImage("[x]*.jpg", "[x]*.jpg"),
        InputImage(
            "nothing.jpg", "nothing.jpg"
        ),  # It fails when it is read, and nothing else does.
        InputImage("p/sub/b.png", "b.png", "p/sub"),
        InputImage("p/sub/deep/c.png", "deep/c.png", "p/sub"),
        InputImage("*.jpg", "*.jpg"),
    ]
    assert [*inputs.checked()] == [*inputs] == expected


def test_folders_are_searched_recursively_unless_disabled(here):
    assert [s.path for s in Inputs(["p"])] == ["p/a.jpg", "p/sub/b.png", "p/sub/deep/c.png"]
    assert [s.path for s in Inputs(["p"], recursive=False)] == ["p/a.jpg"]
    Path("p/a.jpg").unlink()
    with pytest.raises(DataError, match="p has no images") as caught:
        list(Inputs(["p"], recursive=False).checked())
    assert "--no-recursive" in caught.value.hint


def test_temporary_files_are_not_inputs(here):
    name = f"p/{TEMPORARY_PREFIX}12.tmp"
    from_list = Inputs(listed=PathList(io.BytesIO(f"{name}\np/a.jpg".encode()), "x", False))
    assert [s.path for s in from_list] == ["p/a.jpg"]
    assert [s.path for s in Inputs(["p/.*", "p/*"])] == ["p/a.jpg"]


def test_root_determines_relative_paths(here):
    inputs = Inputs(["p/sub/b.png", "p/sub/deep", str(here / "p/a.jpg")], root="p")
    assert [s.relative_path for s in inputs] == ["sub/b.png", "sub/deep/c.png", "a.jpg"]
    with pytest.raises(UsageError, match="p/a.jpg is not inside --root p/sub"):
        list(Inputs(["p/a.jpg"], root="p/sub").checked())


def test_files_that_disappear_during_iteration_are_skipped(here):
    inputs = Inputs(["p", "p/sub/*.png"])
    assert len(list(inputs.checked())) == 4
    for name in ("p/a.jpg", "p/sub/b.png", "p/sub/deep/c.png"):
        Path(name).unlink()
    Path("p/sub/deep").rmdir()
    Path("p/sub").rmdir()
    assert list(inputs) == []


@pytest.fixture
def tree(tmp_path, monkeypatch):
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
def test_iglob_sorted_matches_same_files_as_glob(tree, pattern):
    expected = {
        os.path.normpath(path)
        for path in glob.glob(pattern, recursive=True)
        if os.path.isfile(path)
    }
    found = [*iglob_sorted(pattern)]
    assert {os.path.normpath(path) for path in found} == expected
    absolute = [*iglob_sorted(str(tree / pattern))]
    assert {os.path.relpath(path) for path in absolute} == expected


def test_iglob_sorted_sorts_each_folder(tree):
    assert [*iglob_sorted("*/*")] == ["x/a.png", "z/b.jpg"]
    assert [*iglob_sorted("**/*.png")] == ["[q].png", "a.png", "x/a.png", "x/y/c.png"]


def test_iglob_sorted_does_not_follow_link_cycles(tree):
    Path("x/up").symlink_to(tree)
    assert [*iglob_sorted("**/c.png")] == ["x/y/c.png"]
    assert [*iglob_sorted("x/up/x/y/*")] == ["x/up/x/y/c.png"]
