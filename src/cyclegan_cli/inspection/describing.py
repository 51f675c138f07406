"""From a path to its description."""

from __future__ import annotations

import os
from pathlib import Path

from cyclegan_cli.checkpoints.locate import pretrained_file
from cyclegan_cli.checkpoints.pth import generator_files, is_torch_file
from cyclegan_cli.errors import DataError
from cyclegan_cli.inspection.checkpoints import (
    describe_pth_folder,
    describe_safetensors,
    describe_torch_file,
)
from cyclegan_cli.inspection.exported import describe_onnx, describe_openvino, describe_pt2
from cyclegan_cli.inspection.runs import describe_run, describe_runs, is_run
from cyclegan_cli.inspection.summary import Request, Summary

BY_EXTENSION = {
    ".safetensors": describe_safetensors,
    ".onnx": describe_onnx,
    ".pt2": describe_pt2,
    ".xml": describe_openvino,
}


def describe(path: Path | str, request: Request | None = None) -> Summary:
    """Describe any file or folder that this program reads or writes.

    Args:
        path: A run folder or a folder of them, a checkpoint or the name of one in the package, an
            exported model, a folder of images or an image.
        request: What the description contains beyond the defaults.

    Raises:
        DataError: There is nothing at the path, or nothing of a known kind.
        CheckpointError: A checkpoint or model is damaged.
        UsageError: The package that describes an exported model is not installed.
    """
    path, request = Path(path), request or Request()
    path = path if path.exists() else pretrained_file(str(path)) or path
    if not path.exists():
        raise DataError(f"there is no file or folder {path}")
    if path.is_dir():
        if is_run(path):
            return describe_run(path, request)
        if generator_files(path):
            return describe_pth_folder(path, request)
        if runs := sorted(filter(is_run, path.iterdir())):
            return describe_runs(path, runs)
    elif describe_file := BY_EXTENSION.get(path.suffix.lower()):
        return describe_file(path, request)
    else:
        if path.suffix.lower() != ".pth" and not os.access(path, os.R_OK):
            raise DataError(f"cannot read {path}: permission denied")
        is_archive = path.suffix.lower() == ".npz"  # A ZIP archive, like files of torch.
        if path.is_file() and not is_archive and is_torch_file(path):
            return describe_torch_file(path, request)
    from cyclegan_cli.inspection.images import describe_image, describe_images  # Needs Pillow.

    return describe_images(path, request) if path.is_dir() else describe_image(path)
