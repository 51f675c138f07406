"""The original implementation's files, for programs that load ``latest_net_G_A.pth``."""

from __future__ import annotations

import io
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

from cyclegan_cli.checkpoints.header import Direction, ModelInfo
from cyclegan_cli.checkpoints.reference import reference_names
from cyclegan_cli.checkpoints.store import load_generator
from cyclegan_cli.exporting.draft import DTYPES, Document, Draft, Run
from cyclegan_cli.exporting.job import Job
from cyclegan_cli.models.networks import ResnetGenerator


def convert(job: Job, generators: dict[Direction, ResnetGenerator], info: ModelInfo) -> Draft:
    """The generator of one direction as plain tensors under the original's names.

    The layout is that of ``torch.save`` before torch 1.6, which every version since reads. It has
    no room for a description.
    """
    [generator] = generators.values()
    names = reference_names(info.generator)
    dtype = DTYPES[job.precision]
    weights: OrderedDict[str, Tensor] = OrderedDict(
        (names[ours], tensor.to(dtype).contiguous())
        for ours, tensor in generator.state_dict().items()
    )

    def save(paths: tuple[Path, ...], document: Document) -> None:
        del document
        # Into memory first: torch's own writer says of a full disk only that it failed.
        content = io.BytesIO()
        torch.save(weights, content, _use_new_zipfile_serialization=False)
        paths[0].write_bytes(content.getvalue())

    return Draft(save, _open)


def _open(paths: tuple[Path, ...], direction: Direction) -> Run:
    del direction  # The file has one network, and its temporary name tells none.
    return load_generator(paths[0], "a2b")[0]
