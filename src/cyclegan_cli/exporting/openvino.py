"""OpenVINO models (``.xml`` and ``.bin``), converted from ONNX and verified in OpenVINO."""

from __future__ import annotations

import errno
import io
import json
from pathlib import Path
from typing import Any

import openvino
import torch
from torch import Tensor

from cyclegan_cli.checkpoints.header import METADATA_KEY, Direction
from cyclegan_cli.config import OPSET
from cyclegan_cli.exporting.converted import (
    ConvertedModel,
    Document,
    Generators,
    Model,
    silenced,
    temporary_folder,
)
from cyclegan_cli.exporting.job import Job
from cyclegan_cli.exporting.onnx import to_onnx


def convert(job: Job, generators: Generators) -> ConvertedModel:
    """Convert the generator of one direction; input and output are those of the ONNX file.

    With fp16 the weights are stored in fp16; OpenVINO chooses the precision of computation.
    """
    [generator] = generators.values()
    with silenced():
        content = io.BytesIO(to_onnx(generator, job.image_io).SerializeToString())
        model = openvino.convert_model(content)

    def save(paths: tuple[Path, ...], document: Document) -> None:
        model.set_rt_info(json.dumps(document, sort_keys=True), [METADATA_KEY])
        _write(model, paths, compress_to_fp16=job.precision == "fp16")

    return ConvertedModel(save, _open, {"opset": OPSET})


def _write(model: Any, paths: tuple[Path, ...], compress_to_fp16: bool) -> None:
    """Write to a folder first, because OpenVINO derives the second file's name from the first's."""
    with temporary_folder() as folder:
        xml = folder / "model.xml"
        try:
            openvino.save_model(model, xml, compress_to_fp16=compress_to_fp16)
        except RuntimeError as error:
            # Most likely a full disk; OpenVINO's message only names its source code.
            raise OSError(errno.EIO, "OpenVINO failed") from error
        contents = [xml.read_bytes(), xml.with_suffix(".bin").read_bytes()]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)


def _open(paths: tuple[Path, ...], direction: Direction) -> Model:
    del direction
    core = openvino.Core()
    model = core.read_model(paths[0].read_bytes(), paths[1].read_bytes())
    # fp32, because CPUs with bf16 or fp16 units would use them by default.
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(compiled(images.contiguous().numpy())[0].copy())

    return run
