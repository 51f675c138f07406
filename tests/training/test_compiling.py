"""Whether, when and how a run's networks are compiled."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from cyclegan_cli.config import CompileChoice, TrainConfig
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.training import compiling
from cyclegan_cli.training.compiling import TIMED_STEPS, WARM_UP_STEPS, Compiler, is_faster

CPU = torch.device("cpu")


class Clock:
    now = 0.0

    def __call__(self, device_type: str) -> float:
        return self.now


class FakeModel:
    """Counts; a step takes as long as it is told to."""

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
        self.told: list[str] = []
        self.warned: list[str] = []
        self.images: Any = SimpleNamespace(device=SimpleNamespace(type=device))
        self.compiler = Compiler(
            self.model,  # type: ignore[arg-type]
            choice,
            self.told.append,
            self.warned.append,
        )

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
    assert is_faster(device, seconds, steps) is expected


def test_auto_compiles_long_gpu_runs_after_timing(clock):
    run = Run("auto", "cuda", 0.1, clock)
    run.make_steps(DECIDED + 50, of=33_000)
    assert run.model.compiled_at == [DECIDED]
    assert run.told == [
        f"compiling the networks: {33_000 - DECIDED} steps of 0.1 s are left, which makes up for it"
    ]
    assert run.warned == []
    assert run.model.steps == DECIDED + 50


def test_the_first_steps_do_not_count(clock):
    run = Run("auto", "cuda", 60.0, clock)
    run.make_steps(WARM_UP_STEPS, of=3_000)
    run.model.seconds = 0.001
    run.make_steps(TIMED_STEPS + 10, of=3_000)
    assert run.model.compiled_at == []


@pytest.mark.parametrize(("device", "of"), [("cuda", 1_000), ("cpu", 1_000_000)])
def test_auto_does_not_compile_otherwise(clock, device, of):
    run = Run("auto", device, 0.1, clock)
    run.make_steps(DECIDED + 50, of=of)
    assert (run.model.compiled_at, run.told, run.warned) == ([], [], [])


def test_without_a_compiler_auto_does_nothing(clock, monkeypatch):
    monkeypatch.setattr(compiling, "has_compiler", lambda: False)
    run = Run("auto", "cuda", 10.0, clock)
    run.make_steps(DECIDED + 1, of=33_000)
    assert (run.model.compiled_at, run.told, run.warned) == ([], [], [])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_on_compiles_before_the_first_step(clock, device):
    run = Run("on", device, 0.1, clock)
    run.make_steps(3, of=3)
    assert run.model.compiled_at == [0]
    assert run.told == ["compiling the networks, which takes a minute or two"]


def test_off_does_not(clock):
    run = Run("off", "cuda", 10.0, clock)
    run.make_steps(DECIDED + 1, of=1_000_000)
    assert run.model.compiled_at == []


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
    assert run.warned == [f"the networks cannot be compiled and run without compilation: {reason}"]
    assert run.model.steps == 5


@pytest.mark.parametrize("name", ["g++", "clang++"])
def test_compiler_is_found_by_usual_names(monkeypatch, name):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("shutil.which", lambda asked: asked if asked == name else None)
    assert compiling.has_compiler()


def test_compiler_is_found_in_cxx_variable(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda asked: asked if asked == "/opt/mine" else None)
    monkeypatch.setenv("CXX", "/opt/mine")
    assert compiling.has_compiler()
    monkeypatch.setenv("CXX", "")
    assert not compiling.has_compiler()


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
def test_compiled_model_computes_the_same_steps():
    plain, compiled = tiny(), tiny()
    compiled.compile(*images())
    assert compiled.pool_a.count == 0
    for _ in range(3):
        losses = [model.step(*images()).stacked() for model in (plain, compiled)]
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)


@traced
@pytest.mark.usefixtures("backend")
@pytest.mark.slow
def test_nothing_is_learned_while_compiling():
    model = tiny()
    before = {name: network.state_dict() for name, network in tiny().networks().items()}
    model.compile(*images())
    for name, network in model.networks().items():
        for key, tensor in network.state_dict().items():
            assert torch.equal(tensor, before[name][key])
            assert network.get_parameter(key).grad is None
    assert not model.generator_optimizer.state


def test_where_compiling_fails_the_networks_stay_as_they_were(backend):
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
