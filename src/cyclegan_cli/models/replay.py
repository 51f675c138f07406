"""Replay pool of generated images for the discriminators (Zhu et al. 2017, sec. 4)."""

from __future__ import annotations

import torch
from torch import Tensor


class ReplayPool:
    """A buffer of previously generated images of one domain (Shrivastava et al. 2017).

    Until the pool is full, images are stored and returned. Once it is full, each image is
    returned with probability 1/2; otherwise it is swapped with a random stored image, which is
    returned instead.

    Args:
        size: Capacity in images; 0 disables the pool.
        seed: Seed of the pool's own random number generator.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.images: Tensor | None = None
        self.count = 0
        self.random = torch.Generator().manual_seed(seed)
        # For undo_exchange: the replaced images with their indices, and the generator's state.
        self._replaced: list[tuple[int, Tensor]] = []
        self._count_before, self._random_before = 0, self.random.get_state()

    def exchange(self, fakes: Tensor) -> Tensor:
        """Store images and return a batch of current and previously stored ones.

        Args:
            fakes: ``[B, C, H, W]``, any range, detached.

        Returns:
            A new tensor ``[B, C, H, W]`` of the same dtype, device and memory format.
        """
        if self.size == 0:
            return fakes.clone()
        if self.images is None:
            self.images = fakes.new_zeros((self.size, *fakes.shape[1:]))
        # A resumed run may use another precision.
        self.images = self.images.to(fakes.dtype)
        self._replaced = []
        self._count_before, self._random_before = self.count, self.random.get_state()
        returned = fakes.clone()
        for i in range(len(fakes)):
            if self.count < self.size:
                self.images[self.count] = fakes[i]
                self.count += 1
            elif self._draw(2) == 1:
                chosen = self._draw(self.size)
                returned[i] = self.images[chosen]
                self._replaced.append((chosen, self.images[chosen].clone()))
                self.images[chosen] = fakes[i]
        return returned

    def undo_exchange(self) -> None:
        """Restore the state before the last :meth:`exchange`."""
        for index, image in reversed(self._replaced):
            assert self.images is not None
            self.images[index] = image
        self._replaced = []
        self.count = self._count_before
        self.random.set_state(self._random_before)

    def _draw(self, high: int) -> int:
        return int(torch.randint(high, (), generator=self.random))

    def state(self) -> dict[str, Tensor]:
        """Return the pool's state: ``images`` ``[count, C, H, W]`` and ``random`` (uint8).

        The images are a view of the pool: save them before the next exchange.
        """
        tensors = {"random": self.random.get_state()}
        if self.images is not None and self.count:
            tensors["images"] = self.images[: self.count]
        return tensors

    def restore(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        """Load a :meth:`state`; the next exchanges continue exactly as they would have."""
        self.random.set_state(tensors["random"])
        self.images, self.count = None, 0
        if "images" in tensors:
            stored = tensors["images"].to(device)
            self.count = len(stored)
            self.images = stored.new_zeros((self.size, *stored.shape[1:]))
            self.images[: self.count] = stored
