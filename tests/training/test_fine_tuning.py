"""Trainings that begin with trained generators, and models that are kept."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch

from cyclegan_cli.checkpoints.header import read_model_info
from cyclegan_cli.checkpoints.store import load_generator, save_generators
from cyclegan_cli.config import GeneratorConfig, Resampling, TrainConfig
from cyclegan_cli.errors import CheckpointError, UsageError
from cyclegan_cli.models.networks import ResnetGenerator
from cyclegan_cli.training.plan import plan_new, plan_resumed
from cyclegan_cli.training.trainer import Trainer, train
from original import original_generator
from runs import draw_discs, load_tensors, make_config, train_until


@pytest.fixture
def config(tmp_path):
    draw_discs(tmp_path / "day", 0, (220, 220, 220), (40, 40, 40))
    draw_discs(tmp_path / "night", 1, (40, 40, 40), (220, 220, 220))
    return make_config(tmp_path, run_dir=tmp_path / "first", base_channels=3, residual_blocks=2)


@pytest.fixture
def trained(config):
    train(plan_new(config))
    return config.run_dir


def after(config: TrainConfig, init_from: Path, **changes: object) -> TrainConfig:
    return make_config(
        config.domain_a.parent, run_dir=config.domain_a.parent / "second", init_from=init_from,
        **{"base_channels": 64, "residual_blocks": None} | changes,
    )  # fmt: skip


@pytest.mark.parametrize("file", ["", "model.safetensors", "state.safetensors"])
def test_init_from_loads_generators(config, trained, file):
    plan = plan_new(after(config, trained / file))
    assert (plan.config.base_channels, plan.config.residual_blocks) == (3, 2)
    model = Trainer(plan, []).model
    for direction in ("a2b", "b2a"):
        expected, _ = load_generator(trained / (file or "model.safetensors"), direction)
        name = f"generator_{direction}"
        for network in (model.generators()[name], model.averages.generators[name]):
            for key, tensor in expected.state_dict().items():
                assert torch.equal(network.state_dict()[key], tensor)
    assert all(weight.requires_grad for weight in model.generator_a2b.parameters())


def test_init_from_with_swapped_domains_swaps_generators(config, trained):
    turned = after(config, trained, domain_a=config.domain_b, domain_b=config.domain_a)
    model = Trainer(plan_new(turned), []).model
    expected, _ = load_generator(trained / "model.safetensors", "b2a")
    assert torch.equal(model.generator_a2b.head.weight, expected.head.weight)


def test_resume_does_not_need_initial_checkpoint(config, trained):
    changed = after(config, trained)
    train_until(changed, 3)
    (trained / "model.safetensors").unlink()
    train(plan_resumed(changed.run_dir, {}))
    [step] = load_tensors(changed.run_dir / "state.safetensors", ["pool_a.random"]).values()
    assert len(step)


@pytest.mark.parametrize(
    ("option", "value", "found"),
    [("base_channels", 8, 3), ("residual_blocks", 9, 2), ("resampling", "cut", "blur")],
)
def test_contradicting_architecture_is_refused(
    config: TrainConfig, trained: Path, option: str, value: Any, found: Any
) -> None:
    name = "--" + option.replace("_", "-")
    with pytest.raises(UsageError, match=f"^{name} {value} contradicts --init-from.* {found}$"):
        plan_new(after(config, trained, **{option: value}))


@pytest.mark.parametrize("resampling", ["strided", "cut"])
def test_resampling_of_the_checkpoint_is_kept(
    config: TrainConfig, tmp_path: Path, resampling: Resampling
) -> None:
    """Also of a CUT model: the original's files of both directions."""
    folder = tmp_path / "pth"
    folder.mkdir()
    network = original_generator(antialias=resampling == "cut")
    for letter in "AB":
        torch.save(network.state_dict(), folder / f"latest_net_G_{letter}.pth")
    changed = after(config, folder, steps=2)
    assert changed.run_dir
    train(plan_new(changed))
    for name in ("model.safetensors", "state.safetensors"):
        found = read_model_info(changed.run_dir / name).generator
        assert found == GeneratorConfig(4, 2, resampling=resampling)
    assert plan_resumed(changed.run_dir, {}).config.resampling == resampling


def test_blurs_can_be_added_to_the_layers_of_a_checkpoint(
    config: TrainConfig, trained: Path
) -> None:
    changed = after(config, trained, steps=1, resampling="strided")
    assert changed.run_dir
    train(plan_new(changed))
    assert read_model_info(changed.run_dir / "model.safetensors").generator.resampling == "strided"


def test_norms_of_a_checkpoint_cannot_be_changed(config: TrainConfig, trained: Path) -> None:
    assert plan_new(after(config, trained)).config.norms == "residual"
    with pytest.raises(UsageError, match="--norms all contradicts --init-from"):
        plan_new(after(config, trained, norms="all"))


def test_skips_of_a_checkpoint_cannot_be_changed(config: TrainConfig, trained: Path) -> None:
    assert plan_new(after(config, trained)).config.skips is True
    with pytest.raises(UsageError, match="--no-skips contradicts .* have skip connections"):
        plan_new(after(config, trained, skips=False))


def test_a_run_without_the_option_resumes_as_strided(config: TrainConfig, tmp_path: Path) -> None:
    """It was killed before its first checkpoint, so that it has config.toml alone."""
    run = tmp_path / "old"
    run.mkdir()
    options = config.to_document()
    for name in ("run_dir", "lambda_color"):
        del options[name]
    (run / "config.toml").write_text(tomli_w.dumps(options))
    resumed = plan_resumed(run, {}).config
    assert (resumed.resampling, resumed.norms, resumed.lambda_color) == ("strided", "all", 0)
    with pytest.raises(UsageError, match="--resampling"):
        plan_resumed(run, {"resampling": "blur"})


def test_the_same_architecture_may_be_said(config: TrainConfig, trained: Path) -> None:
    assert plan_new(after(config, trained, base_channels=3, residual_blocks=2)).config.init_from


def test_a_missing_checkpoint_is_named(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="gone"):
        plan_new(after(config, tmp_path / "gone"))
    assert not (tmp_path / "second").exists()


def test_init_from_single_direction_is_refused(config, trained):
    generator, info = load_generator(trained / "model.safetensors", "a2b")
    path = trained / "one.safetensors"
    save_generators(path, {"a2b": generator}, dataclasses.replace(info, directions=("a2b",)))
    with pytest.raises(UsageError, match="one.safetensors has only the generator a2b"):
        plan_new(after(config, path))


def test_untrainable_generators_are_refused(config, trained):
    _, info = load_generator(trained / "model.safetensors", "a2b")
    grey = GeneratorConfig(2, 1, input_channels=1)
    info = dataclasses.replace(info, generator=grey)
    path = trained / "grey.safetensors"
    save_generators(path, {"a2b": ResnetGenerator(grey), "b2a": ResnetGenerator(grey)}, info)
    with pytest.raises(UsageError, match="grayscale images or with affine normalization"):
        plan_new(after(config, path))


# --- models that are kept ----------------------------------------------------------------------


def kept(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_keep_checkpoints(config):
    config = dataclasses.replace(config, keep_checkpoints=2, checkpoint_every=2)
    train(plan_new(config))
    assert kept(config.run_dir) == ["step_00000006.safetensors", "step_00000007.safetensors"]
    last = (config.run_dir / "checkpoints/step_00000007.safetensors").read_bytes()
    assert last == (config.run_dir / "model.safetensors").read_bytes()
    generator, info = load_generator(
        config.run_dir / "checkpoints/step_00000006.safetensors", "a2b"
    )
    assert info.training["step"] == 6
    assert generator.head.weight.isfinite().all()


def test_keep_checkpoints_keeps_other_files(config):
    config = dataclasses.replace(config, keep_checkpoints=1, checkpoint_every=1)
    plan = plan_new(config)
    mine = plan.run_dir / "checkpoints" / "mine.safetensors"
    mine.parent.mkdir(parents=True)
    mine.write_text("x")
    train(plan)
    assert kept(plan.run_dir) == ["mine.safetensors", "step_00000007.safetensors"]
