"""The modules that are traced into graphs: a generator, with pixels or numbers in and out."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from cyclegan_cli.data.tensors import to_pixel_values, to_unit_range
from cyclegan_cli.models.networks import ConvNormReLU, ResidualBlock, ResnetGenerator
from cyclegan_cli.models.sizes import reflect_to_multiple


class PixelGenerator(nn.Module):
    """Pixels in, pixels of the same size out: what ``--image-io`` bakes into a graph.

    Args:
        generator: The network within.
    """

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        """``[B, H, W, C]`` uint8 of any size to ``[B, H, W, C]`` uint8."""
        height, width = x.shape[1:3]
        padded = reflect_to_multiple(to_unit_range(x.permute(0, 3, 1, 2)))
        translated = self.generator(padded)[..., :height, :width]
        return to_pixel_values(translated).permute(0, 2, 3, 1)


def traceable(generator: ResnetGenerator, image_io: bool) -> nn.Module:
    """The module that a graph is made of.

    Its convolutions before norms have no biases: norms subtract them again. With them, a map that
    should be zero is a constant, whose rounding error the norms of other runtimes amplify.
    """
    generator = copy.deepcopy(generator)
    for module in generator.modules():
        if isinstance(module, ConvNormReLU):
            module.conv.bias = None
        elif isinstance(module, ResidualBlock):
            module.second.bias = None
    return reference(generator, image_io)


def reference(generator: ResnetGenerator, image_io: bool) -> nn.Module:
    """What the results of an exported file are compared with."""
    return PixelGenerator(generator) if image_io else generator


def example(generator: ResnetGenerator, image_io: bool) -> Tensor:
    """An input to trace with. A batch of two: torch.export takes sizes of one for constants."""
    channels = generator.config.input_channels
    if image_io:
        # Sides that need padding, or the exporter would take it for superfluous.
        return torch.zeros((2, 61, 45, channels), dtype=torch.uint8)
    return torch.zeros(2, channels, 64, 64)


def dynamic_shapes(image_io: bool, smallest: int | None = None) -> dict[str, Any]:
    """Batch, height and width are free.

    Args:
        image_io: Whether channels come last.
        smallest: The smallest height and width; None: not stated.
    """
    height, width = Dim("height", min=smallest), Dim("width", min=smallest)
    rows = 1 if image_io else 2
    return {"x": {0: Dim("batch"), rows: height, rows + 1: width}}


@contextmanager
def exporter_silenced() -> Iterator[None]:
    """Exporters talk to their developers; their errors still come through as exceptions."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
