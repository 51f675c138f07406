"""Held-out images, their measures, the best model, and stopping early."""

import csv
import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cyclegan_cli.checkpoints.header import read_header
from cyclegan_cli.checkpoints.store import load_generator
from cyclegan_cli.errors import DataError, InterruptedRunError, UsageError
from cyclegan_cli.training.callbacks.checkpointing import BestModel
from cyclegan_cli.training.callbacks.logging import VALIDATION_COLUMNS
from cyclegan_cli.training.plan import plan_new, plan_resumed
from cyclegan_cli.training.trainer import train
from cyclegan_cli.training.validation import ValidationBatch, Validator, quality
from runs import Recorder, load_tensors, make_config, stop_after, train_until
from trainings import draw_domains


@pytest.fixture
def config(tmp_path):
    """Twenty and sixteen noisy images; an eighth of the fewer is held out: two each."""
    draw_domains(tmp_path, 20, 16, (36, 34))
    return make_config(
        tmp_path, run_dir=tmp_path / "run", val_fraction=0.125, validate_every=2, steps=6
    )


def table(run: Path) -> list[dict[str, float]]:
    with (run / "validation.csv").open(newline="") as stream:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]


def without_seconds(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


# --- which images -----------------------------------------------------------------------------


def test_images_are_held_out_of_the_training(config):
    split = plan_new(config).split
    assert (len(split.val_a), len(split.val_b)) == (2, 2)
    assert (len(split.images_a), len(split.images_b)) == (18, 14)
    assert not set(split.val_a) & set(split.images_a)


def test_validation_set_does_not_depend_on_seed_or_new_images(config, tmp_path):
    first = plan_new(config).split
    other = dataclasses.replace(config, seed=9, run_dir=tmp_path / "other")
    assert plan_new(other).split == first
    taken = set(first.val_a)
    for i in range(20, 24):
        (tmp_path / "day" / f"{i}.png").write_bytes((tmp_path / "day" / "0.png").read_bytes())
    found = set(plan_new(other).split.val_a)
    new = {tmp_path / "day" / f"{i}.png" for i in range(20, 24)}
    assert found - taken <= new


def test_training_images_stay_sorted_with_a_validation_split(config):
    split = plan_new(config).split
    assert split.images_a == sorted(split.images_a, key=lambda path: path.name)


def test_validation_folders(config, tmp_path):
    named = dataclasses.replace(config, val_a=tmp_path / "night", val_b=tmp_path / "day")
    split = plan_new(named).split
    assert {path.parent.name for path in split.val_a} == {"night"}
    assert (len(split.val_a), len(split.val_b)) == (16, 16)
    assert (len(split.images_a), len(split.images_b)) == (20, 16)


def test_single_validation_folder_is_refused(config, tmp_path):
    with pytest.raises(UsageError, match="--val-a and --val-b require each other"):
        dataclasses.replace(config, val_a=tmp_path)


def test_empty_validation_folder_is_refused(config, tmp_path):
    (tmp_path / "empty").mkdir()
    named = dataclasses.replace(config, val_a=tmp_path / "night", val_b=tmp_path / "empty")
    with pytest.raises(DataError, match=r"--val-b: .*empty has no images"):
        plan_new(named)


@pytest.mark.parametrize("changes", [{"val_fraction": 0.0}, {"val_fraction": 0.1}])
def test_fewer_than_two_validation_images_disable_validation(config, changes):
    run = dataclasses.replace(config, **changes)
    plan = plan_new(run)
    assert (len(plan.images_a), plan.validates) == (20, False)
    train(plan)
    assert not (plan.run_dir / "validation.csv").exists()
    assert not (plan.run_dir / "best.safetensors").exists()


# --- measures -----------------------------------------------------------------------------------


def test_quality_of_known_translations():
    random = torch.Generator().manual_seed(0)
    real_a = torch.rand((3, 3, 32, 32), generator=random) * 2 - 1
    real_b = real_a.flip(0) * 0.5
    found = quality(
        ValidationBatch(
            real_a,
            real_b,
            fake_b=real_b,
            rec_a=real_a + 0.25,
            fake_a=real_a[:1].expand(3, -1, -1, -1),
            rec_b=real_b,
            idt_a=real_a,
            idt_b=real_b - 0.125,
        )
    )
    assert found["cycle_a"] == pytest.approx(0.25)
    assert found["cycle_b"] == 0
    assert found["identity_a"] == 0
    assert found["identity_b"] == pytest.approx(0.125)
    assert found["diversity_a2b"] == pytest.approx(0.5)
    assert found["diversity_b2a"] == 0
    assert found["swd_a2b"] < found["swd_b2a"]


def test_validation_matches_saved_model(config):
    recorder = Recorder()
    plan = plan_new(config)
    train(plan, [recorder])
    rows = table(config.run_dir)
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert tuple(rows[0]) == VALIDATION_COLUMNS
    assert [row["step"] for row in recorder.validations] == [2, 4, 6]
    generator, _ = load_generator(config.run_dir / "model.safetensors", "a2b")
    real_b = Validator(plan).real_b
    expected = float((generator(real_b) - real_b).abs().mean())
    assert rows[-1]["identity_b"] == pytest.approx(expected, rel=1e-4)


# --- best.safetensors and --patience ------------------------------------------------------------


def row(step: int, swd: float) -> dict[str, float]:
    return {"step": step, "swd_a2b": swd - 1, "swd_b2a": swd + 1}


def best_model(state: dict[str, Any] | None = None) -> BestModel:
    plan: Any = SimpleNamespace(callback_state=state or {}, config=SimpleNamespace(patience=0))
    return BestModel(plan)


def test_best_model_has_the_lowest_mean_swd():
    best = best_model()
    assert [best.update(row(step, swd)) for step, swd in ((1, 9), (2, 8), (3, 8), (4, 8.5))] == [
        True, True, False, False,
    ]  # fmt: skip
    assert (best.step, best.swd, best.worse) == (2, 8, 2)
    again = best_model(best.state_dict(4))
    assert (again.update(row(5, 8.1)), again.worse) == (False, 3)
    assert (again.update(row(6, 7)), again.worse) == (True, 0)
    assert best_model().update(row(1, 1e9))
    assert not best_model().update(row(1, math.nan))


def test_best_checkpoint_matches_the_lowest_validation_row(config):
    train(plan_new(config))
    rows = table(config.run_dir)
    lowest = min(rows, key=lambda found: found["swd_a2b"] + found["swd_b2a"])
    training = read_header(config.run_dir / "best.safetensors").document["training"]
    assert training["step"] == lowest["step"]
    assert training["swd"] == pytest.approx((lowest["swd_a2b"] + lowest["swd_b2a"]) / 2, rel=1e-4)


def measured_as(monkeypatch: pytest.MonkeyPatch, distances: list[float]) -> None:
    """The n-th measurement finds the n-th distance."""
    left = iter(distances)
    real = quality

    def measured(found: ValidationBatch) -> dict[str, float]:
        return real(found) | dict.fromkeys(("swd_a2b", "swd_b2a"), next(left))

    monkeypatch.setattr("cyclegan_cli.training.callbacks.validation.quality", measured)


def test_patience_stops_run(config, monkeypatch):
    measured_as(monkeypatch, [5, 3, 4, 4, 9, 9])
    recorder = Recorder()
    run = dataclasses.replace(config, steps=12, patience=2)
    train(plan_new(run), [recorder])
    assert recorder.steps[-1] == 8
    [sentence] = recorder.messages
    assert "stopped after step 8 of 12; the run was saved" in sentence
    assert "the best validation was at step 4" in sentence
    assert read_header(run.run_dir / "best.safetensors").document["training"]["step"] == 4
    assert plan_resumed(run.run_dir, {}).first_step == 8


# --- resume -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
@pytest.mark.slow
def test_resumed_run_gives_identical_validation(config, tmp_path, stop):
    whole = dataclasses.replace(config, run_dir=tmp_path / "whole", log_every=4)
    train(plan_new(whole))
    stopped = dataclasses.replace(whole, run_dir=tmp_path / "stopped")
    train_until(stopped, stop)
    train(plan_resumed(stopped.run_dir, {}))
    for name in ("model.safetensors", "best.safetensors"):
        assert (stopped.run_dir / name).read_bytes() == (whole.run_dir / name).read_bytes()
    assert without_seconds(table(stopped.run_dir)) == without_seconds(table(whole.run_dir))
    states = [read_header(run.run_dir / "state.safetensors") for run in (whole, stopped)]
    assert states[0].document["state"]["watch"] == states[1].document["state"]["watch"]
    names = list(states[0].tensors)
    first, second = (
        load_tensors(run.run_dir / "state.safetensors", names) for run in (whole, stopped)
    )
    assert all(torch.equal(first[name], second[name]) for name in names)


def test_signal_skips_validation_until_resume(config):
    """It is made up for by the resumed run."""
    recorder = Recorder()
    with pytest.raises(InterruptedRunError, match="after step 2"):
        train(plan_new(config), [recorder], stop_after(recorder, 2))
    assert recorder.validations == []
    again = Recorder()
    train(plan_resumed(config.run_dir, {}), [again])
    assert [row["step"] for row in again.validations] == [2, 4, 6]


# --- averages -----------------------------------------------------------------------------------


def test_model_has_averages_and_state_has_both(config):
    run = dataclasses.replace(config, learning_rate=0.01)
    train(plan_new(run))
    name = "generator_a2b.head.weight"
    [model] = load_tensors(run.run_dir / "model.safetensors", [name]).values()
    trained, average = load_tensors(
        run.run_dir / "state.safetensors", [name, f"average.{name}"]
    ).values()
    assert torch.equal(model, average)
    assert not torch.equal(model, trained)


def test_without_averages_the_trained_weights_are_saved(config):
    run = dataclasses.replace(config, ema=0.0)
    train(plan_new(run))
    name = "generator_a2b.head.weight"
    paths = [run.run_dir / "model.safetensors", run.run_dir / "state.safetensors"]
    first, second = (load_tensors(path, [name])[name] for path in paths)
    assert torch.equal(first, second)
    assert not any(n.startswith("average.") for n in read_header(paths[1]).tensors)
