"""PyTorch's own graphs (``torch.export``), for programs that have torch and not this package."""

from __future__ import annotations

import io
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from cyclegan_cli.checkpoints.container import METADATA_KEY
from cyclegan_cli.checkpoints.header import Direction, ModelInfo
from cyclegan_cli.exporting.draft import Document, Draft, Run
from cyclegan_cli.exporting.graph import dynamic_shapes, example, exporter_silenced, traceable
from cyclegan_cli.exporting.job import Job
from cyclegan_cli.models.networks import ResnetGenerator
from cyclegan_cli.models.padding import SMALLEST_SIDE

# Where the document is within the file, for ``torch.export.load(..., extra_files=...)``.
DOCUMENT_FILE = f"{METADATA_KEY}.json"


class HalfPrecision(nn.Module):
    """A generator in fp16 (instance norm in fp32, as always) with fp32 input and output.

    Args:
        generator: Changed to fp16.
    """

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator.half()

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` fp32 to the same, fp32."""
        return self.generator(x.half()).float()  # type: ignore[no-any-return]


def convert(job: Job, generators: dict[Direction, ResnetGenerator], info: ModelInfo) -> Draft:
    """The generator of one direction as one ``.pt2`` file; batch, height and width are free.

    Input ``x`` and output are ``[batch, C, height, width]`` fp32 in [-1, 1]; sides at least 8,
    and multiples of 4: others come out rounded up.
    """
    del info
    [generator] = generators.values()
    module = traceable(generator, image_io=False)
    if job.precision == "fp16":
        module = HalfPrecision(module)
    with exporter_silenced():
        program = torch.export.export(
            module,
            (example(generator, image_io=False),),
            dynamic_shapes=dynamic_shapes(image_io=False, smallest=SMALLEST_SIDE),
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # Where this program lies on this machine.

    def save(paths: tuple[Path, ...], document: Document) -> None:
        # Into memory first: torch's own writer says of a full disk only that it failed.
        content = io.BytesIO()
        extra = {DOCUMENT_FILE: json.dumps(document, sort_keys=True)}
        torch.export.save(program, content, extra_files=extra)
        paths[0].write_bytes(content.getvalue())

    return Draft(save, _open)


def _open(paths: tuple[Path, ...], direction: Direction) -> Run:
    del direction
    program = torch.export.load(io.BytesIO(paths[0].read_bytes()))
    return program.module()
