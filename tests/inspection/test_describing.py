"""Descriptions of files and folders."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import save_file

from cyclegan_cli.checkpoints.store import save_model
from cyclegan_cli.data import band_facts
from cyclegan_cli.errors import CheckpointError, DataError
from cyclegan_cli.inspection import Request, describe
from cyclegan_cli.inspection.images import MOST_LISTED
from original import original_generator


def document(path: Path) -> dict[str, Any]:
    """The description of a path, through strict JSON and back."""
    return json.loads(json.dumps(describe(path).to_document(), allow_nan=False))


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture
def own_run(run_folder, tmp_path):
    """A run folder that the test may change."""
    return shutil.copytree(run_folder, tmp_path / "run")


# Checkpoints


def test_describe_model(checkpoint, tiny_model):
    facts = document(checkpoint)
    assert facts["path"] == str(checkpoint)
    assert facts["kind"] == "model"
    assert facts["bytes"] == checkpoint.stat().st_size
    assert facts["domains"] == {"a": "day", "b": "night"}
    assert facts["generator"] == {
        "base_channels": 2,
        "residual_blocks": 1,
        "input_channels": 3,
        "output_channels": 3,
        "affine_norm": False,
        "resampling": "blur",
        "norms": "residual",
        "skips": True,
        "parameters": parameters(tiny_model.generator_a2b),
    }
    assert facts["dtypes"] == ["F32"]
    assert facts["training"]["step"] == 1
    assert facts["format_version"] == 5
    assert set(facts["versions"]) == {"cyclegan_cli", "safetensors", "torch"}
    assert "discriminator" not in facts


def test_describe_state(run_folder, tiny_model):
    facts = document(run_folder / "state.safetensors")
    assert facts["kind"] == "state"
    assert facts["generator"]["parameters"] == parameters(tiny_model.generator_a2b)
    assert facts["discriminator"] == {
        "base_channels": 2,
        "scales": 1,
        "parameters": parameters(tiny_model.discriminator_a),
    }
    assert facts["trained_seconds"] == 12.3


def test_describe_safetensors_of_another_program(tmp_path):
    save_file({"w": torch.zeros(3, 4), "b": torch.zeros(5)}, tmp_path / "x.safetensors")
    facts = document(tmp_path / "x.safetensors")
    assert (facts["kind"], facts["tensors"], facts["parameters"]) == ("safetensors", 2, 17)


# Runs


def test_describe_run(run_folder):
    facts = document(run_folder)
    assert facts["kind"] == "run"
    assert facts["bytes"] == sum(f.stat().st_size for f in run_folder.rglob("*") if f.is_file())
    assert facts["resumable"] is True
    assert facts["samples"] == 1
    assert facts["disk"]["model.safetensors"] == (run_folder / "model.safetensors").stat().st_size
    assert set(facts["disk"]) == {"model.safetensors", "state.safetensors", "samples"}
    assert facts["progress"] == {"step": 1, "of": 10}
    assert facts["trained_seconds"] == 12.3
    assert facts["last_metrics"] == {"step": 1, "cycle_a": 0.25}
    assert facts["domains"] == {"a": "day", "b": "night"}


def test_describe_run_without_state(own_run):
    (own_run / "state.safetensors").unlink()
    (own_run / "config.toml").unlink()
    facts = document(own_run)
    assert (facts["kind"], facts["resumable"]) == ("run", False)
    assert facts["generator"]["base_channels"] == 2


def test_describe_run_without_results(own_run):
    (own_run / "state.safetensors").unlink()
    (own_run / "model.safetensors").unlink()
    for table in own_run.glob("*.csv"):
        table.write_text(table.read_text().splitlines(keepends=True)[0])
    shutil.rmtree(own_run / "samples")
    facts = document(own_run)
    assert (facts["kind"], facts["resumable"]) == ("run", True)
    assert "generator" not in facts


def test_files_removed_meanwhile_are_skipped(own_run, monkeypatch):
    gone = own_run / "gone.tmp"
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: iter([gone]))
    monkeypatch.setattr(Path, "is_file", lambda self: self == gone or os.path.isfile(self))
    assert document(own_run)["bytes"] == 0


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"step,cycle_a\n1,0.25\n2", {"step": 1, "cycle_a": 0.25}),
        (b"step,cycle_a\n1,0.5\n\xff\xfe\n", {"step": 1, "cycle_a": 0.5}),
        (b"step,cycle_a\n1,nan\n", {"step": 1, "cycle_a": None}),
        (b"step,cycle_a\n1,-inf\n", {"step": 1, "cycle_a": None}),
        (b"step,cycle_a\n", None),
        (b"", None),
    ],
)
def test_last_whole_row_of_the_metrics(own_run, content, expected):
    (own_run / "metrics.csv").write_bytes(content)
    assert document(own_run).get("last_metrics") == expected


def test_describe_folder_of_runs(own_run):
    (own_run.parent / "begun").mkdir()
    for name in ("config.toml", "metrics.csv"):
        (own_run.parent / "begun" / name).touch()
    found = document(own_run.parent)
    assert found["kind"] == "runs"
    assert found["runs"]["begun"] == "no checkpoint"
    assert found["runs"][own_run.name]["of"] == 10


def test_damaged_run_does_not_hide_the_others(own_run):
    (own_run.parent / "broken").mkdir()
    (own_run.parent / "broken" / "state.safetensors").write_bytes(b"no checkpoint")
    found = document(own_run.parent)["runs"]
    assert "not a safetensors file" in found["broken"]
    assert found[own_run.name]["of"] == 10


def test_describe_best_model_and_last_validation(own_run, tiny_model, tiny_info):
    info = dataclasses.replace(tiny_info, training=tiny_info.training | {"step": 7, "swd": 0.25})
    save_model(own_run / "best.safetensors", tiny_model, info)
    (own_run / "validation.csv").write_text("step,swd_a2b\n7,0.2\n8,0.5\n")
    facts = document(own_run)
    assert facts["best"] == {"step": 7, "swd": 0.25}
    assert facts["last_validation"] == {"step": 8, "swd_a2b": 0.5}
    assert facts["training"]["step"] == 1
    assert facts["disk"]["best.safetensors"] == (own_run / "best.safetensors").stat().st_size


def test_best_model_without_swd(own_run, checkpoint):
    assert not {"best", "last_validation", "health"} & document(own_run).keys()
    shutil.copy(checkpoint, own_run / "best.safetensors")
    assert document(own_run)["best"] == {"step": 1}


VERDICT = {
    "kind": "inversion",
    "step": 7,
    "sentence": "Colours are inverted.",
    "advice": "Start again with --lambda-identity 0.5.",
}


@pytest.mark.parametrize("verdicts", [[], [VERDICT]])
def test_health_is_read_from_its_file(own_run, verdicts):
    written = {"schema": 1, "step": 9, "verdicts": verdicts}
    (own_run / "health.json").write_text(json.dumps(written))
    assert document(own_run)["health"] == {"step": 9, "verdicts": verdicts}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"schema": 1, "step": 9}',
        b'{"schema": 2, "step": 9, "verdicts": []}',
        b'{"schema": 1, "step": "9", "verdicts": []}',
        b'{"schema": 1, "step": 1e999, "verdicts": []}',
        b'{"schema": 1, "step": 9, "verdicts": 5}',
        b'{"schema": 1, "step": 9, "verdicts": [5]}',
        b'{"schema": 1, "step": 9, "verdicts": [{"kind": "x"}]}',
        b'{"schema": 1, "step": 9, "verdicts": '
        b'[{"kind": "x", "step": 1, "sentence": ["x"], "advice": "x"}]}',
        b'{"schema": 1, "step": 9, "verdicts": []}' + b" " * 1_000_000,
        b"[" * 100_000,
    ],
)
def test_damaged_health_file_is_ignored(own_run, content):
    (own_run / "health.json").write_bytes(content)
    facts = document(own_run)
    assert "health" not in facts
    assert facts["progress"]["step"] == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
@pytest.mark.parametrize("name", ["health.json", "metrics.csv"])
def test_pipes_in_a_run_are_not_opened(own_run, name):
    (own_run / name).unlink(missing_ok=True)
    os.mkfifo(own_run / name)
    assert document(own_run)["progress"]["step"] == 1


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors"])
def test_damaged_checkpoint_of_a_run_is_named(own_run, name):
    (own_run / name).write_bytes(b"damaged file")
    with pytest.raises(CheckpointError, match=name):
        describe(own_run)


# Images


def test_describe_image(draw, tmp_path):
    photo = draw(tmp_path / "photo.jpg", (30, 20), "L")
    assert document(photo) == {
        "schema": 1,
        "path": str(photo),
        "kind": "picture",
        "bytes": photo.stat().st_size,
        "format": "JPEG",
        "mode": "L",
        "width": 30,
        "height": 20,
        "frames": 1,
    }


def test_describe_folder_of_images(draw, tmp_path):
    draw(tmp_path / "a.png", (10, 40))
    draw(tmp_path / "b.png", (30, 20), "L")
    draw(tmp_path / "sub" / "c.jpg", (26, 50))
    (tmp_path / "notes.txt").touch()
    found = document(tmp_path)
    assert found.pop("colours")["sampled"] == 3
    assert found == {
        "schema": 1,
        "path": str(tmp_path),
        "kind": "pictures",
        "pictures": 3,
        "unreadable": 0,
        "duplicates": 0,
        "formats": {"PNG": 2, "JPEG": 1},
        "modes": {"RGB": 2, "L": 1},
        "short_side": {"smallest": 10, "median": 20, "largest": 26},
        "long_side": {"smallest": 30, "median": 40, "largest": 50},
    }


def test_unreadable_images_are_counted_and_named(draw, tmp_path):
    draw(tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    content = draw(tmp_path / "cut.png", (64, 64)).read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    facts = document(tmp_path)
    assert (facts["pictures"], facts["unreadable"]) == (3, 2)
    bad, cut = facts["problems"]
    assert "bad.jpg" in bad
    assert "cut.png" in cut


def test_list_of_unreadable_images_is_limited(tmp_path):
    for index in range(MOST_LISTED + 5):
        (tmp_path / f"{index:03d}.jpg").touch()
    facts = document(tmp_path)
    assert facts["unreadable"] == MOST_LISTED + 5
    assert len(facts["problems"]) == MOST_LISTED
    assert "000.jpg" in facts["problems"][0]


def test_describe_empty_folder(tmp_path):
    assert document(tmp_path) | {"path": ""} == {
        "schema": 1,
        "path": "",
        "kind": "pictures",
        "pictures": 0,
        "unreadable": 0,
        "duplicates": 0,
    }


def test_colours_are_averages_over_images(tmp_path):
    Image.new("RGB", (90, 80), (200, 0, 0)).save(tmp_path / "red.png")
    Image.new("L", (80, 90), 100).save(tmp_path / "grey.png")
    colours = document(tmp_path)["colours"]
    assert (colours["sampled"], colours["red"], colours["green"]) == (2, 150.0, 50.0)
    assert colours["brightness"] == {"smallest": 60.0, "median": 80.0, "largest": 100.0}
    assert colours["saturation"] == {"smallest": 0.0, "median": 127.5, "largest": 255.0}
    assert colours["contrast"]["largest"] == 0.0


def test_colours_are_sampled_without_full(draw, tmp_path, monkeypatch):
    monkeypatch.setattr("cyclegan_cli.inspection.images.SAMPLE", 3)
    for index in range(8):
        draw(tmp_path / f"{index}.png", (10 + index, 10))
    assert describe(tmp_path).facts["colours"]["sampled"] == 3
    assert describe(tmp_path, Request(full=True)).facts["colours"]["sampled"] == 8


def test_duplicates_are_named(draw, tmp_path):
    draw(tmp_path / "a.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "b.png")
    draw(tmp_path / "c.png", (14, 10))
    facts = document(tmp_path)
    assert (facts["duplicates"], facts["same"]) == (1, ["a.png = b.png"])


# Files of torch.save


def test_describe_pth_file(tmp_path):
    network = original_generator(affine=True, channels=(1, 3))
    torch.save(network.state_dict(), tmp_path / "horse2zebra.pth")
    facts = document(tmp_path / "horse2zebra.pth")
    assert (facts["kind"], facts["directions"]) == ("reference", ["a2b"])
    assert facts["domains"] == {"a": "horse", "b": "zebra"}
    assert facts["generator"] == {
        "base_channels": 4, "residual_blocks": 2, "input_channels": 1, "output_channels": 3,
        "affine_norm": True, "resampling": "strided", "norms": "all", "skips": False,
        "parameters": parameters(network),
    }  # fmt: skip


def test_describe_pth_folder(tmp_path):
    for letter in "AB":
        torch.save(original_generator().state_dict(), tmp_path / f"latest_net_G_{letter}.pth")
    facts = document(tmp_path)
    assert (facts["kind"], facts["directions"]) == ("reference", ["a2b", "b2a"])
    listed = describe(tmp_path, Request(weights=True)).facts["weights"]
    assert listed[0]["name"] == "latest_net_G_A.pth: model.1.weight"


def test_describe_other_torch_file(tmp_path):
    torch.save({"w": torch.zeros(3, 4)}, tmp_path / "x.pth")
    facts = document(tmp_path / "x.pth")
    assert (facts["kind"], facts["tensors"], facts["parameters"]) == ("torch", 1, 12)
    assert "has no generator" in facts["problem"]


# Details that are asked for


def test_describe_weights(checkpoint, run_folder, tiny_model):
    listed = describe(checkpoint, Request(weights=True)).facts["weights"]
    [stem] = [tensor for tensor in listed if tensor["name"] == "generator_a2b.stem.conv.weight"]
    assert (stem["dtype"], stem["shape"]) == ("F32", [2, 3, 7, 7])
    assert stem["statistics"]["largest"] == tiny_model.generator_a2b.stem.conv.weight.max().item()
    assert describe(run_folder, Request(weights=True)).facts["weights"] == listed
    assert "weights" not in describe(checkpoint).facts


def test_describe_receptive_field(run_folder):
    facts = describe(run_folder / "state.safetensors", Request(receptive_field=True)).facts
    assert facts["generator"]["receptive_field"] == 51
    assert facts["generator"]["memory_mb_per_megapixel"] == 20.0
    assert facts["discriminator"]["receptive_field"] == 70


# Nothing


@pytest.mark.parametrize("name", ["nothing", "nothing.safetensors", "nothing.jpg", "link.jpg"])
def test_missing_path_is_refused(tmp_path, name):
    (tmp_path / "link.jpg").symlink_to("nothing")
    with pytest.raises(DataError, match="there is no file or folder"):
        describe(tmp_path / name)


@pytest.mark.parametrize("name", ["notes.txt", "photo.jpg", "noending"])
def test_unknown_file_is_refused(tmp_path, name):
    (tmp_path / name).write_text("hello")
    with pytest.raises(DataError, match="not an image"):
        describe(tmp_path / name)


def test_image_with_damaged_pixels_has_a_problem(tmp_path, draw):
    path = draw(tmp_path / "a.png")
    content = bytearray(path.read_bytes())
    content[-30] ^= 1
    path.write_bytes(content)
    facts = describe(path, Request()).facts
    assert facts["format"] == "PNG"
    assert "it is damaged: the checksum of a chunk IDAT is wrong" in facts["problem"]


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_describe_tiff_of_one_band_as_an_array(tmp_path, dtype):
    values = np.arange(70 * 90).reshape(70, 90).astype(dtype)
    tifffile.imwrite(tmp_path / "0.tif", values)
    found = document(tmp_path)
    assert found["modes"] == {f"1 channel of {dtype}": 1}
    assert found["unreadable"] == 0
    [channel] = found["values"]["channels"]
    assert (channel["smallest"], channel["largest"]) == (0, 6299)


def test_values_of_large_tiffs_are_sampled(tmp_path, monkeypatch):
    values = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="minisblack", tile=(16, 16))
    assert "sampled_pixels" not in document(tmp_path / "x.tif")["values"]
    monkeypatch.setattr(band_facts, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(band_facts, "SAMPLED_VALUES", 500)
    for path in (tmp_path / "x.tif", tmp_path):
        facts = document(path)
        assert 0.05 < facts["values"]["sampled_pixels"] < 0.15
        assert facts["values"]["channels"][0]["largest"] == pytest.approx(4000, abs=300)
