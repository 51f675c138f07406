"""Exported models: ONNX and OpenVINO described by their own packages, ``.pt2`` from its archive."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclegan_cli.checkpoints.header import (
    METADATA_KEY,
    TensorInfo,
    count_elements,
    file_size,
    parse_document,
    read_error,
)
from cyclegan_cli.errors import CheckpointError, UsageError
from cyclegan_cli.inspection.checkpoints import count_parameters, listed_tensors
from cyclegan_cli.inspection.summary import Facts, Request, Summary

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_JSON_BYTES = 4_000_000
MAX_DIMENSIONS = 64
MAX_OVERLAP = 4  # Constants of OpenVINO may share bytes: a small file can describe any number.
# Values of TensorProto.DataType (onnx.proto) and of torch's ScalarType (torch/_export/serde).
ONNX_DTYPES = {1: "F32", 2: "U8", 3: "I8", 4: "U16", 5: "I16", 6: "I32", 7: "I64", 9: "BOOL",
               10: "F16", 11: "F64", 12: "U32", 13: "U64", 16: "BF16"}  # fmt: skip
PT2_DTYPES = {1: "U8", 2: "I8", 3: "I16", 4: "I32", 5: "I64", 6: "F16", 7: "F32", 8: "F64",
              12: "BOOL", 13: "BF16"}  # fmt: skip


def describe_onnx(path: Path, request: Request) -> Summary:
    """Describe an ONNX model.

    Raises:
        CheckpointError: It is damaged or of another kind.
        UsageError: The package ``onnx`` is not installed.
    """
    size = file_size(path)
    _require_package("onnx", path, "an ONNX model", size)
    import onnx

    with _reading(path, "an ONNX model"):
        model = onnx.load(path, load_external_data=False)
        if not model.HasField("graph"):
            raise ValueError("there is no graph")
        graph = model.graph
        facts: Facts = {"bytes": size, "ir_version": model.ir_version}
        for name, field in (("producer", "producer_name"), ("producer_version",) * 2):
            if model.HasField(field):
                facts[name] = getattr(model, field)
        facts["opsets"] = {one.domain or "ai.onnx": one.version for one in model.opset_import}
        facts["inputs"] = {value.name: _onnx_type(value) for value in graph.input}
        facts["outputs"] = {value.name: _onnx_type(value) for value in graph.output}
        facts["operators"] = dict(Counter(node.op_type for node in graph.node).most_common())
        facts |= _onnx_metadata({entry.key: entry.value for entry in model.metadata_props})
        initializers = {tensor.name: tensor for tensor in graph.initializer}
        tensors = {
            name: _tensor_info(ONNX_DTYPES.get(tensor.data_type, "?"), tensor.dims)
            for name, tensor in initializers.items()
        }
        facts["parameters"] = count_parameters(tensors)
        # protobuf returns strings that are not valid UTF-8 as bytes, which JSON rejects.
        json.dumps([facts, list(tensors)])

        def read(name: str) -> NDArray[Any] | None:
            if initializers[name].data_location == onnx.TensorProto.EXTERNAL:
                return None
            try:
                elements: NDArray[Any] = onnx.numpy_helper.to_array(initializers[name])
            except (ValueError, TypeError):
                return None  # Its data does not fit its shape.
            return elements

        facts |= listed_tensors(tensors, read, request)
    return Summary(path, "onnx", facts)


def _onnx_type(value: Any) -> str:
    """Return the type of an input or output as text: ``F32 [batch, 3, height, width]``."""
    tensor = value.type.tensor_type
    dims = [dim.dim_param or (str(dim.dim_value) if dim.HasField("dim_value") else "?")
            for dim in tensor.shape.dim]  # fmt: skip
    return f"{ONNX_DTYPES.get(tensor.elem_type, tensor.elem_type)} [{', '.join(dims)}]"


def _onnx_metadata(metadata: dict[str, str]) -> Facts:
    """Return this program's document, and the metadata of other programs."""
    try:
        document = parse_document(metadata.pop(METADATA_KEY, "{}"))
    except (ValueError, RecursionError):
        document = {}
    facts: Facts = {"metadata": metadata} if metadata else {}
    return facts | ({"cyclegan": document} if document else {})


def describe_openvino(path: Path, request: Request) -> Summary:
    """Describe a model of OpenVINO: the graph (``.xml``) and its weights (``.bin``) beside it.

    Raises:
        CheckpointError: It is damaged, of another kind, or without its ``.bin``.
        UsageError: The package ``openvino`` is not installed.
    """
    weights = path.with_suffix(".bin")
    size = file_size(path)
    if not weights.exists():
        message = f"{path} has no {weights.name} beside it, which holds its weights"
        raise CheckpointError(message, "Keep the two files together.")
    weights_size = file_size(weights)
    _require_package("openvino", path, "an OpenVINO model", size + weights_size)
    import openvino

    with _reading(path, "an OpenVINO model"):
        model = openvino.Core().read_model(path, weights)
        operators = model.get_ordered_ops()
        kinds = Counter(operator.get_type_name() for operator in operators)
        if not kinds["Result"]:
            raise ValueError("there is no output")
        facts: Facts = {
            "bytes": size + weights_size,
            "ir_version": model.get_rt_info("version").astype(int),
            "inputs": {port.any_name: _openvino_type(port) for port in model.inputs},
            "outputs": {port.any_name: _openvino_type(port) for port in model.outputs},
            "operators": {
                kind: count
                for kind, count in kinds.most_common()
                if kind not in ("Parameter", "Result", "Constant")
            },
        }
        if model.has_rt_info(METADATA_KEY):
            document = parse_document(model.get_rt_info(METADATA_KEY).astype(str))
            facts |= {"cyclegan": document} if document else {}
        constants = {
            operator.get_friendly_name(): operator
            for operator in operators
            if operator.get_type_name() == "Constant"
        }
        tensors = {
            name: _tensor_info(_openvino_dtype(constant.get_element_type()), constant.shape)
            for name, constant in constants.items()
        }
        facts["parameters"] = count_parameters(tensors)
        left = MAX_OVERLAP * weights_size

        def read(name: str) -> NDArray[Any] | None:
            nonlocal left
            left -= constants[name].get_byte_size()
            return constants[name].data if left >= 0 else None

        facts |= listed_tensors(tensors, read, request)
    return Summary(path, "openvino", facts)


def _openvino_dtype(element_type: Any) -> str:
    name: str = element_type.get_type_name()
    return "BOOL" if name == "boolean" else name.upper()


def _openvino_type(port: Any) -> str:
    dims = (str(dim) if dim.is_static else "?" for dim in port.get_partial_shape())
    return f"{_openvino_dtype(port.get_element_type())} [{', '.join(dims)}]"


def describe_pt2(path: Path, request: Request) -> Summary:
    """Describe an exported program of ``torch.export``, without torch and without its weights.

    Raises:
        CheckpointError: It is damaged or of another kind.
    """
    facts: Facts = {"bytes": file_size(path)}
    with _reading(path, "an exported program"), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        root = names[0].partition("/")[0] + "/" if names else ""
        if f"{root}archive_format" not in names:
            raise ValueError("it is a zip file of another program")

        def read(name: str) -> Facts:
            if name not in names:
                return {}
            if archive.getinfo(name).file_size > MAX_JSON_BYTES:
                raise ValueError("an entry is too long")
            return parse_document(archive.read(name))

        config = read(f"{root}data/weights/model_weights_config.json").get("config", {})
        tensors = {}
        for name, entry in config.items():
            meta = entry["tensor_meta"]
            shape = [size["as_int"] for size in meta["sizes"]]
            tensors[name] = _tensor_info(PT2_DTYPES.get(meta["dtype"], "?"), shape)
        facts |= {"tensors": len(tensors), "parameters": count_parameters(tensors)}
        if document := read(f"{root}extra/{METADATA_KEY}.json"):
            facts["cyclegan"] = document
        facts |= listed_tensors(tensors, None, request)
    return Summary(path, "pt2", facts)


def _tensor_info(dtype: str, sizes: Any) -> TensorInfo:
    shape = tuple(sizes)
    if len(shape) > MAX_DIMENSIONS or any(type(size) is not int for size in shape):
        raise ValueError("an impossible shape")
    count_elements(shape)
    return TensorInfo(dtype, shape)


def _require_package(package: str, path: Path, kind: str, size: int) -> None:
    if find_spec(package) is None:
        raise UsageError(
            f"{path} is {kind} of {size:,} bytes; describing it needs the package {package}, "
            "which is not installed",
            f"Install the extra [{package}]: pip install {package}",
        )


@contextmanager
def _reading(path: Path, kind: str) -> Iterator[None]:
    """Turn the errors of readers, which damaged bytes make raise anything, into one sentence."""
    try:
        yield
    except (CheckpointError, MemoryError):
        raise
    except OSError as error:
        raise read_error(path, error) from error
    except Exception as error:
        raise CheckpointError(f"{path} is not {kind}, or a damaged one") from error
