"""Trainings that begin with generators that were trained before (``--init-from``)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from cyclegan_cli.checkpoints.header import Direction, ModelInfo
from cyclegan_cli.checkpoints.locate import checkpoint_file, read_checkpoint
from cyclegan_cli.checkpoints.store import load_generator
from cyclegan_cli.config import GeneratorConfig, TrainConfig
from cyclegan_cli.errors import UsageError
from cyclegan_cli.models.cyclegan import CycleGAN

DIRECTIONS: tuple[Direction, ...] = ("a2b", "b2a")


def with_its_architecture(config: TrainConfig) -> TrainConfig:
    """The options with the generators of ``--init-from``, if it is given.

    Raises:
        UsageError: They contradict the options, or are not of the sort that is trained here.
        CheckpointError: There is no such checkpoint, or it is damaged.
    """
    if config.init_from is None:
        return config
    path = checkpoint_file(config.init_from)
    info = read_checkpoint(path).info
    _require_trainable(path, info)
    found = info.generator
    _require_equal("--base-channels", config.base_channels, _DEFAULT_CHANNELS, found.base_channels)
    _require_equal("--residual-blocks", config.residual_blocks, None, found.residual_blocks)
    return dataclasses.replace(
        config,
        init_from=path.absolute(),
        base_channels=found.base_channels,
        residual_blocks=found.residual_blocks,
    )


_DEFAULT_CHANNELS = TrainConfig().base_channels


def _require_trainable(path: Path, info: ModelInfo) -> None:
    if len(info.directions) < len(DIRECTIONS):
        raise UsageError(
            f"--init-from {path} has the generator {info.directions[0]} alone",
            "Name a checkpoint with both directions: a run folder or its model.safetensors.",
        )
    plain = GeneratorConfig(info.generator.base_channels, info.generator.residual_blocks)
    if info.generator != plain:
        raise UsageError(
            f"--init-from {path} has generators for grey images or with affine norms",
            "They can be translated with, not trained further.",
        )


def _require_equal(option: str, given: int | None, default: int | None, found: int) -> None:
    if given not in (default, found):
        raise UsageError(
            f"{option} {given} contradicts --init-from, whose generators have {found}",
            "Leave it out: the architecture is taken from the checkpoint.",
        )


def begin_with(model: CycleGAN, config: TrainConfig) -> None:
    """Give the generators of ``config.init_from`` to a model that has not learned anything yet.

    They keep their directions; if the checkpoint has the same two domains the other way round,
    they change places. The discriminators, which no model file has, begin from nothing.

    Args:
        model: Its generators, and their averages, are overwritten.
        config: With the checkpoint and the domains' names.

    Raises:
        CheckpointError: It is damaged or has gone.
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
