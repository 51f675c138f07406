"""Exported programs of ``torch.export``, for programs that use torch without this package."""

from __future__ import annotations

import io
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from cyclegan_cli.checkpoints.header import METADATA_KEY, Direction
from cyclegan_cli.exporting.converted import (
    ConvertedModel,
    Document,
    Generators,
    Model,
    dynamic_shapes,
    example_input,
    silenced,
    traceable,
)
from cyclegan_cli.exporting.job import Job
from cyclegan_cli.models.padding import SMALLEST_SIDE

# Name of the document in the file, for ``torch.export.load(..., extra_files=...)``.
DOCUMENT_FILE = f"{METADATA_KEY}.json"


class HalfPrecision(nn.Module):
    """A generator in fp16 (instance norm in fp32, as always) with fp32 input and output.

    Args:
        generator: The network, which is converted to fp16.
    """

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator.half()

    def forward(self, x: Tensor) -> Tensor:
        """Translate ``[B, C, H, W]`` fp32 in [-1, 1] to the same shape, range and dtype."""
        return self.generator(x.half()).float()  # type: ignore[no-any-return]


def convert(job: Job, generators: Generators) -> ConvertedModel:
    """Convert the generator of one direction, with dynamic batch, height and width.

    Input ``x`` and output are ``[batch, C, height, width]`` fp32 in [-1, 1]; sides are multiples
    of 4, at least 8: others are rounded up in the output.
    """
    [generator] = generators.values()
    module = traceable(generator, image_io=False)
    if job.precision == "fp16":
        module = HalfPrecision(module)
    with silenced():
        program = torch.export.export(
            module,
            (example_input(generator, image_io=False),),
            dynamic_shapes=dynamic_shapes(image_io=False, smallest=SMALLEST_SIDE),
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # It has local paths.

    def save(paths: tuple[Path, ...], document: Document) -> None:
        # Into memory first: torch's writer does not report a full disk as such.
        content = io.BytesIO()
        extra = {DOCUMENT_FILE: json.dumps(document, sort_keys=True)}
        torch.export.save(program, content, extra_files=extra)
        paths[0].write_bytes(content.getvalue())

    return ConvertedModel(save, _open)


def _open(paths: tuple[Path, ...], direction: Direction) -> Model:
    del direction
    program = torch.export.load(io.BytesIO(paths[0].read_bytes()))
    return program.module()
