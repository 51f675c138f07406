"""Two folders of unpaired pictures as one endless sequence of training crops.

What comes n-th is a pure function of the seed and n. Nothing depends on how many processes load,
on what was loaded before, or on where a run was interrupted: a resumed run asks for the numbers
that are still missing.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transforms

from cyclegan_cli.config import ResizeMode, TrainConfig
from cyclegan_cli.data.colour import to_depth
from cyclegan_cli.data.decoding import decode
from cyclegan_cli.errors import DataError, WorkerDiedError

# A picture sixteen times as long as it is wide holds nothing that a square crop shows, and
# resizing its short side could make it arbitrarily large.
LARGEST_ASPECT_RATIO = 16


@dataclass
class Batch:
    """Crops of both domains.

    Attributes:
        real_a: ``[B, 3, crop, crop]`` uint8.
        real_b: Likewise.
        skipped: A sentence for every picture that could not be read and was replaced.
    """

    real_a: Tensor
    real_b: Tensor
    skipped: list[str] = field(default_factory=list)

    def pin_memory(self) -> Batch:
        """The same in page-locked memory, for asynchronous copies to a GPU."""
        return Batch(self.real_a.pin_memory(), self.real_b.pin_memory(), self.skipped)


class UnpairedDataset(Dataset[Batch]):
    """Item n is one augmented crop of each domain.

    Each domain goes through its own random orders, one a pass, independently of the other: no
    picture comes again before all of its domain have come.

    Args:
        pictures_a: Paths of domain A.
        pictures_b: Paths of domain B.
        config: Sizes, resize mode, flip and seed.
    """

    def __init__(
        self, pictures_a: Sequence[Path], pictures_b: Sequence[Path], config: TrainConfig
    ) -> None:
        self.pictures = {"a": pictures_a, "b": pictures_b}
        self.config = config

    def __getitem__(self, number: int) -> Batch:
        """The ``number``-th item of the run, as a batch of one.

        Raises:
            DataError: No picture of a domain can be read.
        """
        skipped: list[str] = []
        real_a = self._crop("a", number, skipped)
        real_b = self._crop("b", number, skipped)
        return Batch(real_a.unsqueeze(0), real_b.unsqueeze(0), skipped)

    def _crop(self, domain: str, number: int, skipped: list[str]) -> Tensor:
        """The number-th crop of a domain: ``[3, crop, crop]`` uint8."""
        pictures = self.pictures[domain]
        one_pass, index = divmod(number, len(pictures))
        order = random_order(f"{self.config.seed}/{domain}/{one_pass}", len(pictures))
        for following in range(len(pictures)):
            path = pictures[order[(index + following) % len(pictures)]]
            try:
                picture = load_training_picture(path, self.config)
            except DataError as error:
                skipped.append(error.message)
                continue
            return self._augment(picture, random.Random(f"{self.config.seed}/{domain}/{number}/x"))
        raise DataError(f"no picture of domain {domain.upper()} can be read: {skipped[-1]}")

    def _augment(self, picture: Tensor, draw: random.Random) -> Tensor:
        """Random crop, mirrored half of the time: ``[3, H, W]`` to ``[3, crop, crop]``."""
        crop = self.config.crop_size
        height, width = picture.shape[-2:]
        top, left = draw.randint(0, height - crop), draw.randint(0, width - crop)
        picture = picture[:, top : top + crop, left : left + crop]
        if self.config.flip and draw.random() < 0.5:
            picture = picture.flip(-1)
        return picture


@lru_cache(maxsize=8)
def random_order(seed: str, count: int) -> list[int]:
    """The numbers from 0 to ``count - 1`` in an order that ``seed`` alone decides."""
    return random.Random(seed).sample(range(count), count)


def load_training_picture(path: Path, config: TrainConfig) -> Tensor:
    """Decode a picture and resize it to the load size; transparency is laid on white.

    Returns:
        ``[3, H, W]`` uint8: the short side is ``load_size`` (or both are, with ``stretch``).

    Raises:
        DataError: It cannot be read, or is far longer than wide.
    """
    decoded = decode(path)
    width, height = decoded.size
    if max(width, height) > LARGEST_ASPECT_RATIO * min(width, height):
        raise DataError(f"{path} is {width}x{height}: too narrow to train on")
    resized: Tensor = transforms.resize(
        torch.from_numpy(to_depth(decoded.on_white(0), 8).copy()).permute(2, 0, 1),
        _resized_to(height, width, config.load_size, config.resize_mode),
        interpolation=v2.InterpolationMode.BICUBIC,
        antialias=True,
    )
    return resized


def _resized_to(height: int, width: int, load_size: int, mode: ResizeMode) -> list[int]:
    if mode == "stretch":
        return [load_size, load_size]
    short = min(height, width)
    return [round(height * load_size / short), round(width * load_size / short)]


def center_crop(picture: Tensor, size: int) -> Tensor:
    """The middle of a picture: ``[3, H, W]`` to ``[3, size, size]``."""
    cropped: Tensor = transforms.center_crop(picture, [size, size])
    return cropped


def loader(
    dataset: UnpairedDataset, first_step: int, last_step: int, workers: int, pin_memory: bool
) -> Iterator[Batch]:
    """The batches of steps ``first_step`` to ``last_step - 1``, in order.

    Args:
        dataset: Where the items come from.
        first_step: The first step to load for; 0 is a run's first.
        last_step: One past the last.
        workers: Processes that load; 0 loads in this one.
        pin_memory: Whether batches are meant for a GPU.

    Raises:
        DataError: No picture of a domain can be read.
        WorkerDiedError: A loading process was killed.
    """
    size = dataset.config.batch_size
    batches: DataLoader[Batch | DataError] = DataLoader(
        _ErrorsAsItems(dataset),
        batch_size=size,
        sampler=range(first_step * size, last_step * size),
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_ignore_signals if workers else None,
        pin_memory=pin_memory,
    )
    with worker_errors():
        for batch in batches:
            if isinstance(batch, DataError):
                raise batch
            yield batch


@contextmanager
def worker_errors() -> Iterator[None]:
    """Turn what torch raises when a loading process dies into ours.

    It comes from the loader, or, as torch notices it in a signal's handler, from whatever is
    computed at that moment: both have to be inside.

    Raises:
        WorkerDiedError: A loading process was killed.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        # Torch's own sentence, or the end of the pipe to the worker, whichever is noticed first.
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise WorkerDiedError(
            "a process that loads pictures has died",
            "Mostly memory, or shared memory in a container, ran out: use --workers 0.",
        ) from error


class _ErrorsAsItems(Dataset[Batch | DataError]):
    """Hands errors over like items: torch would make a traceback's text of a worker's exception."""

    def __init__(self, dataset: UnpairedDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, number: int) -> Batch | DataError:
        try:
            return self.dataset[number]
        except DataError as error:
            return error


def _collate(items: list[Batch | DataError]) -> Batch | DataError:
    batches = []
    for item in items:
        if isinstance(item, DataError):
            return item
        batches.append(item)
    return Batch(
        torch.cat([batch.real_a for batch in batches]),
        torch.cat([batch.real_b for batch in batches]),
        [sentence for batch in batches for sentence in batch.skipped],
    )


def _ignore_signals(_worker: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM go to all processes; only the trainer answers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
