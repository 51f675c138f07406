"""Export options are checked before torch is imported."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cyclegan_cli.checkpoints.locate import read_checkpoint
from cyclegan_cli.config import ExportConfig
from cyclegan_cli.errors import UsageError
from cyclegan_cli.exporting import job as export_job
from cyclegan_cli.exporting.job import FORMATS, Job, check_options, plan_outputs, refuse_overwriting

BOTH = ("a2b", "b2a")
FOLDER = Path("images")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"precision": "bf16"}, "--precision bf16 is not supported by onnx"),
        ({"format": "pt2", "precision": "int8", "calibration": FOLDER}, "--precision int8 is not"),
        ({"format": "safetensors", "precision": "int8"}, "--precision int8 is not supported by sa"),
        ({"format": "pt2", "image_io": True}, "--image-io is not supported by pt2"),
        ({"format": "safetensors", "image_io": True}, "--image-io is not supported by safe"),
        ({"precision": "int8"}, "--precision int8 needs --calibration"),
        ({"precision": "int8", "calibration": FOLDER, "direction": "both"}, "--direction both can"),
        ({"precision": "fp16", "calibration": FOLDER}, "--calibration is only for --precision int"),
        ({"min_psnr": 40.0}, "--min-psnr is only for --precision int8"),
        ({"format": "pt2", "opset": 17}, "--opset is only for --format onnx"),
        ({"format": "openvino", "opset": 20}, "--opset is only for --format onnx"),
        ({"image_io": True, "opset": 17}, "--opset 17: with --image-io it must be 18 to 20"),
        ({"precision": "int8", "calibration": FOLDER, "opset": 17}, "--opset 17: with --precisio"),
    ],
)
def test_conflicting_options_are_refused(options, sentence):
    with pytest.raises(UsageError) as caught:
        check_options(ExportConfig(Path("run"), **{"format": "onnx"} | options))
    assert caught.value.message.startswith(sentence)
    assert caught.value.hint


@pytest.mark.parametrize("name", FORMATS)
def test_all_precisions_of_a_format_are_accepted(name, monkeypatch):
    monkeypatch.setattr(export_job, "find_spec", lambda name: object())
    for precision in FORMATS[name].precisions:
        calibration = FOLDER if precision == "int8" else None
        image_io = FORMATS[name].image_io
        check_options(
            ExportConfig(
                Path("run"),
                format=name,
                precision=precision,
                image_io=image_io,
                calibration=calibration,
            )
        )


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime", "onnxscript", "openvino"])
def test_missing_package_is_named_with_its_extra(monkeypatch, missing):
    monkeypatch.setattr(export_job, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(UsageError, match=f"needs the package {missing},") as caught:
        FORMATS["openvino"].require_packages()
    assert caught.value.hint == (
        "Install the extra [openvino]: pip install onnx onnxruntime onnxscript openvino"
    )


@pytest.mark.parametrize(
    ("name", "directions", "output", "planned"),
    [
        ("onnx", ("a2b",), None, {"day2night.onnx": ("a2b",)}),
        ("onnx", ("b2a",), None, {"night2day.onnx": ("b2a",)}),
        ("onnx", ("b2a",), "x/y", {"x/y": ("b2a",)}),
        ("onnx", BOTH, None, {"day2night.onnx": ("a2b",), "night2day.onnx": ("b2a",)}),
        ("pt2", BOTH, "out", {"out/day2night.pt2": ("a2b",), "out/night2day.pt2": ("b2a",)}),
        ("safetensors", BOTH, None, {"day-night.safetensors": BOTH}),
        ("safetensors", BOTH, "x.safetensors", {"x.safetensors": BOTH}),
        ("openvino", ("a2b",), None, {"day2night.xml": ("a2b",)}),
    ],
)
def test_default_names_follow_the_domains(
    tiny_info, tmp_path, monkeypatch, name, directions, output, planned
):
    monkeypatch.chdir(tmp_path)
    found = plan_outputs(FORMATS[name], tiny_info, directions, "latest", output, overwrite=False)
    assert {path.as_posix(): group for group, path in found} == planned


@pytest.mark.parametrize(
    ("name", "directions", "output", "sentence"),
    [
        ("onnx", ("a2b",), "x/", "-o x/ names a folder"),
        ("onnx", ("a2b",), "x.pt2", "-o x.pt2 has the extension of pt2, but --format is onnx"),
        ("safetensors", BOTH, "x.onnx", "-o x.onnx has the extension of onnx, but --format"),
        ("onnx", BOTH, "old.onnx", "-o old.onnx is a file, but onnx writes one file per direction"),
        ("onnx", ("a2b",), "old.onnx", "-o old.onnx already exists"),
        ("onnx", ("a2b",), "-", "-o - is standard output"),
        ("safetensors", BOTH, "-", "-o - is standard output"),
        ("onnx", ("a2b",), "x.tflite", "-o x.tflite: .tflite files are not supported"),
        ("onnx", ("a2b",), "x.Engine", "-o x.Engine: .Engine files are not supported"),
        ("onnx", BOTH, "x.mlpackage", "-o x.mlpackage: .mlpackage files are not supported"),
        ("pt2", ("a2b",), "x.pb", "-o x.pb: .pb files are not supported"),
        ("onnx", ("a2b",), "x.foo", "-o x.foo does not have the extension of --format onnx"),
        ("pth", ("a2b",), "x.pt", "-o x.pt does not have the extension of --format pth"),
        ("openvino", ("a2b",), "x", "-o x: openvino writes a .xml file and a companion"),
        ("openvino", ("a2b",), "old.xml", "-o old.bin already exists"),
        ("onnx", BOTH, "folder", "-o folder/night2day.onnx already exists"),
    ],
)
def test_invalid_or_existing_outputs_are_refused(
    tiny_info, tmp_path, monkeypatch, name, directions, output, sentence
):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    for taken in ("old.onnx", "old.bin", "folder/night2day.onnx"):
        Path(taken).touch()
    with pytest.raises(UsageError) as caught:
        plan_outputs(FORMATS[name], tiny_info, directions, "latest", output, overwrite=False)
    assert caught.value.message.startswith(sentence)


def test_export_does_not_overwrite_its_checkpoint(checkpoint, tmp_path):
    shutil.copy(checkpoint, tmp_path / "model.safetensors")
    (tmp_path / "link").symlink_to("model.safetensors")
    source, chosen = read_checkpoint(tmp_path / "model.safetensors"), FORMATS["safetensors"]
    with pytest.raises(UsageError, match="is the checkpoint itself"):
        refuse_overwriting(Job(source, ("a2b",), tmp_path / "link", chosen))
    refuse_overwriting(Job(source, ("a2b",), tmp_path / "other", chosen))


def test_refusals_import_neither_torch_nor_numpy(checkpoint):
    script = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from cyclegan_cli.cli.app import app\n"
        "answer = CliRunner().invoke(app, ['export', sys.argv[1], '--precision', 'bf16'])\n"
        "print(answer.exit_code, sorted({'torch', 'numpy', 'onnx', 'PIL'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", script, str(checkpoint)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "2 []\n"


@pytest.mark.parametrize(
    ("field", "value"), [("opset", 12), ("opset", 21), ("min_psnr", float("nan"))]
)
def test_values_out_of_bounds_are_refused(field, value):
    option = f"--{field.replace('_', '-')}"
    with pytest.raises(UsageError, match=option):
        ExportConfig(Path("run"), **{field: value})


@pytest.mark.parametrize("opset", range(13, 21))
def test_supported_opsets_are_accepted(monkeypatch, opset):
    monkeypatch.setattr(export_job, "find_spec", lambda name: object())
    check_options(ExportConfig(Path("run"), opset=opset))
    check_options(ExportConfig(Path("run"), opset=opset, image_io=opset >= 18))
