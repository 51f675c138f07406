"""What can go wrong around a training that is left alone."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cyclegan_cli.config import TrainConfig
from cyclegan_cli.data.dataset import Batch, UnpairedDataset
from cyclegan_cli.errors import DeviceError, OutputError
from cyclegan_cli.training.plan import plan_new, plan_resumed
from cyclegan_cli.training.trainer import train
from runs import Recorder, never


class Saboteur(Recorder):
    """Does something after a step."""

    def __init__(self, step: int, act: Callable[[], object]) -> None:
        super().__init__()
        self.step, self.act = step, act

    def stepped(self, step: int) -> None:
        super().stepped(step)
        if step == self.step:
            self.act()


def removed(folder: Path) -> None:
    shutil.rmtree(folder)


def replaced(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "mine.txt").write_text("somebody else's")


@pytest.mark.parametrize("act", [removed, replaced])
@pytest.mark.parametrize("first_write", ["log_every", "checkpoint_every", "sample_every"])
def test_a_run_folder_removed_under_a_training_ends_it_and_nothing_is_written_elsewhere(
    config: TrainConfig, act: Callable[[Path], None], first_write: str
) -> None:
    never_due = {"log_every": 1000, "checkpoint_every": 1000, "sample_every": 1000}
    config = dataclasses.replace(config, **never_due | {first_write: 5}, validate_every=0)
    assert config.run_dir
    saboteur = Saboteur(2, lambda: act(plan.run_dir))
    plan = plan_new(config)
    with pytest.raises(OutputError, match=r"run was removed or replaced under the training"):
        train(plan, saboteur, never)
    assert saboteur.steps[-1] == 5
    left = [path.name for path in plan.run_dir.rglob("*")] if plan.run_dir.exists() else []
    assert left == (["mine.txt"] if act is replaced else [])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loading_thread_without_memory_ends_the_run_with_one_sentence(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    config = dataclasses.replace(config, workers=workers, checkpoint_every=2)
    real = UnpairedDataset.__getitem__

    def fail_at_5(self: UnpairedDataset, number: int) -> Batch:
        if number == 5:
            raise MemoryError
        return real(self, number)

    plan = plan_new(config)
    with monkeypatch.context() as patch:
        patch.setattr(UnpairedDataset, "__getitem__", fail_at_5)
        with pytest.raises(DeviceError, match="training: not enough memory"):
            train(plan, Recorder(), never)
    assert plan_resumed(plan.run_dir, {}).first_step == 4
    rest = Recorder()
    train(plan_resumed(plan.run_dir, {}), rest, never)
    assert rest.steps == [5, 6, 7]


@pytest.mark.parametrize("hour", [-3600, 3600])
def test_a_clock_that_is_set_changes_nothing(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, hour: int
) -> None:
    undisturbed = train(plan_new(config), Recorder(), never).read_bytes()
    clock = time.time
    hours = itertools.count(step=hour)
    monkeypatch.setattr(time, "time", lambda: clock() + next(hours))
    config = dataclasses.replace(config, run_dir=config.domain_a.parent / "other", log_every=1)
    recorder = Recorder()
    model = train(plan_new(config), recorder, never, time_limit=600)
    assert model.read_bytes() == undisturbed
    assert recorder.steps[-1] == 7
    seconds = [row["seconds"] for row in recorder.rows]
    assert seconds == sorted(seconds)
    assert 0 < seconds[-1] < 600
    assert all(row["images_per_second"] > 0 for row in recorder.rows)
