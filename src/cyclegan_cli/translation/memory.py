"""How an image is worked on within the memory that there is."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cyclegan_cli.config import GeneratorConfig
from cyclegan_cli.errors import DeviceError
from cyclegan_cli.runtime.memory import memory_budget
from cyclegan_cli.translation.stored import Place
from cyclegan_cli.translation.strips import StripPlan

# Positions of the trunk in a strip: enough for the convolutions to be efficient, and few enough
# for a strip to stay in the cache (docs/performance.md).
POSITIONS_A_STRIP = 4096
# Keeping the feature maps at full resolution is faster; above this it is greedy.
KEPT_AT_MOST = 1.5e9


@dataclass(frozen=True)
class Needs:
    """What an image needs, in bytes, beyond what the process holds already.

    Attributes:
        config: The generator's architecture.
        height: The image's, padded.
        width: Likewise.
        number_bytes: 4 in fp32, 2 in bf16.
    """

    config: GeneratorConfig
    height: int
    width: int
    number_bytes: int

    @property
    def full_map(self) -> float:
        """One feature map at full resolution: ``[c, H, W]``."""
        return self.config.base_channels * self.height * self.width * self.number_bytes

    @property
    def half_map(self) -> float:
        """One at half resolution: ``[2 c, H / 2, W / 2]``; as much as two of the trunk."""
        return self.full_map / 2

    def strip(self, rows: int) -> float:
        """A strip at full resolution: a convolution's input, padded input, result and norm."""
        halo = 6
        return 5 * self.full_map / self.height * (4 * rows + halo)

    @property
    def levels(self) -> float:
        """The result as 8-bit levels, and the encoder's copy of them."""
        return 2 * 3 * self.height * self.width

    def of(self, plan: StripPlan) -> float:
        """All that a plan needs on the computing device."""
        held = self.full_map if plan.keep_full else self.half_map
        return (held if plan.held_on is None else 0) + self.strip(plan.rows) + self.levels

    def best_rows(self) -> int:
        """Rows a strip where memory is no concern: a multiple of four."""
        rows = POSITIONS_A_STRIP / (self.width / 4)
        return max(8, round(rows / 4) * 4)


def plan_strips(needs: Needs, budget: float, device: torch.device) -> StripPlan:
    """The fastest way to work on an image that stays within ``budget``.

    Feature maps are held in host memory where a device has too little, and in a temporary file
    where the host has too little: such an image takes longer, but it gets done.

    Args:
        needs: The image.
        budget: Bytes that may be used beyond those in use.
        device: Where to compute.

    Raises:
        DeviceError: Not even a few rows fit.
    """
    best = needs.best_rows()
    plans = [StripPlan(best, keep_full=True)] if needs.full_map <= KEPT_AT_MOST else []
    heights = [rows for rows in (best, best // 2, best // 4, 4, 2, 1) if 1 <= rows <= best]
    plans += [StripPlan(rows) for rows in heights]
    elsewhere: Place = torch.device("cpu") if device.type != "cpu" else "disk"
    plans += [StripPlan(rows, held_on=elsewhere) for rows in heights]
    for plan in plans:
        if needs.of(plan) <= budget:
            return plan
    least = needs.of(plans[-1])
    raise DeviceError(
        f"translating {needs.width}x{needs.height} pixels needs {least / 1e9:.2g} GB "
        f"of memory at least, found {max(budget, 0) / 1e9:.2g} GB",
        "Free some memory, raise --max-memory, or scale the image down with --resize.",
    )


def refuse_too_little(device: torch.device, limit: int | None) -> None:
    """Check that a limit leaves something for images.

    Args:
        device: Where to compute.
        limit: As in :func:`memory_budget`.

    Raises:
        DeviceError: The process itself has all of it already.
    """
    if limit is None or (budget := memory_budget(device, limit)) > 0:
        return
    raise DeviceError(
        f"--max-memory of {limit / 1e9:.2g} GB leaves nothing for images: without any, "
        f"{(limit - budget) / 1e9:.2g} GB are in use",
        "Give more, or leave it out.",
    )
