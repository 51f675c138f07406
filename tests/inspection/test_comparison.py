"""Two checkpoints side by side."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from cyclegan_cli.checkpoints.header import ModelInfo
from cyclegan_cli.checkpoints.store import save_model
from cyclegan_cli.errors import CheckpointError
from cyclegan_cli.inspection.comparison import compare
from cyclegan_cli.models.cyclegan import CycleGAN
from original import original_generator


def test_a_checkpoint_is_nowhere_from_itself(run_folder: Path) -> None:
    state = run_folder / "state.safetensors"
    document = json.loads(json.dumps(compare(state, state).to_document(), allow_nan=False))
    assert (document["schema"], document["kind"]) == (1, "comparison")
    assert document["same_architecture"] is True
    assert document["differences"] == {}
    names = ("generator_a2b", "generator_b2a", "discriminator_a", "discriminator_b")
    nowhere = {"relative_distance": 0.0, "largest_difference": 0.0}
    assert document["weights"] == dict.fromkeys(names, nowhere)


def test_differences_of_training_and_weights_are_named(
    run_folder: Path, tiny_model: CycleGAN, tiny_info: ModelInfo, tmp_path: Path
) -> None:
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


def test_other_architectures_have_no_distance(run_folder: Path, tmp_path: Path) -> None:
    torch.save(original_generator().state_dict(), tmp_path / "x.pth")
    facts = compare(run_folder, tmp_path / "x.pth").facts
    assert facts["same_architecture"] is False
    assert facts["weights"] == {}
    assert facts["differences"]["generator.base_channels"] == [2, 4]


def test_what_is_missing_is_refused(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        compare(run_folder, tmp_path / "missing")
