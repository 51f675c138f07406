"""How good the translations of held-out images are, which model was best, and when to stop."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cyclegan_cli.data.dataset import random_order
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.models.losses import l1_loss
from cyclegan_cli.training.fixed import fixed_images
from cyclegan_cli.training.metrics import diversity, sliced_wasserstein_distance
from cyclegan_cli.training.plan import Plan

# Images that go through the networks at once: few, so that a step's memory is enough for them.
CHUNK = 4
# A quarter of the paper's: the images stay the same, and so does what chance adds.
PROJECTIONS = 128


@dataclass(frozen=True)
class Examination:
    """Fixed images and what the generators make of them.

    Each is ``[N, 3, crop, crop]`` in [-1, 1], fp32, on the model's device.
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
        """Whether all translations are; waits for the device."""
        return all(bool(torch.isfinite(images).all()) for images in vars(self).values())


class Examiner:
    """Translates the same images whenever it is asked to.

    Those held out or, where none are, some of those that are trained on.

    Args:
        plan: Names the images.

    Raises:
        DataError: None of a domain can be read.
    """

    def __init__(self, plan: Plan) -> None:
        images = [
            fixed_images(paths, plan.config, plan.config.val_pictures, domain).to(plan.device)
            for domain, paths in _images(plan)
        ]
        count = min(map(len, images))
        self.real_a, self.real_b = (domain[:count] for domain in images)

    @torch.no_grad()
    def examine(self, model: CycleGAN, stop_requested: Callable[[], object]) -> Examination | None:
        """Translate all images both ways; None if asked to stop meanwhile."""
        chunks: list[dict[str, Tensor]] = []
        for first in range(0, len(self.real_a), CHUNK):
            if stop_requested():
                return None
            real_a, real_b = (real[first : first + CHUNK] for real in (self.real_a, self.real_b))
            chunks.append(model.translate_kronecker(real_a, real_b, identities=True))
        translated = {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}
        return Examination(self.real_a, self.real_b, **translated)


def _images(plan: Plan) -> Sequence[tuple[str, list[Path]]]:
    if plan.validates:
        return ("A", plan.domains.held_out_a), ("B", plan.domains.held_out_b)
    seed = plan.config.seed
    return (
        ("A", shuffled(plan.images_a, f"{seed}/a/samples")),
        ("B", shuffled(plan.images_b, f"{seed}/b/samples")),
    )


def shuffled(images: Sequence[Path], seed: str) -> list[Path]:
    """Images in an order that ``seed`` alone decides."""
    return [images[index] for index in random_order(seed, len(images))]


def quality(found: Examination) -> dict[str, float]:
    """The measures of ``validation.csv``.

    Returns:
        Sliced Wasserstein distances (mean over the pyramid's levels) of the translations to real
        images of their domain; mean differences to the original of reconstructions and of
        images translated into their own domain, as the losses have them; and how different the
        translations are from each other, where 1 is as different as their inputs.
    """
    return {
        "swd_a2b": _distance(found.fake_b, found.real_b),
        "swd_b2a": _distance(found.fake_a, found.real_a),
        "cycle_a": float(l1_loss(found.rec_a, found.real_a)),
        "cycle_b": float(l1_loss(found.rec_b, found.real_b)),
        "identity_a": float(l1_loss(found.idt_a, found.real_a)),
        "identity_b": float(l1_loss(found.idt_b, found.real_b)),
        "diversity_a2b": diversity(found.fake_b) / max(diversity(found.real_a), 1e-9),
        "diversity_b2a": diversity(found.fake_a) / max(diversity(found.real_b), 1e-9),
    }


def _distance(images: Tensor, reference: Tensor) -> float:
    levels = sliced_wasserstein_distance(images, reference, projections=PROJECTIONS)
    return statistics.mean(levels)


def mean_distance(row: Mapping[str, float]) -> float:
    """Distance of the translations to their target domains: what the best model is lowest in.

    Args:
        row: Of ``validation.csv``.
    """
    return (row["swd_a2b"] + row["swd_b2a"]) / 2


class BestSoFar:
    """The lowest mean distance to the target domains so far, and how long ago it was.

    Args:
        remembered: What :meth:`state` gave; empty for a new run.
    """

    def __init__(self, remembered: dict[str, Any]) -> None:
        self.swd: float = remembered.get("swd", math.inf)
        self.step: int = remembered.get("step", 0)
        self.worse: int = remembered.get("worse", 0)

    def improves(self, row: dict[str, float]) -> bool:
        """Take in a row of ``validation.csv``; whether it is the best one so far."""
        swd = mean_distance(row)
        if swd < self.swd:
            self.swd, self.step, self.worse = swd, int(row["step"]), 0
            return True
        self.worse += 1
        return False

    def state(self) -> dict[str, Any]:
        """What a resumed run has to know, as plain values."""
        if math.isinf(self.swd):
            return {"worse": self.worse}
        return {"swd": self.swd, "step": self.step, "worse": self.worse}
