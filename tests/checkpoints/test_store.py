"""Models and training states survive round trips through files bit for bit."""

import dataclasses
import errno
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from cyclegan_cli.checkpoints import locate, store
from cyclegan_cli.checkpoints.header import ModelInfo, StateInfo, read_header, read_state_info
from cyclegan_cli.checkpoints.locate import read_checkpoint
from cyclegan_cli.checkpoints.store import (
    library_versions,
    load_generator,
    pools_of,
    restore_state,
    save_generators,
    save_model,
    save_state,
)
from cyclegan_cli.config import GeneratorConfig, TrainConfig
from cyclegan_cli.errors import CheckpointError, OutputError
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.models.networks import ResnetGenerator

CPU = torch.device("cpu")
CONFIG = TrainConfig(
    base_channels=2,
    discriminator_channels=2,
    residual_blocks=1,
    crop_size=32,
    load_size=32,
    pool_size=2,
    ema=0,
)
AVERAGED = dataclasses.replace(CONFIG, ema=0.9)


def crops(step: int, batch: int = 1) -> tuple[Tensor, Tensor]:
    """Images of both domains for a step: ``[batch, 3, 32, 32]`` in [-1, 1]."""
    random = torch.Generator().manual_seed(step)
    real_a, real_b = (torch.rand(batch, 3, 32, 32, generator=random) * 2 - 1 for _ in range(2))
    return real_a, real_b


def trained(config: TrainConfig = CONFIG, steps: int = 3, bf16: bool = False) -> CycleGAN:
    model = CycleGAN(config, CPU, bf16)
    train(model, range(steps))
    return model


def train(model: CycleGAN, steps: range) -> None:
    for step in steps:
        model.set_learning_rate(model.config.learning_rate / (step + 1))
        model.step(*crops(step, model.config.batch_size))


def info_of(model: CycleGAN, kind: str = "model") -> ModelInfo:
    generator = model.generator_a2b.config
    return ModelInfo(kind, generator, "day", "night", {"step": 3}, library_versions())


def state_info_of(model: CycleGAN) -> StateInfo:
    return StateInfo(
        info_of(model, "state"), model.discriminator_a.config, {"seed": 0}, 3, 1.5, "digest"
    )


def save_as_model(path: Path, model: CycleGAN) -> None:
    save_model(path, model, info_of(model))


def save_as_state(path: Path, model: CycleGAN) -> None:
    save_state(path, model, state_info_of(model))


def everything(model: CycleGAN) -> dict[str, Tensor]:
    """Copies of all that a step reads or changes, by name."""
    tensors = {
        f"{name}.{key}": tensor
        for name, network in model.networks().items()
        for key, tensor in network.state_dict().items()
    }
    for side, optimizer in (("g", model.generator_optimizer), ("d", model.discriminator_optimizer)):
        for index, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"{side}.{index}.{key}": value for key, value in moments.items()}
    for side, pool in (("pool_a", model.pool_a), ("pool_b", model.pool_b)):
        tensors |= {f"{side}.{key}": value for key, value in pool.state().items()}
    return {name: tensor.clone() for name, tensor in tensors.items()}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> set[str]:
    shared = one.keys() & other.keys()
    return (one.keys() ^ other.keys()) | {
        name
        for name in shared
        if one[name].dtype != other[name].dtype or not torch.equal(one[name], other[name])
    }


@pytest.fixture(scope="module")
def model():
    """Trained for three steps; not to be changed."""
    return trained()


@pytest.fixture(scope="module")
def model_file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "model.safetensors"
    save_as_model(path, model)
    return path


@pytest.fixture(scope="module")
def state_file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "state.safetensors"
    save_as_state(path, model)
    return path


def rewritten(path: Path, change: Callable[[dict[str, Tensor]], None]) -> Path:
    """A copy of a checkpoint with other tensors and the same description."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors)
    copy = path.with_name("rewritten.safetensors")
    save_file(tensors, copy, metadata)
    return copy


# --- averages of the generators --------------------------------------------------------------


def averaged() -> CycleGAN:
    """Trained for two steps, with averages that differ from what was trained."""
    model = trained(AVERAGED, 1)
    model.averages.update(1)
    train(model, range(1, 2))
    return model


def test_model_file_has_the_ema_weights(tmp_path):
    model = averaged()
    save_as_model(tmp_path / "model.safetensors", model)
    for direction in ("a2b", "b2a"):
        saved, _ = load_generator(tmp_path / "model.safetensors", direction)
        wanted = model.result()[f"generator_{direction}"].state_dict()
        assert not differing(dict(saved.state_dict()), dict(wanted))
        assert differing(
            dict(saved.state_dict()), model.networks()[f"generator_{direction}"].state_dict()
        )


def test_state_restores_trained_and_ema_weights(tmp_path):
    model = averaged()
    path = tmp_path / "state.safetensors"
    save_as_state(path, model)
    restored = CycleGAN(AVERAGED, CPU, bf16=False)
    restore_state(path, restored)
    assert not differing(everything(restored), everything(model))
    for name, generator in model.result().items():
        assert not differing(restored.result()[name].state_dict(), generator.state_dict())
    save_as_state(tmp_path / "again.safetensors", restored)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_state_loads_the_trained_generator(tmp_path):
    model = averaged()
    save_as_state(tmp_path / "state.safetensors", model)
    generator, _ = load_generator(tmp_path / "state.safetensors", "a2b")
    assert not differing(generator.state_dict(), model.generator_a2b.state_dict())


def test_missing_or_surplus_ema_weights_are_refused(tmp_path):
    path = tmp_path / "state.safetensors"
    save_as_state(path, trained())
    with pytest.raises(CheckpointError, match="no tensor average.generator_a2b"):
        restore_state(path, CycleGAN(AVERAGED, CPU, bf16=False))
    save_as_state(path, averaged())
    with pytest.raises(CheckpointError, match="tensor average.generator_a2b.*, which no state has"):
        restore_state(path, CycleGAN(CONFIG, CPU, bf16=False))


# --- models ----------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["a2b", "b2a"])
@pytest.mark.parametrize("size", [(1, 3, 32, 32), (2, 3, 48, 36)])
def test_loaded_generator_is_bit_identical(model, model_file, direction, size):
    images = torch.rand(size) * 2 - 1
    loaded, _ = load_generator(model_file, direction)
    original = model.networks()[f"generator_{direction}"]
    # In one memory format the kernels are the same, and so are the bits.
    loaded.to(memory_format=torch.channels_last)
    with torch.no_grad():
        assert torch.equal(loaded(images), original(images))


def test_loaded_generator_is_in_inference_mode(model_file):
    generator, _ = load_generator(model_file, "a2b")
    assert not generator.training
    for parameter in generator.parameters():
        assert (parameter.dtype, parameter.device) == (torch.float32, CPU)
        assert not parameter.requires_grad


def test_model_file_has_its_info(model, model_file):
    assert load_generator(model_file, "b2a")[1] == info_of(model)


def test_model_file_has_only_the_generators(model_file):
    prefixes = {name.split(".")[0] for name in read_header(model_file).tensors}
    assert prefixes == {"generator_a2b", "generator_b2a"}


def test_loaded_generator_does_not_change_with_its_file(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_as_model(path, model)
    generator, _ = load_generator(path, "a2b")
    save_as_model(path, CycleGAN(CONFIG, CPU, bf16=False))
    assert torch.equal(generator.stem.conv.weight, model.generator_a2b.stem.conv.weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_loaded_as_fp32(model_file, dtype):
    def halve(tensors):
        for name, tensor in tensors.items():
            tensors[name] = tensor.to(dtype)

    whole, _ = load_generator(model_file, "a2b")
    halved, _ = load_generator(rewritten(model_file, halve), "a2b")
    assert halved.head.weight.dtype == torch.float32
    assert torch.equal(halved.head.weight, whole.head.weight.to(dtype).float())


@pytest.mark.parametrize("direction", ["a2b", "b2a"])
def test_load_generator_reads_only_the_tensors_of_its_direction(model_file, monkeypatch, direction):
    names: list[str] = []
    open_tensors = store.open_tensors

    @contextmanager
    def recorded(path):
        with open_tensors(path) as read:
            yield lambda name: (names.append(name), read(name))[1]

    monkeypatch.setattr(store, "open_tensors", recorded)
    load_generator(model_file, direction)
    tensors = read_header(model_file).tensors
    assert sorted(names) == sorted(name for name in tensors if f"generator_{direction}." in name)


def test_header_is_read_once(model_file, monkeypatch):
    checkpoint = read_checkpoint(model_file)
    monkeypatch.setattr(locate, "read_header", None)
    monkeypatch.setattr(store, "read_header", None)
    generator, info = load_generator(checkpoint, "a2b")
    assert info == checkpoint.info
    assert not differing(generator.state_dict(), load_weights(model_file, "generator_a2b."))


def load_weights(path: Path, prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in load_file(path).items() if n.startswith(prefix)}


def test_file_of_one_direction_lacks_the_other(model, tmp_path):
    info = dataclasses.replace(info_of(model), directions=("b2a",))
    save_generators(tmp_path / "x.safetensors", {"b2a": model.generator_b2a}, info)
    assert {name.split(".")[0] for name in load_file(tmp_path / "x.safetensors")} == {
        "generator_b2a"
    }
    generator, found = load_generator(tmp_path / "x.safetensors", "b2a")
    assert found == info
    image = crops(0)[0]
    # In one memory format the kernels are the same, and so are the bits.
    generator.to(memory_format=torch.channels_last)
    assert torch.equal(generator(image), model.generator_b2a(image))
    with pytest.raises(CheckpointError, match="not in the other direction"):
        load_generator(tmp_path / "x.safetensors", "a2b")


def test_grey_generator_with_affine_norms_survives_a_round_trip(tmp_path):
    config = GeneratorConfig(2, 1, input_channels=1, output_channels=3, affine_norm=True)
    network = ResnetGenerator(config)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(generator=random)
    info = ModelInfo("model", config, "grey", "colour", {}, library_versions(), ("a2b",))
    save_generators(tmp_path / "x.safetensors", {"a2b": network}, info)
    generator, found = load_generator(tmp_path / "x.safetensors", "a2b")
    assert found == info
    image = crops(0)[0][:, :1]
    assert torch.equal(generator(image), network(image))


def test_generator_is_loaded_from_a_state(model, state_file):
    generator, info = load_generator(state_file, "b2a")
    assert info == info_of(model, "state")
    assert torch.equal(generator.head.weight, model.generator_b2a.head.weight)


# --- equal states, equal bytes ---------------------------------------------------------------


@pytest.mark.parametrize("save", [save_as_model, save_as_state])
def test_files_do_not_depend_on_tensor_order(model, tmp_path, save, monkeypatch):
    save(tmp_path / "one", model)
    networks = dict(reversed(model.networks().items()))
    monkeypatch.setattr(model, "networks", lambda: networks)
    save(tmp_path / "two", model)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_files_do_not_depend_on_memory_format(model, tmp_path):
    save_as_model(tmp_path / "one", model)
    other = CycleGAN(CONFIG, CPU, bf16=True)
    for name, network in other.networks().items():
        network.to(memory_format=torch.contiguous_format)
        network.load_state_dict(model.networks()[name].state_dict())
    save_as_model(tmp_path / "two", other)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


SAVE_FRESH_MODEL = """
    import sys
    from pathlib import Path
    import torch
    from cyclegan_cli.checkpoints.header import ModelInfo
    from cyclegan_cli.checkpoints.store import save_model
    from cyclegan_cli.config import TrainConfig
    from cyclegan_cli.models.cyclegan import CycleGAN

    config = TrainConfig(base_channels=2, discriminator_channels=2, residual_blocks=1, seed=5)
    model = CycleGAN(config, torch.device("cpu"), False)
    info = ModelInfo("model", model.generator_a2b.config, "day", "night", {"x": 1, "a": 2}, {})
    save_model(Path(sys.argv[1]), model, info)
"""


@pytest.mark.slow
def test_equal_states_give_equal_files_across_processes(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(SAVE_FRESH_MODEL), str(tmp_path / "there")]
    environment = os.environ | {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True)
    model = CycleGAN(dataclasses.replace(CONFIG, seed=5), CPU, bf16=False)
    info = ModelInfo("model", model.generator_a2b.config, "day", "night", {"a": 2, "x": 1}, {})
    save_model(tmp_path / "here", model, info)
    assert (tmp_path / "here").read_bytes() == (tmp_path / "there").read_bytes()


# --- states ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"pool_size": 2}, id="pools full"),
        pytest.param({"pool_size": 50}, id="pools partly filled"),
        pytest.param({"pool_size": 0}, id="no pools"),
        pytest.param({"pool_size": 5, "batch_size": 2}, id="batches of two"),
        pytest.param({"gan_loss": "vanilla", "lambda_identity": 0.0}, id="other losses"),
    ],
)
@pytest.mark.slow
def test_resumed_training_is_bit_identical(tmp_path, options, bf16):
    config = dataclasses.replace(CONFIG, **options)
    uninterrupted = trained(config, steps=4, bf16=bf16)
    save_as_state(tmp_path / "state", uninterrupted)

    # Another seed: whatever is not restored differs.
    resumed = CycleGAN(dataclasses.replace(config, seed=99), CPU, bf16)
    restore_state(tmp_path / "state", resumed)
    assert differing(everything(resumed), everything(uninterrupted)) == set()
    before = everything(resumed)
    for model in (uninterrupted, resumed):
        train(model, range(4, 9))
    assert differing(everything(resumed), everything(uninterrupted)) == set()
    assert "generator_a2b.head.weight" in differing(everything(resumed), before)


def test_saving_a_state_does_not_change_the_training(tmp_path):
    saved_on_the_way, never_saved = trained(steps=2), trained(steps=2)
    save_as_state(tmp_path / "state", saved_on_the_way)
    save_as_model(tmp_path / "model", saved_on_the_way)
    for model in (saved_on_the_way, never_saved):
        train(model, range(2, 4))
    assert differing(everything(saved_on_the_way), everything(never_saved)) == set()


def test_state_before_the_first_step_is_restored(tmp_path):
    fresh = CycleGAN(CONFIG, CPU, bf16=False)
    save_as_state(tmp_path / "state", fresh)
    restored = CycleGAN(dataclasses.replace(CONFIG, seed=99), CPU, bf16=False)
    restore_state(tmp_path / "state", restored)
    for model in (fresh, restored):
        train(model, range(3))
    assert differing(everything(fresh), everything(restored)) == set()


def test_state_file_has_its_info(model, state_file):
    assert read_state_info(state_file) == state_info_of(model)


# --- what is refused -------------------------------------------------------------------------

HEAD = "generator_a2b.head.weight"


def change(name: str, value: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], None]:
    def apply(tensors: dict[str, Tensor]) -> None:
        tensors[name] = value(tensors[name]).contiguous()

    return apply


WRONG_GENERATORS = {
    "missing": lambda tensors: tensors.pop(HEAD),
    "surplus": lambda tensors: tensors.update({"generator_a2b.head.extra": torch.zeros(1)}),
    "other shape": change(HEAD, lambda weight: weight[:2]),
    "same size, other shape": change(HEAD, lambda weight: weight.transpose(0, 1)),
    "no dimensions": change(HEAD, lambda weight: weight.sum()),
    "integers": change(HEAD, lambda weight: weight.int()),
    "bytes": change(HEAD, lambda weight: weight.to(torch.uint8)),
    "too many blocks": lambda tensors: tensors.update(
        {"generator_a2b.trunk.1.second.bias": torch.zeros(8)}
    ),
}


@pytest.mark.parametrize("damage", WRONG_GENERATORS)
def test_tensors_of_another_architecture_are_refused(model_file, state_file, damage):
    with pytest.raises(CheckpointError, match=r"rewritten\.safetensors.* generator_a2b\."):
        load_generator(rewritten(model_file, WRONG_GENERATORS[damage]), "a2b")
    with pytest.raises(CheckpointError, match=r"rewritten\.safetensors.* generator_a2b\."):
        restore_state(
            rewritten(state_file, WRONG_GENERATORS[damage]), CycleGAN(CONFIG, CPU, bf16=False)
        )


def test_info_of_another_architecture_is_refused(model, tmp_path):
    other = dataclasses.replace(model.generator_a2b.config, residual_blocks=2)
    info = dataclasses.replace(info_of(model), generator=other)
    save_model(tmp_path / "model.safetensors", model, info)
    with pytest.raises(CheckpointError, match=r"has no tensor generator_a2b\.trunk\.1"):
        load_generator(tmp_path / "model.safetensors", "a2b")


def test_huge_architecture_is_refused_before_allocation(model, tmp_path, monkeypatch):
    def refuse_memory(weight, *arguments, **options):
        assert weight.is_meta

    giant = dataclasses.replace(
        model.generator_a2b.config, base_channels=1024, residual_blocks=64
    )  # 77 GB of weights
    path = tmp_path / "model.safetensors"
    save_model(path, model, dataclasses.replace(info_of(model), generator=giant))
    monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", refuse_memory)
    with pytest.raises(CheckpointError, match="but its architecture needs"):
        load_generator(path, "a2b")


def test_replay_pools_of_all_ranks_are_restored(model, tmp_path):
    other = CycleGAN(CONFIG, CPU, bf16=False, rank=1)
    train(other, range(3))
    info = dataclasses.replace(state_info_of(model), ranks=2, items=6)
    path = tmp_path / "state.safetensors"
    save_state(path, model, info, [pools_of(other)])
    assert read_state_info(path) == info
    for rank, expected in enumerate((model, other)):
        restored = CycleGAN(CONFIG, CPU, bf16=False, rank=rank)
        restore_state(path, restored, rank)
        for found, pool in ((restored.pool_a, expected.pool_a), (restored.pool_b, expected.pool_b)):
            assert found.count == pool.count > 0
            assert torch.equal(found.images[: found.count], pool.images[: pool.count])
            assert torch.equal(found.random.get_state(), pool.random.get_state())
    third = CycleGAN(CONFIG, CPU, bf16=False, rank=2)
    restore_state(path, third, 2)
    assert (third.pool_a.count, third.pool_b.count) == (0, 0)
    document = read_header(path).document
    assert (document["state"]["ranks"], document["state"]["items"]) == (2, 6)


def test_missing_replay_pools_of_a_rank_are_refused(model, tmp_path):
    path = tmp_path / "state.safetensors"
    save_state(path, model, dataclasses.replace(state_info_of(model), ranks=2))
    with pytest.raises(CheckpointError, match=r"rank\.1\.pool_a\.random"):
        restore_state(path, CycleGAN(CONFIG, CPU, bf16=False))


def test_state_of_another_architecture_is_refused(state_file):
    other = CycleGAN(dataclasses.replace(CONFIG, discriminator_channels=3), CPU, bf16=False)
    with pytest.raises(CheckpointError, match=r"discriminator_a\.first\.weight is F32"):
        restore_state(state_file, other)


BIAS = "discriminator_a.judge.bias"


WRONG_STATES = {
    "no random state": lambda tensors: tensors.pop("pool_a.random"),
    "no step": lambda tensors: tensors.pop(f"adam.{BIAS}.step"),
    "no first moment": lambda tensors: tensors.pop(f"adam.{BIAS}.exp_avg"),
    "second moment of another shape": change(f"adam.{BIAS}.exp_avg_sq", lambda _: torch.zeros(3)),
    "several steps": change(f"adam.{BIAS}.step", lambda _: torch.zeros(1)),
    "step of bool": change(f"adam.{BIAS}.step", lambda step: step.to(torch.bool)),
    "short random state": change("pool_a.random", lambda state: state[:-1]),
    "random state of fp32": change("pool_a.random", lambda state: state.float()),
    "more images than the pool": change("pool_b.images", lambda x: x.repeat(2, 1, 1, 1)),
    "images of another size": change("pool_b.images", lambda x: x[:, :, :16]),
    "images of uint8": change("pool_b.images", lambda x: x.to(torch.uint8)),
    "misspelled name": lambda tensors: tensors.update(x=tensors.pop("pool_b.images")),
}


@pytest.mark.parametrize("damage", WRONG_STATES)
def test_incomplete_state_is_refused(state_file, damage):
    path = rewritten(state_file, WRONG_STATES[damage])
    with pytest.raises(CheckpointError, match=r"rewritten\.safetensors"):
        restore_state(path, CycleGAN(CONFIG, CPU, bf16=False))


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("write", [pickle.dump, torch.save], ids=["pickle", "torch.save"])
def test_nothing_is_ever_unpickled(tmp_path, write, protocol):
    witness, path = tmp_path / "witness", tmp_path / "model.safetensors"
    with path.open("wb") as stream:
        if write is pickle.dump:
            pickle.dump(Evil(witness), stream, protocol)
        else:
            torch.save(Evil(witness), stream, pickle_protocol=max(protocol, 2))
    for read in (
        lambda: load_generator(path, "a2b"),
        lambda: read_state_info(path),
        lambda: restore_state(path, CycleGAN(CONFIG, CPU, bf16=False)),
    ):
        with pytest.raises(CheckpointError):
            read()
    assert not witness.exists()

    if write is pickle.dump:
        pickle.loads(path.read_bytes())  # The trap works.
        assert witness.exists()


# --- writing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [save_as_model, save_as_state])
def test_failed_write_keeps_the_old_file(model, tmp_path, monkeypatch, save):
    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "x").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="cannot write .*x: no space left on device"):
        save(tmp_path / "x", model)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
