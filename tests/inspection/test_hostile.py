"""Hostile files are refused in one sentence, quickly and with little memory."""

import json
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from cyclegan_cli.errors import CheckpointError
from cyclegan_cli.inspection import Request, describe

GRAPH, INITIALIZER, METADATA = 7, 5, 14
HUGE = 2**62


def varint(value: int) -> bytes:
    """An integer in protobuf's encoding."""
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def message(number: int, content: bytes) -> bytes:
    """A field of a protobuf message."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def onnx_file(
    path: Path, shape: bytes = b"", document: str = "{}", data: bytes = b"", location: int = 0
) -> Path:
    """A model with one fp32 tensor of this shape (packed integers) and this document."""
    pytest.importorskip("onnx")
    tensor = message(1, shape) + b"\x10\x01" + message(8, b"weight") + message(9, data)
    tensor += b"\x70" + varint(location)
    metadata = message(1, b"cyclegan") + message(2, document.encode())
    path.write_bytes(message(GRAPH, message(INITIALIZER, tensor)) + message(METADATA, metadata))
    return path


def pt2_file(path: Path, shape: list[int], document: str = "{}") -> Path:
    """An exported program with one fp32 tensor of this shape."""
    meta = {"dtype": 7, "sizes": [{"as_int": size} for size in shape]}
    weights = {"config": {"weight": {"path_name": "weight_0", "tensor_meta": meta}}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/archive_format", "pt2")
        archive.writestr("x/data/weights/model_weights_config.json", json.dumps(weights))
        archive.writestr("x/extra/cyclegan.json", document)
    return path


def openvino_file(path: Path, data: str, more: str = "", count: int = 1) -> Path:
    """A model with ``count`` constants of these attributes, over the same 16 elements."""
    pytest.importorskip("openvino")
    port = '<port id="0" precision="FP32" names="{}"><dim>16</dim></port>'
    layers = [
        f'<layer id="{number}" name="w{number}" type="Const" version="opset1"><data {data}/>'
        f"<output>{port.format(number)}</output></layer>"
        f'<layer id="{count + number}" name="r{number}" type="Result" version="opset1">'
        f"<input>{port.format(number)}</input></layer>"
        for number in range(count)
    ]
    edges = [
        f'<edge from-layer="{number}" from-port="0" to-layer="{count + number}" to-port="0"/>'
        for number in range(count)
    ]
    path.write_text(
        f'<net name="x" version="11"><layers>{"".join(layers)}</layers>'
        f"<edges>{''.join(edges)}</edges>{more}</net>"
    )
    path.with_suffix(".bin").write_bytes(struct.pack("<16f", *range(16)))
    return path


def statistics(path: Path) -> list[Any]:
    """The statistics of a file's tensors."""
    return [t["statistics"] for t in describe(path, Request(weights=True)).facts["weights"]]


def safetensors_file(path: Path, document: str) -> Path:
    """A checkpoint without tensors."""
    header = json.dumps({"__metadata__": {"cyclegan": document}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


def test_valid_files_of_these_makers_are_described(tmp_path):
    shape = varint(3) + varint(5)
    assert describe(onnx_file(tmp_path / "x.onnx", shape)).facts["parameters"] == 15
    assert describe(pt2_file(tmp_path / "x.pt2", [3, 5])).facts["parameters"] == 15


@pytest.mark.parametrize(
    "shape",
    [[HUGE] * 400, [HUGE] * 200_000, [2**64 - 1], [1] * 2_000_000],
    ids=["huge product", "very long product", "negative", "millions of dimensions"],
)
def test_onnx_with_impossible_shape_is_refused(tmp_path, shape):
    file = onnx_file(tmp_path / "x.onnx", b"".join(map(varint, shape)))
    with pytest.raises(CheckpointError, match="is not an ONNX model, or a damaged one"):
        describe(file)


@pytest.mark.parametrize("shape", [[HUGE] * 400, [10**4000] * 5, [-1]])
def test_pt2_with_impossible_shape_is_refused(tmp_path, shape):
    with pytest.raises(CheckpointError, match="is not an exported program, or a damaged one"):
        describe(pt2_file(tmp_path / "x.pt2", shape))


@pytest.mark.parametrize(
    "data",
    [
        'element_type="f32" shape="2,3" offset="0" size="23"',
        'element_type="f32" shape="2,x" offset="0" size="24"',
        'element_type="f32" shape="1" offset="-4" size="4"',
        'element_type="f32" shape="1" size="4"',
        'element_type="f32" shape="17" offset="0" size="68"',
        f'element_type="f32" shape="{",".join([str(HUGE)] * 90)}" offset="0" size="4"',
        f'element_type="f32" shape="{",".join("1" * 10_000)}" offset="0" size="4"',
    ],
)
def test_openvino_with_impossible_tensor_is_refused(tmp_path, data):
    with pytest.raises(CheckpointError, match="is not an OpenVINO model, or a damaged one"):
        statistics(openvino_file(tmp_path / "x.xml", data))


def test_xml_entity_expansion_is_refused(tmp_path):
    path = openvino_file(tmp_path / "x.xml", "")
    entities = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(20))
    path.write_text(
        f'<!DOCTYPE net [<!ENTITY e0 "x">{entities}]><net version="&e20;"><layer type="a"/></net>'
    )
    with pytest.raises(CheckpointError, match="is not an OpenVINO model, or a damaged one"):
        describe(path)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity"])
def test_numbers_that_are_not_json_are_refused(cyclegan, tmp_path, number):
    document = f'{{"generator": {number}}}'
    answer = cyclegan("inspect", onnx_file(tmp_path / "x.onnx", document=document), "--json")
    assert answer.code == 0
    assert "cyclegan" not in answer.documents[0]
    for file in (
        pt2_file(tmp_path / "x.pt2", [1], document),
        openvino_file(
            tmp_path / "x.xml",
            'element_type="f32" shape="16" offset="0" size="64"',
            f"<rt_info><cyclegan value='{document}'/></rt_info>",
        ),
        safetensors_file(tmp_path / "x.safetensors", document),
    ):
        answer = cyclegan("inspect", file, "--json")
        assert (answer.code, answer.out, len(answer.err.splitlines())) == (4, "", 1)


def test_openvino_constants_have_statistics(tmp_path):
    data = 'element_type="f32" shape="2, 3" offset="8" size="24"'
    [found] = statistics(openvino_file(tmp_path / "x.xml", data))
    assert (found["smallest"], found["largest"]) == (2, 7)


def test_overlapping_openvino_constants_are_read_within_a_limit(tmp_path):
    data = 'element_type="f32" shape="16" offset="0" size="64"'
    found = statistics(openvino_file(tmp_path / "x.xml", data, count=1000))
    assert (len(found), sum(one is not None for one in found)) == (1000, 4)


@pytest.mark.parametrize(
    ("data", "location", "largest"),
    [
        (struct.pack("<2f", 1, 2), 0, 2),
        (struct.pack("<3f", 1, 2, 3), 0, None),
        (b"", 0, None),
        (struct.pack("<2f", 1, 2), 1, None),
    ],
    ids=["whole", "too long", "none", "in another file"],
)
def test_onnx_initializers_have_statistics_if_their_data_fits(tmp_path, data, location, largest):
    file = onnx_file(tmp_path / "x.onnx", varint(2), data=data, location=location)
    [found] = statistics(file)
    assert (found and found["largest"]) == largest


def test_pt2_zip_bomb_is_refused_without_inflating(tmp_path):
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


@pytest.mark.parametrize("name", ["x.pt2", "x.pth"])
@pytest.mark.parametrize("offset", [2**33, 2**63, 2**64 - 1])
def test_archive_with_offsets_beyond_its_end_is_refused(tmp_path, name, offset):
    path = pt2_file(tmp_path / name, [16])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x/data.pkl", b"")  # Makes it write the directory again.
        archive.infolist()[1].header_offset = offset
    with pytest.raises(CheckpointError, match="damaged"):
        describe(path)


def test_control_characters_are_escaped(cyclegan, tmp_path):
    document = {
        "format": "cyclegan-cli", "version": 1, "kind": "model",
        "generator": {"base_channels": 1, "residual_blocks": 1}, "domains": {"a": "a", "b": "b"},
        "training": {"note": "\x1b[2J\x9b31m"}, "versions": {},
    }  # fmt: skip
    answer = cyclegan("inspect", safetensors_file(tmp_path / "x.safetensors", json.dumps(document)))
    assert (answer.code, answer.err) == (0, "")
    assert "\\x1b[2J\\x9b31m" in answer.out
    assert "\x1b" not in answer.out


def test_control_characters_in_a_tensor_name_are_escaped_in_errors(cyclegan, tmp_path):
    torch.save({"a\nerror: \x1b[2Jb": torch.zeros(1)}, tmp_path / "x.pth")
    answer = cyclegan("export", tmp_path / "x.pth")
    assert answer.code == 4
    assert "a\\x0aerror: \\x1b[2Jb" in answer.errors[0]
    assert "\x1b" not in answer.err
