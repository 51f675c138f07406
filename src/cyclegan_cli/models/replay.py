"""The history of translations that the discriminators learn from (Zhu et al. 2017, sec. 4)."""

from __future__ import annotations

import torch
from torch import Tensor


class ReplayPool:
    """A pool of earlier translations of one direction (Shrivastava et al. 2017).

    While it fills, images pass through and are remembered. Once it is full, each image is
    returned as it is with probability one half; otherwise it takes the place of a random
    remembered image, and that one is returned.

    Args:
        size: How many images are remembered; 0 returns every image as it came.
        seed: Seed of the pool's own random numbers, which nothing else draws from.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.images: Tensor | None = None
        self.count = 0
        self.random = torch.Generator().manual_seed(seed)
        # What undoes the last exchange: the images replaced, by index, and the generator's state.
        self._replaced: list[tuple[int, Tensor]] = []
        self._count_before, self._random_before = 0, self.random.get_state()

    def exchange(self, fakes: Tensor) -> Tensor:
        """Remember some of these images and return as many, some of them older.

        Args:
            fakes: ``[B, 3, H, W]``, any range, detached.

        Returns:
            ``[B, 3, H, W]``, the same dtype, device and memory format; a new tensor.
        """
        if self.size == 0:
            return fakes.clone()
        if self.images is None:
            self.images = fakes.new_zeros((self.size, *fakes.shape[1:]))
        # A resumed run may have been told to compute in another precision.
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
        """Return to the state before the last :meth:`exchange`, as if it had not been made."""
        for index, image in reversed(self._replaced):
            assert self.images is not None
            self.images[index] = image
        self._replaced = []
        self.count = self._count_before
        self.random.set_state(self._random_before)

    def _draw(self, below: int) -> int:
        return int(torch.randint(below, (), generator=self.random))

    def state(self) -> dict[str, Tensor]:
        """What :meth:`restore` needs: ``images`` ``[count, 3, H, W]`` and ``random`` (bytes).

        The images are a view of the pool: save them before the next exchange.
        """
        tensors = {"random": self.random.get_state()}
        if self.images is not None and self.count:
            tensors["images"] = self.images[: self.count]
        return tensors

    def restore(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        """Take over a :meth:`state`, so that the next exchanges are the ones it would have made."""
        self.random.set_state(tensors["random"])
        self.images, self.count = None, 0
        if "images" in tensors:
            remembered = tensors["images"].to(device)
            self.count = len(remembered)
            self.images = remembered.new_zeros((self.size, *remembered.shape[1:]))
            self.images[: self.count] = remembered
