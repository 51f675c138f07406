"""Intervals of steps and of time, by a clock of the test's own."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from cyclegan_cli.checkpoints.header import read_header
from cyclegan_cli.config import LEAST_STEPS, StepsOrTime, TrainConfig
from cyclegan_cli.errors import InterruptedRunError
from cyclegan_cli.training.callbacks import base
from cyclegan_cli.training.callbacks.base import IntervalTrigger
from cyclegan_cli.training.estimate import disk_space
from cyclegan_cli.training.plan import plan_new, plan_resumed
from cyclegan_cli.training.trainer import train
from runs import ClockRecorder, Recorder, stop_after


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(base, "monotonic", clock)
    return clock


def trigger(
    interval: StepsOrTime,
    total_steps: int,
    first_step: int = 0,
    state: dict[str, Any] | None = None,
) -> IntervalTrigger:
    plan: Any = SimpleNamespace(
        total_steps=total_steps, first_step=first_step, callback_state={"since": {"x": state or {}}}
    )
    return IntervalTrigger(interval, plan, "x")


def due_at(
    clock: Clock, interval: StepsOrTime, step_seconds: float, steps: int, work: float = 0
) -> list[int]:
    """The steps after which something was due that takes ``work`` seconds."""
    due = []
    timer = trigger(interval, steps)
    for step in range(1, steps + 1):
        clock.now += step_seconds
        if timer.is_due(step):
            due.append(step)
            clock.now += work
            timer.reset(step)
    return due


@pytest.mark.parametrize(
    ("interval", "step_seconds", "expected"),
    [
        (30, 1, [30, 60, 90, 100]),
        (0, 1, []),
        ("40s", 1, [40, 80, 100]),
        ("10m", 1, [100]),  # All is due at the end.
        ("1m30s", 2, [45, 90, 100]),
        # However slow the steps, there are some between.
        ("90s", 60, [20, 40, 60, 80, 100]),
    ],
)
def test_interval_in_steps_or_time(clock, interval, step_seconds, expected):
    assert due_at(clock, interval, step_seconds, 100) == expected


def test_time_interval_starts_after_work_ends(clock):
    assert due_at(clock, "30s", 1, 100, work=500) == [30, 60, 90, 100]


def test_resumed_time_interval_continues(clock):
    before = trigger("10m", 1000)
    clock.now += 400
    state = before.state_dict(100)
    clock.now += 5000  # Nothing is trained meanwhile.
    after = trigger("10m", 1000, 100, state)
    clock.now += 30  # Images are searched for, and so on.
    after.start_clock()
    clock.now += 199
    assert not after.is_due(101)
    clock.now += 1
    assert after.is_due(102)


def test_step_interval_has_no_state():
    assert trigger(500, 1000).state_dict(100) == {}


def trained(config: TrainConfig, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Recorder:
    recorder = ClockRecorder(30)
    monkeypatch.setattr(base, "monotonic", recorder.clock)
    train(plan_new(dataclasses.replace(config, **changes)), [recorder])
    return recorder


@pytest.mark.slow
def test_intervals_do_not_change_the_model(config, monkeypatch):
    folder = config.domain_a.parent if config.domain_a else None
    assert folder
    base = dataclasses.replace(config, steps=45, val_fraction=0.5)
    timed = {"sample_every": "10m", "validate_every": "11m", "checkpoint_every": "12m"}
    by_time = trained(base, monkeypatch, run_dir=folder / "timed", **timed)
    rarely = {"sample_every": 0, "validate_every": 40, "checkpoint_every": 100}
    trained(base, monkeypatch, run_dir=folder / "rarely", **rarely)
    assert [step for step, _ in by_time.grids] == [20, 40, 45]
    assert [row["step"] for row in by_time.validations] == [22, 44, 45]
    first, second = (
        (folder / run / "model.safetensors").read_bytes() for run in ("timed", "rarely")
    )
    assert first == second


def test_checkpoints_at_time_intervals(config, monkeypatch):
    recorder = ClockRecorder(30)
    monkeypatch.setattr(base, "monotonic", recorder.clock)
    run = dataclasses.replace(config, steps=45, checkpoint_every="10m", keep_checkpoints=9)
    train(plan_new(run), [recorder])
    kept = sorted(path.name for path in (run.run_dir / "checkpoints").iterdir())
    assert [int(name.split("_")[1].split(".")[0]) for name in kept] == [20, 40, 45]


def test_time_interval_spans_sessions(config, monkeypatch):
    run = dataclasses.replace(config, steps=45, validate_every="12m", val_fraction=0.5)
    recorder = ClockRecorder(30)
    monkeypatch.setattr(base, "monotonic", recorder.clock)
    with pytest.raises(InterruptedRunError):
        train(plan_new(run), [recorder], stop_after(recorder, 15))
    since = read_header(run.run_dir / "state.safetensors").document["state"]["watch"]["since"]
    assert since["validate"] == {"steps": 15, "seconds": 450.0}
    again = ClockRecorder(30)
    monkeypatch.setattr(base, "monotonic", again.clock)
    train(plan_resumed(run.run_dir, {}), [again])
    assert [row["step"] for row in again.validations] == [24, 45]


def test_disk_space_depends_on_step_time(config):
    plan = plan_new(dataclasses.replace(config, steps=100_000, sample_every="5m", validate_every=0))

    def grids(step_seconds):
        return disk_space(plan, step_seconds).run - disk_space(plan, 1e-9).run

    assert grids(0.1) == pytest.approx(grids(1.0) / 10, rel=0.05)
    least = disk_space(plan_new(dataclasses.replace(plan.config, sample_every=LEAST_STEPS)), 1.0)
    assert disk_space(plan, 1e9).run == pytest.approx(least.run, rel=0.01)
