"""Two folders of unpaired images as one endless sequence of training crops.

What comes n-th is a pure function of the seed and n. Nothing depends on how many threads load,
on what was loaded or kept in memory before, or on where a run was interrupted: a resumed run asks
for the numbers that are still missing.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclegan_cli.config import ResizeMode, TrainConfig
from cyclegan_cli.data.cache import ImageCache
from cyclegan_cli.data.decoding import decode_opaque
from cyclegan_cli.data.image import Levels
from cyclegan_cli.errors import DataError
from cyclegan_cli.runtime.distributed_env import SINGLE_SHARD, Shard

# An image sixteen times as long as it is wide holds nothing that a square crop shows, and
# resizing its short side could make it arbitrarily large.
LARGEST_ASPECT_RATIO = 16
# An image whose short side is less than a quarter of a crop's is an icon or a thumbnail among
# images: enlarged so much, it teaches the networks nothing but blur.
TINY_SHARE = 0.25
# How many times the load size a JPEG must still be when it is decoded at a reduced scale: the
# nearer to it, the softer it comes out than from the whole image (docs/performance.md).
REDUCED_AT_LEAST = 1.25
# Steps whose items are loaded ahead.
STEPS_AHEAD = 2


@dataclass
class Batch:
    """Crops of both domains.

    Attributes:
        real_a: ``[B, 3, crop, crop]`` uint8.
        real_b: Likewise.
        skipped: A sentence for every image that could not be read and was replaced.
    """

    real_a: Tensor
    real_b: Tensor
    skipped: list[str] = field(default_factory=list)

    def pin_memory(self) -> Batch:
        """The same in page-locked memory, for asynchronous copies to a GPU."""
        return Batch(self.real_a.pin_memory(), self.real_b.pin_memory(), self.skipped)


class UnpairedDataset:
    """Item n is one augmented crop of each domain.

    Each domain goes through its own random orders, one a pass, independently of the other: no
    image comes again before all of its domain have come.

    Args:
        images_a: Paths of domain A.
        images_b: Paths of domain B.
        config: Sizes, resize mode, flip and seed.
        cache: Keeps resized images; None keeps none.
    """

    def __init__(
        self,
        images_a: Sequence[Path],
        images_b: Sequence[Path],
        config: TrainConfig,
        cache: ImageCache | None = None,
    ) -> None:
        self.images = {"a": images_a, "b": images_b}
        self.config = config
        self.cache = cache or ImageCache()

    def __getitem__(self, number: int) -> Batch:
        """The ``number``-th item of the run, as a batch of one.

        Raises:
            DataError: No image of a domain can be read.
        """
        skipped: list[str] = []
        real_a = self._crop("a", number, skipped)
        real_b = self._crop("b", number, skipped)
        return Batch(real_a.unsqueeze(0), real_b.unsqueeze(0), skipped)

    def _crop(self, domain: str, number: int, skipped: list[str]) -> Tensor:
        """The number-th crop of a domain: ``[3, crop, crop]`` uint8."""
        images = self.images[domain]
        one_pass, index = divmod(number, len(images))
        order = random_order(f"{self.config.seed}/{domain}/{one_pass}", len(images))
        for following in range(len(images)):
            chosen = order[(index + following) % len(images)]
            load = partial(load_training_image, images[chosen], self.config)
            try:
                image = self.cache.get((domain, chosen), load)
            except DataError as error:
                skipped.append(error.message)
                continue
            return self._augment(image, random.Random(f"{self.config.seed}/{domain}/{number}/x"))
        raise DataError(f"no image of domain {domain.upper()} can be read: {skipped[-1]}")

    def _augment(self, image: Tensor, draw: random.Random) -> Tensor:
        """Random crop, mirrored half of the time: ``[3, H, W]`` to ``[3, crop, crop]``."""
        crop = self.config.crop_size
        height, width = image.shape[-2:]
        top, left = draw.randint(0, height - crop), draw.randint(0, width - crop)
        levels = image[:, top : top + crop, left : left + crop].numpy()
        if self.config.flip and draw.random() < 0.5:
            levels = levels[..., ::-1]
        # By numpy: torch would wake threads for it that compete with those of the training.
        return torch.from_numpy(levels.copy(order="C"))


@lru_cache(maxsize=4)  # Of both domains, this pass and the next.
def random_order(seed: str, count: int) -> list[int]:
    """The numbers from 0 to ``count - 1`` in an order that ``seed`` alone decides."""
    return random.Random(seed).sample(range(count), count)


def load_training_image(path: Path, config: TrainConfig) -> Tensor:
    """Decode an image and resize it to the load size; transparency is laid on white.

    Returns:
        ``[3, H, W]`` uint8: the short side is ``load_size`` (or both are, with ``stretch``).

    Raises:
        DataError: It cannot be read, is far longer than wide, or tiny.
    """
    shrink_to = math.ceil(REDUCED_AT_LEAST * config.load_size)
    levels, (width, height) = decode_opaque(path, shrink_to)
    refuse_useless(path, width, height, config)
    size = _resized_to(height, width, config.load_size, config.resize_mode)
    return _resized(levels, (height, width), size)


def refuse_useless(path: Path, width: int, height: int, config: TrainConfig) -> None:
    """Refuse an image from whose size one can tell that it is of no use.

    Args:
        path: For the message.
        width: In pixels.
        height: Likewise.
        config: Says how large crops are.

    Raises:
        DataError: It is far longer than wide, or tiny.
    """
    if max(width, height) > LARGEST_ASPECT_RATIO * min(width, height):
        raise DataError(f"{path} is {width}x{height}: too narrow to train on")
    if min(width, height) < TINY_SHARE * config.crop_size:
        raise DataError(
            f"{path} is {width}x{height}: too small for crops of {config.crop_size} pixels"
        )


def _resized(levels: Levels, full: tuple[int, int], size: list[int]) -> Tensor:
    """Resize an image, bicubic, as means where it becomes smaller.

    Args:
        levels: ``[H, W, 3]`` uint8, perhaps at a reduced scale.
        full: Height and width at the full scale.
        size: Height and width that are wanted.

    Returns:
        ``[3, *size]`` uint8.
    """
    writable = levels if levels.flags.writeable else levels.copy()
    image = torch.from_numpy(writable).permute(2, 0, 1).unsqueeze(0)
    resize = partial(F.interpolate, image, mode="bicubic", antialias=True)
    if levels.shape[:2] == full:
        resized: Tensor = resize(size=size)
        return resized[0]
    # A side at the reduced scale may reach beyond the image, by a part of a pixel: its length
    # does not tell by how much to resize. The resized one is cut off to whole pixels; a bit is
    # added so that an exact length does not fall below itself by rounding.
    reduction = round(full[0] / levels.shape[0])
    factors = [
        side * reduction / whole * (1 + 1e-9) for side, whole in zip(size, full, strict=True)
    ]
    resized = resize(scale_factor=factors)
    return resized[0]


def _resized_to(height: int, width: int, load_size: int, mode: ResizeMode) -> list[int]:
    if mode == "stretch":
        return [load_size, load_size]
    short = min(height, width)
    return [round(height * load_size / short), round(width * load_size / short)]


def center_crop(image: Tensor, size: int) -> Tensor:
    """The middle of an image: ``[3, H, W]`` to ``[3, size, size]``."""
    top, left = ((side - size) // 2 for side in image.shape[-2:])
    return image[:, top : top + size, left : left + size]


def loader(
    dataset: UnpairedDataset,
    first_item: int,
    steps: int,
    workers: int,
    pin_memory: bool,
    share: Shard = SINGLE_SHARD,
) -> Generator[Batch]:
    """The batches of so many steps, in order.

    Args:
        dataset: Where the items come from.
        first_item: The number of the item that the first step begins with; 0 is a run's first.
        steps: How many.
        workers: Threads that load ahead; 0 loads a batch when it is asked for.
        pin_memory: Whether batches are meant for a GPU.
        share: This process's part of each step's items, where several train together: with the
            same number of items a step they see the same ones, however many they are.

    Raises:
        DataError: No image of a domain can be read.
    """
    size = dataset.config.batch_size
    numbers = (
        first_item + (step * share.count + share.index) * size + place
        for step in range(steps)
        for place in range(size)
    )
    ahead = STEPS_AHEAD * size + workers
    with closing(_loaded(dataset, numbers, workers, ahead)) as items:
        for _ in range(steps):
            batch = _collated(itertools.islice(items, size))
            # Here, where the GPU is used: not while another thread captures a graph.
            yield batch.pin_memory() if pin_memory else batch


def single_threaded() -> None:
    """Have torch start no OpenMP team for the calling thread.

    With two teams there are more threads than cores, and libgomp then makes every wait of a
    thread short: a training of small networks took half as long again.
    """
    torch.set_num_threads(1)


def _loaded(
    dataset: UnpairedDataset, numbers: Iterable[int], workers: int, ahead: int
) -> Generator[Batch]:
    """Items in the order of their numbers, some of them loaded ahead by threads."""
    if not workers:
        yield from map(dataset.__getitem__, numbers)
        return
    pool = ThreadPoolExecutor(workers, "loader", initializer=single_threaded)
    loading: deque[Future[Batch]] = deque()
    try:
        for number in numbers:
            loading.append(pool.submit(dataset.__getitem__, number))
            if len(loading) > ahead:
                yield loading.popleft().result()
        while loading:
            yield loading.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _collated(items: Iterable[Batch]) -> Batch:
    batches = list(items)
    return Batch(
        torch.cat([batch.real_a for batch in batches]),
        torch.cat([batch.real_b for batch in batches]),
        [sentence for batch in batches for sentence in batch.skipped],
    )
