"""What can go wrong around a training that is left alone."""

import dataclasses
import itertools
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cyclegan_cli.data.dataset import UnpairedDataset
from cyclegan_cli.errors import DeviceError, OutputError
from cyclegan_cli.models.cyclegan import StepLosses
from cyclegan_cli.training.callbacks.base import TrainingRun
from cyclegan_cli.training.plan import plan_new, plan_resumed
from cyclegan_cli.training.trainer import train
from runs import Recorder


class Saboteur(Recorder):
    """Does something after a step."""

    def __init__(self, step: int, act: Callable[[], object]) -> None:
        super().__init__()
        self.step, self.act = step, act

    def on_step_end(self, run: TrainingRun, losses: StepLosses) -> None:
        super().on_step_end(run, losses)
        if run.step == self.step:
            self.act()


def removed(folder: Path) -> None:
    shutil.rmtree(folder)


def replaced(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "mine.txt").write_text("somebody else's")


@pytest.mark.parametrize("act", [removed, replaced])
@pytest.mark.parametrize("first_write", ["log_every", "checkpoint_every", "sample_every"])
def test_removed_run_folder_ends_training(config, act, first_write):
    never_due = {"log_every": 1000, "checkpoint_every": 1000, "sample_every": 1000}
    config = dataclasses.replace(config, **never_due | {first_write: 5}, validate_every=0)
    saboteur = Saboteur(2, lambda: act(plan.run_dir))
    plan = plan_new(config)
    with pytest.raises(OutputError, match=r"run was removed or replaced during the training"):
        train(plan, [saboteur])
    assert saboteur.steps[-1] == 5
    left = [path.name for path in plan.run_dir.rglob("*")] if plan.run_dir.exists() else []
    assert left == (["mine.txt"] if act is replaced else [])


@pytest.mark.parametrize("workers", [0, 2])
def test_out_of_memory_in_loading_thread_is_a_device_error(config, monkeypatch, workers):
    config = dataclasses.replace(config, workers=workers, checkpoint_every=2)
    real, requests = UnpairedDataset.__getitem__, []

    def fail_at_5(self, number):
        requests.append(number)
        if requests.count(5) == 2:  # The first time, the color loss is prepared.
            raise MemoryError
        return real(self, number)

    plan = plan_new(config)
    with monkeypatch.context() as patch:
        patch.setattr(UnpairedDataset, "__getitem__", fail_at_5)
        with pytest.raises(DeviceError, match="training: not enough memory"):
            train(plan)
    assert plan_resumed(plan.run_dir, {}).first_step == 4
    rest = Recorder()
    train(plan_resumed(plan.run_dir, {}), [rest])
    assert rest.steps == [5, 6, 7]


@pytest.mark.parametrize("hour", [-3600, 3600])
def test_system_clock_changes_have_no_effect(config, monkeypatch, hour):
    undisturbed = train(plan_new(config)).read_bytes()
    clock = time.time
    hours = itertools.count(step=hour)
    monkeypatch.setattr(time, "time", lambda: clock() + next(hours))
    config = dataclasses.replace(config, run_dir=config.domain_a.parent / "other", log_every=1)
    recorder = Recorder()
    model = train(plan_new(config), [recorder], time_limit=600)
    assert model.read_bytes() == undisturbed
    assert recorder.steps[-1] == 7
    seconds = [row["seconds"] for row in recorder.rows]
    assert seconds == sorted(seconds)
    assert 0 < seconds[-1] < 600
    assert all(row["images_per_second"] > 0 for row in recorder.rows)
