"""Measured time and memory of training steps."""

import dataclasses
import multiprocessing
import signal

import pytest

from cyclegan_cli.errors import DataError, DeviceError
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
