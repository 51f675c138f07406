"""Cache of resized images in memory, which avoids decoding them again in later epochs."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import Lock

from torch import Tensor

from cyclegan_cli.config import TrainConfig
from cyclegan_cli.runtime.memory import RESERVED_FRACTION, host_memory_free

# Fraction of free memory that --cache auto may use; training needs memory, too.
AUTO_MEMORY_FRACTION = 0.25
# Of a typical photo, for an estimate before any file is opened.
TYPICAL_ASPECT_RATIO = 1.5
# Bytes cached between two checks of the free memory.
MEMORY_CHECK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class CachePlan:
    """How much memory the cache may use.

    Attributes:
        needed: Estimated size of all images in bytes.
        budget: Maximum size of the cache in bytes; 0 disables it.
        reserved: The cache stops growing when less memory than this is free, in bytes.
    """

    needed: int
    budget: int
    reserved: int

    @property
    def is_short(self) -> bool:
        """Whether the cache holds only some of the images."""
        return 0 < self.budget < self.needed

    def __str__(self) -> str:
        needed = f"about {self.needed / 1e9:.2g} GB"
        if not self.budget:
            return f"none ({needed} for all)"
        if self.is_short:
            return (
                f"up to {self.budget / 1e9:.2g} GB of {needed}, the rest is decoded in every pass"
            )
        return f"all, {needed}"


def plan_cache(
    config: TrainConfig,
    images: int,
    free: int | None = None,
    processes: int = 1,
    pixel_bytes: float = 3,
) -> CachePlan:
    """Plan the cache for an option ``--cache``.

    Args:
        config: The option, the load size and the resize mode.
        images: Number of images in both domains.
        pixel_bytes: Mean size of a pixel: 3 of RGB, 4 per channel of other images.
        free: Free memory in bytes; None measures it.
        processes: Number of processes that share the memory, each with its own cache.
    """
    free = (host_memory_free() if free is None else free) // processes
    aspect_ratio = 1.0 if config.resize_mode == "stretch" else TYPICAL_ASPECT_RATIO
    needed = round(images * pixel_bytes * config.load_size**2 * aspect_ratio)
    automatic = int(free * AUTO_MEMORY_FRACTION)
    budgets = {
        "none": 0,
        "auto": automatic if needed <= automatic else 0,
        "ram": int(free * (1 - RESERVED_FRACTION)),
    }
    return CachePlan(needed, budgets[config.cache], int(free * RESERVED_FRACTION))


class ImageCache:
    """A thread-safe cache that keeps the first images that fit and evicts none.

    Args:
        plan: Its limits; None disables caching.
    """

    def __init__(self, plan: CachePlan | None = None) -> None:
        self.budget = plan.budget if plan else 0
        self.reserved = plan.reserved if plan else 0
        self.size = 0
        self.next_check = MEMORY_CHECK_BYTES
        self.images: dict[Hashable, Tensor] = {}
        self.lock = Lock()

    def get(self, key: Hashable, load: Callable[[], Tensor]) -> Tensor:
        """Return the cached image, or load it.

        Args:
            key: Key of the image.
            load: Function that loads the image.

        Returns:
            The result of ``load``, which must not be modified.
        """
        image = self.images.get(key)
        if image is None:
            image = load()
            with self.lock:
                self._keep(key, image)
        return image

    def _keep(self, key: Hashable, image: Tensor) -> None:
        size = self.size + image.nbytes
        if key in self.images or size > self.budget:
            return
        if size > self.next_check:
            self.next_check = size + MEMORY_CHECK_BYTES
            if host_memory_free() < self.reserved:
                self.budget = self.size  # No more growth: other processes need the memory.
                return
        self.images[key] = image
        self.size = size
