"""Whether, when and how a run's networks are compiled."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from cyclegan_cli.config import CompileChoice, TrainConfig
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.training import compiling
from cyclegan_cli.training.compiling import (
    TIMED_STEPS,
    WARM_UP_STEPS,
    Compiler,
    compiling_saves_time,
)

CPU = torch.device("cpu")


class Clock:
    now = 0.0

    def __call__(self, device_type: str) -> float:
        return self.now


class FakeModel:
    """Counts steps of a fixed duration."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds
        self.steps = 0
        self.compiled_at: list[int] = []
        self.failure: Exception | None = None

    def step(self, real_a: Any, real_b: Any) -> str:
        self.steps += 1
        self.clock.now += self.seconds
        return "losses"

    def compile(self, real_a: Any, real_b: Any) -> None:
        self.compiled_at.append(self.steps)
        if self.failure:
            raise self.failure


class Run:
    """A training on a device that need not exist."""

    def __init__(self, choice: CompileChoice, device: str, seconds: float, clock: Clock) -> None:
        self.model = FakeModel(clock, seconds)
        self.messages: list[str] = []
        self.warnings: list[str] = []
        self.images: Any = SimpleNamespace(device=SimpleNamespace(type=device))
        self.compiler = Compiler(self.model, choice, self.messages.append, self.warnings.append)

    def make_steps(self, steps: int, of: int) -> None:
        for step in range(steps):
            found = self.compiler.step(self.images, self.images, of - step)
            assert found == "losses"


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(compiling, "_now", clock)
    monkeypatch.setattr(compiling, "has_compiler", lambda: True)
    return clock


DECIDED = WARM_UP_STEPS + TIMED_STEPS


@pytest.mark.parametrize(
    ("device", "seconds", "steps", "expected"),
    [
        ("cuda", 0.1, 12_001, True),
        ("cuda", 0.1, 11_999, False),
        ("cuda", 1.0, 1_201, True),
        ("cpu", 10.0, 1_000_000, False),
        ("mps", 10.0, 1_000_000, False),
    ],
)
def test_is_faster_if_it_saves_twice_the_compile_time(device, seconds, steps, expected):
    """By hand: 12,000 steps of 0.1 s are 1,200 s, a fifth of which is twice 120 s."""
    assert compiling_saves_time(device, seconds, steps) is expected


def test_auto_compiles_long_gpu_runs_after_timing(clock):
    run = Run("auto", "cuda", 0.1, clock)
    run.make_steps(DECIDED + 50, of=33_000)
    assert run.model.compiled_at == [DECIDED]
    assert run.messages == [
        f"compiling the networks: {33_000 - DECIDED} steps of 0.1 s are left, which makes up for it"
    ]
    assert run.warnings == []
    assert run.model.steps == DECIDED + 50


def test_warm_up_steps_are_not_timed(clock):
    run = Run("auto", "cuda", 60.0, clock)
    run.make_steps(WARM_UP_STEPS, of=3_000)
    run.model.seconds = 0.001
    run.make_steps(TIMED_STEPS + 10, of=3_000)
    assert run.model.compiled_at == []


@pytest.mark.parametrize(
    ("choice", "device", "of", "has_compiler"),
    [
        ("auto", "cuda", 1_000, True),
        ("auto", "cpu", 1_000_000, True),
        ("auto", "cuda", 33_000, False),
        ("off", "cuda", 1_000_000, True),
    ],
)
def test_networks_are_not_compiled(clock, monkeypatch, choice, device, of, has_compiler):
    monkeypatch.setattr(compiling, "has_compiler", lambda: has_compiler)
    run = Run(choice, device, 0.1, clock)
    run.make_steps(DECIDED + 50, of=of)
    assert (run.model.compiled_at, run.messages, run.warnings) == ([], [], [])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_on_compiles_before_the_first_step(clock, device):
    run = Run("on", device, 0.1, clock)
    run.make_steps(3, of=3)
    assert run.model.compiled_at == [0]
    assert run.messages == ["compiling the networks, which takes a minute or two"]


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (RuntimeError("\nNo C++ compiler\nat line 7"), "No C++ compiler"),
        (AssertionError(), "AssertionError()"),
    ],
)
def test_failed_compilation_is_a_warning(clock, failure, reason):
    run = Run("on", "cpu", 0.1, clock)
    run.model.failure = failure
    run.make_steps(5, of=5)
    assert run.model.compiled_at == [0]
    assert run.warnings == [
        f"the networks cannot be compiled and run without compilation: {reason}"
    ]
    assert run.model.steps == 5


@pytest.mark.parametrize(
    ("variable", "installed", "expected"),
    [(None, "g++", True), (None, "clang++", True), ("/opt/mine", "/opt/mine", True),
     ("", "/opt/mine", False)],
)  # fmt: skip
def test_compiler_is_found_by_name_or_cxx_variable(monkeypatch, variable, installed, expected):
    monkeypatch.delenv("CXX", raising=False)
    if variable is not None:
        monkeypatch.setenv("CXX", variable)
    monkeypatch.setattr("shutil.which", lambda asked: asked if asked == installed else None)
    assert compiling.has_compiler() is expected


# --- a real model -----------------------------------------------------------------------------

# Torch's own, while it traces.
traced = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


def tiny() -> CycleGAN:
    size = {"load_size": 32, "crop_size": 32, "residual_blocks": 1}
    return CycleGAN(TrainConfig(**size, base_channels=2, discriminator_channels=2), CPU, bf16=False)


def images() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    a, b = torch.rand((2, 1, 3, 32, 32), generator=random) * 2 - 1
    return a, b


@pytest.fixture
def backend(monkeypatch):
    """Networks are traced, forward and backward, but no code is generated: that takes minutes."""
    chosen: list[Any] = ["aot_eager"]
    compile_network = nn.Module.compile

    def cheaply(network, mode):
        assert mode == "default"
        compile_network(network, backend=chosen[0])

    monkeypatch.setattr(nn.Module, "compile", cheaply)
    yield chosen
    torch.compiler.reset()
    torch.compiler.set_stance("default")


@traced
@pytest.mark.usefixtures("backend")
@pytest.mark.slow
def test_compilation_changes_neither_weights_nor_steps():
    plain, compiled = tiny(), tiny()
    compiled.compile(*images())
    assert compiled.pool_a.count == 0
    for name, network in compiled.networks().items():
        before = plain.networks()[name].state_dict()
        for key, tensor in network.state_dict().items():
            assert torch.equal(tensor, before[key])
            assert network.get_parameter(key).grad is None
    assert not compiled.generator_optimizer.state
    for _ in range(3):
        losses = [model.step(*images()).stacked() for model in (plain, compiled)]
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)


def test_failed_compilation_keeps_the_networks(backend):
    def broken(graph, inputs):
        raise RuntimeError("no compiler")

    backend[0] = broken
    model, plain = tiny(), tiny()
    with pytest.raises(Exception, match="no compiler"):
        model.compile(*images())
    losses = [each.step(*images()).stacked() for each in (plain, model)]
    assert torch.equal(*losses)


def test_cuda_graph_steps_are_marked(monkeypatch, backend):
    """A fake GPU: what is asked of it, in which order."""
    model = tiny()
    seen: list[str] = []
    monkeypatch.setattr(model, "device", SimpleNamespace(type="cuda"))
    monkeypatch.setattr(nn.Module, "compile", lambda network, mode: seen.append(f"compile {mode}"))
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: seen.append("begin"))
    monkeypatch.setattr(model, "_autocast", lambda: torch.autocast("cpu", enabled=False))
    model.compile(*images())
    model.step(*images())
    assert seen == ["compile reduce-overhead"] * 4 + ["begin"] * (3 + 1)
