"""Models and training states to safetensors files, and back.

A run folder has two files: ``model.safetensors`` holds the two generators and is for sharing;
``state.safetensors`` holds everything that resuming needs, those generators included.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from safetensors.torch import save_file
from torch import Tensor, nn

from cyclegan_cli import __version__, files
from cyclegan_cli.checkpoints.header import (
    Direction,
    ModelInfo,
    StateInfo,
    TensorInfo,
    check_network,
    check_tensor,
    read_error,
    read_header,
    state_info,
    to_metadata,
)
from cyclegan_cli.checkpoints.locate import Checkpoint, read_checkpoint
from cyclegan_cli.config import Domains
from cyclegan_cli.errors import CheckpointError
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.models.networks import ResnetGenerator
from cyclegan_cli.models.replay import ReplayPool
from cyclegan_cli.models.shapes import generator_shapes

ReadTensor = Callable[[str], Tensor]
ADAM_STATE = ("step", "exp_avg", "exp_avg_sq")


def library_versions() -> dict[str, str]:
    """Return the library versions that a checkpoint records."""
    return {
        "cyclegan_cli": __version__,
        "safetensors": safetensors.__version__,
        "torch": torch.__version__,
    }


def save_model(path: Path, model: CycleGAN, info: ModelInfo) -> None:
    """Write both generators (their EMA weights, if there are any), fp32, atomically.

    Raises:
        OutputError: The file cannot be written.
    """
    result = model.result()
    generators: dict[Direction, ResnetGenerator] = {
        "a2b": result["generator_a2b"],
        "b2a": result["generator_b2a"],
    }
    save_generators(path, generators, info)


def save_generators(
    path: Path, generators: Mapping[Direction, ResnetGenerator], info: ModelInfo
) -> None:
    """Write generators in their own dtype, atomically.

    Args:
        path: The file.
        generators: One for each of ``info.directions``.
        info: The description of the model.

    Raises:
        OutputError: The file cannot be written.
    """
    _save(path, _generator_tensors(generators, info), to_metadata(info.to_document()))


def generators_content(
    generators: Mapping[Direction, ResnetGenerator], info: ModelInfo, more: Mapping[str, Any]
) -> bytes:
    """Return the content that :func:`save_generators` writes, with ``more`` in its document."""
    tensors = _on_cpu(_generator_tensors(generators, info))
    return serialize(tensors, to_metadata(info.to_document() | dict(more)))


def _generator_tensors(
    generators: Mapping[Direction, ResnetGenerator], info: ModelInfo
) -> dict[str, Tensor]:
    return {
        f"generator_{direction}.{name}": tensor
        for direction in info.directions
        for name, tensor in generators[direction].state_dict().items()
    }


def save_state(
    path: Path, model: CycleGAN, info: StateInfo, others: Sequence[Mapping[str, Tensor]] = ()
) -> None:
    """Write everything that resuming needs, atomically.

    Args:
        path: The file.
        model: The model.
        info: The description of the run.
        others: :func:`pools_of` of all ranks but the first, in distributed training.

    Raises:
        OutputError: The file cannot be written.
    """
    tensors = dict(_state_tensors(model))
    for rank, pools in enumerate(others, start=1):
        tensors |= {_rank_name(rank, name): tensor for name, tensor in pools.items()}
    _save(path, tensors, to_metadata(info.to_document()))


def pools_of(model: CycleGAN) -> dict[str, Tensor]:
    """Return the replay pools' tensors of a training state, on the CPU: ranks do not share them."""
    return _on_cpu(
        {f"{name}.{key}": tensor for name, pool in _pools(model)
         for key, tensor in pool.state().items()}
    )  # fmt: skip


def _rank_name(rank: int, name: str) -> str:
    """Return the name of a rank's own tensor in a training state; rank 0 has no prefix."""
    return f"rank.{rank}.{name}" if rank else name


def load_generator(
    checkpoint: Checkpoint | Path, direction: Direction, domains: Domains | None = None
) -> tuple[ResnetGenerator, ModelInfo]:
    """Build the generator of one direction; of safetensors files only its own tensors are read.

    Args:
        checkpoint: A checkpoint from :func:`read_checkpoint`, or its path.
        direction: ``a2b`` or ``b2a``.
        domains: For a path, names of the domains A and B that replace those of the checkpoint.

    Returns:
        The generator, fp32, on the CPU, in inference mode; and the description of the model.

    Raises:
        CheckpointError: The file is damaged or of another program, holds only the other
            direction, or its weights do not fit the architecture or are not finite.
    """
    if isinstance(checkpoint, Path):
        checkpoint = read_checkpoint(checkpoint, domains)
    info = checkpoint.info
    info.require(direction)
    [path] = checkpoint.files([direction])
    weights = {}
    for name, stored, tensor in generator_tensors(checkpoint, direction):
        # A copy, because the file is mapped and may be changed while the network is in use.
        weights[name] = tensor.to(torch.float32, copy=True).contiguous()
        _check_finite(path, stored, weights[name])
    with torch.device("meta"):
        generator = ResnetGenerator(info.generator_of(direction))
    generator.load_state_dict(weights, assign=True)
    return generator.eval().requires_grad_(False), info


def generator_tensors(
    checkpoint: Checkpoint, direction: Direction
) -> Iterator[tuple[str, str, Tensor]]:
    """Yield our name, the name in the file, and the stored tensor of a generator's parameters.

    Raises:
        CheckpointError: The file cannot be read, or its tensors are not those of the architecture.
    """
    if checkpoint.header is None:
        generator = checkpoint.generators[direction]
        for name, stored in generator.names.items():
            yield name, stored, generator.tensors[stored]
        return
    prefix, shapes = (
        f"generator_{direction}.",
        generator_shapes(checkpoint.info.generator_of(direction)),
    )
    check_network(checkpoint.path, checkpoint.header.tensors, prefix, shapes)
    with open_tensors(checkpoint.path) as read:
        for name in shapes:
            yield name, prefix + name, read(prefix + name)


@contextmanager
def open_tensors(path: Path) -> Iterator[ReadTensor]:
    """Yield a function that maps a tensor of a safetensors file into memory by its name.

    Raises:
        CheckpointError: The file cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            yield file.get_tensor
    except OSError as error:
        raise read_error(path, error) from error
    except SafetensorError as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error


def restore_state(path: Path, model: CycleGAN, rank: int = 0) -> None:
    """Restore a saved training state into a model of the same configuration.

    Args:
        path: The file.
        model: The model to restore into.
        rank: The process whose replay pools are restored, of several that trained together; if
            there are fewer in the file, they stay empty.

    Raises:
        CheckpointError: The file's tensors are not those of this model, or not finite.
    """
    header = read_header(path)
    tensors = header.tensors
    _check_state(path, tensors, model, state_info(path, header).ranks)
    with open_tensors(path) as read_any:

        def read(name: str) -> Tensor:
            tensor = read_any(name)
            _check_finite(path, name, tensor)
            return tensor

        for name, network in _networks(model):
            for key, tensor in network.state_dict().items():
                tensor.copy_(read(f"{name}.{key}"))
        for name, parameter, optimizer in _parameters(model):
            if f"adam.{name}.step" in tensors:
                step = read(f"adam.{name}.step").clone()
                # In the parameter's memory format and on its device.
                optimizer.state[parameter] = {
                    "step": step.to(parameter.device) if parameter.is_cuda else step,
                    "exp_avg": torch.empty_like(parameter).copy_(read(f"adam.{name}.exp_avg")),
                    "exp_avg_sq": torch.empty_like(parameter).copy_(
                        read(f"adam.{name}.exp_avg_sq")
                    ),
                }
        for name, pool in _pools(model):
            prefix = _rank_name(rank, f"{name}.")
            saved = [key for key in tensors if key.startswith(prefix)]
            if saved:
                state = {key.removeprefix(prefix): read(key) for key in saved}
                pool.restore(state, model.device)


def _check_finite(path: Path, name: str, tensor: Tensor) -> None:
    """Refuse weights that would only produce black images, or spoil a training.

    Args:
        path: The file.
        name: The tensor's name in it.
        tensor: Any shape and dtype.

    Raises:
        CheckpointError: An element is NaN or infinite.
    """
    count = int((~torch.isfinite(tensor)).sum())
    if count:
        raise CheckpointError(
            f"{path}: {count:,} of the {tensor.numel():,} elements of {name} are not finite (NaN "
            "or infinity)",
            "The training that wrote it had diverged: use an earlier checkpoint.",
        )


def _check_state(
    path: Path, tensors: Mapping[str, TensorInfo], model: CycleGAN, ranks: int
) -> None:
    """Check that a file's tensors are exactly those of a state of ``model``."""
    known: set[str] = set()
    for name, network in _networks(model):
        shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
        check_network(path, tensors, f"{name}.", shapes)
        known |= {key for key in tensors if key.startswith(f"{name}.")}
    for name, parameter, _ in _parameters(model):
        shape = tuple(parameter.shape)
        states = {"step": (), "exp_avg": shape, "exp_avg_sq": shape}
        keys = {f"adam.{name}.{key}": size for key, size in states.items()}
        if known_here := keys.keys() & tensors.keys():
            # Adam creates its state in the first step, all of it.
            known |= known_here
            for key, shape in keys.items():
                check_tensor(path, tensors, key, shape, ("F32",))
    for rank in range(ranks):
        known |= _check_pools(path, tensors, model, rank)
    if surplus := sorted(tensors.keys() - known):
        raise CheckpointError(f"{path} has a tensor {surplus[0]}, which no state has")


def _check_pools(
    path: Path, tensors: Mapping[str, TensorInfo], model: CycleGAN, rank: int
) -> set[str]:
    """Check the replay pools of a rank; return their tensors' names."""
    crop, known = model.config.crop_size, set()
    for name, pool in _pools(model):
        random, images = _rank_name(rank, f"{name}.random"), _rank_name(rank, f"{name}.images")
        known |= {random, images}
        check_tensor(path, tensors, random, tuple(pool.random.get_state().shape), ("U8",))
        if found := tensors.get(images):
            count = min(found.shape[0], pool.size) if found.shape else 0
            channels = model.config.channels(name.removeprefix("pool_"))
            check_tensor(path, tensors, images, (count, channels, crop, crop))
    return known


def _state_tensors(model: CycleGAN) -> Iterator[tuple[str, Tensor]]:
    """Yield names and tensors of a training state: networks, EMA, Adam state, replay pools."""
    for name, network in _networks(model):
        for key, tensor in network.state_dict().items():
            yield f"{name}.{key}", tensor
    for name, parameter, optimizer in _parameters(model):
        for key in ADAM_STATE:
            if parameter in optimizer.state:
                yield f"adam.{name}.{key}", optimizer.state[parameter][key]
    yield from pools_of(model).items()


def _networks(model: CycleGAN) -> list[tuple[str, nn.Module]]:
    """Return the four networks and, if there are any, the EMA generators."""
    averages = model.averages.generators if model.averages else {}
    return [
        *model.networks().items(),
        *((f"average.{name}", generator) for name, generator in averages.items()),
    ]


def _pools(model: CycleGAN) -> tuple[tuple[str, ReplayPool], ...]:
    return ("pool_a", model.pool_a), ("pool_b", model.pool_b)


def _parameters(model: CycleGAN) -> Iterator[tuple[str, nn.Parameter, torch.optim.Optimizer]]:
    """Yield all trained parameters with their full names and optimizers."""
    for name, network in model.networks().items():
        is_generator = name.startswith("generator")
        optimizer = model.generator_optimizer if is_generator else model.discriminator_optimizer
        for key, parameter in network.named_parameters():
            yield f"{name}.{key}", parameter, optimizer


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _save(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    on_cpu = _on_cpu(tensors)
    with files.atomic_path(path) as temporary:
        try:
            save_file(on_cpu, temporary, metadata)
        except SafetensorError as error:
            # The library wraps the system's error: "I/O error: No space left on device ...".
            code = errno.ENOSPC if "No space left" in str(error) else errno.EIO
            reason = str(error).removeprefix("Error while serializing: ")
            raise OSError(code, reason) from error
