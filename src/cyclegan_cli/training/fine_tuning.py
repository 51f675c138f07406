"""Fine-tuning: start from trained generators (``--init-from``)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from cyclegan_cli.checkpoints.header import Direction, ModelInfo
from cyclegan_cli.checkpoints.locate import checkpoint_file, read_checkpoint
from cyclegan_cli.checkpoints.store import load_generator
from cyclegan_cli.config import DEFAULT_RESAMPLING, GeneratorConfig, TrainConfig
from cyclegan_cli.errors import UsageError
from cyclegan_cli.models.cyclegan import CycleGAN

DIRECTIONS: tuple[Direction, ...] = ("a2b", "b2a")


def with_initial_architecture(config: TrainConfig) -> TrainConfig:
    """Return the options with the architecture of the generators of ``--init-from``, if given.

    Raises:
        UsageError: The architecture contradicts the options, or cannot be trained.
        CheckpointError: The checkpoint does not exist or is damaged.
    """
    if config.init_from is None:
        return config
    path = checkpoint_file(config.init_from)
    info = read_checkpoint(path).info
    _require_trainable(path, info)
    found = info.generator
    _require_equal("--base-channels", config.base_channels, _DEFAULT_CHANNELS, found.base_channels)
    _require_equal("--residual-blocks", config.residual_blocks, None, found.residual_blocks)
    _require_equal("--resampling", config.resampling, DEFAULT_RESAMPLING, found.resampling)
    return dataclasses.replace(
        config,
        init_from=path.absolute(),
        base_channels=found.base_channels,
        residual_blocks=found.residual_blocks,
        resampling=found.resampling,
    )


_DEFAULT_CHANNELS = TrainConfig().base_channels


def _require_trainable(path: Path, info: ModelInfo) -> None:
    if len(info.directions) < len(DIRECTIONS):
        raise UsageError(
            f"--init-from {path} has only the generator {info.directions[0]}",
            "Name a checkpoint with both directions: a run folder or its model.safetensors.",
        )
    found = info.generator
    plain = GeneratorConfig(found.base_channels, found.residual_blocks, resampling=found.resampling)
    if found != plain:
        raise UsageError(
            f"--init-from {path} has generators for grayscale images or with affine normalization",
            "They can translate, but cannot be trained.",
        )


def _require_equal(
    option: str, given: int | str | None, default: int | str | None, found: int | str
) -> None:
    if given not in (default, found):
        raise UsageError(
            f"{option} {given} contradicts --init-from, whose generators have {found}",
            "Omit it: the architecture is taken from the checkpoint.",
        )


def load_initial_generators(model: CycleGAN, config: TrainConfig) -> None:
    """Load the generators of ``config.init_from`` into a new model.

    If the checkpoint has the same two domains in the other order, the generators are swapped.
    Model files have no discriminators: those keep their random initialization.

    Args:
        model: The model whose generators, and their averages, are overwritten.
        config: The checkpoint and the names of the domains.

    Raises:
        CheckpointError: The checkpoint is damaged or was removed.
    """
    assert config.init_from is not None
    checkpoint = read_checkpoint(config.init_from)
    info = checkpoint.info
    is_reversed = (info.name_a, info.name_b) == (config.name_b, config.name_a)
    sources = DIRECTIONS[::-1] if is_reversed else DIRECTIONS
    for network, direction in zip(model.generators().values(), sources, strict=True):
        generator, _ = load_generator(checkpoint, direction)
        with torch.no_grad():
            network.load_state_dict(generator.state_dict())
    if model.averages:
        model.averages.restart()
