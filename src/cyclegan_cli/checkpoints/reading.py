"""Any checkpoint that a user may name: ours, or the original implementation's. No torch here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cyclegan_cli.checkpoints.container import TensorInfo, check_fit, read_header
from cyclegan_cli.checkpoints.header import BOTH_DIRECTIONS, Direction, ModelInfo, read_model_info
from cyclegan_cli.checkpoints.original_names import direction_of, generator_files
from cyclegan_cli.checkpoints.reference import (
    ReferenceGenerator,
    find_generators,
    reference_info,
)
from cyclegan_cli.checkpoints.torch_files import is_torch_file, read_torch_file
from cyclegan_cli.config import Domains as Domains
from cyclegan_cli.errors import CheckpointError
from cyclegan_cli.models.shapes import generator_shapes


@dataclass(frozen=True)
class ReferenceModel:
    """A file of the original implementation, or a folder with the files of both directions.

    Attributes:
        info: Its description.
        generators: Where each direction's generator is: the file, and its names there.
    """

    info: ModelInfo
    generators: Mapping[Direction, tuple[Path, ReferenceGenerator]]


def is_reference(path: Path) -> bool:
    """Whether a checkpoint is the original implementation's, by its first bytes.

    Raises:
        CheckpointError: It cannot be read.
    """
    return path.is_dir() or (path.suffix != ".safetensors" and is_torch_file(path))


def source_files(path: Path, directions: Iterable[Direction]) -> list[Path]:
    """The files of a checkpoint that the generators of these directions are in.

    Raises:
        CheckpointError: It is damaged or foreign.
    """
    if not path.is_dir():
        return [path]
    generators = read_reference(path).generators
    return list(dict.fromkeys(generators[direction][0] for direction in directions))


def read_model(path: Path, domains: Domains | None = None) -> ModelInfo:
    """What a checkpoint says of its model.

    Args:
        path: A safetensors file of ours, a ``.pth`` file of the original implementation, or a
            folder with ``latest_net_G_A.pth`` and ``latest_net_G_B.pth``.
        domains: Names of the domains A and B in place of the checkpoint's own.

    Raises:
        CheckpointError: It is damaged or foreign.
    """
    info = read_reference(path).info if is_reference(path) else read_model_info(path)
    if domains is None:
        return info
    return dataclasses.replace(info, name_a=domains[0], name_b=domains[1])


def generator_tensors(
    path: Path, info: ModelInfo, direction: Direction
) -> tuple[Path, dict[str, TensorInfo]]:
    """The tensors of one direction's generator: their file, and what they are by our names.

    Raises:
        CheckpointError: They are not this architecture's, or the file is damaged.
    """
    if is_reference(path):
        file, generator = read_reference(path).generators[direction]
        found = read_torch_file(file)
        return file, {ours: found[theirs] for ours, theirs in generator.names.items()}
    prefix, shapes = f"generator_{direction}.", generator_shapes(info.generator)
    tensors = read_header(path).tensors
    check_fit(path, tensors, prefix, shapes)
    return path, {name: tensors[prefix + name] for name in shapes}


def read_reference(path: Path) -> ReferenceModel:
    """Find the generators in a file or folder of the original implementation.

    Raises:
        CheckpointError: There is none that this program can build, or the file is damaged.
    """
    found: dict[Direction, tuple[Path, ReferenceGenerator]] = {}
    files = generator_files(path) if path.is_dir() else [path]
    for file in sorted(files, key=lambda file: direction_of(file.stem) is None):
        for direction, generator in find_generators(file, read_torch_file(file)).items():
            found.setdefault(direction, (file, generator))
    if not found:
        raise CheckpointError(f"the folder {path} has no generator like latest_net_G_A.pth")
    named = found.get("a2b", found.get("b2a"))
    assert named is not None
    info = reference_info(named[0], ((d, g) for d, (_, g) in found.items()))
    if path.is_dir():
        info = dataclasses.replace(info, training={"imported_from": path.name})
    return ReferenceModel(info, {d: found[d] for d in BOTH_DIRECTIONS if d in found})
