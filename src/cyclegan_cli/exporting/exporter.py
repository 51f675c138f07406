"""The export of a checkpoint to a verified file."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from cyclegan_cli import __version__, files
from cyclegan_cli.checkpoints.store import load_generator
from cyclegan_cli.exporting.converted import (
    ConvertedModel,
    Document,
    Generators,
    interface,
    reference_model,
)
from cyclegan_cli.exporting.job import Job
from cyclegan_cli.exporting.verify import Verification, tolerance_for, verify
from cyclegan_cli.runtime.memory import memory_errors


@dataclass(frozen=True)
class Report:
    """An exported file, and its verification.

    Attributes:
        job: The job.
        document: The section ``export`` of the file's metadata.
        verification: The comparison with the network; with both directions, of the worse one.
        sha256: Digests of the written files, by name.
        size: Their total size in bytes.
    """

    job: Job
    document: Document
    verification: Verification
    sha256: dict[str, str]
    size: int

    def to_document(self) -> Document:
        """Return plain values for JSON."""
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
        DataError: There are too few calibration images, or one cannot be read.
        CheckpointError: The checkpoint is damaged.
        ExportError: The exported model differs from the network.
        OutputError: The file cannot be written.
        DeviceError: There is not enough memory.
    """
    job.format.require_packages()
    info = job.checkpoint.info
    generators = {one: load_generator(job.checkpoint, one)[0] for one in job.directions}
    module = import_module(f"cyclegan_cli.exporting.{job.format.name}")
    with ExitStack() as stack, memory_errors("exporting", "Close other programs."):
        # They become the outputs in reverse order: the named file, which names the others, last.
        paths = tuple(stack.enter_context(files.atomic_path(output)) for output in job.outputs)
        converted: ConvertedModel = module.convert(job, generators)
        document = _document(job, converted)
        converted.save(paths, info.to_document() | {"export": document})
        verification = _verify(job, converted, generators, paths)
        document["verification"] = verification.to_document()
        converted.save(paths, info.to_document() | {"export": document})
        # Again, because the file that is kept is the one with the report in it.
        _verify(job, converted, generators, paths)
        named = zip(job.outputs, paths, strict=True)
        sha256 = {output.name: files.sha256_of(path) for output, path in named}
        size = sum(path.stat().st_size for path in paths)
    return Report(job, document, verification, sha256, size)


def _verify(
    job: Job, converted: ConvertedModel, generators: Generators, paths: tuple[Path, ...]
) -> Verification:
    """Open the files and verify every direction; return the verification of the worst."""
    found = [
        verify(
            converted.open(paths, direction),
            reference_model(generator, job.image_io),
            channels=generator.config.input_channels,
            image_io=job.image_io,
            tolerance=tolerance_for(job.precision, job.image_io, job.min_psnr),
            held_out=converted.held_out,
        )
        for direction, generator in generators.items()
    ]
    return max(found, key=lambda verification: verification.largest_difference)


def _document(job: Job, converted: ConvertedModel) -> Document:
    """Return the document in the file. It has file names instead of paths, because it travels."""
    info, sources = job.checkpoint.info, job.checkpoint.files(job.directions)
    packages = ("torch", *job.format.packages)
    document: Document = {
        "format": job.format.name,
        "precision": job.precision,
        "directions": list(job.directions),
        "from": [info.source(one) for one in job.directions],
        "to": [info.target(one) for one in job.directions],
        "image_io": job.image_io,
        **interface(info, job.directions[0], job.image_io),
        **converted.facts,
        "source": {
            "file": ", ".join(path.name for path in sources),
            "sha256": ", ".join(map(files.sha256_of, sources)),
        },
        "versions": {"cyclegan_cli": __version__} | {name: version(name) for name in packages},
    }
    if len(job.directions) == 1:
        document["direction"] = job.directions[0]
        document["from"], document["to"] = document["from"][0], document["to"][0]
    return document
