"""The images in a folder."""

import os
from pathlib import Path

import pytest

from cyclegan_cli.data.folder import duplicates, list_images, walk_images
from cyclegan_cli.errors import DataError
from images import lock


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def listed(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in list_images(folder)]


def test_images_of_all_subfolders_are_listed_by_relative_path(tmp_path):
    touch(tmp_path, "b/2.png", "b/1.webp", "a.JPG", "c.tiff", "a/b/c/d.jpeg")
    assert listed(tmp_path) == ["a.JPG", "a/b/c/d.jpeg", "b/1.webp", "b/2.png", "c.tiff"]


def test_hidden_files_and_folders_are_left_out(tmp_path):
    touch(tmp_path, "seen.png", ".hidden.png", "._seen.png", ".cache/1.png", "a/.b/2.png")
    assert listed(tmp_path) == ["seen.png"]


def test_folders_of_network_drives_and_systems_are_left_out(tmp_path):
    touch(tmp_path, "seen.png", "@eaDir/seen.png/thumb.jpg", "a/@eaDir/b.jpg", "#recycle/c.png")
    touch(tmp_path, "eaDir/seen.png")
    assert listed(tmp_path) == ["eaDir/seen.png", "seen.png"]


@pytest.mark.parametrize("name", ["notes.txt", "clip.mp4", "png", "x.png.part", "x.eps", "x.pdf"])
def test_files_that_are_not_named_like_images_are_left_out(tmp_path, name):
    touch(tmp_path, "seen.png", name)
    assert listed(tmp_path) == ["seen.png"]


def test_folder_with_image_extension_is_not_listed(tmp_path):
    touch(tmp_path, "album.png/1.png")
    assert listed(tmp_path) == ["album.png/1.png"]


def test_an_empty_folder_has_no_images(tmp_path):
    assert list_images(tmp_path) == []


@pytest.mark.parametrize(("name", "found"), [("file.png", "a file"), ("missing", "nothing")])
def test_list_images_of_a_file_is_an_error(tmp_path, name, found):
    touch(tmp_path, "file.png")
    with pytest.raises(DataError, match=f"{name} is not a folder: found {found}"):
        list_images(tmp_path / name)


def test_folder_with_too_long_name_is_an_error(tmp_path):
    with pytest.raises(DataError, match="nnn"):
        list_images(tmp_path / ("n" * 300))


def test_unreadable_folder_is_an_error(tmp_path, monkeypatch):
    lock(monkeypatch, tmp_path)
    with pytest.raises(DataError, match=f"{tmp_path.name}: Permission denied"):
        list_images(tmp_path)


def test_circular_symlink_is_an_error(tmp_path):
    touch(tmp_path, "seen.png")
    (tmp_path / "circle.png").symlink_to("circle.png")
    (tmp_path / "circle").symlink_to("circle")
    assert listed(tmp_path) == ["circle.png", "seen.png"]


def test_unreadable_subfolder_is_yielded(tmp_path, monkeypatch):
    touch(tmp_path, "a.png", "locked/1.png", "z.png")
    lock(monkeypatch, tmp_path / "locked")
    assert [*walk_images(tmp_path, unlistable=True)] == ["a.png", "locked", "z.png"]
    with pytest.raises(DataError, match="locked: Permission denied"):
        list_images(tmp_path)


@pytest.mark.parametrize("files", [["model.safetensors"], ["config.toml", "metrics.csv"]])
def test_run_folders_below_are_not_searched(tmp_path, files):
    (tmp_path / "runs/a2b/samples").mkdir(parents=True)
    (tmp_path / "weights").mkdir()
    images = ["0.png", "runs/1.png", "weights/2.png"]
    for name in (*images, "runs/a2b/samples/step_00000500.jpg", "weights/model.safetensors"):
        (tmp_path / name).touch()
    for name in files:
        (tmp_path / "runs/a2b" / name).touch()
    assert list_images(tmp_path) == [tmp_path / name for name in images]
    # Who names one means it.
    assert list_images(tmp_path / "runs/a2b") != []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_pipes_are_not_images(tmp_path):
    for name in ("1.png", "2.png"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "3.png").symlink_to("1.png")
    (tmp_path / "4.png").touch()
    (tmp_path / "5.png").symlink_to("4.png")
    (tmp_path / "6.png").symlink_to("nowhere")
    assert [path.name for path in list_images(tmp_path)] == ["4.png", "5.png", "6.png"]
    assert duplicates([tmp_path / "1.png", tmp_path / "2.png"]) == []
