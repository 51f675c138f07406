"""Every exported file is opened again and compared with the network before it is left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cyclegan_cli.errors import ExportError
from cyclegan_cli.models.networks import ResnetGenerator

# Batch, height, width: a square, a batch of another shape, and sides that 4 does not divide.
CHECKED_SIZES = ((1, 64, 64), (2, 40, 96), (1, 61, 45))
LARGEST_DIFFERENCE = 1e-4


@dataclass(frozen=True)
class Verification:
    """What was compared, and how far apart it was.

    Attributes:
        sizes: ``(batch, height, width)`` of the inputs.
        largest_difference: Over all outputs, which are in [-1, 1].
    """

    sizes: tuple[tuple[int, int, int], ...]
    largest_difference: float

    def to_document(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "sizes": [list(size) for size in self.sizes],
            "largest_difference": self.largest_difference,
        }


@torch.inference_mode()
def verify(run: Callable[[Tensor], Tensor], generator: ResnetGenerator) -> Verification:
    """Compare an exported model with its source on fixed random pictures of several sizes.

    Args:
        run: The exported model, ``[B, input_channels, H, W]`` to
            ``[B, output_channels, H', W']``.
        generator: Its source, on the CPU.

    Raises:
        ExportError: An output differs by more than 1e-4, or has another shape.
    """
    random = torch.Generator().manual_seed(0)
    largest = 0.0
    channels = generator.config.input_channels
    for batch, height, width in CHECKED_SIZES:
        pictures = torch.rand((batch, channels, height, width), generator=random) * 2 - 1
        expected, found = generator(pictures), run(pictures)
        if found.shape != expected.shape:
            raise ExportError(
                f"the exported model makes {list(found.shape)} of {list(pictures.shape)}, "
                f"the network {list(expected.shape)}; nothing is written"
            )
        difference = float((found - expected).abs().max())
        # Written so that nan is refused.
        if not difference <= LARGEST_DIFFERENCE:
            raise ExportError(
                f"the exported model differs from the network by {difference:.2g} at "
                f"{width}x{height}, more than {LARGEST_DIFFERENCE:g}; nothing is written"
            )
        largest = max(largest, difference)
    return Verification(CHECKED_SIZES, largest)
