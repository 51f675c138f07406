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


@pytest.mark.parametrize(
    ("images", "others"),
    [
        (["a.JPG", "a/b/c/d.jpeg", "b/1.webp", "b/2.png", "c.tiff"], []),
        (["seen.png"], [".hidden.png", "._seen.png", ".cache/1.png", "a/.b/2.png"]),
        (["eaDir/seen.png"], ["@eaDir/seen.png/thumb.jpg", "a/@eaDir/b.jpg", "#recycle/c.png"]),
        (["seen.png"], ["notes.txt", "clip.mp4", "png", "x.png.part", "x.eps", "x.pdf"]),
        (["album.png/1.png"], []),
        ([], []),
    ],
    ids=["subfolders", "hidden", "system", "extensions", "folder with an extension", "empty"],
)
def test_images_are_listed_by_relative_path(tmp_path, images, others):
    touch(tmp_path, *reversed(images), *others)
    assert listed(tmp_path) == images


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file.png", "file.png is not a folder: found a file"),
        ("missing", "missing is not a folder: found nothing"),
        ("n" * 300, "nnn"),
    ],
)
def test_list_images_without_a_folder_is_an_error(tmp_path, name, message):
    touch(tmp_path, "file.png")
    with pytest.raises(DataError, match=message):
        list_images(tmp_path / name)


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
def test_run_folders_are_not_searched(tmp_path, files):
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
