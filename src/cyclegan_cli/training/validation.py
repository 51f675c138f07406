"""Validation images, their translations and the measures of ``validation.csv``."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cyclegan_cli.config import BandFormat, TrainConfig
from cyclegan_cli.data.dataset import center_crop, load_training_image, random_order
from cyclegan_cli.data.tensors import to_unit_range
from cyclegan_cli.errors import DataError
from cyclegan_cli.metrics.distances import diversity, sliced_wasserstein_distance
from cyclegan_cli.models.cyclegan import CycleGAN, fill_missing
from cyclegan_cli.models.losses import l1_loss
from cyclegan_cli.training.plan import Plan

# Images per forward pass: few, so that validation needs less memory than a training step.
BATCH_SIZE = 4
# A quarter of the paper's: the images are always the same, and so is the random error.
VALIDATION_PROJECTIONS = 128


@dataclass(frozen=True)
class ValidationBatch:
    """Validation images and their translations.

    Each is ``[N, C, crop, crop]`` in [-1, 1], fp32, on the device of the model. Without identity
    mappings ``idt_a`` and ``idt_b`` are None: the domains have different numbers of channels.
    """

    real_a: Tensor
    real_b: Tensor
    fake_b: Tensor
    rec_a: Tensor
    fake_a: Tensor
    rec_b: Tensor
    idt_a: Tensor | None = None
    idt_b: Tensor | None = None

    def is_finite(self) -> bool:
        """Return whether all values are finite. Waits for the device."""
        found = (images for images in vars(self).values() if images is not None)
        return all(bool(torch.isfinite(images).all()) for images in found)


class Validator:
    """Translates the same images each time.

    Args:
        plan: The training. Without a validation set, training images are used.

    Raises:
        DataError: No image of a domain can be read.
    """

    def __init__(self, plan: Plan) -> None:
        held_out = (plan.split.val_a, plan.split.val_b) if plan.validates else None
        self.real_a, self.real_b = fixed_images(plan, plan.config.val_pictures, held_out)

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


def fixed_images(
    plan: Plan, count: int, paths: Iterable[Sequence[Path]] | None = None
) -> tuple[Tensor, Tensor]:
    """Load center crops of equal numbers of images of both domains.

    Args:
        plan: The training.
        count: The maximum number of images per domain.
        paths: Images of domain A and B in the order of choice; by default the training images in
            an order that depends on the seed alone.

    Returns:
        ``real_a`` and ``real_b``, each ``[N, C, crop, crop]`` in [-1, 1], on the plan's device;
        values without data are filled by the mean.

    Raises:
        DataError: No image of a domain can be read.
    """
    if paths is None:
        paths = (
            [images[index] for index in random_order(f"{plan.config.seed}/{name}", len(images))]
            for name, images in (("a/samples", plan.images_a), ("b/samples", plan.images_b))
        )
    crops = [
        _readable_crops(own, plan.config, count, name, band_format)
        for own, name, band_format in zip(paths, "AB", plan.formats, strict=True)
    ]
    number = min(map(len, crops))
    real_a, real_b = (
        fill_missing(to_unit_range(torch.stack(own[:number]))).to(plan.device) for own in crops
    )
    return real_a, real_b


def _readable_crops(
    paths: Iterable[Path],
    config: TrainConfig,
    count: int,
    domain: str,
    band_format: BandFormat | None,
) -> list[Tensor]:
    crops: list[Tensor] = []
    reason = ""
    for path in paths:
        try:
            image = load_training_image(path, config, band_format)
        except DataError as error:
            reason = f": {error.message}"
            continue  # The data set reports it.
        crops.append(center_crop(image, config.crop_size))
        if len(crops) == count:
            break
    if not crops:
        raise DataError(f"no image of domain {domain} can be read{reason}")
    return crops


def quality(batch: ValidationBatch) -> dict[str, float]:
    """Return the measures of ``validation.csv``.

    Returns:
        ``swd_*``: sliced Wasserstein distance of the translations to real images of the target
        domain, mean over the pyramid. ``cycle_*``, ``identity_*``: L1 distance of reconstructions
        and of images translated to their own domain, as in the losses, which is 0 where the domains
        have different numbers of channels. ``diversity_*``: diversity
        of the translations relative to their inputs.
    """
    return {
        "swd_a2b": _distance(batch.fake_b, batch.real_b),
        "swd_b2a": _distance(batch.fake_a, batch.real_a),
        "cycle_a": float(l1_loss(batch.rec_a, batch.real_a)),
        "cycle_b": float(l1_loss(batch.rec_b, batch.real_b)),
        "identity_a": _identity(batch.idt_a, batch.real_a),
        "identity_b": _identity(batch.idt_b, batch.real_b),
        "diversity_a2b": diversity(batch.fake_b) / max(diversity(batch.real_a), 1e-9),
        "diversity_b2a": diversity(batch.fake_a) / max(diversity(batch.real_b), 1e-9),
    }


def _identity(mapped: Tensor | None, real: Tensor) -> float:
    return 0.0 if mapped is None else float(l1_loss(mapped, real))


def _distance(images: Tensor, reference: Tensor) -> float:
    return statistics.mean(
        sliced_wasserstein_distance(images, reference, projections=VALIDATION_PROJECTIONS)
    )


def mean_distance(row: Mapping[str, float]) -> float:
    """Return the mean distance of both directions, which the best model minimizes.

    Args:
        row: A row of ``validation.csv``.
    """
    return (row["swd_a2b"] + row["swd_b2a"]) / 2
