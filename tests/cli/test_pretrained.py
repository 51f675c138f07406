"""The pretrained models in the package, used from the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclegan_cli.checkpoints.header import read_model_info
from cyclegan_cli.checkpoints.locate import pretrained_models

pytestmark = pytest.mark.cpu_features

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "summer-palace.jpg"
LARGEST = 8_000_000  # Bytes in the installed package.


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def brightness(path: Path) -> float:
    with Image.open(path) as image:
        return float(np.asarray(image.convert("L")).mean())


def test_pretrained_models_have_a_card_and_are_small():
    models = pretrained_models()
    assert [model.name for model in models] == ["day2night"]
    for model in models:
        assert model.path.stat().st_size <= LARGEST
        assert model.facts.keys() >= {"description", "data", "licence"}
        info = read_model_info(model.path)
        assert (info.kind, info.directions) == ("model", ("a2b", "b2a"))
        assert f"{info.name_a}2{info.name_b}" == model.name
        assert "/" not in json.dumps(info.training)


@pytest.mark.slow
def test_default_model_translates_a_photo(cyclegan, tmp_path):
    with Image.open(PHOTO) as image:
        image.resize((160, 107)).save(tmp_path / "photo.jpg")
    done = cyclegan("translate", "photo.jpg")
    assert done.code == 0, done.err
    assert "checkpoint: day2night, a model that comes with cyclegan-cli" in done.err
    night = tmp_path / "photo_night.jpg"
    with Image.open(night) as image:
        assert image.size == (160, 107)
    assert brightness(night) < 0.75 * brightness(tmp_path / "photo.jpg")
    done = cyclegan("translate", str(night), "--to", "day", "--checkpoint", "day2night")
    assert done.code == 0, done.err
    assert brightness(tmp_path / "photo_night_day.jpg") > 1.2 * brightness(night)


def test_models_lists_pretrained_models(cyclegan, tmp_path):
    done = cyclegan("inspect", "--models")
    assert done.code == 0, done.err
    assert "day2night\n" in done.out
    assert "day -> night, night -> day" in done.out
    [line] = cyclegan("inspect", "--models", "--json").out.splitlines()
    found = json.loads(line)
    assert (found["schema"], found["kind"], found["name"]) == (1, "pretrained", "day2night")
    assert found["domains"] == {"a": "day", "b": "night"}
    assert Path(found["path"]).is_file()
    assert Path(found["card"]).is_file()
    assert found["licence"]


@pytest.mark.slow
def test_commands_accept_pretrained_names(cyclegan, tmp_path):
    done = cyclegan("inspect", "day2night", "--json")
    assert json.loads(done.out)["kind"] == "model"
    done = cyclegan("export", "day2night", "--format", "safetensors", "-o", "x.safetensors")
    assert done.code == 0, done.err
    assert (tmp_path / "x.safetensors").is_file()


@pytest.mark.parametrize("arguments", [[], ["--models", "x.safetensors"]])
def test_models_and_paths_exclude_each_other(cyclegan, arguments):
    done = cyclegan("inspect", *arguments)
    assert done.code == 2
    assert done.err.startswith("error: ")


def test_unknown_name_is_refused_with_a_hint(cyclegan, tmp_path):
    done = cyclegan("translate", str(PHOTO), "--checkpoint", "night2day")
    assert done.code == 4
    assert "error: there is no checkpoint night2day" in done.err
    assert "cyclegan inspect --models" in done.err


@pytest.mark.slow
def test_verbose_names_device_and_precision(cyclegan, tmp_path):
    with Image.open(PHOTO) as image:
        image.resize((60, 40)).save(tmp_path / "photo.png")
    done = cyclegan("translate", "photo.png", "--verbose", "--device", "cpu")
    assert done.code == 0, done.err
    assert " on cpu (" in done.err
    assert "day -> night, 32 channels, 6 residual blocks, in " in done.err
    assert "memory: no limit; " in done.err
    assert "photo_night.png (60x40, " in done.err
    assert cyclegan("translate", "photo.png", "-v", "-q").code == 2
