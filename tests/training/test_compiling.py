"""Whether a training compiles its networks and captures CUDA graphs."""

from typing import Any

import pytest
import torch
from torch import nn

from cyclegan_cli.config import CompileChoice, TrainConfig
from cyclegan_cli.errors import DeviceError
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.training.compiling import compile_and_capture

CPU = torch.device("cpu")


class FakeModel:
    """A model on a device that need not exist."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.calls: list[str] = []
        self.failures: dict[str, Exception] = {}

    def compile(self, real_a: Any, real_b: Any) -> None:
        self._call("compile", real_a, real_b)

    def capture_graphs(self, real_a: Any, real_b: Any) -> None:
        self._call("capture", real_a, real_b)

    def _call(self, name: str, *images: Any) -> None:
        assert images == ("a", "b")
        self.calls.append(name)
        if name in self.failures:
            raise self.failures[name]


def prepare(model: Any, choice: CompileChoice) -> tuple[list[str], list[str]]:
    """Return the messages and the warnings."""
    messages: list[str] = []
    warnings: list[str] = []
    compile_and_capture(model, choice, "a", "b", messages.append, warnings.append)  # type: ignore
    return messages, warnings


COMPILING = ["compiling the networks, which takes a minute or two"]


@pytest.mark.parametrize(
    ("choice", "device", "calls"),
    [
        ("auto", "cuda", ["capture"]),
        ("auto", "cpu", []),
        ("auto", "mps", []),
        ("on", "cuda", ["compile", "capture"]),  # The compiled networks are captured.
        ("on", "cpu", ["compile"]),
        ("off", "cuda", []),
        ("off", "cpu", []),
    ],
)
def test_choices(choice, device, calls):
    model = FakeModel(device)
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
    model = FakeModel("cuda")
    model.failures["compile"] = failure
    messages, warnings = prepare(model, "on")
    assert messages == COMPILING
    assert warnings == [f"the networks cannot be compiled and run without compilation: {reason}"]
    assert model.calls == ["compile", "capture"]


def test_without_memory_for_graphs_is_a_warning():
    model = FakeModel("cuda")
    model.failures["capture"] = torch.OutOfMemoryError("CUDA out of memory\nat line 7")
    _, warnings = prepare(model, "auto")
    assert warnings == ["not enough memory for CUDA graphs: the training runs without, more slowly"]


def test_failed_capture_names_the_first_error():
    model = FakeModel("cuda")
    model.failures["capture"] = failure = RuntimeError("operation failed due to a previous error")
    failure.__context__ = RuntimeError("operation not permitted\nwhen stream is capturing")
    with pytest.raises(DeviceError, match="CUDA graphs: operation not permitted$") as raised:
        prepare(model, "auto")
    assert "--compile off" in raised.value.hint


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
