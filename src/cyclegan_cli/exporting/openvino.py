"""OpenVINO's own files, ``.xml`` and ``.bin``, converted from ONNX and verified in OpenVINO."""

from __future__ import annotations

import errno
import io
import json
from pathlib import Path
from typing import Any

import openvino
import torch
from torch import Tensor

from cyclegan_cli.checkpoints.container import METADATA_KEY
from cyclegan_cli.checkpoints.header import Direction, ModelInfo
from cyclegan_cli.exporting.draft import Document, Draft, Run
from cyclegan_cli.exporting.formats import OPSET
from cyclegan_cli.exporting.graph import exporter_silenced
from cyclegan_cli.exporting.job import Job
from cyclegan_cli.exporting.onnx import to_onnx
from cyclegan_cli.exporting.scratch import scratch_folder
from cyclegan_cli.models.networks import ResnetGenerator


def convert(job: Job, generators: dict[Direction, ResnetGenerator], info: ModelInfo) -> Draft:
    """The generator of one direction; input and output are those of the ONNX file.

    In fp16 the weights are stored so; OpenVINO computes in whatever its device is best at.
    """
    del info
    [generator] = generators.values()
    with exporter_silenced():
        content = io.BytesIO(to_onnx(generator, job.image_io).SerializeToString())
        model = openvino.convert_model(content)

    def save(paths: tuple[Path, ...], document: Document) -> None:
        model.set_rt_info(json.dumps(document, sort_keys=True), [METADATA_KEY])
        _write(model, paths, compress_to_fp16=job.precision == "fp16")

    return Draft(save, _open, {"opset": OPSET})


def _write(model: Any, paths: tuple[Path, ...], compress_to_fp16: bool) -> None:
    """Through a folder of its own: OpenVINO chooses the second file's name by the first's."""
    with scratch_folder() as scratch:
        xml = scratch / "model.xml"
        try:
            openvino.save_model(model, xml, compress_to_fp16=compress_to_fp16)
        except RuntimeError as error:
            # Most likely a full disk; its own sentence names its source code.
            raise OSError(errno.EIO, "OpenVINO failed") from error
        contents = [xml.read_bytes(), xml.with_suffix(".bin").read_bytes()]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)


def _open(paths: tuple[Path, ...], direction: Direction) -> Run:
    del direction
    core = openvino.Core()
    model = core.read_model(paths[0].read_bytes(), paths[1].read_bytes())
    # As exact as the file: CPUs with bf16 or fp16 units would use them.
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(compiled(images.contiguous().numpy())[0].copy())

    return run
