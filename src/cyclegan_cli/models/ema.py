"""Generators whose weights are moving averages over the training (Karras et al. 2018, app. A.1)."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cyclegan_cli.models.networks import ResnetGenerator


class GeneratorAverages:
    """An exponential moving average of every weight of the generators.

    The trained weights circle around a good solution; their average lies nearer to it. The decay
    grows with the steps, so that short runs do not average over their first, random weights:
    after ``step`` steps it is ``min(decay, step / (step + 9))``.

    Args:
        generators: The trained generators, by name. The averages begin as copies of them.
        decay: The share of the average that a step leaves, in the long run; below 1.
    """

    def __init__(self, generators: Mapping[str, ResnetGenerator], decay: float) -> None:
        self.trained = dict(generators)
        self.decay = decay
        self.generators = {
            name: copy.deepcopy(generator).requires_grad_(False)
            for name, generator in generators.items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the averages towards the trained weights.

        Args:
            step: Steps done, the one whose weights are now taken in included: 1 is the first.
        """
        # The warm start of TensorFlow's ExponentialMovingAverage, counted from the first step.
        decay = min(self.decay, step / (step + 9))
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average(self._averaged(), self._trained(), None)

    @torch.no_grad()
    def restart(self) -> None:
        """Forget the past: begin anew from the trained weights as they are."""
        for average, trained in zip(self._averaged(), self._trained(), strict=True):
            average.copy_(trained)

    def _averaged(self) -> list[torch.Tensor]:
        return _parameters(self.generators)

    def _trained(self) -> list[torch.Tensor]:
        return _parameters(self.trained)


def _parameters(networks: Mapping[str, nn.Module]) -> list[torch.Tensor]:
    return [parameter for network in networks.values() for parameter in network.parameters()]
