"""The images that arguments and lists stand for."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyclegan_cli.errors import DataError, UsageError
from cyclegan_cli.files import TEMPORARY_PREFIX
from cyclegan_cli.translation.inputs import CHUNK_BYTES, LONGEST_PATH, InputImage, Inputs, PathList
from images import lock

PATHS = st.text(st.characters(exclude_characters="\0\r\n\ufeff", codec="utf-8"), min_size=1)


def listed(content: bytes, null: bool = False) -> list[str]:
    return [*PathList(io.BytesIO(content), "list.txt", null)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("p/a.jpg", "p/sub/b.png", "p/sub/deep/c.png", f"p/{TEMPORARY_PREFIX}12.tmp"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return tmp_path


# Lists


@given(st.lists(PATHS))
def test_a_list_has_a_path_a_line(paths: list[str]) -> None:
    assert listed("".join(f"{path}\n" for path in paths).encode()) == paths
    assert listed("\n".join(paths).encode()) == paths
    assert listed("\0".join(paths).encode(), null=True) == paths


def test_lists_from_other_systems_and_with_gaps_are_read() -> None:
    assert listed(b"a.jpg\r\n\r\n\nb.jpg\r\n") == ["a.jpg", "b.jpg"]
    assert listed(b"") == []
    assert listed(b"a\nb.jpg\0\0c.jpg\0", null=True) == ["a\nb.jpg", "c.jpg"]


def test_a_list_can_be_read_again_and_is_longer_than_a_chunk() -> None:
    paths = [f"{number:06d}.jpg" for number in range(2 * CHUNK_BYTES // 10)]
    path_list = PathList(io.BytesIO("\n".join(paths).encode()), "x", False)
    assert [*path_list] == [*path_list] == paths


def test_a_mark_of_utf_8_at_the_beginning_is_no_part_of_a_name() -> None:
    assert listed(b"\xef\xbb\xbfa.jpg\nb.jpg\n") == ["a.jpg", "b.jpg"]
    assert listed(b"\xef\xbb\xbfa.jpg\0", null=True) == ["\ufeffa.jpg"]


def test_a_listed_folder_that_cannot_be_listed_is_there_to_fail(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock(monkeypatch, here / "p")
    inputs = Inputs(listed=PathList(io.BytesIO(b"p\nx.jpg\n"), "list", False))
    assert [source.path for source in inputs.checked()] == ["p", "x.jpg"]
    assert [source.path for source in inputs] == ["p", "x.jpg"]


def test_names_that_are_not_utf_8_survive() -> None:
    assert listed(b"\xff\xfe.jpg\n") == ["\udcff\udcfe.jpg"]


@pytest.mark.parametrize(
    ("content", "null", "hint"),
    [
        (b"a.jpg\0b.jpg\0", False, "With -0 NUL bytes do."),
        (b"x" * (LONGEST_PATH + CHUNK_BYTES + 1), False, "With -0 NUL bytes do."),
        (b"a.jpg\n" * (LONGEST_PATH // 2), True, "Without -0 newlines do."),
    ],
)
def test_what_is_no_list_is_refused(content: bytes, null: bool, hint: str) -> None:
    with pytest.raises(UsageError, match="no list of paths") as caught:
        listed(content, null)
    assert caught.value.hint == hint


@pytest.mark.parametrize("null", [False, True])
@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_a_list_in_utf_16_is_told_for_what_it_is(codec: str, null: bool) -> None:
    with pytest.raises(UsageError, match="UTF-16") as caught:
        listed("\ufeffa.jpg\n".encode(codec), null)
    assert "iconv" in caught.value.hint


def test_a_file_that_may_not_be_looked_at_is_not_called_missing(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "lstat", refuse)
    with pytest.raises(DataError, match="cannot look at locked/a.jpg: permission denied"):
        list(Inputs(["locked/a.jpg"]).checked())


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the list nothing.txt: no such file"):
        PathList.open("nothing.txt", False, None)
    with pytest.raises(DataError, match="is a directory"):
        PathList.open(str(tmp_path), False, None)
    with pytest.raises(UsageError, match="standard input is closed"):
        PathList.open("-", False, None)


# Arguments


def test_lists_take_names_as_they_are_and_folders_too(here: Path) -> None:
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


def test_folders_are_searched_in_depth_or_not(here: Path) -> None:
    assert [s.path for s in Inputs(["p"])] == ["p/a.jpg", "p/sub/b.png", "p/sub/deep/c.png"]
    assert [s.path for s in Inputs(["p"], recursive=False)] == ["p/a.jpg"]
    Path("p/a.jpg").unlink()
    with pytest.raises(DataError, match="p has no images") as caught:
        list(Inputs(["p"], recursive=False).checked())
    assert "--no-recursive" in caught.value.hint


def test_files_that_a_killed_run_left_are_no_inputs(here: Path) -> None:
    name = f"p/{TEMPORARY_PREFIX}12.tmp"
    from_list = Inputs(listed=PathList(io.BytesIO(f"{name}\np/a.jpg".encode()), "x", False))
    assert [s.path for s in from_list] == ["p/a.jpg"]
    assert [s.path for s in Inputs(["p/.*", "p/*"])] == ["p/a.jpg"]


def test_places_below_a_root_are_kept(here: Path) -> None:
    inputs = Inputs(["p/sub/b.png", "p/sub/deep", str(here / "p/a.jpg")], root="p")
    assert [s.relative_path for s in inputs] == ["sub/b.png", "sub/deep/c.png", "a.jpg"]
    with pytest.raises(UsageError, match="p/a.jpg is not below --root p/sub"):
        list(Inputs(["p/a.jpg"], root="p/sub").checked())


def test_what_goes_while_the_work_is_done_is_passed_over(here: Path) -> None:
    inputs = Inputs(["p", "p/sub/*.png"])
    assert len(list(inputs.checked())) == 4
    for name in ("p/a.jpg", "p/sub/b.png", "p/sub/deep/c.png"):
        Path(name).unlink()
    Path("p/sub/deep").rmdir()
    Path("p/sub").rmdir()
    assert list(inputs) == []
