"""The losses between two rows of metrics.csv, added up without waiting for the device."""

from __future__ import annotations

import time
from typing import Any

import torch

from cyclegan_cli.models.cyclegan import LOSS_NAMES, StepLosses


class Interval:
    """Steps since the last row, and their losses.

    Args:
        device: Where the losses are.
        remembered: What :meth:`state` gave; empty for a new interval.

    Attributes:
        steps: Steps that were applied.
        skipped: Steps that were not, for gradients that are not finite.
        gradient_norms: The largest of the generators' and of the discriminators' gradients.
    """

    def __init__(self, device: torch.device, remembered: dict[str, Any]) -> None:
        zeros = [0.0] * len(LOSS_NAMES)
        self.sum = torch.tensor(remembered.get("losses", zeros), device=device)
        self.steps: int = remembered.get("steps", 0)
        self.skipped: int = remembered.get("skipped", 0)
        self.gradient_norms: list[float] = remembered.get("gradient_norms", [0.0, 0.0])
        self.timed_steps = 0
        self.started = time.monotonic()

    def start_clock(self) -> None:
        """Time counts from now on."""
        self.started = time.monotonic()

    def add(self, losses: StepLosses) -> None:
        """Count a step. Its losses stay on the device: reading a number would wait for it."""
        self.timed_steps += 1
        if not losses.is_applied:
            self.skipped += 1
            return
        self.sum += losses.stacked()
        self.steps += 1
        self.gradient_norms = list(map(max, self.gradient_norms, losses.gradient_norms))

    def means(self) -> dict[str, float]:
        """Mean of every loss over the steps that were applied, by name; waits for the device."""
        means = (self.sum / max(self.steps, 1)).tolist()
        return dict(zip(LOSS_NAMES, means, strict=True))

    def steps_per_second(self) -> float:
        """Of the steps made in this session."""
        return self.timed_steps / max(time.monotonic() - self.started, 1e-9)

    def state(self) -> dict[str, Any]:
        """What a resumed run has to know, as plain values."""
        return {
            "losses": self.sum.tolist(),
            "steps": self.steps,
            "skipped": self.skipped,
            "gradient_norms": self.gradient_norms,
        }
