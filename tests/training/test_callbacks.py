"""Callbacks one by one, and callbacks of a user."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import cyclegan_cli
from cyclegan_cli.data.dataset import Batch
from cyclegan_cli.errors import DataError, DivergedError, InterruptedRunError
from cyclegan_cli.models.cyclegan import LOSS_NAMES
from cyclegan_cli.training.callbacks.base import TrainingCallback, TrainingRun
from cyclegan_cli.training.callbacks.health import MAX_CONSECUTIVE_SKIPS, Health
from cyclegan_cli.training.callbacks.limits import Limits, UnreadableImages
from cyclegan_cli.training.callbacks.logging import LossAccumulator
from cyclegan_cli.training.distributed import ProcessGroup
from cyclegan_cli.training.plan import plan_new
from cyclegan_cli.training.trainer import train
from runs import Recorder


class StopRecorder(Recorder):
    """Counts the calls of ``on_stop``."""

    stops = 0

    def on_stop(self, run: TrainingRun) -> None:
        self.stops += 1


@pytest.fixture
def plan(config):
    return plan_new(config)


@pytest.fixture
def recorder():
    return StopRecorder()


@pytest.fixture
def run(plan, recorder):
    model: Any = None
    return TrainingRun(plan, model, [recorder], ProcessGroup())


def test_signal_saves_before_it_ends_the_training(plan, run, recorder):
    with pytest.raises(InterruptedRunError, match="stopped after step 0 of 7") as caught:
        Limits(plan, lambda: 15).on_due(run)
    assert (caught.value.exit_code, recorder.stops) == (143, 1)


def test_time_limit_stops_the_training(plan, run, recorder):
    Limits(plan, lambda: None, time_limit=1e9).on_due(run)
    assert (run.status, recorder.stops) == ("training", 0)
    Limits(plan, lambda: None, time_limit=0).on_due(run)
    assert (run.status, recorder.stops) == ("stopped", 1)
    assert recorder.messages == [run.reason]


def test_last_step_finishes_the_training_despite_a_signal(plan, run):
    run.step = plan.total_steps
    Limits(plan, lambda: 15).on_due(run)
    assert run.status == "finished"


def test_error_of_another_callback_is_raised_after_saving(plan, run, recorder):
    run.error = DataError("unreadable")
    with pytest.raises(DataError, match="unreadable"):
        Limits(plan, lambda: None).on_due(run)
    assert recorder.stops == 1


def test_unreadable_image_is_reported_once(run, recorder):
    images = UnreadableImages(strict=False, reported=["known"])
    pixels = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    for sentence in ("known", "new", "new"):
        images.on_batch(run, Batch(pixels, pixels, [sentence]))
    assert recorder.warnings == ["new; another image was used instead"]
    assert run.error is None


def test_consecutive_skipped_steps_end_the_training(plan, run):
    health = Health(plan)
    skipped, applied = (SimpleNamespace(is_applied=is_applied) for is_applied in (False, True))
    for losses in (*[skipped] * (MAX_CONSECUTIVE_SKIPS - 1), applied):
        health.on_step_end(run, losses)
    assert health.state_dict(0)["skipped"] == MAX_CONSECUTIVE_SKIPS - 1
    with pytest.raises(DivergedError, match="gradients of 10 steps are not finite"):
        for _ in range(MAX_CONSECUTIVE_SKIPS):
            health.on_step_end(run, skipped)


def test_loss_accumulator_resumes_its_sums():
    cpu = torch.device("cpu")

    def losses(value):
        return SimpleNamespace(
            is_applied=True,
            gradient_norms=(value, 1.0),
            stacked=lambda: torch.full((len(LOSS_NAMES),), value),
        )

    before = LossAccumulator(cpu, {})
    before.update(losses(1.0))
    after = LossAccumulator(cpu, before.state_dict())
    after.update(losses(4.0))
    assert after.means() == dict.fromkeys(LOSS_NAMES, 2.5)
    assert (after.steps, after.gradient_norms) == (2, [4.0, 1.0])


def test_callback_of_a_user_stops_the_training(config):
    class StopAt3(TrainingCallback):
        status = ""
        is_closed = False

        def on_step_end(self, run, losses):
            if run.step == 3:
                run.stop("three steps are enough")

        def on_train_end(self, run):
            self.status = run.status

        def close(self, run):
            self.is_closed = True

    callback, recorder = StopAt3(), Recorder()
    model = cyclegan_cli.train(config, callbacks=[callback, recorder])
    assert model.is_file()
    assert recorder.steps == [1, 2, 3]
    assert (callback.status, callback.is_closed) == ("stopped", True)
    [message] = recorder.messages
    assert message == "stopped after step 3 of 7; the run was saved; three steps are enough"


def test_error_in_a_callback_ends_the_training(config):
    class Failing(Recorder):
        status = ""

        def on_log(self, run, row):
            raise RuntimeError("no connection")

        def on_train_end(self, run):
            self.status = f"{run.status}: {run.reason}"

    failing = Failing()
    with pytest.raises(RuntimeError):
        train(config, [failing])
    assert failing.status == "failed: RuntimeError: no connection"
    assert failing.steps == [1, 2, 3]


def test_exhausted_patience_stops_a_resumed_run(plan, run):
    from cyclegan_cli.training.callbacks.checkpointing import BestModel

    impatient: Any = SimpleNamespace(
        callback_state={"best": {"swd": 3.0, "step": 4, "worse": 2}},
        config=dataclasses.replace(plan.config, patience=2),
    )
    BestModel(impatient).on_train_begin(run)
    assert run.stop_reason == "the best validation was at step 4 (best.safetensors)"


def test_interval_of_an_earlier_version_has_no_color_losses():
    state = {"losses": [float(i) for i in range(8)], "steps": 2}
    means = LossAccumulator(torch.device("cpu"), state).means()
    assert list(means.values()) == [i / 2 for i in range(8)] + [0, 0]
    assert (means["discriminator_b"], means["color_a2b"]) == (3.5, 0)
