"""ONNX files, read without the onnx package: only what describes them, never their tensors.

An ONNX file is a protobuf message (https://onnx.ai/onnx/repo-docs/IR.html, onnx.proto3). The file
is read, as a mapped one that is cut short meanwhile would end the process; the tensors' bytes are
stepped over, and where they are is noted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cyclegan_cli.checkpoints.container import (
    DTYPE_BITS,
    METADATA_KEY,
    Place,
    TensorInfo,
    count_elements,
    file_size,
    read_document,
    unreadable,
)
from cyclegan_cli.errors import CheckpointError
from cyclegan_cli.inspection.checkpoints import count, listed
from cyclegan_cli.inspection.summary import Facts, Request, Summary

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
# Numbers of the fields in onnx.proto3 that are looked at: of the model, the graph, a tensor.
IR_VERSION, PRODUCER, PRODUCER_VERSION, GRAPH, OPSET, METADATA = 1, 2, 3, 7, 8, 14
NODE, INITIALIZER, INPUT, OUTPUT = 1, 5, 11, 12
DIMS, DATA_TYPE, FLOAT_DATA, NAME, RAW_DATA, DOUBLE_DATA, LOCATION = 1, 2, 4, 8, 9, 10, 14
DTYPES = {1: "F32", 2: "U8", 3: "I8", 4: "U16", 5: "I16", 6: "I32", 7: "I64", 9: "BOOL",
          10: "F16", 11: "F64", 12: "U32", 13: "U64", 16: "BF16"}  # fmt: skip
MOST_NODES = 100_000
LONGEST_TEXT = 4_000_000
LONGEST_SHAPE = 10_000

# Number, kind, value, and the byte at which the value begins.
Field = tuple[int, int, "int | memoryview", int]


def describe_onnx(path: Path, request: Request) -> Summary:
    """An ONNX model.

    Raises:
        CheckpointError: It is damaged, or none.
    """
    size = file_size(path)
    try:
        content = memoryview(path.read_bytes())
        facts, tensors = _model_facts(list(_fields(content, MOST_NODES)))
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is not an ONNX model, or a damaged one") from error
    facts = {"bytes": size, **facts, "parameters": count(tensors, "")}
    return Summary(path, "onnx", facts | listed(path, tensors, request))


def _model_facts(fields: list[Field]) -> tuple[Facts, dict[str, TensorInfo]]:
    graphs = [(_view(value), start) for number, _, value, start in fields if number == GRAPH]
    if len(graphs) != 1:
        raise ValueError("no graph")
    facts: Facts = {}
    for number, _, value, _ in fields:
        if number == IR_VERSION and isinstance(value, int):
            facts["ir_version"] = value
        elif number in (PRODUCER, PRODUCER_VERSION):
            name = "producer" if number == PRODUCER else "producer_version"
            facts[name] = _text(value)
    opsets = [_members(value) for number, _, value, _ in fields if number == OPSET]
    facts["opsets"] = {_text(one.get(1, b"")) or "ai.onnx": _number(one.get(2)) for one in opsets}
    metadata = dict(_entry(value) for number, _, value, _ in fields if number == METADATA)
    graph, tensors = _graph(*graphs[0])
    return facts | graph | _document(metadata), tensors


def _graph(graph: memoryview, start: int) -> tuple[Facts, dict[str, TensorInfo]]:
    operators: Counter[str] = Counter()
    facts: Facts = {"inputs": {}, "outputs": {}}
    tensors: dict[str, TensorInfo] = {}
    for number, _, value, place in _fields(graph, MOST_NODES, start):
        if number == NODE:
            operators[_text(_members(value).get(4, b""))] += 1
        elif number == INITIALIZER:
            name, tensor = _tensor(_view(value), place)
            tensors[name] = tensor
        elif number in (INPUT, OUTPUT):
            name, described = _value_info(_view(value))
            facts["inputs" if number == INPUT else "outputs"][name] = described
    facts["operators"] = dict(operators.most_common())
    return facts, tensors


def _tensor(message: memoryview, start: int) -> tuple[str, TensorInfo]:
    """Name, dtype, shape and place of a TensorProto that begins at a byte of the file."""
    name, dtype, location = "", 0, 0
    shape: list[int] = []
    data: list[tuple[int, int]] = []
    for number, kind, value, place in _fields(message, MOST_NODES, start):
        if number == DIMS and kind == VARINT:
            shape.append(_number(value))
        elif number == DIMS:
            shape += _packed(_view(value))
        elif number == DATA_TYPE:
            dtype = _number(value)
        elif number == NAME:
            name = _text(value)
        elif number in (RAW_DATA, FLOAT_DATA, DOUBLE_DATA) and kind == BYTES:
            data.append((place, len(_view(value))))
        elif number == LOCATION:
            location = _number(value)
    info = TensorInfo(DTYPES.get(dtype, str(dtype)), tuple(shape))
    size = count_elements(info.shape) * DTYPE_BITS.get(info.dtype, 0) // 8
    if location == 0 and [length for _, length in data] == [size]:
        info = replace(info, place=Place(data[0][0]))
    return name, info


def _packed(numbers: memoryview) -> list[int]:
    if len(numbers) > LONGEST_SHAPE:
        raise ValueError("a shape of megabytes")
    found, place = [], 0
    while place < len(numbers):
        number, place = _varint(numbers, place)
        found.append(number)
    return found


def _value_info(message: memoryview) -> tuple[str, str]:
    """Name of an input or output, and its type as text: ``F32 [batch, 3, height, width]``."""
    members = _members(message)
    tensor = _members(_members(members.get(2, b"")).get(1, b""))
    dims = [
        _members(value)
        for number, _, value, _ in _fields(_view(tensor.get(2, b"")), 100)
        if number == 1
    ]
    shape = [_text(one[2]) if 2 in one else str(one.get(1, "?")) for one in dims]
    dtype = _number(tensor.get(1, 0))
    return _text(members.get(1, b"")), f"{DTYPES.get(dtype, dtype)} [{', '.join(shape)}]"


def _document(metadata: dict[str, str]) -> Facts:
    """What this program wrote into the file; in a foreign file the names of what is there."""
    try:
        document = read_document(metadata.pop(METADATA_KEY, "{}"))
    except (ValueError, RecursionError):
        document = {}
    facts: Facts = {"metadata": metadata} if metadata else {}
    return facts | ({"cyclegan": document} if document else {})


def _entry(value: int | memoryview) -> tuple[str, str]:
    members = _members(value)
    return _text(members.get(1, b"")), _text(members.get(2, b""))


def _members(message: int | bytes | memoryview) -> dict[int, int | memoryview]:
    """The fields of a message by their numbers; of repeated ones the last."""
    return {number: value for number, _, value, _ in _fields(_view(message), MOST_NODES)}


def _fields(message: memoryview, most: int, start: int = 0) -> Iterator[Field]:
    """All fields of a message, which begins at byte ``start``; nothing is copied."""
    place, seen = 0, 0
    while place < len(message):
        seen += 1
        if seen > most:
            raise ValueError("too many fields")
        key, place = _varint(message, place)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            before = place
            value, place = _varint(message, place)
            yield number, kind, value, start + before
            continue
        if kind not in (FIXED64, BYTES, FIXED32):
            raise ValueError("an unknown kind of field")
        length = {FIXED64: 8, FIXED32: 4}.get(kind, 0)
        if kind == BYTES:
            length, place = _varint(message, place)
        if place + length > len(message):
            raise ValueError("a field beyond the end")
        yield number, kind, message[place : place + length], start + place
        place += length


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            break
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number without an end")


def _view(value: int | bytes | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number instead of a message")
    return memoryview(value)


def _number(value: int | bytes | memoryview | None) -> int:
    if not isinstance(value, int):
        raise ValueError("no number")
    return value


def _text(value: int | bytes | memoryview) -> str:
    content = _view(value)
    if len(content) > LONGEST_TEXT:
        raise ValueError("a text of megabytes")
    return bytes(content).decode(errors="replace")
