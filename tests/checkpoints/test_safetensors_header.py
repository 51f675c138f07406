"""The safetensors header reader, compared with the library and on damaged files."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from cyclegan_cli.checkpoints.header import (
    METADATA_KEY,
    Header,
    ModelInfo,
    StateInfo,
    TensorInfo,
    model_info,
    read_header,
    state_info,
    to_metadata,
)
from cyclegan_cli.config import DiscriminatorConfig, GeneratorConfig
from cyclegan_cli.errors import CheckpointError

MODEL = ModelInfo("model", GeneratorConfig(2, 3), "día", "night", {"step": 7}, {"torch": "2.14"})
STATE = StateInfo(
    ModelInfo(**vars(MODEL) | {"kind": "state"}), DiscriminatorConfig(5), {"seed": 3}, 7, 1.5, "01"
)


def file_of(path: Path, header: bytes, data: bytes = b"", length: int | None = None) -> Path:
    """A file with these parts; ``length`` is what it claims of its header, if not the truth."""
    claimed = len(header) if length is None else length
    path.write_bytes(claimed.to_bytes(8, "little") + header + data)
    return path


def entry(dtype: Any, shape: Any, first: Any, last: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


def refused(path: Path) -> str:
    """The one sentence with which a file is refused."""
    with pytest.raises(CheckpointError) as refusal:
        read_header(path)
    assert refusal.value.exit_code == 4
    assert str(path) in refusal.value.message
    assert "\n" not in refusal.value.message
    return refusal.value.message


# --- whole files -----------------------------------------------------------------------------

DTYPES = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16",
    torch.int32: "I32", torch.int64: "I64", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.float32: "F32", torch.float64: "F64", torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2", torch.uint16: "U16", torch.uint32: "U32", torch.uint64: "U64",
}  # fmt: skip


def test_all_dtypes_are_read(tmp_path):
    save_file(
        {name: torch.zeros(2, 3, dtype=dtype) for dtype, name in DTYPES.items()}, tmp_path / "x"
    )
    header = read_header(tmp_path / "x")
    assert header.tensors == {name: TensorInfo(name, (2, 3)) for name in DTYPES.values()}


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e8m0fnu, torch.float8_e4m3fnuz])
def test_rare_dtypes_are_read(tmp_path, dtype):
    save_file({"x": torch.zeros(2, 3).to(dtype)}, tmp_path / "x")
    assert read_header(tmp_path / "x").tensors["x"].shape == (2, 3)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 0, 3), (4, 3, 2, 1)])
def test_all_shapes_are_read(tmp_path, shape):
    save_file({"a": torch.zeros(2), "x": torch.zeros(shape), "z": torch.zeros(2)}, tmp_path / "x")
    assert read_header(tmp_path / "x").tensors["x"] == TensorInfo("F32", shape)


@pytest.mark.parametrize(
    ("metadata", "document"),
    [
        (None, {}),
        ({"format": "pt"}, {}),
        ({METADATA_KEY: "{}", "other": "x"}, {}),
        ({METADATA_KEY: "[1]"}, {}),
        (to_metadata(MODEL.to_document()), MODEL.to_document()),
    ],
)
def test_document_is_read_from_metadata(tmp_path, metadata, document):
    save_file({"x": torch.zeros(1)}, tmp_path / "x", metadata)
    assert read_header(tmp_path / "x").document == document


def test_file_without_tensors_is_read(tmp_path):
    save_file({}, tmp_path / "x")
    assert read_header(tmp_path / "x") == Header({}, {})


def test_read_header_reads_nothing_beyond_the_header(tmp_path):
    """A file of a terabyte, all of it a hole."""
    header = json.dumps({"x": entry("U8", [2**40], 0, 2**40)}).encode()
    path = file_of(tmp_path / "x", header)
    try:
        os.truncate(path, 8 + len(header) + 2**40)
    except OSError as error:
        pytest.skip(f"no such file here: {error}")
    assert read_header(path).tensors["x"].shape == (2**40,)


# --- damage ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A checkpoint of ours with two small tensors."""
    path = tmp_path_factory.mktemp("whole") / "x"
    tensors = {"a": torch.arange(5, dtype=torch.int16), "b": torch.ones(2, 2)}
    save_file(tensors, path, to_metadata(STATE.to_document()))
    return path.read_bytes()


def test_file_truncated_at_any_byte_is_refused(tmp_path, whole):
    for length in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:length])
        refused(tmp_path / "cut")


def test_trailing_bytes_are_refused(tmp_path, whole):
    (tmp_path / "x").write_bytes(whole + b"\0")
    assert "found 27" in refused(tmp_path / "x")


@pytest.mark.parametrize("length", [0, 1, 3, 100_000_001, 2**32, 2**63, 2**64 - 1])
def test_wrong_header_length_is_refused(tmp_path, length):
    assert "truncated" in refused(file_of(tmp_path / "x", b"{}", length=length))


def test_header_of_gigabytes_is_refused(tmp_path):
    path = file_of(tmp_path / "x", b"{}", length=2**32)
    try:
        os.truncate(path, 2**33)
    except OSError as error:
        pytest.skip(f"no such file here: {error}")
    assert "not a safetensors file" in refused(path)


DEEP = 100_000


@pytest.mark.parametrize(
    "header",
    [
        b"{ ",
        b"  ",
        b"not json",
        b"\xff\xfe\xfd\xfc",
        b"[]",
        b"12",
        b"null",
        b'"text"',
        b"[" * DEEP,
        b'{"x":' * DEEP,
        b'{"x":' + b"[" * DEEP + b"]" * DEEP + b"}",
        b'{"x": ' + b"9" * 5000 + b"}",
        b'{"x": 1}',
        b'{"x": {}}',
        b'{"x": null}',
        b'{"x": []}',
        b'{"__metadata__": 1}',
        b'{"__metadata__": null}',
        b'{"__metadata__": []}',
        b'{"__metadata__": {"cyclegan": 1}}',
        b'{"__metadata__": {"cyclegan": {}}}',
        b'{"__metadata__": {"cyclegan": "not json"}}',
        b'{"__metadata__": {"cyclegan": "' + b"[" * DEEP + b'"}}',
    ],
    ids=lambda header: header[:40].decode(errors="replace"),
)
def test_invalid_json_header_is_refused(tmp_path, header):
    assert "damaged" in refused(file_of(tmp_path / "x", header))


@pytest.mark.parametrize(
    "tensors",
    [
        pytest.param({"x": entry("F32", [1], 4, 8)}, id="gap before the first"),
        pytest.param({"x": entry("F32", [1], 0, 4), "y": entry("U8", [2], 6, 8)}, id="gap"),
        pytest.param({"x": entry("F32", [1], 0, 4), "y": entry("F32", [1], 0, 4)}, id="same place"),
        pytest.param({"x": entry("F32", [1], 0, 4), "y": entry("U8", [6], 2, 8)}, id="overlap"),
        pytest.param({"x": entry("F32", [2], 8, 0)}, id="backwards"),
        pytest.param({"x": entry("F32", [2], -8, 0)}, id="before the file"),
        pytest.param({"x": entry("F32", [3], 0, 8)}, id="shape too large"),
        pytest.param({"x": entry("F32", [1], 0, 8)}, id="shape too small"),
        pytest.param({"x": entry("F31", [2], 0, 8)}, id="unknown dtype"),
        pytest.param({"x": entry("f32", [2], 0, 8)}, id="dtype in lower case"),
        pytest.param({"x": entry(32, [2], 0, 8)}, id="dtype a number"),
        pytest.param({"x": entry(["F32"], [2], 0, 8)}, id="dtype a list"),
        pytest.param({"x": entry(None, [2], 0, 8)}, id="dtype null"),
        pytest.param({"x": entry("F32", [-2], 0, 8)}, id="negative size"),
        pytest.param({"x": entry("F32", [-2, -1], 0, 8)}, id="negative sizes"),
        pytest.param({"x": entry("F32", [2.0], 0, 8)}, id="fractional size"),
        pytest.param({"x": entry("F32", [True, 2], 0, 8)}, id="true for a size"),
        pytest.param({"x": entry("F32", ["2"], 0, 8)}, id="text for a size"),
        pytest.param({"x": entry("F32", "2", 0, 8)}, id="text for a shape"),
        pytest.param({"x": entry("F32", None, 0, 8)}, id="no shape"),
        pytest.param({"x": entry("F32", 2, 0, 8)}, id="number for a shape"),
        pytest.param({"x": entry("F32", [2**64], 0, 8)}, id="huge size"),
        pytest.param({"x": entry("F32", [10**4000] * 50, 0, 8)}, id="astronomical sizes"),
        pytest.param({"x": entry("F32", [2], False, 8)}, id="false for a place"),
        pytest.param({"x": entry("F32", [2], 0, 8.0)}, id="fractional place"),
        pytest.param({"x": entry("F32", [2], 0, None)}, id="no end"),
        pytest.param({"x": entry("F32", [2], "0", "8")}, id="text for places"),
        pytest.param({"x": entry("F32", [1], 0, 4), "y": entry("F32", [1], "4", 8)}, id="mixed"),
        pytest.param({"x": entry("F32", [2], 0, 8) | {"data_offsets": [0, 8, 8]}}, id="3 places"),
        pytest.param({"x": entry("F32", [2], 0, 8) | {"data_offsets": [0]}}, id="one place"),
        pytest.param({"x": entry("F32", [2], 0, 8) | {"data_offsets": 8}}, id="places a number"),
        *(
            pytest.param(
                {"x": {k: v for k, v in entry("F32", [2], 0, 8).items() if k != missing}},
                id=f"no {missing}",
            )
            for missing in ("dtype", "shape", "data_offsets")
        ),
    ],
)
def test_inconsistent_tensors_are_refused(tmp_path, tensors):
    assert "damaged" in refused(file_of(tmp_path / "x", json.dumps(tensors).encode(), bytes(8)))


def test_consistent_tensor_is_read(tmp_path):
    header = json.dumps({"x": entry("F32", [2], 0, 8)}).encode()
    path = file_of(tmp_path / "x", header, bytes(8))
    assert read_header(path).tensors == {"x": TensorInfo("F32", (2,))}


def test_missing_file_folder_and_empty_file_are_refused(tmp_path):
    (tmp_path / "empty").touch()
    assert "no such file" in refused(tmp_path / "missing")
    assert "folder" in refused(tmp_path)
    assert "not a safetensors file" in refused(tmp_path / "empty")
    assert "not a directory" in refused(tmp_path / "empty" / "below")
    assert "name too long" in refused(tmp_path / ("n" * 300))


def test_unreadable_file_is_refused(tmp_path, whole, monkeypatch):
    def refuse(self, *arguments):
        raise PermissionError(13, "Permission denied", str(self))

    (tmp_path / "x").write_bytes(whole)
    monkeypatch.setattr(Path, "open", refuse)
    assert refused(tmp_path / "x").endswith("permission denied")


@settings(max_examples=500, deadline=None)
@given(data=st.data())
@pytest.mark.slow
def test_changed_header_bytes_are_read_or_refused(data, whole, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "mutated"
    changed = bytearray(whole)
    places = st.integers(0, 8 + int.from_bytes(whole[:8], "little") - 1)
    values = st.one_of(st.integers(0, 255), st.sampled_from(b'{}[]",:0123456789-.etfn\\ '))
    for place in data.draw(st.lists(places, min_size=1, max_size=4)):
        changed[place] = data.draw(values)
    path.write_bytes(changed)
    try:
        header = read_header(path)
        model_info(path, header)
        state_info(path, header)
    except CheckpointError as error:
        assert "\n" not in error.message
