"""Two checkpoints side by side: what they say, and how far their weights are apart. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cyclegan_cli.checkpoints.container import TensorInfo, read_header
from cyclegan_cli.checkpoints.header import BOTH_DIRECTIONS, ModelInfo
from cyclegan_cli.checkpoints.locate import checkpoint_file
from cyclegan_cli.checkpoints.numbers import NumbersFile, pieces, readable
from cyclegan_cli.checkpoints.reading import generator_tensors, is_reference, read_model
from cyclegan_cli.inspection.summary import SCHEMA, Facts

Located = tuple[Path, Mapping[str, TensorInfo]]  # A network: its file, and its tensors there.
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
    weights; 0 is the same network, and ones that have nothing in common come to √2.

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
        for direction in BOTH_DIRECTIONS:
            if all(direction in info.directions for info in infos):
                own = [
                    generator_tensors(*both, direction) for both in zip(files, infos, strict=True)
                ]
                found[f"generator_{direction}"] = _distance(*own)
    if not any(map(is_reference, files)):
        found |= _discriminator_distances(files)
    return found


def _discriminator_distances(files: tuple[Path, Path]) -> Facts:
    headers = [read_header(file).tensors for file in files]
    found: Facts = {}
    for network in DISCRIMINATORS:
        own = [{n: t for n, t in header.items() if n.startswith(f"{network}.")}
               for header in headers]  # fmt: skip
        shapes = [{name: tensor.shape for name, tensor in tensors.items()} for tensors in own]
        known = all(readable(tensor) for tensors in own for tensor in tensors.values())
        if known and shapes[0] and shapes[0] == shapes[1]:
            found[network] = _distance(*zip(files, own, strict=True))
    return found


def _distance(one: Located, other: Located) -> Facts:
    """How far two networks of the same tensors are apart; in fp64, a piece at a time."""
    files = NumbersFile(one[0]), NumbersFile(other[0])
    squares, differences, largest = 0.0, 0.0, 0.0
    with np.errstate(all="ignore"):
        for name, info in one[1].items():
            for first, second in pieces(files[0].tensor(info), files[1].tensor(other[1][name])):
                difference = second - first
                squares += float(first @ first)
                differences += float(difference @ difference)
                largest = max(largest, float(abs(difference).max()))
    relative = (differences / squares) ** 0.5 if squares else math.inf if differences else 0.0
    finite = math.isfinite(relative) and math.isfinite(largest)
    return {
        "relative_distance": round(relative, 6) if finite else None,
        "largest_difference": largest if finite else None,
    }
