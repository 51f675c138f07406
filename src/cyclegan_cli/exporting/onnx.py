"""ONNX, through torch's dynamo exporter, verified in ONNX Runtime."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim

from cyclegan_cli import files
from cyclegan_cli.checkpoints.header import METADATA_KEY, Direction, ModelInfo
from cyclegan_cli.checkpoints.store import load_generator
from cyclegan_cli.errors import UsageError
from cyclegan_cli.exporting.verify import Verification, verify
from cyclegan_cli.models.networks import ResnetGenerator

OPSET = 20
INPUT_NAME, OUTPUT_NAME = "picture", "translation"
NEEDED_PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def require_packages() -> None:
    """Check that the extra is installed.

    Raises:
        UsageError: It is not.
    """
    missing = [name for name in NEEDED_PACKAGES if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"--format onnx needs the package {missing[0]}, which is not installed",
            "Install the packages of the extra: pip install onnx onnxruntime onnxscript",
        )


def export_onnx(checkpoint: Path, output: Path, direction: Direction) -> Verification:
    """Export the generator of one direction as one ONNX file; batch, height and width are free.

    Input ``picture`` and output ``translation`` are ``[batch, 3, height, width]`` fp32 in [-1, 1].
    Sides should be multiples of 4, at least 8; others come out rounded up to the next multiple.
    The model's metadata carries the checkpoint's JSON document under the key ``cyclegan``.

    Args:
        checkpoint: A checkpoint file.
        output: The ONNX file; it appears only if it is verified.
        direction: ``a2b`` or ``b2a``.

    Returns:
        What was compared.

    Raises:
        UsageError: The extra ``[onnx]`` is not installed.
        CheckpointError: The checkpoint is damaged or foreign.
        ExportError: The exported model differs from the network.
        OutputError: The file cannot be written.
    """
    require_packages()
    generator, info = load_generator(checkpoint, direction)
    with _exporter_silenced():
        program = _convert(generator)
    program.model.metadata_props[METADATA_KEY] = json.dumps(
        _document(info, direction), sort_keys=True, ensure_ascii=False
    )
    with files.atomic_path(output) as temporary:
        program.save(str(temporary), external_data=False)
        return verify(_in_onnxruntime(temporary), generator)


def _convert(generator: ResnetGenerator) -> Any:
    dynamic = {0: Dim("batch"), 2: Dim("height"), 3: Dim("width")}
    # A batch of two: torch.export takes sizes of one for constants.
    example = torch.zeros(2, generator.config.input_channels, 64, 64)
    return torch.onnx.export(
        generator,
        (example,),
        dynamo=True,
        opset_version=OPSET,
        dynamic_shapes={"x": dynamic},
        input_names=[INPUT_NAME],
        output_names=[OUTPUT_NAME],
        verbose=False,
    )


def _document(info: ModelInfo, direction: Direction) -> dict[str, Any]:
    source = info.source(direction)
    channels = info.generator.input_channels, info.generator.output_channels
    source_tensor, target_tensor = map(_tensor, channels)
    return info.to_document() | {
        "export": {
            "format": "onnx",
            "opset": OPSET,
            "direction": direction,
            "from": source,
            "to": info.target(direction),
            "inputs": {INPUT_NAME: source_tensor},
            "outputs": {OUTPUT_NAME: target_tensor},
            "size_multiple": 4,
        }
    }


def _tensor(channels: int) -> dict[str, Any]:
    colours = "RGB" if channels == 3 else "grey"
    shape = ["batch", channels, "height", "width"]
    return {"shape": shape, "range": [-1, 1], "colours": colours}


def _in_onnxruntime(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # Errors only.
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(pictures: Tensor) -> Tensor:
        [translated] = session.run([OUTPUT_NAME], {INPUT_NAME: pictures.numpy()})
        return torch.from_numpy(translated)

    return run


@contextmanager
def _exporter_silenced() -> Iterator[None]:
    """The exporter talks to its developers; its errors still come through as exceptions."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
