"""A description, and what may be asked of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

Facts = dict[str, Any]
SCHEMA = 1  # Of the JSON: docs/inspect.md. New keys do not change it; other meanings do.


@dataclass(frozen=True)
class Request:
    """What is wanted beyond a short description.

    Attributes:
        weights: A list of all tensors, with statistics of their numbers.
        receptive_field: What a pixel sees, and what a translation costs.
        full: Statistics of all images of a folder instead of a sample.
    """

    weights: bool = False
    receptive_field: bool = False
    full: bool = False


@dataclass(frozen=True)
class Summary:
    """A description.

    Attributes:
        path: What is described.
        kind: ``run``, ``runs`` (a folder of them), ``model``, ``state``, ``safetensors`` (of
            another program), ``reference`` (a generator of the original implementation),
            ``torch`` (another file of torch.save), ``onnx``, ``pt2``, ``openvino``, ``images`` (a
            folder) or ``image``.
        facts: Plain values by name; fit for JSON.
    """

    path: Path
    kind: str
    facts: Facts

    @property
    def of_checkpoint(self) -> bool:
        """Whether it describes a checkpoint, or a run that has one: two can be compared."""
        return self.kind in ("run", "model", "state", "reference") and "generator" in self.facts

    def to_document(self) -> Facts:
        """As plain values for JSON."""
        return {"schema": SCHEMA, "path": str(self.path), "kind": self.kind, **self.facts}
