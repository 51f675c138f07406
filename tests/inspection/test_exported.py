"""ONNX, OpenVINO and pt2 files, told without their packages; damaged ones are refused."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyclegan_cli.errors import CheckpointError
from cyclegan_cli.inspection import Request, describe

Cyclegan = Callable[..., Any]


@pytest.fixture(scope="module")
def exported(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny model in all three formats, the last where its package is."""
    from cyclegan_cli.exporting.exporter import export
    from cyclegan_cli.exporting.formats import FORMATS
    from cyclegan_cli.exporting.job import Job

    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("exported")
    names = {"onnx": "onnx", "pt2": "pt2", "xml": "openvino"}
    if find_spec("openvino") is None:
        del names["xml"]
    files = {suffix: folder / f"x.{suffix}" for suffix in names}
    for suffix, file in files.items():
        export(Job(run_folder / "model.safetensors", ("a2b",), file, FORMATS[names[suffix]]))
    return files


def chosen(exported: dict[str, Path], name: str) -> Path:
    if name not in exported:
        pytest.skip("the extra [openvino] is not installed")
    return exported[name]


def test_an_onnx_model_is_described_as_the_onnx_package_reads_it(
    exported: dict[str, Path],
) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(exported["onnx"])
    facts = describe(exported["onnx"], Request(weights=True)).facts
    assert facts["opsets"] == {"ai.onnx": model.opset_import[0].version}
    assert facts["ir_version"] == model.ir_version
    assert sum(facts["operators"].values()) == len(model.graph.node)
    assert facts["inputs"] == {"picture": "F32 [batch, 3, height, width]"}
    assert facts["cyclegan"]["export"]["direction"] == "a2b"
    initializers = model.graph.initializer
    assert [(t["name"], t["shape"]) for t in facts["weights"]] == [
        (t.name, list(t.dims)) for t in initializers
    ]
    for told, initializer in zip(facts["weights"], initializers, strict=True):
        numbers = onnx.numpy_helper.to_array(initializer)
        assert told["statistics"]["mean"] == pytest.approx(numbers.mean(dtype="f8"))
        assert told["statistics"]["largest"] == numbers.max()


def test_an_exported_program_is_described(exported: dict[str, Path], checkpoint: Path) -> None:
    facts = describe(exported["pt2"], Request(weights=True)).facts
    assert facts["parameters"] == 2463  # Without biases before norms.
    assert facts["cyclegan"]["export"]["direction"] == "a2b"
    assert {t["dtype"] for t in facts["weights"]} == {"F32"}
    weights = describe(checkpoint, Request(weights=True)).facts["weights"]
    expected = {t["name"]: t["statistics"] for t in weights}
    for tensor in facts["weights"]:
        assert tensor["statistics"] == expected[f"generator_a2b.{tensor['name']}"]


def test_an_openvino_model_is_described(exported: dict[str, Path], checkpoint: Path) -> None:
    file = chosen(exported, "xml")
    facts = describe(file, Request(weights=True)).facts
    assert facts["bytes"] == file.stat().st_size + file.with_suffix(".bin").stat().st_size
    assert facts["inputs"] == {"picture": "F32 [?, 3, ?, ?]"}
    assert facts["outputs"] == {"translation": "F32 [?, 3, ?, ?]"}
    assert facts["operators"]["MVN"] == facts["operators"]["Convolution"] + 1 == 7
    assert facts["cyclegan"]["export"]["direction"] == "a2b"
    weights = describe(checkpoint, Request(weights=True)).facts["weights"]
    expected = {t["name"].removeprefix("generator_a2b."): t["statistics"] for t in weights}
    found = {t["name"]: t["statistics"] for t in facts["weights"]}
    kernels = {name for name in expected if name.startswith(("stem.conv.w", "trunk", "head.w"))}
    kernels = {name for name in kernels if name.endswith("weight")}
    assert len(kernels) == 4
    for name in kernels:
        assert found[name] == pytest.approx(expected[name])


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_an_openvino_model_without_its_numbers_is_refused(
    exported: dict[str, Path], tmp_path: Path, damage: str
) -> None:
    file = chosen(exported, "xml")
    copy = shutil.copy(file, tmp_path / "y.xml")
    sentence = "has no y.bin beside it, which holds its numbers"
    if damage == "truncated":
        (tmp_path / "y.bin").write_bytes(file.with_suffix(".bin").read_bytes()[:-1])
        sentence = "y.bin is truncated: y.xml needs "
    with pytest.raises(CheckpointError, match=sentence):
        describe(copy)


@pytest.mark.parametrize("name", ["onnx", "pt2", "xml"])
def test_no_heavy_library_is_loaded(exported: dict[str, Path], name: str) -> None:
    program = (
        "import sys\nfrom cyclegan_cli.inspection import describe\n"
        "assert describe(sys.argv[1]).facts\n"
        "print({'torch', 'numpy', 'PIL', 'onnx', 'safetensors'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program, str(chosen(exported, name))]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert (answer.stdout.strip(), answer.stderr) == ("set()", "")


@pytest.mark.parametrize("name", ["onnx", "pt2", "xml"])
@pytest.mark.parametrize("content", [b"", b"x", b"\x3a\xff\xff\xff\xff\x7f", bytes(300)])
def test_what_is_none_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / f"x.{name}").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"x\.{name} is not an"):
        describe(tmp_path / f"x.{name}")


def test_a_zip_bomb_is_refused_unread(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt2", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/archive_format", b"pt2")
        archive.writestr("x/extra/cyclegan.json", bytes(50_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError):
            describe(tmp_path / "x.pt2")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["onnx", "pt2", "xml"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_changed_bytes_give_facts_or_a_refusal(
    exported: dict[str, Path], name: str, data: st.DataObject
) -> None:
    original = chosen(exported, name)
    content = bytearray(original.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    changed = original.with_name(f"changed.{name}")
    changed.write_bytes(content)
    if name == "xml":
        shutil.copy(original.with_suffix(".bin"), changed.with_suffix(".bin"))
    try:
        describe(changed, Request(weights=True))
    except CheckpointError as error:
        assert "\n" not in error.message
