"""Unpaired image-to-image translation with CycleGAN (Zhu et al. 2017).

Public names are imported on first use, so that ``import cyclegan_cli`` and ``cyclegan --help`` load
neither torch nor Pillow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclegan_cli.config import DiscriminatorConfig, GeneratorConfig, TrainConfig
    from cyclegan_cli.errors import CycleGANError
    from cyclegan_cli.inspection import describe
    from cyclegan_cli.models.cyclegan import CycleGAN
    from cyclegan_cli.models.networks import PatchDiscriminator, ResnetGenerator
    from cyclegan_cli.training.callbacks.base import TrainingCallback
    from cyclegan_cli.training.trainer import train
    from cyclegan_cli.translation.translator import Translator

__version__ = "0.1.0"

_HOMES = {
    "CycleGAN": "cyclegan_cli.models.cyclegan",
    "CycleGANError": "cyclegan_cli.errors",
    "DiscriminatorConfig": "cyclegan_cli.config",
    "GeneratorConfig": "cyclegan_cli.config",
    "PatchDiscriminator": "cyclegan_cli.models.networks",
    "ResnetGenerator": "cyclegan_cli.models.networks",
    "TrainConfig": "cyclegan_cli.config",
    "TrainingCallback": "cyclegan_cli.training.callbacks.base",
    "Translator": "cyclegan_cli.translation.translator",
    "describe": "cyclegan_cli.inspection",
    "train": "cyclegan_cli.training.trainer",
}

__all__ = [
    "CycleGAN",
    "CycleGANError",
    "DiscriminatorConfig",
    "GeneratorConfig",
    "PatchDiscriminator",
    "ResnetGenerator",
    "TrainConfig",
    "TrainingCallback",
    "Translator",
    "__version__",
    "describe",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
