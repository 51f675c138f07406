"""The description of a file or folder, and its options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

Facts = dict[str, Any]
SCHEMA = 1  # Of the JSON (docs/inspect.md). Additional keys do not change it, new meanings do.


@dataclass(frozen=True)
class Request:
    """What a description contains beyond the defaults.

    Attributes:
        weights: A list of all tensors, with statistics of their elements.
        receptive_field: Receptive field and cost of the networks.
        full: Statistics of all images of a folder instead of a sample.
    """

    weights: bool = False
    receptive_field: bool = False
    full: bool = False


@dataclass(frozen=True)
class Summary:
    """The description of a file or folder.

    Attributes:
        path: The file or folder.
        kind: ``run``, ``runs`` (a folder of them), ``model``, ``state``, ``safetensors`` (of
            another program), ``reference`` (a generator of the original implementation),
            ``torch`` (another file of torch.save), ``onnx``, ``pt2``, ``openvino``, ``pictures``
            (a folder of images) or ``picture`` (an image).
        facts: Plain values by name, fit for JSON.
    """

    path: Path
    kind: str
    facts: Facts

    @property
    def is_checkpoint(self) -> bool:
        """Whether this is a checkpoint, or a run that has one: two can be compared."""
        return self.kind in ("run", "model", "state", "reference") and "generator" in self.facts

    def to_document(self) -> Facts:
        """Return plain values for JSON."""
        return {"schema": SCHEMA, "path": str(self.path), "kind": self.kind, **self.facts}
