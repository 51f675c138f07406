"""Checkpoints of this program with one direction, or in another precision; or with both."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

from cyclegan_cli.checkpoints.header import Direction
from cyclegan_cli.checkpoints.store import generators_content, load_generator
from cyclegan_cli.exporting.converted import (
    TORCH_DTYPES,
    ConvertedModel,
    Document,
    Generators,
    Model,
)
from cyclegan_cli.exporting.job import Job


def convert(job: Job, generators: Generators) -> ConvertedModel:
    """Convert the generators to a checkpoint that every command reads.

    The precision is that of storage; computation is in fp32.
    """
    dtype = TORCH_DTYPES[job.precision]
    converted = {one: copy.deepcopy(network).to(dtype) for one, network in generators.items()}
    info = replace(job.checkpoint.info.only(job.directions), kind="model")

    def save(paths: tuple[Path, ...], document: Document) -> None:
        content = generators_content(converted, info, {"export": document["export"]})
        paths[0].write_bytes(content)

    return ConvertedModel(save, _open)


def _open(paths: tuple[Path, ...], direction: Direction) -> Model:
    return load_generator(paths[0], direction)[0]
