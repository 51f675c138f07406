"""What all formats share: the converted model, the modules that are traced, temporary files."""

from __future__ import annotations

import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from cyclegan_cli.checkpoints.header import Direction, ModelInfo
from cyclegan_cli.config import BandFormat
from cyclegan_cli.data.tensors import to_pixel_values, to_unit_range
from cyclegan_cli.errors import OutputError
from cyclegan_cli.models.networks import ConvNormReLU, ResidualBlock, ResnetGenerator
from cyclegan_cli.models.padding import reflect_to_multiple

Document = dict[str, Any]
Model = Callable[[Tensor], Tensor]
Generators = dict[Direction, ResnetGenerator]
INPUT, OUTPUT = "picture", "translation"  # Names in the graphs.
TORCH_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class ConvertedModel:
    """A converted model before it is written.

    Attributes:
        save: ``save(paths, document)`` writes the file (and companions) with the document as
            metadata.
        open: ``open(paths, direction)`` loads them in their runtime and returns the model as a
            function of tensors.
        facts: The format's own entries of the document, e.g. the opset.
        held_out: Held-out images that the model must be evaluated on, by name, as its inputs.
    """

    save: Callable[[tuple[Path, ...], Document], None]
    open: Callable[[tuple[Path, ...], Direction], Model]
    facts: Document = field(default_factory=dict)
    held_out: dict[str, Tensor] = field(default_factory=dict)


class PixelGenerator(nn.Module):
    """A generator on pixels: what ``--image-io`` compiles into a graph.

    Args:
        generator: The network.
    """

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        """Translate ``[B, H, W, C]`` uint8 of any size to ``[B, H, W, C]`` uint8."""
        height, width = x.shape[1:3]
        padded = reflect_to_multiple(to_unit_range(x.permute(0, 3, 1, 2)))
        translated = self.generator(padded)[..., :height, :width]
        return to_pixel_values(translated).permute(0, 2, 3, 1)


def reference_model(generator: ResnetGenerator, image_io: bool) -> nn.Module:
    """Return the module that an exported file is compared with."""
    return PixelGenerator(generator) if image_io else generator


def traceable(generator: ResnetGenerator, image_io: bool) -> nn.Module:
    """Return the module that a graph is traced from.

    Its convolutions before norms have no biases, because the norms subtract them again. With them
    a feature map that should be zero is a constant, whose rounding error the norms of other
    runtimes amplify.
    """
    generator = copy.deepcopy(generator)
    for module in generator.modules():
        if isinstance(module, ConvNormReLU) and module.norm is not None:
            module.conv.bias = None
        elif isinstance(module, ResidualBlock):
            module.second.bias = None
    return reference_model(generator, image_io)


def example_input(generator: ResnetGenerator, image_io: bool) -> Tensor:
    """Return an input to trace with, of batch size 2: torch.export takes sizes of 1 for constants.

    Returns:
        ``[2, C, 64, 64]`` fp32, or ``[2, 61, 45, C]`` uint8 with ``image_io``.
    """
    channels = generator.config.input_channels
    if image_io:
        # Sides that need padding, or the exporter would remove it.
        return torch.zeros((2, 61, 45, channels), dtype=torch.uint8)
    return torch.zeros(2, channels, 64, 64)


def dynamic_shapes(image_io: bool, smallest: int | None = None) -> dict[str, Any]:
    """Return dynamic batch, height and width.

    Args:
        image_io: Whether channels are last.
        smallest: Minimum height and width; None: not declared.
    """
    height, width = Dim("height", min=smallest), Dim("width", min=smallest)
    rows = 1 if image_io else 2
    return {"x": {0: Dim("batch"), rows: height, rows + 1: width}}


def interface(info: ModelInfo, direction: Direction, image_io: bool) -> Document:
    """Return names, shapes, dtypes and ranges of a graph's input and output."""

    def tensor(channels: int, band_format: BandFormat | None) -> Document:
        sizes: list[str | int] = ["batch", "height", "width"]
        sizes.insert(3 if image_io else 1, channels)
        return {
            "shape": sizes,
            "dtype": "uint8" if image_io else "float32",
            "range": [0, 255] if image_io else [-1, 1],
            "colours": "RGB"
            if channels == 3 and band_format is None
            else "grey"
            if channels == 1
            else "bands",
            **({} if band_format is None else {"values": band_format.to_document()}),
        }

    generator = info.generator_of(direction)
    source, target = info.formats_of(direction)
    return {
        "inputs": {INPUT: tensor(generator.input_channels, source)},
        "outputs": {OUTPUT: tensor(generator.output_channels, target)},
        "size_multiple": 1 if image_io else 4,
    }


@contextmanager
def silenced() -> Iterator[None]:
    """Suppress what exporters print, log and warn of; exceptions pass."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a temporary folder for files of other libraries; nothing else may be written inside.

    Raises:
        OutputError: It cannot be written. The message names the folder, which the user has not.
    """
    parent = tempfile.gettempdir()
    try:
        with tempfile.TemporaryDirectory(prefix="cyclegan-") as folder:
            yield Path(folder)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(
            f"cannot write to the folder for temporary files, {parent}: {reason}",
            "Free some space there, or name another folder with the environment variable TMPDIR.",
        ) from error
