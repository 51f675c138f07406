"""What a format's ``convert`` hands over: a converted model that can be saved and opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cyclegan_cli.checkpoints.header import Direction, ModelInfo

Document = dict[str, Any]
Run = Callable[[Tensor], Tensor]
IMAGE, TRANSLATION = "picture", "translation"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Draft:
    """A converted model, not yet written.

    Attributes:
        save: ``save(paths, document)`` writes the file (and companions), with the document in
            its metadata.
        open: ``open(paths, direction)`` reads them again, with the runtime that they are for,
            and gives the model as a function of tensors.
        facts: What the document says of this format alone, e.g. the opset.
        held_out: Images that the model must be judged with, by name, as its inputs.
    """

    save: Callable[[tuple[Path, ...], Document], None]
    open: Callable[[tuple[Path, ...], Direction], Run]
    facts: Document = field(default_factory=dict)
    held_out: dict[str, Tensor] = field(default_factory=dict)


def interface(info: ModelInfo, image_io: bool) -> Document:
    """Names, shapes, types and ranges of a graph's input and output."""
    channels = {
        IMAGE: info.generator.input_channels,
        TRANSLATION: info.generator.output_channels,
    }
    tensors = {}
    for name, count in channels.items():
        shape = (
            ["batch", "height", "width", count] if image_io else ["batch", count, "height", "width"]
        )
        tensors[name] = {
            "shape": shape,
            "dtype": "uint8" if image_io else "float32",
            "range": [0, 255] if image_io else [-1, 1],
            "colours": "RGB" if count == 3 else "grey",
        }
    return {
        "inputs": {IMAGE: tensors[IMAGE]},
        "outputs": {TRANSLATION: tensors[TRANSLATION]},
        "size_multiple": 1 if image_io else 4,
    }
