"""Two folders of unpaired images as one endless sequence of training crops.

Item n is a pure function of the seed and n. It depends neither on the number of loading threads,
nor on what is cached, nor on where a run was interrupted: a resumed run continues with the next n.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from cyclegan_cli.config import BandFormat, BandFormats, TrainConfig
from cyclegan_cli.data.bands import read_bands, select, to_unit
from cyclegan_cli.data.cache import ImageCache
from cyclegan_cli.data.decode import decode_opaque
from cyclegan_cli.data.image import PixelArray
from cyclegan_cli.data.masks import HALF, mask_beside, read_mask
from cyclegan_cli.errors import DataError
from cyclegan_cli.runtime.distributed_env import SINGLE_SHARD, Shard
from cyclegan_cli.runtime.threads import single_threaded_pool

# A longer image contains nothing that a square crop shows, and resizing its short side to the load
# size could make it arbitrarily large.
MAX_ASPECT_RATIO = 16
# Short side as a fraction of the crop size. A smaller image is an icon or a thumbnail: enlarged so
# far, it teaches the networks to blur.
MIN_SIDE_FRACTION = 0.25
# A JPEG decoded at a reduced scale must still be this many times the load size: closer to it, the
# result is softer than from the whole image (docs/performance.md).
MIN_REDUCED_SCALE = 1.25
PREFETCHED_STEPS = 2


@dataclass
class Batch:
    """Crops of both domains.

    Attributes:
        real_a: ``[B, 3, crop, crop]`` uint8; of a domain with a :class:`BandFormat`
            ``[B, C, crop, crop]`` fp32 in [-1, 1], NaN for values without data. With ``--mask-a``,
            a further channel is the mask: the largest value inside, the smallest outside.
        real_b: The same.
        skipped: A message for each image that could not be read and was replaced.
    """

    real_a: Tensor
    real_b: Tensor
    skipped: list[str] = field(default_factory=list)

    def pin_memory(self) -> Batch:
        """Return a copy in page-locked memory, for asynchronous transfers to a GPU."""
        return Batch(self.real_a.pin_memory(), self.real_b.pin_memory(), self.skipped)


class UnpairedDataset:
    """A data set of training crops; item n is one augmented crop of each domain.

    Each pass over a domain has its own random order, independent of the other domain: no image
    repeats before every image of its domain was used.

    Args:
        images_a: Paths of domain A.
        images_b: Paths of domain B.
        config: Sizes, resize mode, flip and seed.
        cache: Cache of resized images; None disables caching.
        formats: How the images of each domain are read; None: as RGB.
    """

    def __init__(
        self,
        images_a: Sequence[Path],
        images_b: Sequence[Path],
        config: TrainConfig,
        cache: ImageCache | None = None,
        formats: BandFormats = (None, None),
    ) -> None:
        self.formats = {"a": formats[0], "b": formats[1]}
        self.images = {"a": images_a, "b": images_b}
        self.config = config
        self.cache = cache or ImageCache()

    def __getitem__(self, number: int) -> Batch:
        """Return item n of the run as a batch of one.

        Raises:
            DataError: No image of a domain can be read.
        """
        skipped: list[str] = []
        real_a = self._crop("a", number, skipped)
        real_b = self._crop("b", number, skipped)
        return Batch(real_a.unsqueeze(0), real_b.unsqueeze(0), skipped)

    def _crop(self, domain: str, number: int, skipped: list[str]) -> Tensor:
        """Return crop n of a domain: ``[C, crop, crop]``."""
        images = self.images[domain]
        epoch, index = divmod(number, len(images))
        order = random_order(f"{self.config.seed}/{domain}/{epoch}", len(images))
        for offset in range(len(images)):
            chosen = order[(index + offset) % len(images)]
            chosen_format = self.formats[domain]
            load = partial(load_with_mask, images[chosen], self.config, domain, chosen_format)
            try:
                image = self.cache.get((domain, chosen), load)
            except DataError as error:
                skipped.append(error.message)
                continue
            return self._augment(image, random.Random(f"{self.config.seed}/{domain}/{number}/x"))
        raise DataError(f"no image of domain {domain.upper()} can be read: {skipped[-1]}")

    def _augment(self, image: Tensor, rng: random.Random) -> Tensor:
        """Crop and flip at random: ``[C, H, W]`` to ``[C, crop, crop]``."""
        size = self.config.crop_size
        height, width = image.shape[-2:]
        top, left = rng.randint(0, height - size), rng.randint(0, width - size)
        crop: Tensor = transforms.crop(image, top, left, size, size)
        if self.config.flip and rng.random() < 0.5:
            crop = transforms.horizontal_flip(crop)
        # Copy, because the image may be in the cache.
        return crop.clone(memory_format=torch.contiguous_format)


@lru_cache(maxsize=4)  # The current and the next pass of both domains.
def random_order(seed: str, count: int) -> list[int]:
    """Return a permutation of ``range(count)`` that depends on ``seed`` alone."""
    return random.Random(seed).sample(range(count), count)


def load_with_mask(
    path: Path, config: TrainConfig, domain: str, format: BandFormat | None = None
) -> Tensor:
    """Load an image, and its mask if there are masks, see :func:`load_training_image`.

    The mask becomes a channel, so that it is cached, cropped and flipped with its image.

    Args:
        path: The image, below the folder of its domain.
        config: Load size, resize mode and folders.
        domain: ``a`` or ``b``.
        format: How the images of the domain are read; None: as RGB.

    Returns:
        ``[C, H, W]``, or ``[C + 1, H, W]`` with a mask: 255 inside and 0 outside, in fp32 1 and -1.

    Raises:
        DataError: The image or its mask cannot be used.
    """
    image = load_training_image(path, config, format)
    file = mask_of(path, config, domain)
    if file is None:
        return image
    weights = torch.from_numpy(read_mask(file)[0].astype(np.float32)).unsqueeze(0)
    height, width = weights.shape[1:]
    size = _load_size(height, width, config)
    if list(image.shape[1:]) != size:
        raise DataError(
            f"the mask {file} has {width}x{height} pixels, and {path} other proportions",
            "Draw each mask on its upright image.",
        )
    resized: Tensor = transforms.resize(weights, size, InterpolationMode.BILINEAR, antialias=True)
    inside, outside = (255, 0) if image.dtype == torch.uint8 else (1, -1)
    mask = torch.where(resized >= HALF, inside, outside).to(image.dtype)
    return torch.cat([image, mask])


def mask_of(path: Path, config: TrainConfig, domain: str) -> Path | None:
    """Return the mask of an image; None if there are no masks.

    Raises:
        DataError: The image has none, or several.
    """
    masks: Path | None = getattr(config, f"mask_{domain}")
    if masks is None:
        return None
    folder: Path = getattr(config, f"domain_{domain}")
    relative = path.absolute().relative_to(folder.absolute())
    return mask_beside(masks, str(relative.with_suffix("")), str(path))


def load_training_image(
    path: Path, config: TrainConfig, format: BandFormat | None = None
) -> Tensor:
    """Decode an image, composited on white, and resize it to the load size.

    Args:
        path: The image.
        config: Load size and resize mode.
        format: How the images of its domain are read; None: as RGB.

    Returns:
        ``[3, H, W]`` uint8; with a format ``[C, H, W]`` fp32 in [-1, 1], NaN for values without
        data. The short side is ``load_size``; with ``stretch`` both sides are.

    Raises:
        DataError: The image cannot be read, is too elongated or too small.
    """
    if format is not None:
        return _load_bands(path, config, format)
    shrink_to = math.ceil(MIN_REDUCED_SCALE * config.load_size)
    pixels, (width, height) = decode_opaque(path, shrink_to)
    check_training_size(path, width, height, config)
    return _resize(pixels, (height, width), _load_size(height, width, config))


def _load_size(height: int, width: int, config: TrainConfig) -> list[int]:
    if config.resize_mode == "stretch":
        return [config.load_size, config.load_size]
    return [round(side * config.load_size / min(height, width)) for side in (height, width)]


# Pixels whose resized value depends on values without data by more than this are without data.
MAX_MISSING_WEIGHT = 0.01


def _load_bands(path: Path, config: TrainConfig, format: BandFormat) -> Tensor:
    image = read_bands(path, str(path))
    check_training_size(path, image.width, image.height, config)
    unit = to_unit(select(image, format, str(path)), format, image.probe.nodata)
    pixels = torch.from_numpy(unit).permute(2, 0, 1)
    size = _load_size(image.height, image.width, config)
    missing = pixels.isnan()
    if not missing.any():
        return _resize_bands(pixels, size)
    if missing.all():
        raise DataError(f"{path} has no pixels with data")
    means = pixels.nanmean(dim=(1, 2), keepdim=True).nan_to_num(0.0)
    resized = _resize_bands(torch.where(missing, means, pixels), size)
    weight: Tensor = transforms.resize(
        missing.float(), size, InterpolationMode.BILINEAR, antialias=True
    )
    return resized.masked_fill_(weight > MAX_MISSING_WEIGHT, float("nan"))


def _resize_bands(pixels: Tensor, size: list[int]) -> Tensor:
    """Resize ``[C, H, W]`` fp32 in [-1, 1]: bicubic, antialiased."""
    resized: Tensor = transforms.resize(pixels, size, InterpolationMode.BICUBIC, antialias=True)
    return resized.clamp(-1, 1).contiguous()


def check_training_size(path: Path, width: int, height: int, config: TrainConfig) -> None:
    """Reject an image that is useless for training because of its size.

    Args:
        path: Path for the error message.
        width: Width in pixels.
        height: Height in pixels.
        config: Configuration with the crop size.

    Raises:
        DataError: The image is too elongated or too small.
    """
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise DataError(f"{path} is {width}x{height}: too narrow to train on")
    if min(width, height) < MIN_SIDE_FRACTION * config.crop_size:
        raise DataError(
            f"{path} is {width}x{height}: too small for crops of {config.crop_size} pixels"
        )


def _resize(pixels: PixelArray, full: tuple[int, int], size: list[int]) -> Tensor:
    """Resize an image: bicubic, antialiased.

    Args:
        pixels: ``[H, W, 3]`` uint8, perhaps decoded at a reduced scale.
        full: Height and width at full scale.
        size: Height and width to resize to.

    Returns:
        ``[3, *size]`` uint8.
    """
    writable = pixels if pixels.flags.writeable else pixels.copy()
    image = torch.from_numpy(writable).permute(2, 0, 1)
    reduction = round(full[0] / pixels.shape[0])
    if full == (pixels.shape[0] * reduction, pixels.shape[1] * reduction):
        resized: Tensor = transforms.resize(image, size, InterpolationMode.BICUBIC, antialias=True)
        return resized
    # The last row or column reaches beyond the image by a fraction of a pixel, so that the scale
    # does not follow from the two sizes, which is all that torchvision takes. The result is cut to
    # whole pixels; the epsilon keeps exact sizes from rounding down.
    scale = [side * reduction / whole * (1 + 1e-9) for side, whole in zip(size, full, strict=True)]
    batch = image.unsqueeze(0)
    return F.interpolate(batch, scale_factor=scale, mode="bicubic", antialias=True)[0]


def center_crop(image: Tensor, size: int) -> Tensor:
    """Crop the centre of an image: ``[C, H, W]`` to ``[C, size, size]``."""
    top, left = ((side - size) // 2 for side in image.shape[-2:])
    crop: Tensor = transforms.crop(image, top, left, size, size)
    return crop


def loader(
    dataset: UnpairedDataset,
    first_item: int,
    steps: int,
    workers: int,
    pin_memory: bool,
    share: Shard = SINGLE_SHARD,
) -> Generator[Batch]:
    """Yield the batches of consecutive steps.

    Args:
        dataset: Source of the items.
        first_item: Number of the first step's first item; a run starts at 0.
        steps: Number of steps.
        workers: Number of threads that prefetch; 0 loads each batch on demand.
        pin_memory: Whether to return batches in page-locked memory.
        share: This process's shard of each step's items in distributed training. Runs with equal
            numbers of items per step see the same items, whatever the number of processes.

    Raises:
        DataError: No image of a domain can be read.
    """
    size = dataset.config.batch_size
    numbers = (
        first_item + (step * share.count + share.index) * size + item
        for step in range(steps)
        for item in range(size)
    )
    ahead = PREFETCHED_STEPS * size + workers
    with closing(_prefetched(dataset, numbers, workers, ahead)) as items:
        for _ in range(steps):
            batch = _collate(itertools.islice(items, size))
            # In the thread that uses the GPU, not during a capture of CUDA graphs.
            yield batch.pin_memory() if pin_memory else batch


def load_items(dataset: UnpairedDataset, count: int, workers: int) -> Generator[Batch]:
    """Yield the first items, in order.

    Args:
        dataset: Source of the items.
        count: Number of items.
        workers: Number of threads that prefetch; 0 loads each item on demand.

    Raises:
        DataError: No image of a domain can be read.
    """
    with closing(_prefetched(dataset, range(count), workers, PREFETCHED_STEPS + workers)) as items:
        yield from items


def _prefetched(
    dataset: UnpairedDataset, numbers: Iterable[int], workers: int, ahead: int
) -> Generator[Batch]:
    """Yield the items in order, prefetched by threads."""
    if not workers:
        yield from map(dataset.__getitem__, numbers)
        return
    pool = single_threaded_pool(workers, "loader")
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


def _collate(items: Iterable[Batch]) -> Batch:
    batches = list(items)
    return Batch(
        torch.cat([batch.real_a for batch in batches]),
        torch.cat([batch.real_b for batch in batches]),
        [message for batch in batches for message in batch.skipped],
    )
