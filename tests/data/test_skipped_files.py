"""Image files that a search through a folder passes over."""

import os

import pytest

from cyclegan_cli.config import TrainConfig
from cyclegan_cli.data.folder import SkippedFiles, list_images
from cyclegan_cli.errors import DataError
from cyclegan_cli.inspection import describe
from cyclegan_cli.inspection.summary import Request
from cyclegan_cli.training.split import split_images
from cyclegan_cli.translation.inputs import Inputs
from cyclegan_cli.translation.outputs import TranslationPlan, resolve_naming
from images import encoded, noise, saved, written


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    saved(folder / "a.png", noise())
    written(folder / "raw.DNG", b"II*\0")
    written(folder / "sub/more.dng", b"")
    written(folder / "new.jxl", b"\xff\x0a")
    written(folder / "sub/no extension", encoded(noise(), "JPEG"))
    written(folder / "x.png_large", encoded(noise(), "PNG"))
    written(folder / "sub/codestream", b"\xff\x0a" + bytes(20))
    written(folder / "notes.txt", b"no image")
    written(folder / "film.ts", b"\0\0\0\x18ftypisom" + bytes(20))
    written(folder / ".hidden.dng", b"")
    os.mkfifo(folder / "pipe")
    return folder


def test_skipped_files_are_counted_by_extension(folder):
    passed_over = SkippedFiles()
    assert len(list_images(folder, passed_over)) == 1
    assert passed_over.counts == {".dng": 2, ".jxl": 1, "without extension": 2, ".png_large": 1}
    sentence = passed_over.sentence("photos")
    assert sentence.startswith("photos: 6 image files were skipped: 2 .dng, ")
    assert "convert" in sentence
    assert "rename" in sentence
    assert "\n" not in sentence
    assert SkippedFiles().sentence() == ""


def test_translate_counts_skipped_files_once(folder, tmp_path):
    inputs = Inputs((str(folder),))
    naming = resolve_naming(str(tmp_path / "out"), inputs.first_two(), "night", None, None, None)
    plan = TranslationPlan(inputs, naming)
    assert plan.images == 1
    assert plan.skipped.startswith("6 image files were skipped")
    shallow = Inputs((str(folder),), recursive=False)
    assert TranslationPlan(shallow, naming).skipped.startswith("3 image files were skipped")


def test_folder_of_skipped_files_only_is_reported(folder):
    (folder / "a.png").unlink()
    with pytest.raises(DataError, match="has no images") as caught:
        next(Inputs((str(folder),)).checked(SkippedFiles()))
    assert "6 image files were skipped" in caught.value.hint
    with pytest.raises(DataError, match="has no images") as caught:
        split_images(TrainConfig(domain_a=folder, domain_b=folder))
    assert "6 image files were skipped" in caught.value.hint


def test_inspect_counts_skipped_files(folder):
    assert describe(folder, Request()).facts["passed_over"][".dng"] == 2
