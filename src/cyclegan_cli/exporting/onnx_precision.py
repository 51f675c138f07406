"""ONNX graphs in fewer bits: fp16, and int8 calibrated on images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel
from torch import Tensor

from cyclegan_cli.exporting.calibration import load_calibration
from cyclegan_cli.exporting.draft import IMAGE, Document
from cyclegan_cli.exporting.scratch import scratch_folder


def to_fp16(model: Any) -> Any:
    """A graph with fp16 weights and activations.

    Instance norms stay fp32: their sums over all pixels leave fp16's range. So do input and
    output, and with pixels the conversions around the network.
    """
    converted = convert_float_to_float16(
        model,
        keep_io_types=True,
        op_block_list=["InstanceNormalization"],
        node_block_list=[node.name for node in _around_the_network(model)],
    )
    OnnxModel(converted).topological_sort()
    # Types noted before the conversion; they are inferred anew.
    del converted.graph.value_info[:]
    onnx.checker.check_model(converted, full_check=True)
    return converted


def _around_the_network(model: Any) -> list[Any]:
    """The nodes before the network's first layer and after its last: none without pixels."""
    nodes = list(model.graph.node)
    kinds = [node.op_type for node in nodes]
    return nodes[: kinds.index("Pad")] + nodes[kinds.index("Tanh") + 1 :]


def to_int8(
    model: Any, folder: Path, channels: int, image_io: bool
) -> tuple[Any, dict[str, Tensor], Document]:
    """A graph whose convolutions between the first and the last are 8 bits wide.

    Static, as pairs of QuantizeLinear and DequantizeLinear nodes. Weights have a scale a channel
    and 7 bits: without VNNI, x86 CPUs let sums of 8-bit products overflow. The convolutions at
    both ends see pixels and stay as they are, as do instance norms, and transposed convolutions,
    for which ONNX Runtime's CPU kernels have no 8-bit form.

    Returns:
        The graph; the images held out, as its inputs; and facts for the document.

    Raises:
        DataError: The images are too few, or one cannot be read.
        OutputError: There is no room for temporary files.
    """
    images = load_calibration(folder, channels, image_io)
    inner = [node.name for node in model.graph.node if node.op_type == "Conv"][1:-1]
    with scratch_folder() as scratch:
        target = scratch / "int8.onnx"
        quantize_static(
            model,
            target,
            _Reader(images.calibrated),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_quantize=inner,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        quantised = onnx.load(target)
    facts = {
        "calibrated_on": len(images.calibrated),
        "held_out": len(images.held_out),
        "convolutions": len(inner),
    }
    return quantised, images.held_out, facts


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands images to the calibration one by one."""

    def __init__(self, images: list[Tensor]) -> None:
        self._left: Iterator[Tensor] = iter(images)

    def get_next(self) -> dict[str, Any] | None:
        """The next input; None at the end."""
        image = next(self._left, None)
        return None if image is None else {IMAGE: image.contiguous().numpy()}
