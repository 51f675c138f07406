"""Measured time and memory of training steps."""

import dataclasses
import multiprocessing
import signal

import pytest

from cyclegan_cli.config import RECIPES, TrainConfig
from cyclegan_cli.errors import DataError, DeviceError
from cyclegan_cli.models.shapes import step_flops
from cyclegan_cli.training import estimate
from cyclegan_cli.training.estimate import MAX_STEPS, MIN_STEPS, measure_steps
from cyclegan_cli.training.plan import plan_new
from runs import broken, killed


@pytest.mark.slow
def test_step_cost_is_measured_in_a_subprocess(config, tmp_path):
    found = measure_steps(plan_new(config))
    assert MIN_STEPS <= found.steps <= MAX_STEPS
    assert found.seconds > 0
    assert found.memory > 100e6  # torch alone
    wide = dataclasses.replace(config, base_channels=64, residual_blocks=4)
    # Weights, gradients and moments of 2 × 5.5 million parameters take 0.17 GB.
    assert measure_steps(plan_new(wide)).memory - found.memory > 130e6
    assert not (tmp_path / "run").exists()
    assert multiprocessing.active_children() == []


def without_memory(*_: object) -> None:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1e12")


@pytest.mark.parametrize(
    ("target", "sentence"),
    [(killed, "not enough memory: the system killed"), (broken, "exit code 7")],
)
@pytest.mark.slow
def test_killed_step_process_is_a_device_error(config, monkeypatch, target, sentence):
    monkeypatch.setattr(estimate, "_measure", target)
    with pytest.raises(DeviceError, match=sentence):
        measure_steps(plan_new(config))


def test_out_of_memory_step_is_a_device_error(config, monkeypatch):
    class Pipe:
        def send(self, found):
            self.found = found

    handlers = []
    monkeypatch.setattr(signal, "signal", lambda number, handler: handlers.append(handler))
    monkeypatch.setattr(estimate, "_run_steps", without_memory)
    pipe = Pipe()
    estimate._measure(pipe, config, "cpu", False, ())
    assert isinstance(pipe.found, DeviceError)
    assert "--batch-size" in pipe.found.hint
    assert handlers == [signal.SIG_IGN]


def test_unreadable_domain_is_not_measured(config, tmp_path):
    for path in (tmp_path / "day").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="no image of domain A can be read"):
        measure_steps(plan_new(config))


def test_training_of_days_is_advised_to_use_the_cpu_recipe(config):
    paper = dataclasses.replace(
        plan_new(config), config=TrainConfig(domain_a=config.domain_a, domain_b=config.domain_b)
    )
    steps = paper.total_steps
    advice = estimate.duration_advice(paper, 0, 5 * estimate.DAY / steps)
    assert advice.startswith("the training ends in about 5 days, at ")
    assert "--recipe cpu" not in advice  # 1,000 steps: shorter than the recipe's 20,000.
    long = dataclasses.replace(paper, config=dataclasses.replace(paper.config, steps=200_000))
    advice = estimate.duration_advice(long, 0, 4.8)
    assert advice.startswith("the training ends in about 11 days, at 4.8 s per step; --recipe cpu")
    assert "takes about 3 hours: 20,000 steps at 128 pixels with 32 channels" in advice
    assert estimate.duration_advice(long, 199_990, 4.8) == (
        "the training ends in about a minute, at 4.8 s per step"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(20, "about a minute"), (100, "about 2 minutes"), (2.6 * 3600, "about 3 hours"),
     (36 * 3600, "about 2 days")],
)  # fmt: skip
def test_durations_are_rounded_to_their_largest_unit(seconds, text):
    assert estimate.about(seconds) == text


def test_step_flops_of_the_defaults():
    # docs/performance.md: 1.88 TFLOP at 256×256 with batch size 1.
    assert step_flops(TrainConfig(lambda_identity=0.5)) == pytest.approx(1.88e12, rel=0.02)
    cpu = TrainConfig(**RECIPES["cpu"])
    assert step_flops(cpu) < step_flops(TrainConfig()) / 20
    assert step_flops(cpu) < 0.75 * step_flops(dataclasses.replace(cpu, lambda_identity=0.5))
