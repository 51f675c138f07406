"""Comparisons of two checkpoints."""

import dataclasses
import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from cyclegan_cli.checkpoints.header import read_header
from cyclegan_cli.checkpoints.store import save_model
from cyclegan_cli.errors import CheckpointError
from cyclegan_cli.inspection.comparison import compare
from cyclegan_cli.models.cyclegan import CycleGAN
from original import original_generator


def test_distance_of_a_checkpoint_to_itself_is_zero(run_folder):
    state = run_folder / "state.safetensors"
    document = json.loads(json.dumps(compare(state, state).to_document(), allow_nan=False))
    assert (document["schema"], document["kind"]) == (1, "comparison")
    assert document["same_architecture"] is True
    assert document["differences"] == {}
    names = ("generator_a2b", "generator_b2a", "discriminator_a", "discriminator_b")
    nowhere = {"relative_distance": 0.0, "largest_difference": 0.0}
    assert document["weights"] == dict.fromkeys(names, nowhere)


def test_compare_names_differences_of_training_and_weights(
    run_folder, tiny_model, tiny_info, tmp_path
):
    other = CycleGAN(tiny_model.config, torch.device("cpu"), False)
    for direction in ("generator_a2b", "generator_b2a"):
        scaled = {n: 3 * t for n, t in getattr(tiny_model, direction).state_dict().items()}
        getattr(other, direction).load_state_dict(scaled)
    info = dataclasses.replace(tiny_info, training=tiny_info.training | {"step": 9})
    save_model(tmp_path / "x.safetensors", other, info)
    facts = compare(run_folder, tmp_path / "x.safetensors").facts
    assert facts["differences"] == {"training.step": [1, 9]}
    assert facts["weights"]["generator_a2b"]["relative_distance"] == pytest.approx(2)
    assert "discriminator_a" not in facts["weights"]


def test_compare_of_other_architectures_has_no_distance(run_folder, tmp_path):
    torch.save(original_generator().state_dict(), tmp_path / "x.pth")
    facts = compare(run_folder, tmp_path / "x.pth").facts
    assert facts["same_architecture"] is False
    assert facts["weights"] == {}
    assert facts["differences"]["generator.base_channels"] == [2, 4]


def test_compare_exported_checkpoints_with_their_source(tiny_model, tiny_info, tmp_path):
    from cyclegan_cli.checkpoints.locate import read_checkpoint
    from cyclegan_cli.exporting.exporter import export
    from cyclegan_cli.exporting.job import FORMATS, Job

    half, pth = tmp_path / "x.safetensors", tmp_path / "latest_net_G_B.pth"
    config = dataclasses.replace(tiny_model.config, resampling="strided", norms="all")
    model = CycleGAN(config, torch.device("cpu"), False)
    source = tmp_path / "model.safetensors"
    save_model(source, model, dataclasses.replace(tiny_info, generator=config.generator))
    export(Job(read_checkpoint(source), ("a2b",), half, FORMATS["safetensors"], "bf16"))
    export(Job(read_checkpoint(source), ("b2a",), pth, FORMATS["pth"]))
    [found] = compare(source, half).facts["weights"].values()
    assert 0 < found["relative_distance"] < 2**-8
    assert compare(pth, source).facts["weights"] == {
        "generator_b2a": {"relative_distance": 0.0, "largest_difference": 0.0}
    }


@pytest.mark.parametrize(
    ("factors", "expected"), [((1, math.nan), None), ((0, 1), None), ((0, 0), 0.0)]
)
def test_non_finite_distance_is_null(tiny_model, tiny_info, tmp_path, factors, expected):
    files = []
    for index, factor in enumerate(factors):
        model = CycleGAN(tiny_model.config, torch.device("cpu"), False)
        scaled = {n: factor * t for n, t in tiny_model.generator_a2b.state_dict().items()}
        model.generator_a2b.load_state_dict(scaled)
        files.append(tmp_path / f"{index}.safetensors")
        save_model(files[-1], model, tiny_info)
    assert compare(*files).facts["weights"]["generator_a2b"]["relative_distance"] == expected


def test_compare_refuses_missing_tensors(checkpoint, tmp_path):
    tensors = load_file(checkpoint)
    del tensors["generator_a2b.head.bias"]
    document = json.dumps(read_header(checkpoint).document)
    save_file(tensors, tmp_path / "x.safetensors", {"cyclegan": document})
    with pytest.raises(CheckpointError, match=r"no tensor generator_a2b\.head\.bias"):
        compare(checkpoint, tmp_path / "x.safetensors")


def test_compare_refuses_a_missing_checkpoint(run_folder, tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        compare(run_folder, tmp_path / "missing")
