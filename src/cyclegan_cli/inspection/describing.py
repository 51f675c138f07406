"""From a path to its description."""

from __future__ import annotations

import os
from pathlib import Path

from cyclegan_cli.checkpoints.original_names import generator_files
from cyclegan_cli.checkpoints.pretrained import pretrained_file
from cyclegan_cli.checkpoints.torch_files import is_torch_file
from cyclegan_cli.errors import DataError
from cyclegan_cli.inspection.checkpoints import (
    describe_reference_folder,
    describe_safetensors,
    describe_torch_file,
)
from cyclegan_cli.inspection.exported import describe_pt2
from cyclegan_cli.inspection.onnx import describe_onnx
from cyclegan_cli.inspection.openvino import describe_openvino
from cyclegan_cli.inspection.runs import describe_run, describe_runs, is_run
from cyclegan_cli.inspection.summary import Request, Summary

BY_SUFFIX = {
    ".safetensors": describe_safetensors,
    ".onnx": describe_onnx,
    ".pt2": describe_pt2,
    ".xml": describe_openvino,
}


def describe(path: Path | str, request: Request | None = None) -> Summary:
    """Describe anything that this program reads or writes.

    Args:
        path: A run folder or a folder of them, a checkpoint or the name of one in the package, an
            exported model, a folder of images or an image.
        request: What is wanted beyond a short description.

    Raises:
        DataError: There is nothing, or nothing that this program knows.
        CheckpointError: A damaged checkpoint or model.
    """
    path, request = Path(path), request or Request()
    path = path if path.exists() else pretrained_file(str(path)) or path
    if path.is_dir():
        return _describe_folder(path, request)
    if not path.exists():
        raise DataError(f"there is no file or folder {path}")
    if describe_file := BY_SUFFIX.get(path.suffix.lower()):
        return describe_file(path, request)
    if path.suffix.lower() != ".pth" and not os.access(path, os.R_OK):
        raise DataError(f"cannot read {path}: permission denied")
    if path.is_file() and is_torch_file(path):
        return describe_torch_file(path, request)
    from cyclegan_cli.inspection.images import describe_image

    return describe_image(path)


def _describe_folder(path: Path, request: Request) -> Summary:
    if is_run(path):
        return describe_run(path, request)
    if generator_files(path):
        return describe_reference_folder(path, request)
    if runs := sorted(filter(is_run, path.iterdir())):
        return describe_runs(path, runs)
    from cyclegan_cli.inspection.images import describe_images

    return describe_images(path, request)
