"""The callbacks of a training. Their base class is :class:`.base.TrainingCallback`."""

from __future__ import annotations

import math
from collections.abc import Iterable

from cyclegan_cli.training.callbacks.base import TrainingCallback
from cyclegan_cli.training.callbacks.checkpointing import BestModel, Checkpointing
from cyclegan_cli.training.callbacks.health import Health
from cyclegan_cli.training.callbacks.inception import KernelInceptionDistance
from cyclegan_cli.training.callbacks.limits import (
    DurationNotice,
    Limits,
    StopRequested,
    UnreadableImages,
)
from cyclegan_cli.training.callbacks.logging import CSVLogger
from cyclegan_cli.training.callbacks.report import Report
from cyclegan_cli.training.callbacks.samples import SampleGrids
from cyclegan_cli.training.callbacks.validation import Validation
from cyclegan_cli.training.plan import Plan


def default_callbacks(
    plan: Plan,
    stop_requested: StopRequested = lambda: None,
    time_limit: float = math.inf,
    reported: Iterable[str] = (),
) -> list[TrainingCallback]:
    """Return the callbacks that every training has, in the order in which they are called.

    Args:
        plan: The training.
        stop_requested: Returns the number of a signal that asks to stop, or None.
        time_limit: Seconds after which the training is saved and stopped.
        reported: Warnings about images that have been shown already.
    """
    samples = SampleGrids(plan)
    return [
        UnreadableImages(plan.config.strict, reported),
        Health(plan),
        CSVLogger(plan),
        samples,
        Validation(plan, stop_requested),
        BestModel(plan),
        *([KernelInceptionDistance()] if plan.config.kid else []),
        Checkpointing(plan),
        DurationNotice(),
        Limits(plan, stop_requested, time_limit),
        Report(plan, samples.trigger),
    ]
