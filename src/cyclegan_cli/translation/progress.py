"""Messages about the translation of an image, and the fraction of it that is done."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from cyclegan_cli.config import GeneratorConfig
from cyclegan_cli.translation.layers import Rows

REFLECTED_7 = 7 * 7  # Positions of the first and the last convolution.
POSITIONS = 3 * 3  # Of the others.


class TranslationObserver:
    """Is informed about the translation of an image; this one ignores everything."""

    def on_message(self, message: str) -> None:
        """Receive a sentence about the image before it is translated."""

    def on_progress(self, width: int, height: int, done: float) -> None:
        """Receive the fraction of the work that is done.

        Args:
            width: Width of the image in pixels.
            height: Height of the image in pixels.
            done: From 0 to 1.
        """


class LayerCosts:
    """Multiplications of each layer per pixel of the image.

    Args:
        config: The generator's architecture.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        squared = POSITIONS * config.base_channels**2
        # The convolutions of CUT's layers are at the higher of the two resolutions.
        resized = 2.0 * squared if config.resampling == "cut" else 0.5 * squared
        self.stem = float(REFLECTED_7 * config.input_channels * config.base_channels)
        self.head = float(REFLECTED_7 * config.output_channels * config.base_channels)
        self.down_1 = self.down_2 = self.up_1 = self.up_2 = resized
        self.trunk = float(squared)  # One convolution of 4 c channels at a quarter of the size.


class WorkMeter:
    """Counts the work of an image that is translated layer by layer.

    Args:
        config: The generator's architecture.
        keep_full: Whether feature maps at full resolution are stored instead of recomputed.
        height: Height of the padded image.
        report: Called with the fraction that is done.
    """

    def __init__(
        self,
        config: GeneratorConfig,
        keep_full: bool,
        height: int,
        report: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.costs, self._height, self._report = LayerCosts(config), height, report
        costs, is_cut = self.costs, config.resampling == "cut"
        # The statistics of a norm are computed in a pass of their own.
        norms = int(config.norms == "all")
        passes = 1 if keep_full else 1 + (1 + is_cut) * norms
        down = 1 + is_cut * norms
        skips = int(config.skips)  # Their feature maps are recomputed.
        self._total = (
            (passes + 2 * skips) * costs.stem
            + down * (costs.down_1 + costs.down_2)
            + skips * costs.down_1
            + 2 * config.residual_blocks * costs.trunk
            + costs.up_1
            + (1 if keep_full else 1 + norms) * costs.up_2
            + costs.head
        )
        self._done = 0.0

    def add(self, cost: float, fraction: float) -> None:
        """Add a fraction of a layer's work."""
        self._done += cost * fraction
        self._report(min(self._done / self._total, 1.0))

    def counted(self, source: Rows, cost: float) -> Rows:
        """Return the rows of a layer, counted when they are read."""
        return _CountedRows(source, lambda fraction: self.add(cost, fraction))


class _CountedRows:
    """Rows that are counted when they are read, from top to bottom, any number of times."""

    def __init__(self, source: Rows, add: Callable[[float], None]) -> None:
        self.source, self._add, self._read = source, add, 0
        self.height = source.height

    def read(self, top: int, bottom: int) -> Tensor:
        """Return rows; those that a halo repeats are counted once."""
        rows = self.source.read(top, bottom)
        if top == 0:
            self._read = 0
        self._add(max(bottom - self._read, 0) / self.height)
        self._read = max(bottom, self._read)
        return rows
