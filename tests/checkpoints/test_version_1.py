"""A run of format version 1, kept for ever: every later version loads it (docs/format.md)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cyclegan_cli.checkpoints.container import read_header
from cyclegan_cli.checkpoints.store import load_generator, load_state_info, restore_state
from cyclegan_cli.models.cyclegan import CycleGAN

RUN = Path(__file__).parents[1] / "data" / "version_1"
EXPECTED = [0.035206, -0.142229, -0.079751, 0.13371, 0.040092, -0.074231]


def test_its_generator_still_translates_the_same() -> None:
    picture = torch.linspace(-1, 1, 3 * 8 * 12).view(1, 3, 8, 12)
    generator, info = load_generator(RUN / "model.safetensors", "a2b")
    assert (info.name_a, info.name_b, info.directions) == ("day", "night", ("a2b", "b2a"))
    found = generator(picture).flatten()[::48].tolist()
    assert found == pytest.approx(EXPECTED, abs=1e-5)


def test_its_training_can_still_be_resumed() -> None:
    state = load_state_info(RUN / "state.safetensors")
    assert (state.step, state.seconds, state.pictures) == (1, 12.5, "digest")
    model = CycleGAN(state.train_config(), torch.device("cpu"), bf16=False)
    restore_state(RUN / "state.safetensors", model)
    assert model.generator_optimizer.state


def test_its_files_are_as_the_format_is_specified() -> None:
    """The shapes of docs/format.md, with c = d = 1."""
    document = read_header(RUN / "state.safetensors").document
    assert set(document) == {
        "format", "version", "kind", "generator", "directions", "domains", "training", "versions",
        "discriminator", "config", "state",
    }  # fmt: skip
    tensors = read_header(RUN / "state.safetensors").tensors
    shapes = {
        "generator_a2b.stem.conv.weight": (1, 3, 7, 7),
        "generator_a2b.down.0.conv.weight": (2, 1, 3, 3),
        "generator_a2b.down.1.conv.weight": (4, 2, 3, 3),
        "generator_b2a.trunk.0.first.conv.weight": (4, 4, 3, 3),
        "generator_b2a.trunk.0.second.weight": (4, 4, 3, 3),
        "generator_b2a.up.0.conv.weight": (4, 2, 3, 3),
        "generator_b2a.up.1.conv.weight": (2, 1, 3, 3),
        "generator_b2a.head.weight": (3, 1, 7, 7),
        "discriminator_a.first.weight": (1, 3, 4, 4),
        "discriminator_b.hidden.2.weight": (8, 4, 4, 4),
        "discriminator_b.judge.weight": (1, 8, 4, 4),
        "adam.generator_a2b.stem.conv.weight.step": (),
        "adam.generator_a2b.stem.conv.weight.exp_avg": (1, 3, 7, 7),
        "adam.discriminator_a.judge.weight.exp_avg_sq": (1, 8, 4, 4),
        "pool_a.images": (1, 3, 32, 32),
    }
    assert {name: tensors[name].shape for name in shapes} == shapes
    assert {name.split(".")[0] for name in tensors} == {
        "generator_a2b", "generator_b2a", "discriminator_a", "discriminator_b", "adam", "pool_a",
        "pool_b",
    }  # fmt: skip
    model = {n: t for n, t in tensors.items() if n.startswith("generator_")}
    assert read_header(RUN / "model.safetensors").tensors == model
