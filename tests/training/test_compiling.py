"""Whether a training compiles its networks and records CUDA graphs."""

from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cyclegan_cli.config import CompileChoice, TrainConfig
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.training.compiling import compile_and_record

CPU = torch.device("cpu")


class FakeModel:
    """A model on a device that need not exist."""

    def __init__(self, is_recordable: bool) -> None:
        self.is_recordable = is_recordable
        self.calls: list[str] = []
        self.failures: dict[str, Exception] = {}

    def compile(self, real_a: Any, real_b: Any) -> None:
        self._call("compile", real_a, real_b)

    def record_graphs(self, real_a: Any, real_b: Any) -> None:
        self._call("record", real_a, real_b)

    def _call(self, name: str, *images: Any) -> None:
        assert images == ("a", "b")
        self.calls.append(name)
        if name in self.failures:
            raise self.failures[name]


def prepare(model: Any, choice: CompileChoice) -> tuple[list[str], list[str]]:
    """Return the messages and the warnings."""
    messages: list[str] = []
    warnings: list[str] = []
    compile_and_record(model, choice, "a", "b", messages.append, warnings.append)  # type: ignore
    return messages, warnings


COMPILING = ["compiling the networks, which takes a minute or two"]


@pytest.mark.parametrize(
    ("choice", "is_recordable", "calls"),
    [
        ("auto", True, ["record"]),
        ("auto", False, []),
        ("on", True, ["compile", "record"]),  # The compiled networks are recorded.
        ("on", False, ["compile"]),
        ("off", True, []),
        ("off", False, []),
    ],
)
def test_choices(choice, is_recordable, calls):
    model = FakeModel(is_recordable)
    messages, warnings = prepare(model, choice)
    assert model.calls == calls
    assert messages == (COMPILING if choice == "on" else [])
    assert warnings == []


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (RuntimeError("\nNo C++ compiler\nat line 7"), "No C++ compiler"),
        (AssertionError(), "AssertionError()"),
    ],
)
def test_failed_compilation_is_a_warning(failure, reason):
    model = FakeModel(is_recordable=True)
    model.failures["compile"] = failure
    messages, warnings = prepare(model, "on")
    assert messages == COMPILING
    assert warnings == [f"the networks cannot be compiled and run without compilation: {reason}"]
    assert model.calls == ["compile", "record"]


def test_failed_recording_is_a_warning():
    model = FakeModel(is_recordable=True)
    model.failures["record"] = RuntimeError("CUDA out of memory\nat line 7")
    _, warnings = prepare(model, "auto")
    assert warnings == ["the training runs without CUDA graphs, more slowly: CUDA out of memory"]


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


def test_only_a_single_gpu_records():
    """Those of several ranks have to wait for each other inside of a step."""
    model = tiny()
    assert not model.is_recordable
    model.device = torch.device("cuda")
    assert model.is_recordable
    model.trained["generator_a2b"] = Mock(DistributedDataParallel)
    assert not model.is_recordable
