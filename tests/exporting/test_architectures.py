"""Every format holds every architecture; the tiny model of the other tests has the default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cyclegan_cli.checkpoints.header import ModelInfo
from cyclegan_cli.checkpoints.locate import read_checkpoint
from cyclegan_cli.checkpoints.store import save_generators
from cyclegan_cli.config import ExportPrecision, GeneratorConfig
from cyclegan_cli.exporting.exporter import export
from cyclegan_cli.exporting.job import FORMATS, Job
from cyclegan_cli.models.networks import ResnetGenerator
from generators import generator

ARCHITECTURES: list[dict[str, Any]] = [
    {"resampling": "strided", "norms": "all"},
    {"resampling": "cut", "norms": "all"},
    {"resampling": "blur", "norms": "residual", "skips": True},
]


def exported(folder: Path, architecture: dict[str, Any], name: str, **options: object) -> Job:
    """The job of a verified export of a random network."""
    network: ResnetGenerator = generator(4, 1, **architecture)
    info = ModelInfo("model", network.config, "day", "night", {}, {}, ("a2b",))
    save_generators(folder / "x.safetensors", {"a2b": network}, info)
    checkpoint = read_checkpoint(folder / "x.safetensors")
    assert checkpoint.info.generator == GeneratorConfig(4, 1, **architecture)
    output = folder / f"y{FORMATS[name].extensions[0]}"
    job = Job(checkpoint, ("a2b",), output, FORMATS[name], **options)  # type: ignore[arg-type]
    report = export(job)
    assert report.verification.largest_difference < (1e-4 if job.precision == "fp32" else 0.1)
    assert output.exists()
    return job


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
@pytest.mark.parametrize("name", ["safetensors", "onnx", "pt2"])
def test_formats_hold_other_architectures(
    tmp_path: Path, architecture: dict[str, Any], name: str
) -> None:
    exported(tmp_path, architecture, name)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
@pytest.mark.parametrize(
    ("name", "precision"),
    [("onnx", "fp16"), ("pt2", "fp16"), ("openvino", "fp32"), ("openvino", "fp16")],
)
def test_formats_hold_other_architectures_in_other_precisions(
    tmp_path: Path, architecture: dict[str, Any], name: str, precision: ExportPrecision
) -> None:
    exported(tmp_path, architecture, name, precision=precision)
