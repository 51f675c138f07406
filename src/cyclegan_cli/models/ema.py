"""Exponential moving average of the generators' weights (Karras et al. 2018, app. A.1)."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cyclegan_cli.models.networks import ResnetGenerator, all_parameters


class GeneratorAverages:
    """Exponential moving average (EMA) of the weights of the generators.

    The effective decay is ``min(decay, step / (step + 9))``, so that the averages of short runs
    do not include the random initialization.

    Args:
        generators: Trained generators, by name. The averages are initialized as copies of them.
        decay: Decay of the average, below 1.
    """

    def __init__(self, generators: Mapping[str, ResnetGenerator], decay: float) -> None:
        self.decay = decay
        self.generators = {
            name: copy.deepcopy(generator).requires_grad_(False)
            for name, generator in generators.items()
        }
        self._trained = all_parameters(generators)
        self._averaged = all_parameters(self.generators)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the averages with the current weights.

        Args:
            step: One-based number of the step that produced the weights.
        """
        # The warm-up of TensorFlow's ExponentialMovingAverage.
        decay = min(self.decay, step / (step + 9))
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average(self._averaged, self._trained, None)

    @torch.no_grad()
    def restart(self) -> None:
        """Reset the averages to the current weights."""
        for average, trained in zip(self._averaged, self._trained, strict=True):
            average.copy_(trained)
