"""ONNX files compute what the network computes, at any size, and say what they are.

An export takes seconds, so the tests share one, which the command line made in a process of its
own; those about what goes wrong hand it to the exporter in place of a new one.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from cyclegan_cli.checkpoints.header import read_header
from cyclegan_cli.errors import ExportError, OutputError, UsageError
from cyclegan_cli.exporting import onnx as exporting
from cyclegan_cli.exporting.onnx import export_onnx, require_packages
from cyclegan_cli.models.cyclegan import CycleGAN


@pytest.fixture(scope="module")
def export(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> subprocess.CompletedProcess[str]:
    """The finished export command; its current folder has the file."""
    folder = tmp_path_factory.mktemp("export")
    command = [sys.executable, "-m", "cyclegan_cli", "export", str(checkpoint)]
    finished = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=200, check=False
    )
    finished.args = folder
    return finished


@pytest.fixture(scope="module")
def exported(export: subprocess.CompletedProcess[str]) -> Path:
    assert export.returncode == 0, export.stderr
    return Path(export.args) / "day2night.onnx"


@pytest.fixture(scope="module")
def session(exported: Path) -> onnxruntime.InferenceSession:
    # From memory: a model whose weights lay in a second file would fail to load.
    content = exported.read_bytes()
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def graph(exported: Path) -> onnx.GraphProto:
    return onnx.load(exported).graph


class ReadyProgram:
    """Stands in for what the exporter makes: saving it copies a finished file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.model = SimpleNamespace(metadata_props={})

    def save(self, path: str, external_data: bool) -> None:
        shutil.copyfile(self.file, path)


@pytest.fixture
def ready_program(exported: Path, monkeypatch: pytest.MonkeyPatch) -> ReadyProgram:
    """The exporter's work is done already: it makes the A to B file of any generator."""
    program = ReadyProgram(exported)
    monkeypatch.setattr(exporting, "_convert", lambda generator: program)
    return program


# The file


def test_the_command_says_what_it_wrote_and_nothing_else(
    export: subprocess.CompletedProcess[str],
) -> None:
    assert export.stderr == ""
    first, second = export.stdout.splitlines()
    assert first == "day2night.onnx (day -> night)"
    assert second.startswith("largest difference to the network: ")
    assert second.endswith(" (1x3x64x64, 2x3x40x96, 1x3x61x45)")
    assert float(second.split()[5]) < 1e-4


def test_one_file_is_written_and_nothing_beside_it(exported: Path) -> None:
    assert [path.name for path in exported.parent.iterdir()] == ["day2night.onnx"]


@pytest.mark.parametrize(
    ("batch", "height", "width"),
    [(1, 8, 8), (1, 12, 100), (3, 36, 20), (1, 63, 130), (2, 9, 10), (1, 256, 256)],
)
def test_it_computes_what_the_network_computes_at_sizes_never_seen_before(
    session: onnxruntime.InferenceSession,
    tiny_model: CycleGAN,
    batch: int,
    height: int,
    width: int,
) -> None:
    pictures = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(2))
    [translated] = session.run(["translation"], {"picture": pictures.numpy()})
    with torch.no_grad():
        expected = tiny_model.generator_a2b(pictures).numpy()
    np.testing.assert_allclose(translated, expected, atol=1e-4, rtol=0)


def test_batch_height_and_width_are_free_and_named(graph: onnx.GraphProto) -> None:
    [picture], [translation] = graph.input, graph.output
    assert (picture.name, translation.name) == ("picture", "translation")
    dims = picture.type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 3, "height", "width"]
    assert not any(dim.HasField("dim_value") for dim in [*dims[:1], *dims[2:]])


def test_instance_norm_is_the_native_operator(graph: onnx.GraphProto) -> None:
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("InstanceNormalization") == 7  # Stem, 2 down, 2 in the block, 2 up.
    assert not {"BatchNormalization", "ReduceMean", "Loop", "If"} & set(kinds)


def test_it_is_valid_onnx_of_opset_20_without_foreign_operators(exported: Path) -> None:
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 20)]


def test_its_metadata_is_the_checkpoints_document_and_the_facts_of_the_export(
    session: onnxruntime.InferenceSession, checkpoint: Path
) -> None:
    metadata = session.get_modelmeta().custom_metadata_map
    tensor = {"shape": ["batch", 3, "height", "width"], "range": [-1, 1], "colours": "RGB"}
    assert json.loads(metadata["cyclegan"]) == read_header(checkpoint).document | {
        "export": {
            "format": "onnx",
            "opset": 20,
            "direction": "a2b",
            "from": "day",
            "to": "night",
            "inputs": {"picture": tensor},
            "outputs": {"translation": tensor},
            "size_multiple": 4,
        }
    }


# What goes wrong


def test_a_file_that_computes_something_else_is_refused_and_not_left(
    ready_program: ReadyProgram, checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="differs from the network by"):
        export_onnx(checkpoint, tmp_path / "night2day.onnx", "b2a")
    assert list(tmp_path.iterdir()) == []


def test_a_refused_export_leaves_the_file_of_before(
    ready_program: ReadyProgram, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "old.onnx").write_text("old")
    with pytest.raises(ExportError):
        export_onnx(checkpoint, tmp_path / "old.onnx", "b2a")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_verified_export_tells_what_was_compared(
    ready_program: ReadyProgram, checkpoint: Path, tmp_path: Path
) -> None:
    verification = export_onnx(checkpoint, tmp_path / "sub" / "x.onnx", "a2b")
    assert verification.largest_difference < 1e-4
    assert (tmp_path / "sub" / "x.onnx").is_file()


def test_the_document_names_the_direction_that_was_exported(
    ready_program: ReadyProgram, checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(ExportError):
        export_onnx(checkpoint, tmp_path / "x.onnx", "b2a")
    facts = json.loads(ready_program.model.metadata_props["cyclegan"])["export"]
    assert (facts["direction"], facts["from"], facts["to"]) == ("b2a", "night", "day")


def test_a_path_that_cannot_be_written_is_an_output_error(
    ready_program: ReadyProgram, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        export_onnx(checkpoint, tmp_path / "file" / "x.onnx", "a2b")


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(UsageError, match=f"needs the package {missing},") as caught:
        require_packages()
    assert "pip install onnx onnxruntime onnxscript" in caught.value.hint


def test_the_exporters_talk_is_silenced_and_the_logging_of_others_restored(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with exporting._exporter_silenced():
        print("talk")
        logging.getLogger("torch.onnx").warning("talk")
    logging.getLogger("torch.onnx").warning("heard again")
    assert capfd.readouterr().out == ""
    assert caplog.messages == ["heard again"]


def test_an_error_of_the_exporter_is_not_silenced() -> None:
    def fail() -> Any:
        with exporting._exporter_silenced():
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        fail()
