"""Models and training states to safetensors files, and back. Nothing here ever executes anything.

Two files in a run folder: ``model.safetensors`` has the two generators and is for sharing;
``state.safetensors`` has everything that resume needs, those generators included.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import safetensors
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cyclegan_cli import __version__, files
from cyclegan_cli.checkpoints.header import (
    Direction,
    ModelInfo,
    StateInfo,
    TensorInfo,
    model_info,
    read_header,
    state_info,
    to_metadata,
)
from cyclegan_cli.errors import CheckpointError
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.models.networks import ResnetGenerator

FLOAT_DTYPES = ("F32", "F16", "BF16")
Reader = Callable[[str], Tensor]
ADAM_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def library_versions() -> dict[str, str]:
    """The versions that a checkpoint records."""
    return {
        "cyclegan_cli": __version__,
        "safetensors": safetensors.__version__,
        "torch": torch.__version__,
    }


def save_model(path: Path, model: CycleGAN, info: ModelInfo) -> None:
    """Write both generators, fp32, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    tensors = _generator_tensors(model)
    _save(path, tensors, to_metadata(info.to_document()))


def save_state(path: Path, model: CycleGAN, info: StateInfo) -> None:
    """Write everything that resume needs, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    _save(path, dict(_state_tensors(model)), to_metadata(info.to_document()))


def load_generator(path: Path, direction: Direction) -> tuple[ResnetGenerator, ModelInfo]:
    """Build the generator of one direction; only its own tensors are read.

    Returns:
        The generator, fp32, on the CPU, in inference mode; and what the file says of it.

    Raises:
        CheckpointError: A foreign or damaged file, or tensors that are not this architecture's.
    """
    header = read_header(path)
    info = model_info(path, header)
    with torch.device("meta"):
        generator = ResnetGenerator(info.generator)
    prefix = f"generator_{direction}."
    _check_fit(path, header.tensors, prefix, generator)
    with _open(path) as read:
        weights = {name: read(prefix + name).float() for name in generator.state_dict()}
    generator.load_state_dict(weights, assign=True)
    return generator.eval().requires_grad_(False), info


def load_state_info(path: Path) -> StateInfo:
    """What a ``state.safetensors`` says of the run.

    Raises:
        CheckpointError: Not a training state, or a damaged one.
    """
    return state_info(path, read_header(path))


def restore_state(path: Path, model: CycleGAN) -> None:
    """Put a saved training state into a model of the same configuration.

    Raises:
        CheckpointError: The file's tensors are not those of this model.
    """
    tensors = read_header(path).tensors
    expected = dict(_state_tensors(model))
    for name, network in model.networks().items():
        _check_fit(path, tensors, f"{name}.", network)
    with _open(path) as read:
        for name, tensor in expected.items():
            # Pools are filled and moments made only in the course of a run.
            if not name.startswith(("pool_", "adam.")):
                tensor.copy_(read(name))
        _restore_moments(path, model, tensors, read)
        for name, pool in (("pool_a", model.pool_a), ("pool_b", model.pool_b)):
            saved = {
                key.removeprefix(f"{name}."): read(key)
                for key in tensors
                if key.startswith(f"{name}.")
            }
            if "random" not in saved:
                raise CheckpointError(f"{path} has no {name}.random: it is not a whole state")
            pool.restore(saved, model.device)


def _restore_moments(
    path: Path, model: CycleGAN, tensors: Mapping[str, TensorInfo], read: Reader
) -> None:
    for name, parameter, optimizer in _parameters(model):
        keys = {moment: f"adam.{name}.{moment}" for moment in ADAM_MOMENTS}
        present = [key for key in keys.values() if key in tensors]
        if not present:
            continue
        for moment, key in keys.items():
            shape = () if moment == "step" else tuple(parameter.shape)
            if key not in tensors or tensors[key].shape != shape:
                raise CheckpointError(f"{path} has no {key} of shape {shape}")
        optimizer.state[parameter] = {
            "step": read(keys["step"]),
            # Moments have their parameter's memory format.
            "exp_avg": torch.empty_like(parameter).copy_(read(keys["exp_avg"])),
            "exp_avg_sq": torch.empty_like(parameter).copy_(read(keys["exp_avg_sq"])),
        }
        if parameter.device.type == "cuda":
            state = optimizer.state[parameter]
            state["step"] = state["step"].to(parameter.device)


def _generator_tensors(model: CycleGAN) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": tensor
        for name, network in model.networks().items()
        if name.startswith("generator")
        for key, tensor in network.state_dict().items()
    }


def _state_tensors(model: CycleGAN) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a training state: networks, Adam's moments, replay pools."""
    for name, network in model.networks().items():
        for key, tensor in network.state_dict().items():
            yield f"{name}.{key}", tensor
    for name, parameter, optimizer in _parameters(model):
        for moment in ADAM_MOMENTS:
            if parameter in optimizer.state:
                yield f"adam.{name}.{moment}", optimizer.state[parameter][moment]
    for name, pool in (("pool_a", model.pool_a), ("pool_b", model.pool_b)):
        for key, tensor in pool.state().items():
            yield f"{name}.{key}", tensor


def _parameters(model: CycleGAN) -> Iterator[tuple[str, nn.Parameter, torch.optim.Optimizer]]:
    """All trained parameters with their full names and their optimisers."""
    for name, network in model.networks().items():
        is_generator = name.startswith("generator")
        optimizer = model.generator_optimizer if is_generator else model.discriminator_optimizer
        for key, parameter in network.named_parameters():
            yield f"{name}.{key}", parameter, optimizer


def _save(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with files.atomic_path(path) as temporary:
        try:
            save_file(on_cpu, temporary, metadata)
        except SafetensorError as error:
            # The library wraps what the system said: "I/O error: No space left on device ...".
            raise _as_os_error(error) from error


def _as_os_error(error: SafetensorError) -> OSError:
    code = errno.ENOSPC if "No space left" in str(error) else errno.EIO
    return OSError(code, str(error).removeprefix("Error while serializing: "))


@contextmanager
def _open(path: Path) -> Iterator[Reader]:
    """Yield a function that reads one tensor by name; other tensors are not touched."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file.get_tensor
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error


def _check_fit(
    path: Path, tensors: Mapping[str, TensorInfo], prefix: str, network: nn.Module
) -> None:
    """Refuse a file whose tensors under ``prefix`` are not exactly those of ``network``."""
    expected = {prefix + name: tuple(t.shape) for name, t in network.state_dict().items()}
    found = {name for name in tensors if name.startswith(prefix)}
    for name, shape in expected.items():
        if name not in found:
            raise CheckpointError(f"{path} has no tensor {name}, which its architecture needs")
        info = tensors[name]
        if info.shape != shape or info.dtype not in FLOAT_DTYPES:
            raise CheckpointError(
                f"{path}: {name} is {info.dtype} {list(info.shape)}, "
                f"but its architecture needs {list(shape)}"
            )
    if surplus := sorted(found - set(expected)):
        raise CheckpointError(
            f"{path} has a tensor {surplus[0]}, which its architecture does not have"
        )
