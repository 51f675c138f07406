"""Files made to harm whoever looks at them: one sentence each, at once, in little memory."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cyclegan_cli.errors import CheckpointError
from cyclegan_cli.inspection import Request, describe

Cyclegan = Callable[..., Any]
GRAPH, INITIALIZER, METADATA = 7, 5, 14
HUGE = 2**62


def varint(value: int) -> bytes:
    """A number as protobuf has it."""
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def message(number: int, content: bytes) -> bytes:
    """A field of a protobuf message."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def onnx_file(
    path: Path, shape: bytes = b"", document: str = "{}", data: bytes = b"", location: int = 0
) -> Path:
    """A model with one fp32 tensor of this shape (packed numbers) and this description."""
    tensor = message(1, shape) + b"\x10\x01" + message(8, b"weight") + message(9, data)
    tensor += b"\x70" + varint(location)
    metadata = message(1, b"cyclegan") + message(2, document.encode())
    path.write_bytes(message(GRAPH, message(INITIALIZER, tensor)) + message(METADATA, metadata))
    return path


def pt2_file(
    path: Path,
    shape: list[int],
    document: str = "{}",
    strides: list[Any] | None = None,
    offset: Any = 0,
    tensors: int = 1,
) -> Path:
    """An exported program with fp32 tensors of this shape, all of the same sixteen numbers."""
    meta: dict[str, Any] = {"dtype": 7, "sizes": [{"as_int": size} for size in shape]}
    if strides is not None:
        meta["strides"] = [{"as_int": stride} for stride in strides]
        meta["storage_offset"] = {"as_int": offset}
    weight = {"path_name": "weight_0", "tensor_meta": meta}
    weights = {"config": {f"weight {number}": weight for number in range(tensors)}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/archive_format", "pt2")
        archive.writestr("x/data/weights/model_weights_config.json", json.dumps(weights))
        archive.writestr("x/data/weights/weight_0", struct.pack("<16f", *range(16)))
        archive.writestr("x/extra/cyclegan.json", document)
    return path


def openvino_file(path: Path, data: str, more: str = "", count: int = 1) -> Path:
    """A model with tensors of these attributes, all of them called otherwise, and of 16 numbers."""
    layers = [
        f'<layer name="w{number}" type="Const"><data {data}/></layer>' for number in range(count)
    ]
    path.write_text(f'<net version="11"><layers>{"".join(layers)}</layers>{more}</net>')
    path.with_suffix(".bin").write_bytes(struct.pack("<16f", *range(16)))
    return path


def statistics(path: Path) -> list[Any]:
    """Those of the file's tensors."""
    return [t["statistics"] for t in describe(path, Request(weights=True)).facts["weights"]]


def safetensors_file(path: Path, document: str) -> Path:
    """A file of ours without tensors."""
    header = json.dumps({"__metadata__": {"cyclegan": document}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


def test_harmless_files_of_these_makers_are_described(tmp_path: Path) -> None:
    shape = varint(3) + varint(5)
    assert describe(onnx_file(tmp_path / "x.onnx", shape)).facts["parameters"] == 15
    assert describe(pt2_file(tmp_path / "x.pt2", [3, 5])).facts["parameters"] == 15


@pytest.mark.parametrize(
    "shape",
    [[HUGE] * 400, [HUGE] * 200_000, [2**64 - 1], [1] * 2_000_000],
    ids=["endless product", "more endless", "negative", "millions of sizes"],
)
def test_an_onnx_model_of_absurd_shapes_is_refused(tmp_path: Path, shape: list[int]) -> None:
    file = onnx_file(tmp_path / "x.onnx", b"".join(map(varint, shape)))
    with pytest.raises(CheckpointError, match="is not an ONNX model, or a damaged one"):
        describe(file)


@pytest.mark.parametrize("shape", [[HUGE] * 400, [10**4000] * 5, [-1]])
def test_a_program_of_absurd_shapes_is_refused(tmp_path: Path, shape: list[int]) -> None:
    with pytest.raises(CheckpointError, match="is not an exported program, or a damaged one"):
        describe(pt2_file(tmp_path / "x.pt2", shape))


def test_an_onnx_model_damaged_deep_within_is_refused(tmp_path: Path) -> None:
    """Views of the mapped file are alive in the error then: closing it would be another one."""
    (tmp_path / "x.onnx").write_bytes(message(GRAPH, message(INITIALIZER, b"\x42\x7f")))
    with pytest.raises(CheckpointError, match="is not an ONNX model, or a damaged one"):
        describe(tmp_path / "x.onnx")


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity"])
def test_numbers_that_json_does_not_know_never_reach_it(
    cyclegan: Cyclegan, tmp_path: Path, number: str
) -> None:
    document = f'{{"generator": {number}}}'
    answer = cyclegan("inspect", onnx_file(tmp_path / "x.onnx", document=document), "--json")
    assert answer.code == 0
    assert "cyclegan" not in answer.documents[0]
    for file in (
        pt2_file(tmp_path / "x.pt2", [1], document),
        openvino_file(
            tmp_path / "x.xml",
            'element_type="f32" shape="" offset="0" size="4"',
            f"<rt_info><cyclegan value='{document}'/></rt_info>",
        ),
        safetensors_file(tmp_path / "x.safetensors", document),
    ):
        answer = cyclegan("inspect", file, "--json")
        assert (answer.code, answer.out, len(answer.err.splitlines())) == (4, "", 1)


def test_an_openvino_tensor_has_statistics_where_its_numbers_are(tmp_path: Path) -> None:
    data = 'element_type="f32" shape="2, 3" offset="8" size="24"'
    [found] = statistics(openvino_file(tmp_path / "x.xml", data))
    assert (found["smallest"], found["largest"]) == (2, 7)


@pytest.mark.parametrize(
    "data",
    [
        'element_type="f32" shape="2,3" offset="0" size="23"',
        'element_type="f32" shape="-2,-3" offset="0" size="24"',
        'element_type="f32" shape="2,x" offset="0" size="24"',
        'element_type="f32" shape="1" offset="-4" size="4"',
        'element_type="f32" shape="1" size="4"',
        f'element_type="f32" shape="{",".join([str(HUGE)] * 90)}" offset="0" size="4"',
        f'element_type="f32" shape="{",".join("1" * 10_000)}" offset="0" size="4"',
    ],
)
def test_an_openvino_model_of_absurd_tensors_is_refused(tmp_path: Path, data: str) -> None:
    with pytest.raises(CheckpointError, match="is not an OpenVINO model, or a damaged one"):
        statistics(openvino_file(tmp_path / "x.xml", data))


def test_xml_that_grows_without_end_is_refused(tmp_path: Path) -> None:
    entities = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(20))
    (tmp_path / "x.xml").write_text(
        f'<!DOCTYPE net [<!ENTITY e0 "x">{entities}]><net version="&e20;"><layer type="a"/></net>'
    )
    with pytest.raises(CheckpointError, match="is not an OpenVINO model, or a damaged one"):
        describe(tmp_path / "x.xml")


def test_openvino_layers_without_end_are_refused(tmp_path: Path) -> None:
    layers = "".join(f'<layer type="{number}"/>' for number in range(100_001))
    (tmp_path / "x.xml").write_text(f'<net version="11">{layers}</net>')
    with pytest.raises(CheckpointError, match="is not an OpenVINO model, or a damaged one"):
        describe(tmp_path / "x.xml")


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
def test_an_onnx_tensor_has_statistics_where_its_numbers_are(
    tmp_path: Path, data: bytes, location: int, largest: float | None
) -> None:
    file = onnx_file(tmp_path / "x.onnx", varint(2), data=data, location=location)
    [found] = statistics(file)
    assert (found and found["largest"]) == largest


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "largest"),
    [
        ([16], [1], 0, 15),
        ([2, 3], [4, 1], 5, 11),
        ([4, 2], [1, 4], 0, 7),
        ([17], [1], 0, None),
        ([2], [HUGE], 0, None),
        ([1], [1], 16, None),
        ([HUGE], [0], 0, None),
        ([0], [1], HUGE, None),
    ],
)
def test_a_tensor_of_a_program_has_statistics_if_it_is_within_its_storage(
    tmp_path: Path, shape: list[int], strides: list[int], offset: int, largest: float | None
) -> None:
    file = pt2_file(tmp_path / "x.pt2", shape, strides=strides, offset=offset)
    [found] = statistics(file)
    assert (found and found["largest"]) == largest


@pytest.mark.parametrize(
    ("strides", "offset"), [([-1], 0), ([1, 1], 0), (["1"], 0), ([1], -1), ([1], None)]
)
def test_a_program_of_absurd_strides_is_refused(
    tmp_path: Path, strides: list[Any], offset: Any
) -> None:
    file = pt2_file(tmp_path / "x.pt2", [4], strides=strides, offset=offset)
    with pytest.raises(CheckpointError, match="is not an exported program, or a damaged one"):
        statistics(file)


@pytest.mark.parametrize("name", ["x.pt2", "x.pth"])
@pytest.mark.parametrize("offset", [2**33, 2**63, 2**64 - 1])
@pytest.mark.parametrize("entry", [0, 1, 3])
def test_an_archive_whose_entries_are_elsewhere_is_refused(
    tmp_path: Path, name: str, offset: int, entry: int
) -> None:
    path = pt2_file(tmp_path / name, [16], strides=[1])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x/data.pkl", b"")  # Has it write the directory anew.
        archive.infolist()[entry].header_offset = offset
    with pytest.raises(CheckpointError, match="damaged"):
        describe(path)


def test_tensors_over_each_other_are_not_read_again_and_again(tmp_path: Path) -> None:
    found = statistics(pt2_file(tmp_path / "x.pt2", [16], strides=[1], tensors=10_000))
    read = [one for one in found if one is not None]
    assert 0 < len(read) * 64 <= 4 * (tmp_path / "x.pt2").stat().st_size
    data = 'element_type="f32" shape="16" offset="0" size="64"'
    found = statistics(openvino_file(tmp_path / "x.xml", data, count=10_000))
    assert (len(found), sum(one is not None for one in found)) == (10_000, 4)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
@pytest.mark.parametrize("name", ["x.safetensors", "x.onnx", "x.pt2", "x.pth", "x.xml"])
def test_nobody_waits_for_a_pipe(cyclegan_process: Cyclegan, tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    answer = cyclegan_process("inspect", tmp_path / name)
    assert answer.code in (3, 4)
    assert "is not a file" in answer.err


def test_a_foreign_file_does_not_command_the_terminal(cyclegan: Cyclegan, tmp_path: Path) -> None:
    described = {
        "format": "cyclegan-cli", "version": 1, "kind": "model",
        "generator": {"base_channels": 1, "residual_blocks": 1}, "domains": {"a": "a", "b": "b"},
        "training": {"note": "\x1b[2J\x9b31m"}, "versions": {},
    }  # fmt: skip
    file = safetensors_file(tmp_path / "x.safetensors", json.dumps(described))
    answer = cyclegan("inspect", file)
    assert (answer.code, answer.err) == (0, "")
    assert "\\x1b[2J\\x9b31m" in answer.out
    assert "\x1b" not in answer.out


def test_an_error_is_one_line_whatever_a_tensor_is_called(
    cyclegan: Cyclegan, tmp_path: Path
) -> None:
    import torch

    torch.save({"a\nerror: \x1b[2Jb": torch.zeros(1)}, tmp_path / "x.pth")
    answer = cyclegan("export", tmp_path / "x.pth")
    assert answer.code == 4
    assert "a\\x0aerror: \\x1b[2Jb" in answer.errors[0]
    assert "\x1b" not in answer.err
