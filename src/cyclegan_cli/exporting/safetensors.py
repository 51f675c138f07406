"""Checkpoints of this program with one direction alone, or in fewer bits; or both."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

from cyclegan_cli.checkpoints.header import Direction, ModelInfo
from cyclegan_cli.checkpoints.store import generators_content, load_generator
from cyclegan_cli.exporting.draft import DTYPES, Document, Draft, Run
from cyclegan_cli.exporting.job import Job
from cyclegan_cli.models.networks import ResnetGenerator


def convert(job: Job, generators: dict[Direction, ResnetGenerator], info: ModelInfo) -> Draft:
    """The generators as a checkpoint that every command reads.

    Whatever the file's numbers are, it is computed in fp32.
    """
    dtype = DTYPES[job.precision]
    converted = {one: copy.deepcopy(network).to(dtype) for one, network in generators.items()}
    described = replace(info, kind="model", directions=job.directions)

    def save(paths: tuple[Path, ...], document: Document) -> None:
        more = {"export": document["export"]}
        paths[0].write_bytes(generators_content(converted, described, more))

    return Draft(save, _open)


def _open(paths: tuple[Path, ...], direction: Direction) -> Run:
    return load_generator(paths[0], direction)[0]
