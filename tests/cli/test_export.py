"""``cyclegan export``: the command around the exporter, which ``exporting/test_onnx.py`` tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cyclegan_cli.checkpoints.header import ModelInfo
from cyclegan_cli.checkpoints.store import save_model
from cyclegan_cli.errors import ExportError
from cyclegan_cli.exporting import onnx as exporting
from cyclegan_cli.exporting.verify import Verification
from cyclegan_cli.models.cyclegan import CycleGAN

Cyclegan = Callable[..., Any]
CALLS = list[tuple[Path, Path, str]]


@pytest.fixture
def here(tmp_path: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(run_folder, tmp_path / "run")


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> CALLS:
    """Exports take seconds: what the command asks for is noted instead."""
    calls: CALLS = []

    def export_onnx(checkpoint: Path, output: Path, direction: str) -> Verification:
        calls.append((checkpoint, output, direction))
        return Verification(((1, 64, 64), (2, 40, 96)), 1.5e-6)

    monkeypatch.setattr(exporting, "export_onnx", export_onnx)
    return calls


@pytest.mark.parametrize("named", ["run", "run/model.safetensors", "run/state.safetensors"])
def test_a_run_or_file_is_exported_from_a_to_b(
    cyclegan: Cyclegan, here: Path, exports: CALLS, named: str
) -> None:
    answer = cyclegan("export", named, "-o", "x.onnx")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines() == [
        "x.onnx (day -> night)",
        "largest difference to the network: 1.5e-06 (1x3x64x64, 2x3x40x96)",
    ]
    file = "run/model.safetensors" if named == "run" else named
    assert exports == [(Path(file), Path("x.onnx"), "a2b")]


@pytest.mark.parametrize(
    ("options", "direction", "name"),
    [
        ([], "a2b", "day2night.onnx"),
        (["--direction", "b2a"], "b2a", "night2day.onnx"),
        (["--to", "night"], "a2b", "day2night.onnx"),
        (["--to", "day"], "b2a", "night2day.onnx"),
    ],
)
def test_a_file_without_a_name_is_named_by_the_domains(
    cyclegan: Cyclegan, here: Path, exports: CALLS, options: list[str], direction: str, name: str
) -> None:
    assert cyclegan("export", "run", *options).code == 0
    assert exports == [(Path("run/model.safetensors"), Path(name), direction)]


def test_json_is_one_line_with_the_verification(
    cyclegan: Cyclegan, here: Path, exports: CALLS
) -> None:
    answer = cyclegan("export", "run", "--to", "day", "-o", "x.onnx", "--json")
    assert (answer.code, answer.err) == (0, "")
    assert answer.documents == [
        {
            "output": "x.onnx",
            "format": "onnx",
            "direction": "b2a",
            "from": "night",
            "to": "day",
            "sizes": [[1, 64, 64], [2, 40, 96]],
            "largest_difference": 1.5e-6,
        }
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "--to", "noon"], 2, "--to noon: this checkpoint knows 'day' and 'night'"),
        (["run", "--to", "day", "--direction", "b2a"], 2, "--to and --direction exclude"),
        (["run", "-o", "old.onnx"], 2, "-o old.onnx already exists"),
        (["run", "-o", "run"], 2, "-o run already exists"),
        (["run", "-o", "run", "--overwrite"], 2, "-o run already exists"),
        (["nothing"], 4, "there is no checkpoint nothing"),
        (["run/samples"], 4, "the folder run/samples has no model.safetensors"),
        (["old.onnx"], 4, "old.onnx is not a safetensors file"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    cyclegan: Cyclegan, here: Path, exports: CALLS, arguments: list[str], code: int, message: str
) -> None:
    Path("old.onnx").write_text("old")
    answer = cyclegan("export", *arguments)
    assert (answer.code, answer.out, exports) == (code, "", [])
    [line] = answer.errors
    assert line.startswith(f"error: {message}")
    assert Path("old.onnx").read_text() == "old"


def test_overwrite_replaces_an_existing_file(
    cyclegan: Cyclegan, here: Path, exports: CALLS
) -> None:
    Path("old.onnx").write_text("old")
    assert cyclegan("export", "run", "-o", "old.onnx", "--overwrite").code == 0
    assert len(exports) == 1


def test_without_the_extra_one_sentence_says_how_to_get_it(
    cyclegan: Cyclegan, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    answer = cyclegan("export", "run", "-o", "x.onnx")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.splitlines() == [
        "error: --format onnx needs the package onnx, which is not installed",
        "hint: Install the packages of the extra: pip install onnx onnxruntime onnxscript",
    ]
    assert not Path("x.onnx").exists()


def test_a_model_that_was_not_verified_exits_with_4(
    cyclegan: Cyclegan, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export_onnx(*arguments: object) -> Verification:
        raise ExportError("the exported model differs from the network")

    monkeypatch.setattr(exporting, "export_onnx", export_onnx)
    answer = cyclegan("export", "run", "--json")
    assert (answer.code, answer.out) == (4, "")
    assert answer.err == "error: the exported model differs from the network\n"


def test_a_checkpoint_with_a_path_for_a_domains_name_writes_no_other_folder(
    cyclegan: Cyclegan, here: Path, exports: CALLS, tiny_model: CycleGAN, tiny_info: ModelInfo
) -> None:
    info = ModelInfo(**vars(tiny_info) | {"name_a": "../../etc/x"})
    save_model(Path("odd.safetensors"), tiny_model, info)
    answer = cyclegan("export", "odd.safetensors")
    assert (answer.code, exports) == (4, [])
