"""ONNX, through torch's dynamo exporter, verified in ONNX Runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor

from cyclegan_cli.checkpoints.container import METADATA_KEY
from cyclegan_cli.checkpoints.header import Direction, ModelInfo
from cyclegan_cli.exporting import onnx_precision
from cyclegan_cli.exporting.draft import IMAGE, TRANSLATION, Document, Draft, Run
from cyclegan_cli.exporting.formats import OPSET
from cyclegan_cli.exporting.graph import dynamic_shapes, example, exporter_silenced, traceable
from cyclegan_cli.exporting.job import Job
from cyclegan_cli.models.networks import ResnetGenerator


def convert(job: Job, generators: dict[Direction, ResnetGenerator], info: ModelInfo) -> Draft:
    """The generator of one direction as one ONNX graph; batch, height and width are free.

    Input ``image`` and output ``translation`` are ``[batch, C, height, width]`` fp32 in
    [-1, 1], of any precision within; sides should be multiples of 4, at least 8, others come out
    rounded up. With pixels they are ``[batch, height, width, C]`` uint8 of any size.

    Raises:
        DataError: The calibration images are too few, or one cannot be read.
        OutputError: There is no room for temporary files.
    """
    [generator] = generators.values()
    with exporter_silenced():
        model = to_onnx(generator, job.image_io)
        held_out: dict[str, Tensor] = {}
        if job.opset != OPSET:
            _lower(model, job.opset)
        facts: Document = {"opset": job.opset}
        if job.precision == "fp16":
            model = onnx_precision.to_fp16(model)
        elif job.calibration is not None:
            model, held_out, facts["int8"] = onnx_precision.to_int8(
                model, job.calibration, info.generator.input_channels, job.image_io
            )

    def save(paths: tuple[Path, ...], document: Document) -> None:
        write_metadata(model, document)
        paths[0].write_bytes(model.SerializeToString())

    return Draft(save, lambda paths, _: in_onnxruntime(paths[0]), facts, held_out)


def to_onnx(generator: ResnetGenerator, image_io: bool) -> Any:
    """The graph of a generator as an ``onnx.ModelProto``, fp32."""
    program: Any = torch.onnx.export(
        traceable(generator, image_io),
        (example(generator, image_io),),
        dynamo=True,
        opset_version=OPSET,
        dynamic_shapes=dynamic_shapes(image_io),
        input_names=[IMAGE],
        output_names=[TRANSLATION],
        verbose=False,
    )
    model = program.model_proto
    _strip(model)
    if image_io:
        # The exporter's own words for it are formulas with roundings that cancel out.
        dims = model.graph.output[0].type.tensor_type.shape.dim
        for dim, name in zip(dims, ("batch", "height", "width"), strict=False):
            dim.dim_param = name
    return model


def _lower(model: Any, opset: int) -> None:
    """Have a graph say that its operators are of an older version, of which they are as they are.

    What the newer ones add (types, axes of a padding) is not used; the checker holds that against
    the older version's definitions, and ONNX Runtime computes with them afterwards. Axes of a
    reduction were an attribute before version 18.
    """
    constants = {constant.name: constant for constant in model.graph.initializer}
    for node in model.graph.node:
        if opset < 18 and node.op_type in ("ReduceMax", "ReduceMin"):
            axes = onnx.numpy_helper.to_array(constants[node.input.pop()]).tolist()
            node.attribute.append(onnx.helper.make_attribute("axes", axes))
    [used] = model.opset_import
    used.version = opset
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
    onnx.checker.check_model(model, full_check=True)


def _strip(model: Any) -> None:
    """Leave out what the exporter notes for its developers: stack traces with local paths."""
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
    """Put our document into a model's metadata, in place of another one."""
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key = METADATA_KEY
    entry.value = json.dumps(document, sort_keys=True, ensure_ascii=False)


def in_onnxruntime(path: Path) -> Run:
    """Open a file in ONNX Runtime, on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # Errors only.
    session = onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=["CPUExecutionProvider"]
    )

    def run(images: Tensor) -> Tensor:
        [translated] = session.run([TRANSLATION], {IMAGE: images.contiguous().numpy()})
        return torch.from_numpy(translated)

    return run
