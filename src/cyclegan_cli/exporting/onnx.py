"""ONNX models, exported by torch's dynamo exporter and verified in ONNX Runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor

from cyclegan_cli.checkpoints.header import METADATA_KEY
from cyclegan_cli.config import OPSET
from cyclegan_cli.exporting import onnx_precision
from cyclegan_cli.exporting.converted import (
    INPUT,
    OUTPUT,
    ConvertedModel,
    Document,
    Generators,
    Model,
    dynamic_shapes,
    example_input,
    silenced,
    traceable,
)
from cyclegan_cli.exporting.job import Job
from cyclegan_cli.models.networks import ResnetGenerator
from cyclegan_cli.models.padding import SMALLEST_SIDE


def convert(job: Job, generators: Generators) -> ConvertedModel:
    """Convert the generator of one direction, with dynamic batch, height and width.

    Input ``picture`` and output ``translation`` are ``[batch, C, height, width]`` fp32 in
    [-1, 1], whatever the precision of the graph; sides are multiples of 4, at least 8: others are
    rounded up in the output. With ``--image-io`` they are ``[batch, height, width, C]`` uint8 of
    any size.

    Raises:
        DataError: There are too few calibration images, or one cannot be read.
        OutputError: There is no space for temporary files.
    """
    [(direction, generator)] = generators.items()
    source, _ = job.checkpoint.info.formats_of(direction)
    with silenced():
        model = to_onnx(generator, job.image_io)
        held_out: dict[str, Tensor] = {}
        if job.opset != OPSET:
            _lower_opset(model, job.opset)
        facts: Document = {"opset": job.opset}
        if job.precision == "fp16":
            model = onnx_precision.to_fp16(model)
        elif job.calibration is not None:
            model, held_out, facts["int8"] = onnx_precision.to_int8(
                model, job.calibration, generator.config.input_channels, job.image_io, source
            )

    def save(paths: tuple[Path, ...], document: Document) -> None:
        write_metadata(model, document)
        paths[0].write_bytes(model.SerializeToString())

    return ConvertedModel(save, lambda paths, _: in_onnxruntime(paths[0]), facts, held_out)


def to_onnx(generator: ResnetGenerator, image_io: bool) -> Any:
    """Return the graph of a generator as an ``onnx.ModelProto``, fp32."""
    program: Any = torch.onnx.export(
        traceable(generator, image_io),
        (example_input(generator, image_io),),
        dynamo=True,
        opset_version=OPSET,
        # Without a smallest size the first trace fails, and the exporter starts again with one.
        dynamic_shapes=dynamic_shapes(image_io, smallest=None if image_io else SMALLEST_SIDE),
        input_names=[INPUT],
        output_names=[OUTPUT],
        verbose=False,
    )
    model = program.model_proto
    _strip_debug_info(model)
    if image_io:
        # The exporter's expressions contain roundings that cancel out.
        dims = model.graph.output[0].type.tensor_type.shape.dim
        for dim, name in zip(dims, ("batch", "height", "width"), strict=False):
            dim.dim_param = name
    return model


def _lower_opset(model: Any, opset: int) -> None:
    """Declare an older opset, whose definitions the operators of the graph satisfy, too.

    What newer opsets add (types, axes of a padding) is not used. The checker compares the graph
    with the definitions, and ONNX Runtime verifies it. Axes of a reduction were an attribute
    before opset 18, and a part of a shape had to be cut out before opset 15.
    """
    constants = {constant.name: constant for constant in model.graph.initializer}
    for node in list(model.graph.node):
        if opset < 15 and node.op_type == "Shape" and node.attribute:
            _slice_shape(model.graph, node)
        if opset < 14 and node.op_type == "Reshape":
            del node.attribute[:]  # How zeros are interpreted, which no shape has.
        if opset < 18 and node.op_type in ("ReduceMax", "ReduceMin"):
            axes = onnx.numpy_helper.to_array(constants[node.input.pop()]).tolist()
            node.attribute.append(onnx.helper.make_attribute("axes", axes))
    [used] = model.opset_import
    used.version = opset
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
    onnx.checker.check_model(model, full_check=True)


def _slice_shape(graph: Any, node: Any) -> None:
    """Replace a part of a shape by the whole shape and a slice of it."""
    bounds = {attribute.name: attribute.i for attribute in node.attribute}
    del node.attribute[:]
    part, whole = node.output[0], f"{node.output[0]}_whole"
    node.output[0] = whole
    inputs = [whole]
    for name, default in (("start", 0), ("end", 2**31)):
        value = np.array([bounds.get(name, default)], np.int64)
        inputs.append(f"{part}_{name}")
        graph.initializer.append(onnx.numpy_helper.from_array(value, inputs[-1]))
    index = list(graph.node).index(node) + 1
    graph.node.insert(index, onnx.helper.make_node("Slice", inputs, [part], f"{part}_slice"))


def _strip_debug_info(model: Any) -> None:
    """Remove the exporter's debugging information, which has stack traces with local paths."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for entry in (*model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del entry.metadata_props[:]
    for entry in (*model.graph.input, *model.graph.output):
        del entry.metadata_props[:]
        entry.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""


def write_metadata(model: Any, document: Document) -> None:
    """Replace a model's metadata by this program's document."""
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key = METADATA_KEY
    entry.value = json.dumps(document, sort_keys=True, ensure_ascii=False)


def in_onnxruntime(path: Path) -> Model:
    """Open a file in ONNX Runtime, on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # Errors only.
    session = onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=["CPUExecutionProvider"]
    )

    def run(images: Tensor) -> Tensor:
        [translated] = session.run([OUTPUT], {INPUT: images.contiguous().numpy()})
        return torch.from_numpy(translated)

    return run
