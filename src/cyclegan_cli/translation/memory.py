"""Choose strips that fit into the available memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cyclegan_cli.config import GeneratorConfig, Resampling
from cyclegan_cli.errors import DeviceError
from cyclegan_cli.runtime.memory import memory_budget
from cyclegan_cli.translation.arena import Location
from cyclegan_cli.translation.strips import StripPlan

# Positions of the trunk per strip: enough for efficient convolutions, and few enough for a strip
# to stay in the cache (docs/performance.md).
POSITIONS_PER_STRIP = 4096
# Storing feature maps at full resolution is faster, but no more than this many bytes.
LARGEST_FULL_MAP = 1.5e9
# Feature maps of the base channels that a strip needs at a time. CUT's layers have maps of twice
# the channels at full resolution.
STRIP_MAPS: dict[Resampling, int] = {"strided": 5, "blur": 5, "cut": 9}
SKIP_MAPS = 2  # More of them with skip connections, whose feature maps are recomputed.
# Rows around a strip at full resolution, on which its output depends.
HALO: dict[Resampling, int] = {"strided": 6, "blur": 10, "cut": 10}


@dataclass(frozen=True)
class MemoryEstimate:
    """The memory that an image needs, in bytes, beyond what the process already uses.

    Attributes:
        config: The generator's architecture.
        height: Height of the padded image.
        width: Width of the padded image.
        itemsize: Bytes per element: 4 in fp32, 2 in bf16.
        pixel_bytes: Bytes of pixels that are held in addition: of the output, the encoder's copy of
            it, or of the rows of a raster that are read and written at a time. None: those of an
            8-bit RGB image.
    """

    config: GeneratorConfig
    height: int
    width: int
    itemsize: int
    pixel_bytes: float | None = None

    @property
    def full_map(self) -> float:
        """A feature map at full resolution: ``[c, H, W]``."""
        return self.config.base_channels * self.height * self.width * self.itemsize

    @property
    def half_map(self) -> float:
        """A feature map at half resolution, ``[2 c, H / 2, W / 2]``: two maps of the trunk."""
        return self.full_map / 2

    def strip(self, rows: int) -> float:
        """A strip at full resolution: a convolution's input, padded input, output and norm."""
        maps, halo = STRIP_MAPS[self.config.resampling], HALO[self.config.resampling]
        maps += SKIP_MAPS * self.config.skips
        return maps * self.full_map / self.height * (4 * rows + halo)

    @property
    def output(self) -> float:
        """The output, and the encoder's copy of it."""
        if self.pixel_bytes is not None:
            return self.pixel_bytes
        return 2 * 3 * self.height * self.width

    def total(self, plan: StripPlan) -> float:
        """Memory of a plan on the computing device."""
        stored = self.full_map if plan.keep_full else self.half_map
        return (stored if plan.location is None else 0) + self.strip(plan.rows) + self.output

    def best_rows(self) -> int:
        """Rows per strip if memory is sufficient: a multiple of four."""
        rows = POSITIONS_PER_STRIP / (self.width / 4)
        return max(8, round(rows / 4) * 4)


def plan_strips(estimate: MemoryEstimate, budget: float, device: torch.device) -> StripPlan:
    """Return the fastest plan that stays within ``budget``.

    If the device has too little memory, feature maps are stored in host memory; if the host has
    too little, in a temporary file.

    Args:
        estimate: The memory of the image.
        budget: Bytes available beyond those in use.
        device: The computing device.

    Raises:
        DeviceError: Not even a few rows fit.
    """
    best = estimate.best_rows()
    plans = [StripPlan(best, keep_full=True)] if estimate.full_map <= LARGEST_FULL_MAP else []
    heights = [rows for rows in (best, best // 2, best // 4, 4, 2, 1) if 1 <= rows <= best]
    plans += [StripPlan(rows) for rows in heights]
    elsewhere: Location = torch.device("cpu") if device.type != "cpu" else "disk"
    plans += [StripPlan(rows, location=elsewhere) for rows in heights]
    for plan in plans:
        if estimate.total(plan) <= budget:
            return plan
    least = estimate.total(plans[-1])
    raise DeviceError(
        f"translating {estimate.width}x{estimate.height} pixels needs {least / 1e9:.2g} GB "
        f"of memory at least, found {max(budget, 0) / 1e9:.2g} GB",
        "Free some memory, raise --max-memory, or scale the image down with --resize.",
    )


def refuse_too_little(device: torch.device, limit: int | None) -> None:
    """Check that ``--max-memory`` leaves memory for images.

    Args:
        device: The computing device.
        limit: Bytes, see :func:`memory_budget`.

    Raises:
        DeviceError: The process already uses all of it.
    """
    if limit is None or (budget := memory_budget(device, limit)) > 0:
        return
    raise DeviceError(
        f"--max-memory of {limit / 1e9:.2g} GB leaves nothing for images: the process "
        f"itself uses {(limit - budget) / 1e9:.2g} GB",
        "Raise it, or leave it out.",
    )
