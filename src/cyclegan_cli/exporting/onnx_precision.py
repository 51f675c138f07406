"""ONNX graphs in lower precision: fp16, and int8 calibrated on images."""

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

from cyclegan_cli.config import BandFormat
from cyclegan_cli.exporting.calibration import load_calibration
from cyclegan_cli.exporting.converted import INPUT, Document, temporary_folder


def to_fp16(model: Any) -> Any:
    """Return a graph with fp16 weights and activations.

    Instance norms stay in fp32, because their sums over all pixels exceed the range of fp16. So
    do input and output, and with ``--image-io`` the conversions around the network.
    """
    converted = convert_float_to_float16(
        model,
        keep_io_types=True,
        op_block_list=["InstanceNormalization"],
        node_block_list=[node.name for node in _around_the_network(model)],
    )
    OnnxModel(converted).topological_sort()
    # Types from before the conversion; they are inferred again.
    del converted.graph.value_info[:]
    onnx.checker.check_model(converted, full_check=True)
    return converted


def _around_the_network(model: Any) -> list[Any]:
    """Return the nodes before the first and after the last layer; none without ``--image-io``."""
    nodes = list(model.graph.node)
    kinds = [node.op_type for node in nodes]
    return nodes[: kinds.index("Pad")] + nodes[kinds.index("Tanh") + 1 :]


def to_int8(
    model: Any, folder: Path, channels: int, image_io: bool, band_format: BandFormat | None = None
) -> tuple[Any, dict[str, Tensor], Document]:
    """Return a graph whose convolutions, except the first and last, are quantized to 8 bits.

    Quantization is static, by pairs of QuantizeLinear and DequantizeLinear nodes. Weights have
    per-channel scales and 7 bits: on x86 CPUs without VNNI, sums of 8-bit products overflow. The
    first and last convolution operate on pixels and are not quantized; neither are blurs, which are
    cheap, and instance norms and transposed convolutions, for which ONNX Runtime has no 8-bit CPU
    kernels.

    Returns:
        The graph; the held-out images, as its inputs; and facts for the document.

    Raises:
        DataError: There are too few images, or one cannot be read.
        OutputError: There is no space for temporary files.
    """
    images = load_calibration(folder, channels, image_io, band_format)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    inner = [node.name for node in convolutions[1:-1] if not _is_blur(node)]
    with temporary_folder() as temporary:
        target = temporary / "int8.onnx"
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
        quantized = onnx.load(target)
    facts = {
        "calibrated_on": len(images.calibrated),
        "held_out": len(images.held_out),
        "convolutions": len(inner),
    }
    return quantized, images.held_out, facts


def _is_blur(convolution: Any) -> bool:
    """Return whether a convolution filters each channel by itself."""
    return any(entry.name == "group" and entry.i > 1 for entry in convolution.attribute)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds images to the calibration one by one."""

    def __init__(self, images: list[Tensor]) -> None:
        self._left: Iterator[Tensor] = iter(images)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next input; None at the end."""
        image = next(self._left, None)
        return None if image is None else {INPUT: image.contiguous().numpy()}
