"""Two checkpoints compared: their descriptions, and the distance of their weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cyclegan_cli.checkpoints.header import BOTH_DIRECTIONS, ModelInfo
from cyclegan_cli.checkpoints.locate import Checkpoint, checkpoint_file, read_checkpoint
from cyclegan_cli.checkpoints.store import generator_tensors, open_tensors
from cyclegan_cli.inspection.summary import SCHEMA, Facts

DISCRIMINATORS = ("discriminator_a", "discriminator_b")
FLOAT_DTYPES = {"F64", "F32", "F16", "BF16"}
PIECE = 1 << 20  # Elements that are converted to fp64 at a time.


@dataclass(frozen=True)
class Comparison:
    """Two checkpoints compared.

    Attributes:
        paths: The two files.
        facts: Plain values by name, fit for JSON.
    """

    paths: tuple[Path, Path]
    facts: Facts

    def to_document(self) -> Facts:
        """Return plain values for JSON."""
        paths = [str(path) for path in self.paths]
        return {"schema": SCHEMA, "kind": "comparison", "paths": paths, **self.facts}


def compare(one: Path, other: Path) -> Comparison:
    """Compare two checkpoints: architecture, training, and the weights of each network.

    Distances are relative: the Euclidean norm of the difference over that of the first
    checkpoint's weights. 0 is the same network; unrelated ones are about √2 apart.

    Raises:
        CheckpointError: One is missing, damaged or of another program.
    """
    first, second = (read_checkpoint(checkpoint_file(path)) for path in (one, other))
    described = [_flat_document(checkpoint.info) for checkpoint in (first, second)]
    differences = {
        name: list(values)
        for name in dict.fromkeys([*described[0], *described[1]])
        if (values := (described[0].get(name), described[1].get(name)))[0] != values[1]
    }
    is_same = first.info.generator == second.info.generator
    weights: Facts = {}
    if is_same:
        for direction in BOTH_DIRECTIONS:
            if direction in first.info.directions and direction in second.info.directions:
                tensors = [
                    generator_tensors(checkpoint, direction) for checkpoint in (first, second)
                ]
                pairs = ((a, b) for (_, _, a), (_, _, b) in zip(*tensors, strict=True))
                weights[f"generator_{direction}"] = _distance(pairs)
    weights |= _discriminator_distances(first, second)
    facts = {"same_architecture": is_same, "differences": differences, "weights": weights}
    return Comparison((first.path, second.path), facts)


def _flat_document(info: ModelInfo) -> dict[str, Any]:
    """Return the description of a model by dotted names."""
    document = info.to_document()
    flat: dict[str, Any] = {}
    for name in ("directions", "domains", "generator", "training", "versions"):
        value = document[name]
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            flat[name] = value
    return flat


def _discriminator_distances(first: Checkpoint, second: Checkpoint) -> Facts:
    """Return the distances of the discriminators, if both files are states of the same shapes."""
    if first.header is None or second.header is None:
        return {}
    found: Facts = {}
    for network in DISCRIMINATORS:
        own, others = (
            {n: t for n, t in header.tensors.items() if n.startswith(f"{network}.")}
            for header in (first.header, second.header)
        )
        shapes = [{n: t.shape for n, t in tensors.items()} for tensors in (own, others)]
        dtypes = {tensor.dtype for tensor in (*own.values(), *others.values())}
        if own and shapes[0] == shapes[1] and dtypes <= FLOAT_DTYPES:
            with open_tensors(first.path) as read, open_tensors(second.path) as read_other:
                found[network] = _distance((read(name), read_other(name)) for name in own)
    return found


def _distance(pairs: Iterable[tuple[Tensor, Tensor]]) -> Facts:
    """Return the distance of two networks whose tensors come in pairs, computed in fp64."""
    squares, differences, largest = 0.0, 0.0, 0.0
    for tensors in pairs:
        parts = (torch.split(tensor.flatten(), PIECE) for tensor in tensors)
        for one, other in zip(*parts, strict=True):
            first = one.double()
            difference = other.double() - first
            squares += float(first @ first)
            differences += float(difference @ difference)
            largest = max(largest, float(difference.abs().max())) if len(first) else largest
    relative = (differences / squares) ** 0.5 if squares else math.inf if differences else 0.0
    is_finite = math.isfinite(relative) and math.isfinite(largest)
    return {
        "relative_distance": round(relative, 6) if is_finite else None,
        "largest_difference": largest if is_finite else None,
    }
