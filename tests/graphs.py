"""ONNX graphs of networks: tracing one takes seconds, and its result depends on nothing else."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pytest

from cyclegan_cli.models.networks import ResnetGenerator

_graphs: dict[tuple[str, str, bool], Any] = {}


def _digest(generator: ResnetGenerator) -> str:
    """Of all weights, with their names and types."""
    found = hashlib.sha256()
    for name, tensor in generator.state_dict().items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().numpy().tobytes())
    return found.hexdigest()


@contextmanager
def traced_once() -> Iterator[None]:
    """Exports trace a network once per process, and then copy its graph.

    What follows (older opsets, fp16, int8, OpenVINO, the verification) runs for every export.
    """
    from cyclegan_cli.exporting import onnx as exporting

    trace = exporting.to_onnx

    def to_onnx(generator: ResnetGenerator, image_io: bool) -> Any:
        key = (repr(generator.config), _digest(generator), image_io)
        if key not in _graphs:
            _graphs[key] = trace(generator, image_io)
        graph = type(_graphs[key])()
        graph.CopyFrom(_graphs[key])
        return graph

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "to_onnx", to_onnx)
        if find_spec("openvino") is not None:
            from cyclegan_cli.exporting import openvino

            patch.setattr(openvino, "to_onnx", to_onnx)
        yield
