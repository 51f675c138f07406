"""Validation images, their translations and the measures of ``validation.csv``."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cyclegan_cli.config import TrainConfig
from cyclegan_cli.data.dataset import center_crop, load_training_image, random_order
from cyclegan_cli.data.tensors import to_unit_range
from cyclegan_cli.errors import DataError
from cyclegan_cli.metrics.distances import diversity, sliced_wasserstein_distance
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.models.losses import l1_loss
from cyclegan_cli.training.plan import Plan

# Images per forward pass: few, so that validation needs no more memory than a training step.
BATCH_SIZE = 4
# A quarter of the paper's: the images are always the same, and so is the random error.
PROJECTIONS = 128


@dataclass(frozen=True)
class ValidationBatch:
    """Validation images and their translations.

    Each is ``[N, 3, crop, crop]`` in [-1, 1], fp32, on the device of the model.
    """

    real_a: Tensor
    real_b: Tensor
    fake_b: Tensor
    rec_a: Tensor
    fake_a: Tensor
    rec_b: Tensor
    idt_a: Tensor
    idt_b: Tensor

    def is_finite(self) -> bool:
        """Return whether all values are finite. Waits for the device."""
        return all(bool(torch.isfinite(images).all()) for images in vars(self).values())


class Validator:
    """Translates the same images each time.

    Args:
        plan: The training. Without a validation set, training images are used.

    Raises:
        DataError: No image of a domain can be read.
    """

    def __init__(self, plan: Plan) -> None:
        split, seed = plan.split, plan.config.seed
        paths_a, paths_b = split.val_a, split.val_b
        if not plan.validates:
            paths_a = shuffled(split.images_a, f"{seed}/a/samples")
            paths_b = shuffled(split.images_b, f"{seed}/b/samples")
        real_a, real_b = (
            sample_batch(paths, plan.config, plan.config.val_pictures, domain).to(plan.device)
            for domain, paths in (("A", paths_a), ("B", paths_b))
        )
        count = min(len(real_a), len(real_b))
        self.real_a, self.real_b = real_a[:count], real_b[:count]

    @torch.no_grad()
    def translate(
        self, model: CycleGAN, stop_requested: Callable[[], object]
    ) -> ValidationBatch | None:
        """Translate all images both ways, or return None if asked to stop meanwhile."""
        parts: list[dict[str, Tensor]] = []
        for start in range(0, len(self.real_a), BATCH_SIZE):
            if stop_requested():
                return None
            real_a, real_b = (
                real[start : start + BATCH_SIZE] for real in (self.real_a, self.real_b)
            )
            parts.append(model.translate_and_reconstruct(real_a, real_b, identities=True))
        translated = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return ValidationBatch(self.real_a, self.real_b, **translated)


def sample_batch(paths: Iterable[Path], config: TrainConfig, count: int, domain: str) -> Tensor:
    """Load the center crops of the first ``count`` readable images.

    Args:
        paths: Images in the order of choice.
        config: The load and crop size, and the resize mode.
        count: The maximum number of images.
        domain: ``A`` or ``B``, for the error message.

    Returns:
        ``[N, 3, crop, crop]`` in [-1, 1], on the CPU.

    Raises:
        DataError: No image can be read.
    """
    crops: list[Tensor] = []
    reason = ""
    for path in paths:
        try:
            image = load_training_image(path, config)
        except DataError as error:
            reason = f": {error.message}"
            continue  # The data set reports it.
        crops.append(center_crop(image, config.crop_size))
        if len(crops) == count:
            break
    if not crops:
        raise DataError(f"no image of domain {domain} can be read{reason}")
    return to_unit_range(torch.stack(crops))


def shuffled(images: Sequence[Path], seed: str) -> list[Path]:
    """Return the images in an order that depends on ``seed`` alone."""
    return [images[index] for index in random_order(seed, len(images))]


def quality(batch: ValidationBatch) -> dict[str, float]:
    """Return the measures of ``validation.csv``.

    Returns:
        ``swd_*``: sliced Wasserstein distance of the translations to real images of the target
        domain, mean over the pyramid. ``cycle_*``, ``identity_*``: L1 distance of reconstructions
        and of images translated to their own domain, as in the losses. ``diversity_*``: diversity
        of the translations relative to their inputs.
    """
    return {
        "swd_a2b": _distance(batch.fake_b, batch.real_b),
        "swd_b2a": _distance(batch.fake_a, batch.real_a),
        "cycle_a": float(l1_loss(batch.rec_a, batch.real_a)),
        "cycle_b": float(l1_loss(batch.rec_b, batch.real_b)),
        "identity_a": float(l1_loss(batch.idt_a, batch.real_a)),
        "identity_b": float(l1_loss(batch.idt_b, batch.real_b)),
        "diversity_a2b": diversity(batch.fake_b) / max(diversity(batch.real_a), 1e-9),
        "diversity_b2a": diversity(batch.fake_a) / max(diversity(batch.real_b), 1e-9),
    }


def _distance(images: Tensor, reference: Tensor) -> float:
    return statistics.mean(sliced_wasserstein_distance(images, reference, projections=PROJECTIONS))


def mean_distance(row: Mapping[str, float]) -> float:
    """Return the mean distance of both directions, which the best model minimizes.

    Args:
        row: A row of ``validation.csv``.
    """
    return (row["swd_a2b"] + row["swd_b2a"]) / 2
