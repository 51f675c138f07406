"""The original implementation's files, for programs that load ``latest_net_G_A.pth``."""

from __future__ import annotations

import io
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

from cyclegan_cli.checkpoints.header import Direction
from cyclegan_cli.checkpoints.pth import original_filters, original_names
from cyclegan_cli.checkpoints.store import load_generator
from cyclegan_cli.exporting.converted import (
    TORCH_DTYPES,
    ConvertedModel,
    Document,
    Generators,
    Model,
)
from cyclegan_cli.exporting.job import Job


def convert(job: Job, generators: Generators) -> ConvertedModel:
    """Convert the generator of one direction to plain tensors under the original's names.

    The layout is that of ``torch.save`` before torch 1.6, which all versions since read. It has no
    place for a document. Generators with the layers of CUT have its names and filters.
    """
    [generator] = generators.values()
    config = generator.config
    names = original_names(config)
    weights: OrderedDict[str, Tensor] = OrderedDict(
        (name, tensor.to(TORCH_DTYPES[job.precision]).contiguous())
        for name, tensor in [
            *((names[ours], tensor) for ours, tensor in generator.state_dict().items()),
            *original_filters(config).items(),
        ]
    )

    def save(paths: tuple[Path, ...], document: Document) -> None:
        del document
        # Into memory first: torch's writer does not report a full disk as such.
        content = io.BytesIO()
        torch.save(weights, content, _use_new_zipfile_serialization=False)
        paths[0].write_bytes(content.getvalue())

    return ConvertedModel(save, _open)


def _open(paths: tuple[Path, ...], direction: Direction) -> Model:
    del direction  # The file has one network, and its temporary name does not state a direction.
    return load_generator(paths[0], "a2b")[0]
