"""Descriptions of ONNX, OpenVINO and pt2 models, and the sentence without their packages."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cyclegan_cli.errors import CheckpointError, UsageError
from cyclegan_cli.inspection import Request, describe, exported


def chosen(exported_models: dict[str, Path], extension: str) -> Path:
    if extension not in exported_models:
        pytest.skip("the extra [openvino] is not installed")
    return exported_models[extension]


@pytest.mark.slow
def test_describe_onnx_matches_the_model(exported_models):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(exported_models["onnx"])
    facts = describe(exported_models["onnx"], Request(weights=True)).facts
    assert facts["opsets"] == {"ai.onnx": model.opset_import[0].version}
    assert facts["ir_version"] == model.ir_version
    assert sum(facts["operators"].values()) == len(model.graph.node)
    assert facts["inputs"] == {"picture": "F32 [batch, 3, height, width]"}
    assert facts["cyclegan"]["export"]["direction"] == "a2b"
    for listed, initializer in zip(facts["weights"], model.graph.initializer, strict=True):
        elements = onnx.numpy_helper.to_array(initializer)
        assert (listed["name"], listed["shape"]) == (initializer.name, list(initializer.dims))
        assert listed["statistics"]["mean"] == pytest.approx(elements.mean(dtype="f8"))
        assert listed["statistics"]["largest"] == elements.max()


@pytest.mark.slow
def test_describe_pt2(exported_models):
    facts = describe(exported_models["pt2"], Request(weights=True)).facts
    assert facts["parameters"] == 2483  # Without biases before norms.
    assert facts["cyclegan"]["export"]["direction"] == "a2b"
    assert {(tensor["dtype"], tensor["statistics"]) for tensor in facts["weights"]} == {
        ("F32", None)
    }
    assert {tensor["name"] for tensor in facts["weights"]} >= {"stem.conv.weight", "head.bias"}


@pytest.mark.slow
def test_describe_openvino(exported_models, checkpoint):
    file = chosen(exported_models, "xml")
    facts = describe(file, Request(weights=True)).facts
    assert facts["bytes"] == file.stat().st_size + file.with_suffix(".bin").stat().st_size
    assert facts["inputs"] == {"picture": "F32 [?, 3, ?, ?]"}
    assert facts["outputs"] == {"translation": "F32 [?, 3, ?, ?]"}
    assert facts["operators"]["MVN"] == 2  # The norms of the residual block.
    assert facts["operators"]["Convolution"] == 6
    assert facts["cyclegan"]["export"]["direction"] == "a2b"
    weights = describe(checkpoint, Request(weights=True)).facts["weights"]
    expected = {t["name"].removeprefix("generator_a2b."): t["statistics"] for t in weights}
    found = {t["name"]: t["statistics"] for t in facts["weights"]}
    kernels = {name for name in expected if name.startswith(("stem.conv.w", "trunk", "head.w"))}
    kernels = {name for name in kernels if name.endswith("weight")}
    assert len(kernels) == 4
    for name in kernels:
        assert found[name] == pytest.approx(expected[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("missing", "has no y.bin beside it, which holds its weights"),
        ("truncated", "y.xml is not an OpenVINO model, or a damaged one"),
    ],
)
def test_openvino_without_its_weights_is_refused(exported_models, tmp_path, damage, sentence):
    file = chosen(exported_models, "xml")
    copy = shutil.copy(file, tmp_path / "y.xml")
    if damage == "truncated":
        (tmp_path / "y.bin").write_bytes(file.with_suffix(".bin").read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=sentence):
        describe(copy)


@pytest.mark.parametrize(
    ("extension", "package", "kind"),
    [("onnx", "onnx", "an ONNX model"), ("xml", "openvino", "an OpenVINO model")],
)
def test_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, extension, package, kind):
    monkeypatch.setattr(exported, "find_spec", lambda name: None)
    for suffix in (extension, "bin"):
        (tmp_path / f"x.{suffix}").write_bytes(bytes(2000))
    with pytest.raises(UsageError, match=f"is {kind} of [24],000 bytes; .* {package},") as caught:
        describe(tmp_path / f"x.{extension}")
    assert caught.value.hint == f"Install the extra [{package}]: pip install {package}"


@pytest.mark.parametrize(
    ("extension", "heavy"),
    [("onnx", {"torch", "PIL"}), ("pt2", {"torch", "numpy", "PIL"}), ("xml", {"torch", "PIL"})],
)
@pytest.mark.slow
def test_describe_does_not_import_torch(exported_models, extension, heavy):
    program = (
        "import sys\nfrom cyclegan_cli.inspection import describe\n"
        f"assert describe(sys.argv[1]).facts\nprint({heavy} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program, str(chosen(exported_models, extension))]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert (answer.stdout.strip(), answer.stderr) == ("set()", "")
