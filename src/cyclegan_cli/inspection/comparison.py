"""Two checkpoints side by side: what they say, and how far their weights are apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclegan_cli.checkpoints.container import read_header
from cyclegan_cli.checkpoints.header import BOTH_DIRECTIONS, ModelInfo
from cyclegan_cli.checkpoints.locate import checkpoint_file
from cyclegan_cli.checkpoints.reading import is_reference, read_model
from cyclegan_cli.inspection.summary import SCHEMA, Facts

if TYPE_CHECKING:
    from torch import Tensor

DISCRIMINATORS = ("discriminator_a", "discriminator_b")


@dataclass(frozen=True)
class Comparison:
    """Two checkpoints compared.

    Attributes:
        paths: The two files.
        facts: Plain values by name; fit for JSON.
    """

    paths: tuple[Path, Path]
    facts: Facts

    def to_document(self) -> Facts:
        """As plain values for JSON."""
        paths = [str(path) for path in self.paths]
        return {"schema": SCHEMA, "kind": "comparison", "paths": paths, **self.facts}


def compare(one: Path, other: Path) -> Comparison:
    """Compare two checkpoints: architecture, training, and the weights of each network.

    Distances are relative: the Euclidean norm of the difference over that of the first one's
    weights; 0 is the same network, and independently trained ones come to about 1.4.

    Raises:
        CheckpointError: One is missing, damaged or foreign.
    """
    files = checkpoint_file(one), checkpoint_file(other)
    infos = read_model(files[0]), read_model(files[1])
    described = [_described(info) for info in infos]
    differences = {
        name: list(values)
        for name in dict.fromkeys([*described[0], *described[1]])
        if (values := (described[0].get(name), described[1].get(name)))[0] != values[1]
    }
    facts: Facts = {"same_architecture": infos[0].generator == infos[1].generator}
    facts |= {"differences": differences, "weights": _distances(files, infos)}
    return Comparison(files, facts)


def _described(info: ModelInfo) -> dict[str, Any]:
    """What a checkpoint says, with dotted names."""
    document = info.to_document()
    document = {name: document[name] for name in ("directions", "domains", "generator",
                                                  "training", "versions")}  # fmt: skip
    flat: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            flat[name] = value
    return flat


def _distances(files: tuple[Path, Path], infos: tuple[ModelInfo, ModelInfo]) -> Facts:
    """Of every network that both have, with the same shapes."""
    found: Facts = {}
    if infos[0].generator == infos[1].generator:
        from cyclegan_cli.checkpoints.store import load_generator

        for direction in BOTH_DIRECTIONS:
            if all(direction in info.directions for info in infos):
                states = [load_generator(file, direction)[0].state_dict() for file in files]
                found[f"generator_{direction}"] = _distance(*states)
    if not any(map(is_reference, files)):
        found |= _discriminator_distances(*files)
    return found


def _discriminator_distances(one: Path, other: Path) -> Facts:
    from cyclegan_cli.checkpoints.store import load_tensors

    headers = read_header(one).tensors, read_header(other).tensors
    found: Facts = {}
    for network in DISCRIMINATORS:
        own = [{n: t for n, t in header.items() if n.startswith(f"{network}.")}
               for header in headers]  # fmt: skip
        shapes = [{name: tensor.shape for name, tensor in tensors.items()} for tensors in own]
        if shapes[0] and shapes[0] == shapes[1]:
            found[network] = _distance(load_tensors(one, own[0]), load_tensors(other, own[1]))
    return found


def _distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Facts:
    """How far two networks of the same shapes are apart; in fp64, a tensor at a time."""
    squares, differences, largest = 0.0, 0.0, 0.0
    for name, tensor in one.items():
        first, difference = tensor.double(), tensor.double() - other[name].double()
        squares += float(first.square().sum())
        differences += float(difference.square().sum())
        largest = max(largest, float(difference.abs().max()))
    relative = (differences / squares) ** 0.5 if squares else 0.0
    finite = relative < float("inf") and largest < float("inf")
    return {
        "relative_distance": round(relative, 6) if finite else None,
        "largest_difference": largest if finite else None,
    }
