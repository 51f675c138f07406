"""Models and training states to safetensors files, and back. Nothing here ever executes anything.

Two files in a run folder: ``model.safetensors`` has the two generators and is for sharing;
``state.safetensors`` has everything that resume needs, those generators included.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import torch
from safetensors import SafetensorError
from safetensors.torch import save as serialise
from safetensors.torch import save_file
from torch import Tensor, nn

from cyclegan_cli import __version__, files
from cyclegan_cli.checkpoints.container import (
    TensorInfo,
    check_fit,
    check_tensor,
    read_header,
)
from cyclegan_cli.checkpoints.header import (
    Direction,
    ModelInfo,
    StateInfo,
    state_info,
    to_metadata,
)
from cyclegan_cli.checkpoints.importing import load_reference_weights, refuse_not_finite
from cyclegan_cli.checkpoints.reading import Domains, is_reference, read_model
from cyclegan_cli.errors import CheckpointError
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.models.networks import ResnetGenerator
from cyclegan_cli.models.replay import ReplayPool

Reader = Callable[[str], Tensor]
TORCH_DTYPES = {
    "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "U8": torch.uint8,
}  # fmt: skip
ADAM_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def library_versions() -> dict[str, str]:
    """The versions that a checkpoint records."""
    return {
        "cyclegan_cli": __version__,
        "safetensors": safetensors.__version__,
        "torch": torch.__version__,
    }


def save_model(path: Path, model: CycleGAN, info: ModelInfo) -> None:
    """Write both generators (their averages, where it has them), fp32, whole or not at all.

    Raises:
        OutputError: It cannot be written.
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
    """Write generators, in the number format that they have, whole or not at all.

    Args:
        path: The file.
        generators: One for each of ``info.directions``.
        info: The description of the model.

    Raises:
        OutputError: It cannot be written.
    """
    _save(path, _generator_tensors(generators, info), to_metadata(info.to_document()))


def generators_content(
    generators: Mapping[Direction, ResnetGenerator], info: ModelInfo, more: Mapping[str, Any]
) -> bytes:
    """What :func:`save_generators` would write, with ``more`` in its document."""
    tensors = _on_cpu(_generator_tensors(generators, info))
    return serialise(tensors, to_metadata(info.to_document() | dict(more)))


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
    """Write everything that resume needs, whole or not at all.

    Args:
        path: The file.
        model: What is trained.
        info: The description of the run.
        others: Where several processes train together, the :func:`pools_of` all but the first.

    Raises:
        OutputError: It cannot be written.
    """
    tensors = dict(_state_tensors(model))
    for rank, pools in enumerate(others, start=1):
        tensors |= {_of_rank(rank, name): tensor for name, tensor in pools.items()}
    _save(path, tensors, to_metadata(info.to_document()))


def pools_of(model: CycleGAN) -> dict[str, Tensor]:
    """The replay pools' part of a training state, on the CPU: what processes do not share."""
    return _on_cpu(
        {f"{name}.{key}": tensor for name, pool in _pools(model)
         for key, tensor in pool.state().items()}
    )  # fmt: skip


def _of_rank(rank: int, name: str) -> str:
    """The name in a training state of a process's own tensor; the first's are as if alone."""
    return f"rank.{rank}.{name}" if rank else name


def load_generator(
    path: Path, direction: Direction, domains: Domains | None = None
) -> tuple[ResnetGenerator, ModelInfo]:
    """Build the generator of one direction; of our own files only its own tensors are read.

    Args:
        path: Any checkpoint that ``reading.read_model`` knows.
        direction: ``a2b`` or ``b2a``.
        domains: Names of the domains A and B in place of the checkpoint's own.

    Returns:
        The generator, fp32, on the CPU, in inference mode; and what the file says of it.

    Raises:
        CheckpointError: A foreign or damaged file, one that holds the other direction alone,
            tensors that are not this architecture's, or weights that are not finite.
    """
    info = read_model(path, domains)
    info.require(direction)
    with torch.device("meta"):
        generator = ResnetGenerator(info.generator)
    if is_reference(path):
        weights = load_reference_weights(path, direction)
    else:
        prefix = f"generator_{direction}."
        check_fit(path, read_header(path).tensors, prefix, _shapes(generator))
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


def restore_state(path: Path, model: CycleGAN, rank: int = 0) -> None:
    """Put a saved training state into a model of the same configuration.

    Args:
        path: The file.
        model: What is trained.
        rank: Whose replay pools to take, of several processes that trained together; where there
            are none of so many, they stay empty.

    Raises:
        CheckpointError: The file's tensors are not those of this model, or not finite.
    """
    header = read_header(path)
    tensors = header.tensors
    _check_state(path, tensors, model, state_info(path, header).ranks)
    with _open(path) as read:
        for name, network in _networks(model):
            for key, tensor in network.state_dict().items():
                tensor.copy_(read(f"{name}.{key}"))
        for name, parameter, optimizer in _parameters(model):
            if f"adam.{name}.step" in tensors:
                optimizer.state[parameter] = _read_moments(name, parameter, read)
        for name, pool in _pools(model):
            prefix = _of_rank(rank, f"{name}.")
            saved = [key for key in tensors if key.startswith(prefix)]
            if saved:
                pool.restore({key.removeprefix(prefix): read(key) for key in saved}, model.device)


def _check_state(
    path: Path, tensors: Mapping[str, TensorInfo], model: CycleGAN, ranks: int
) -> None:
    """Refuse a file whose tensors are not exactly those of a state of ``model``."""
    known: set[str] = set()
    for name, network in _networks(model):
        check_fit(path, tensors, f"{name}.", _shapes(network))
        known |= {key for key in tensors if key.startswith(f"{name}.")}
    for name, parameter, _ in _parameters(model):
        shapes = {"step": (), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
        keys = {f"adam.{name}.{moment}": tuple(shape) for moment, shape in shapes.items()}
        if known_here := keys.keys() & tensors.keys():
            # Moments exist from the first step on; then all of them do.
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
    """Refuse replay pools that are not those of a process; returns their tensors' names."""
    crop, known = model.config.crop_size, set()
    for name, pool in _pools(model):
        random, images = _of_rank(rank, f"{name}.random"), _of_rank(rank, f"{name}.images")
        known |= {random, images}
        check_tensor(path, tensors, random, tuple(pool.random.get_state().shape), ("U8",))
        if found := tensors.get(images):
            count = min(found.shape[0], pool.size) if found.shape else 0
            check_tensor(path, tensors, images, (count, 3, crop, crop))
    return known


def _read_moments(name: str, parameter: nn.Parameter, read: Reader) -> dict[str, Tensor]:
    """Adam's moments, in their parameter's memory format and on its device."""
    step = read(f"adam.{name}.step")
    return {
        "step": step.to(parameter.device) if parameter.device.type == "cuda" else step,
        "exp_avg": torch.empty_like(parameter).copy_(read(f"adam.{name}.exp_avg")),
        "exp_avg_sq": torch.empty_like(parameter).copy_(read(f"adam.{name}.exp_avg_sq")),
    }


def _state_tensors(model: CycleGAN) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a training state: networks, averages, Adam's moments, replay pools."""
    for name, network in _networks(model):
        for key, tensor in network.state_dict().items():
            yield f"{name}.{key}", tensor
    for name, parameter, optimizer in _parameters(model):
        for moment in ADAM_MOMENTS:
            if parameter in optimizer.state:
                yield f"adam.{name}.{moment}", optimizer.state[parameter][moment]
    yield from pools_of(model).items()


def _networks(model: CycleGAN) -> list[tuple[str, nn.Module]]:
    """The four networks and, where there are any, the averages of the generators."""
    averages = model.averages.generators if model.averages else {}
    return [
        *model.networks().items(),
        *((f"average.{name}", generator) for name, generator in averages.items()),
    ]


def _pools(model: CycleGAN) -> tuple[tuple[str, ReplayPool], ...]:
    return ("pool_a", model.pool_a), ("pool_b", model.pool_b)


def _parameters(model: CycleGAN) -> Iterator[tuple[str, nn.Parameter, torch.optim.Optimizer]]:
    """All trained parameters with their full names and their optimisers."""
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
            # The library wraps what the system said: "I/O error: No space left on device ...".
            raise _as_os_error(error) from error


def _as_os_error(error: SafetensorError) -> OSError:
    code = errno.ENOSPC if "No space left" in str(error) else errno.EIO
    return OSError(code, str(error).removeprefix("Error while serializing: "))


@contextmanager
def _open(path: Path) -> Iterator[Reader]:
    """Yield a function that reads one finite tensor by name; other tensors are not touched.

    Read, not mapped as by the safetensors library: a mapped file that another program cuts short
    meanwhile would end this one without a word (SIGBUS).
    """
    tensors = read_header(path).tensors
    try:
        with path.open("rb") as stream:

            def read(name: str) -> Tensor:
                tensor = _read_tensor(stream, tensors[name])
                refuse_not_finite(path, name, tensor)
                return tensor

            yield read
    except (OSError, EOFError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error


def _read_tensor(stream: BinaryIO, info: TensorInfo) -> Tensor:
    """A tensor of a type that ``check_tensor`` allows; raises EOFError of a file cut short."""
    tensor = torch.empty(info.shape, dtype=TORCH_DTYPES[info.dtype], device="cpu")
    assert info.place is not None
    stream.seek(info.place.start)
    content = tensor.reshape(-1).view(torch.uint8).numpy()
    if stream.readinto(content) != content.size:  # type: ignore[attr-defined]
        raise EOFError("it ends before its last tensor")
    return tensor


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
