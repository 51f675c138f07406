"""Resized images in memory, so that only the first pass over them waits for disk and decoder."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import Lock

from torch import Tensor

from cyclegan_cli.config import TrainConfig
from cyclegan_cli.runtime.memory import RESERVED_FRACTION, host_memory_free

# Shard of the free memory that images may take unasked: the training itself needs some, too.
UNASKED_SHARE = 0.25
# Long side by short side of a typical photo, for an estimate before any file is opened.
TYPICAL_ASPECT_RATIO = 1.5
# Bytes kept between two looks at how much memory is left.
LOOK_EVERY = 64 * 2**20


@dataclass(frozen=True)
class CachePlan:
    """How many images may be kept.

    Attributes:
        needed: Estimate of the bytes of all images.
        budget: Bytes that may be kept; 0 for none.
        spared: Free bytes below which nothing more is kept.
    """

    needed: int
    budget: int
    spared: int

    @property
    def is_short(self) -> bool:
        """Whether some images will have to be decoded in every pass, though others are kept."""
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
    config: TrainConfig, images: int, free: int | None = None, processes: int = 1
) -> CachePlan:
    """Decide what ``--cache`` asks for.

    Args:
        config: The choice, the load size and how it is reached.
        images: Of both domains together.
        free: Bytes of memory; None: those that are free now.
        processes: How many share it, each with a cache of its own.
    """
    free = (host_memory_free() if free is None else free) // processes
    aspect_ratio = 1.0 if config.resize_mode == "stretch" else TYPICAL_ASPECT_RATIO
    needed = round(images * 3 * config.load_size**2 * aspect_ratio)
    unasked = int(free * UNASKED_SHARE)
    budgets = {
        "none": 0,
        "auto": unasked if needed <= unasked else 0,
        "ram": int(free * (1 - RESERVED_FRACTION)),
    }
    return CachePlan(needed, budgets[config.cache], int(free * RESERVED_FRACTION))


class ImageCache:
    """As many images as there is room for; those that came first stay.

    It may be used by several threads.

    Args:
        plan: How much room there is; with None nothing is kept.
    """

    def __init__(self, plan: CachePlan | None = None) -> None:
        self.budget = plan.budget if plan else 0
        self.spared = plan.spared if plan else 0
        self.size = 0
        self.next_look = LOOK_EVERY
        self.images: dict[Hashable, Tensor] = {}
        self.lock = Lock()

    def get(self, key: Hashable, load: Callable[[], Tensor]) -> Tensor:
        """The image kept under a key, else a loaded one.

        Args:
            key: Which.
            load: Called where it is not kept.

        Returns:
            What ``load`` returned, now or earlier: not to be changed.
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
        if size > self.next_look:
            self.next_look = size + LOOK_EVERY
            if host_memory_free() < self.spared:
                self.budget = self.size  # Full for good: others need the memory.
                return
        self.images[key] = image
        self.size = size
