"""A checkpoint to a verified file: the road that all formats share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, cast

from cyclegan_cli import __version__, files
from cyclegan_cli.checkpoints.header import Direction, ModelInfo
from cyclegan_cli.checkpoints.reading import source_files
from cyclegan_cli.checkpoints.store import load_generator
from cyclegan_cli.exporting.draft import Document, Draft, interface
from cyclegan_cli.exporting.graph import reference
from cyclegan_cli.exporting.job import Job
from cyclegan_cli.exporting.verify import Gate, Verification, gate_for, verify
from cyclegan_cli.models.networks import ResnetGenerator
from cyclegan_cli.runtime.memory import memory_errors

Generators = dict[Direction, ResnetGenerator]


class Converter(Protocol):
    """What a format's module has."""

    def convert(self, job: Job, generators: Generators, info: ModelInfo) -> Draft:
        """Convert the generators of ``job.directions``."""


@dataclass(frozen=True)
class Report:
    """What was written, and how it compares with the network.

    Attributes:
        job: What was asked for.
        document: The section ``export`` of the file's metadata.
        verification: The comparison; with both directions in a file, of the worse one.
        sha256: Of the files written, by name.
        size: Bytes of all of them.
    """

    job: Job
    document: Document
    verification: Verification
    sha256: dict[str, str]
    size: int

    def to_document(self) -> Document:
        """As plain values for JSON."""
        return {
            "output": str(self.job.output),
            **{name: self.document[name] for name in self.document if name != "verification"},
            "bytes": self.size,
            "sha256": self.sha256,
            "verification": self.verification.to_document(),
        }


def export(job: Job) -> Report:
    """Export a checkpoint; the file appears only if it is verified.

    Raises:
        UsageError: The format's packages are not installed.
        DataError: The calibration images are too few, or one cannot be read.
        CheckpointError: The checkpoint is damaged or foreign.
        ExportError: The exported model differs from the network.
        OutputError: The file cannot be written.
        DeviceError: Not enough memory.
    """
    job.format.require_packages()
    loaded = {one: load_generator(job.checkpoint, one, job.domains) for one in job.directions}
    info = loaded[job.directions[0]][1]
    generators = {one: generator for one, (generator, _) in loaded.items()}
    converter = cast("Converter", import_module(job.format.module))
    with _temporaries(job.outputs) as paths, memory_errors("exporting", "Close other programs."):
        draft = converter.convert(job, generators, info)
        document = _document(job, info, draft)
        draft.save(paths, info.to_document() | {"export": document})
        verification = _verified(job, draft, generators, info, paths)
        document["verification"] = verification.to_document()
        draft.save(paths, info.to_document() | {"export": document})
        # The file that is left is the one that was opened: also with the report in it.
        _verified(job, draft, generators, info, paths)
        named = zip(job.outputs, paths, strict=True)
        sha256 = {output.name: file_digest(path) for output, path in named}
        size = sum(path.stat().st_size for path in paths)
    return Report(job, document, verification, sha256, size)


@contextmanager
def _temporaries(outputs: tuple[Path, ...]) -> Iterator[tuple[Path, ...]]:
    """Paths that become the outputs; the first one, which names the others, last."""
    with ExitStack() as stack:
        yield tuple(stack.enter_context(files.atomic_path(output)) for output in outputs)


def _verified(
    job: Job, draft: Draft, generators: Generators, info: ModelInfo, paths: tuple[Path, ...]
) -> Verification:
    """Open the files and compare every direction in them; the worst one's verification."""
    gate: Gate = gate_for(job.precision, job.image_io, job.min_psnr)
    compare = partial(
        verify,
        channels=info.generator.input_channels,
        image_io=job.image_io,
        gate=gate,
        held_out=draft.held_out,
    )
    found = [
        compare(draft.open(paths, one), reference(generator, job.image_io))
        for one, generator in generators.items()
    ]
    return max(found, key=lambda verification: verification.largest_difference)


def _document(job: Job, info: ModelInfo, draft: Draft) -> Document:
    """What the file says of its export. File names, not paths: it may travel."""
    packages = ("torch", *job.format.packages)
    document: dict[str, Any] = {
        "format": job.format.name,
        "precision": job.precision,
        "directions": list(job.directions),
        "from": [info.source(one) for one in job.directions],
        "to": [info.target(one) for one in job.directions],
        "image_io": job.image_io,
        **interface(info, job.image_io),
        **draft.facts,
        "source": _source(job),
        "versions": {"cyclegan_cli": __version__} | {name: version(name) for name in packages},
    }
    if len(job.directions) == 1:
        document["direction"] = job.directions[0]
        document["from"], document["to"] = document["from"][0], document["to"][0]
    return document


def _source(job: Job) -> dict[str, str]:
    """The checkpoint's file; of a folder with one a direction, both."""
    sources = source_files(job.checkpoint, job.directions)
    return {
        "file": ", ".join(path.name for path in sources),
        "sha256": ", ".join(map(file_digest, sources)),
    }


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
