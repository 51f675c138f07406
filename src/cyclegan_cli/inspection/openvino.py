"""OpenVINO's files, read without its package: the graph (``.xml``), and where its numbers are.

The graph is a list of layers with their types and shapes; numbers are in the ``.bin`` beside it
(https://docs.openvino.ai, "OpenVINO IR format"). It is read as a stream, and may define nothing:
XML that defines entities can grow without end.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError, ParserCreate

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
from cyclegan_cli.inspection.checkpoints import count, listed, without_repetition
from cyclegan_cli.inspection.summary import Facts, Request, Summary

DTYPES = {"boolean": "BOOL"}  # The others are ours in small letters: f32, i64, u8.
MOST_LAYERS = 100_000
LONGEST_SHAPE = 100

Attributes = dict[str, str]


def describe_openvino(path: Path, request: Request) -> Summary:
    """A model of OpenVINO.

    Raises:
        CheckpointError: It is damaged, none, or without its ``.bin``.
    """
    size, numbers = file_size(path), path.with_suffix(".bin")
    graph = _Graph()
    try:
        with path.open("rb") as stream:
            graph.read(stream)
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, LookupError, RecursionError, ExpatError) as error:
        raise CheckpointError(f"{path} is not an OpenVINO model, or a damaged one") from error
    if not numbers.exists():
        message = f"{path} has no {numbers.name} beside it, which holds its numbers"
        raise CheckpointError(message, "Keep the two files together.")
    behind = file_size(numbers)
    if graph.end > behind:
        raise CheckpointError(f"{numbers} is truncated: {path.name} needs {graph.end} bytes of it")
    tensors = without_repetition(graph.tensors, behind)
    facts: Facts = {"bytes": size + behind, **graph.facts(), "parameters": count(tensors, "")}
    return Summary(path, "openvino", facts | listed(numbers, tensors, request))


class _Graph:
    """What is noted of a graph while it streams by."""

    def __init__(self) -> None:
        self.tensors: dict[str, TensorInfo] = {}
        self.end = 0  # How many bytes of the numbers' file are described.
        self._version = ""
        self._layer: Attributes = {}
        self._layers = 0
        self._types: Counter[str] = Counter()
        self._ends: dict[str, dict[str, tuple[str, list[str]]]] = {"Parameter": {}, "Result": {}}
        self._text = ""
        self._document: Facts = {}

    def read(self, stream: Any) -> None:
        parser = ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._finish
        parser.CharacterDataHandler = self._note
        parser.StartDoctypeDeclHandler = _refuse
        parser.ParseFile(stream)
        if not self._version or not self._types:
            raise ValueError("no layers")

    def facts(self) -> Facts:
        facts: Facts = {"ir_version": int(self._version)}
        for name, kind in (("inputs", "Parameter"), ("outputs", "Result")):
            facts[name] = {
                end: f"{dtype} [{', '.join(dims)}]"
                for end, (dtype, dims) in self._ends[kind].items()
            }
        inner = {
            kind: n for kind, n in self._types.most_common() if kind not in (*self._ends, "Const")
        }
        facts["operators"] = inner
        return facts | ({"cyclegan": self._document} if self._document else {})

    def _start(self, element: str, attributes: Attributes) -> None:
        self._text = ""
        if element == "net":
            self._version = str(int(attributes["version"]))
        elif element == "layer":
            self._layer = attributes
            self._types[attributes["type"]] += 1
            self._layers += 1
            if self._layers > MOST_LAYERS:
                raise ValueError("too many layers")
        elif element == "data" and self._layer.get("type") == "Const":
            self._add_tensor(attributes)
        elif (
            element == "port" and (ends := self._ends.get(self._layer.get("type", ""))) is not None
        ):
            name = self._layer.get("output_names", self._layer["name"])
            ends[name] = attributes["precision"].replace("FP", "F"), []
        elif element == METADATA_KEY:
            self._document = read_document(attributes["value"])

    def _finish(self, element: str) -> None:
        if element == "layer":
            self._layer = {}
        elif element == "dim" and (ends := self._ends.get(self._layer.get("type", ""))):
            size = self._text.strip()
            _, dims = list(ends.values())[-1]
            dims.append("?" if size == "-1" else str(int(size)))
            if len(dims) > LONGEST_SHAPE:
                raise ValueError("a shape without end")

    def _note(self, text: str) -> None:
        self._text = text

    def _add_tensor(self, data: Attributes) -> None:
        sizes = [int(size) for size in data["shape"].split(",") if size.strip()]
        dtype = DTYPES.get(data["element_type"], data["element_type"].upper())
        offset, length = int(data["offset"]), int(data["size"])
        info = TensorInfo(dtype, tuple(sizes), Place(offset))
        elements = count_elements(info.shape)
        fits = dtype not in DTYPE_BITS or elements * DTYPE_BITS[dtype] == 8 * length
        if not fits or offset < 0 or length < 0 or len(sizes) > LONGEST_SHAPE:
            raise ValueError("a tensor's place does not fit its shape")
        self.end = max(self.end, offset + length)
        self.tensors[self._layer["name"]] = info


def _refuse(*_: object) -> None:
    raise ValueError("a document type")
