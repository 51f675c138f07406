"""ONNX files compute what the network computes, at any size, and describe themselves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from cyclegan_cli.checkpoints.header import read_header
from cyclegan_cli.checkpoints.locate import read_checkpoint
from cyclegan_cli.errors import ExportError
from cyclegan_cli.exporting.exporter import export
from cyclegan_cli.exporting.job import FORMATS, Job
from cyclegan_cli.translation.translator import Translator, TranslatorOptions

ODD_SIZES = [(1, 8, 8), (1, 12, 100), (3, 36, 20), (1, 63, 130), (2, 9, 10), (1, 128, 128)]


def session_of(file: Path) -> onnxruntime.InferenceSession:
    # From memory: a model whose weights lay in a second file would fail to load.
    return onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])


def graph_of(file: Path) -> onnx.GraphProto:
    return onnx.load(file).graph


def dims(value: onnx.ValueInfoProto) -> list[Any]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def kinds(graph: onnx.GraphProto) -> list[str]:
    return [node.op_type for node in graph.node]


# A tiny network of a few channels loses more to 8 bits than a real one: about 35 dB.
TINY_PSNR = 30.0


@pytest.fixture(scope="module")
def plain(exported):
    return exported("onnx").job.output


@pytest.fixture(scope="module")
def pixels(exported):
    return exported("onnx", image_io=True).job.output


# The file


def test_onnx_export_writes_one_file(plain):
    assert [path.name for path in plain.parent.iterdir()] == ["x.onnx"]


@pytest.mark.parametrize(("batch", "height", "width"), ODD_SIZES)
def test_onnx_matches_the_network_at_other_sizes(plain, tiny_model, batch, height, width):
    images = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(2))
    [translated] = session_of(plain).run(["translation"], {"picture": images.numpy()})
    with torch.no_grad():
        expected = tiny_model.generator_a2b(images).numpy()
    np.testing.assert_allclose(translated, expected, atol=1e-4, rtol=0)


def test_onnx_has_dynamic_batch_height_and_width(plain):
    [image], [translation] = graph_of(plain).input, graph_of(plain).output
    assert (image.name, translation.name) == ("picture", "translation")
    assert dims(image) == ["batch", 3, "height", "width"]
    assert all(isinstance(dim, str) for dim in dims(translation)[2:])


def test_onnx_uses_native_instance_norm(plain):
    found = kinds(graph_of(plain))
    assert found.count("InstanceNormalization") == 2  # In the residual block.
    assert not {"BatchNormalization", "ReduceMean", "Loop", "If"} & set(found)


def test_onnx_is_valid_at_opset_20(plain):
    model = onnx.load(plain)
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 20)]


@pytest.mark.parametrize(
    ("opset", "options"), [(13, []), (17, ["--precision", "fp16"]), (18, ["--image-io"]), (19, [])]
)
@pytest.mark.slow
def test_older_opsets_are_written_and_verified(cyclegan, checkpoint, tmp_path, opset, options):
    answer = cyclegan(
        "export", checkpoint, "-o", tmp_path / "x.onnx", "--opset", opset, "--json", *options
    )
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["opset"] == opset
    model = onnx.load(tmp_path / "x.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", opset)]
    assert model.ir_version == onnx.helper.find_min_ir_version_for(model.opset_import)


def test_onnx_has_no_local_paths(plain, checkpoint):
    content = plain.read_bytes()
    assert b".py" not in content
    assert str(checkpoint.parent).encode() not in content


def test_onnx_metadata_is_the_document(exported, checkpoint):
    report = exported("onnx")
    metadata = session_of(report.job.output).get_modelmeta().custom_metadata_map
    document = json.loads(metadata["cyclegan"])
    export_section = document.pop("export")
    assert document == read_header(checkpoint).document
    tensor = {
        "shape": ["batch", 3, "height", "width"], "dtype": "float32", "range": [-1, 1],
        "colours": "RGB",
    }  # fmt: skip
    expected = {
        "format": "onnx", "precision": "fp32", "opset": 20, "direction": "a2b", "from": "day",
        "to": "night", "inputs": {"picture": tensor}, "outputs": {"translation": tensor},
        "size_multiple": 4, "image_io": False,
        "verification": report.verification.to_document(),
    }  # fmt: skip
    assert export_section | expected == export_section
    assert set(export_section["versions"]) >= {"torch", "onnx", "onnxruntime", "cyclegan_cli"}


# Fewer bits


def test_fp16_keeps_instance_norm_and_io_in_fp32(exported):
    report = exported("onnx", precision="fp16")
    model = onnx.shape_inference.infer_shapes(onnx.load(report.job.output))
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    norms = [node for node in model.graph.node if node.op_type == "InstanceNormalization"]
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert {types[node.input[0]] for node in norms} == {onnx.TensorProto.FLOAT}
    assert {types[node.output[0]] for node in convolutions} == {onnx.TensorProto.FLOAT16}
    ends = [*model.graph.input, *model.graph.output]
    assert {end.type.tensor_type.elem_type for end in ends} == {onnx.TensorProto.FLOAT}
    assert 60 < report.verification.psnr < 120


@pytest.mark.slow
def test_int8_quantizes_inner_convolutions(exported, images):
    report = exported("onnx", precision="int8", calibration=images, min_psnr=TINY_PSNR)
    graph = graph_of(report.job.output)
    made_by = {output: node.op_type for node in graph.node for output in node.output}
    inner = [
        [made_by.get(name) for name in node.input[:2]]
        for node in graph.node
        if node.op_type == "Conv"
    ]
    # The stem; a blur and a convolution, twice; the block; a blur, twice; the head.
    quantized = [False, False, True, False, True, True, True, False, False, False]
    assert [pair == ["DequantizeLinear"] * 2 for pair in inner] == quantized
    assert "QuantizeLinear" in kinds(graph)


def test_int8_is_verified_on_held_out_images(exported, images):
    report = exported("onnx", precision="int8", calibration=images, min_psnr=TINY_PSNR)
    assert [check.what for check in report.verification.decisive] == ["held-out 1", "held-out 2"]
    assert report.document["int8"] == {"calibrated_on": 7, "held_out": 2, "convolutions": 4}
    assert report.verification.psnr > TINY_PSNR


@pytest.mark.slow
def test_int8_below_min_psnr_keeps_the_old_file(
    checkpoint, images, tmp_path, monkeypatch, exported
):
    from cyclegan_cli.exporting import onnx as exporting

    ready = onnx.load(exported("onnx").job.output)
    monkeypatch.setattr(exporting, "to_onnx", lambda *_: ready)
    (tmp_path / "x.onnx").write_text("old")
    job = Job(
        read_checkpoint(checkpoint), ("a2b",), tmp_path / "x.onnx", FORMATS["onnx"], "int8",
        calibration=images, min_psnr=99.0,
    )  # fmt: skip
    with pytest.raises(ExportError, match=r"on held-out 1 of .* less than 99;"):
        export(job)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


# Pixels in, pixels out


@pytest.mark.parametrize(
    ("height", "width"), [(64, 64), (61, 45), (7, 5), (1, 9), (8, 3), (2, 2), (130, 33), (4, 100)]
)
@pytest.mark.slow
def test_image_io_matches_the_translator(pixels, checkpoint, height, width):
    values = np.random.default_rng(3).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    [found] = session_of(pixels).run(["translation"], {"picture": values})
    exact = TranslatorOptions("cpu", "fp32")
    expected = Translator.load(checkpoint, options=exact).translate_array(values[0])
    assert found.shape == values.shape
    assert found.dtype == np.uint8
    assert np.abs(found[0].astype(int) - expected).max() <= 1


def test_image_io_translates_batches(pixels):
    session = session_of(pixels)
    values = np.random.default_rng(4).integers(0, 256, (3, 13, 22, 3), dtype=np.uint8)
    [together] = session.run(None, {"picture": values})
    alone = [session.run(None, {"picture": one[None]})[0][0] for one in values]
    assert np.abs(together.astype(int) - np.stack(alone)).max() <= 1


def test_image_io_output_has_the_input_dimensions(pixels):
    graph = graph_of(pixels)
    for value in (*graph.input, *graph.output):
        assert dims(value) == ["batch", "height", "width", 3]
        assert value.type.tensor_type.elem_type == onnx.TensorProto.UINT8


@pytest.mark.slow
def test_image_io_fp16_converts_pixels_in_fp32(exported):
    report = exported("onnx", precision="fp16", image_io=True)
    model = onnx.shape_inference.infer_shapes(onnx.load(report.job.output))
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    divisions = [node for node in model.graph.node if node.op_type == "Div"]
    to_range = [types[node.output[0]] for node in divisions if types.get(node.output[0]) in (1, 10)]
    assert to_range == [onnx.TensorProto.FLOAT]
    assert report.verification.largest_difference <= 2
