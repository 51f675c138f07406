"""Fine-tuning: start from trained generators (``--init-from``)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from cyclegan_cli.checkpoints.header import BOTH_DIRECTIONS, ModelInfo
from cyclegan_cli.checkpoints.locate import Checkpoint, checkpoint_file, read_checkpoint
from cyclegan_cli.checkpoints.store import load_generator
from cyclegan_cli.config import BandFormats, TrainConfig, option_name
from cyclegan_cli.errors import UsageError
from cyclegan_cli.models.cyclegan import CycleGAN


def read_initial(config: TrainConfig) -> Checkpoint | None:
    """Return the checkpoint of ``--init-from``; None if it is not given.

    Raises:
        UsageError: Its architecture cannot be trained.
        CheckpointError: It does not exist or is damaged.
    """
    if config.init_from is None:
        return None
    checkpoint = read_checkpoint(checkpoint_file(config.init_from))
    _require_trainable(checkpoint.path, checkpoint.info)
    return checkpoint


def with_architecture(config: TrainConfig, initial: Checkpoint) -> TrainConfig:
    """Return the options with the path and the architecture of ``--init-from``.

    Raises:
        UsageError: The architecture contradicts the options.
    """
    found = initial.info.generator
    _require_equal("--base-channels", config.base_channels, _DEFAULT_CHANNELS, found.base_channels)
    _require_equal("--residual-blocks", config.residual_blocks, None, found.residual_blocks)
    resampling = config.resampling or found.resampling
    if "cut" in (resampling, found.resampling):  # Blurs have no weights, other layers have.
        _require_equal("--resampling", resampling, None, found.resampling)
    _require_equal("--norms", config.norms, None, found.norms)
    if config.skips not in (None, found.skips):
        option, found_kind = ("--skips", "no skip") if config.skips else ("--no-skips", "skip")
        raise UsageError(
            f"{option} contradicts --init-from, whose generators have {found_kind} connections",
            "Omit it: the architecture is taken from the checkpoint.",
        )
    return dataclasses.replace(
        config,
        init_from=initial.path.absolute(),
        base_channels=found.base_channels,
        residual_blocks=found.residual_blocks,
        resampling=resampling,
        norms=found.norms,
        skips=found.skips,
    )


def initial_formats(config: TrainConfig, initial: Checkpoint) -> tuple[TrainConfig, BandFormats]:
    """Return the options and the formats of both domains, taken from ``--init-from``.

    Raises:
        UsageError: An option contradicts the checkpoint.
    """
    formats = initial.info.formats
    if _is_reversed(config, initial):
        formats = formats[::-1]
    for domain, band_format in zip("ab", formats, strict=True):
        count = band_format.channels if band_format else 3
        given = getattr(config, f"channels_{domain}")
        _require_equal(f"--channels-{domain}", given, None, count)
        for name in (f"bands_{domain}", f"range_{domain}"):
            if getattr(config, name) is not None:
                raise UsageError(
                    f"{option_name(name)} contradicts --init-from, which has its own",
                    "Omit it: bands and ranges are taken from the checkpoint.",
                )
    if any(formats):
        channels_a, channels_b = (
            band_format.channels if band_format else 3 for band_format in formats
        )
        config = dataclasses.replace(config, channels_a=channels_a, channels_b=channels_b)
    return config, formats


def _is_reversed(config: TrainConfig, initial: Checkpoint) -> bool:
    """Return whether the checkpoint has the same two domains in the other order."""
    return (initial.info.name_a, initial.info.name_b) == (config.name_b, config.name_a)


_DEFAULT_CHANNELS = TrainConfig().base_channels


def _require_trainable(path: Path, info: ModelInfo) -> None:
    if len(info.directions) < len(BOTH_DIRECTIONS):
        raise UsageError(
            f"--init-from {path} has only the generator {info.directions[0]}",
            "Name a checkpoint with both directions: a run folder or its model.safetensors.",
        )
    generator = info.generator
    is_gray = not any(info.formats) and {generator.input_channels, generator.output_channels} != {3}
    if generator.affine_norm or is_gray:
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


def load_initial_generators(model: CycleGAN, config: TrainConfig, initial: Checkpoint) -> None:
    """Load the generators of a checkpoint into a new model.

    If the checkpoint has the same two domains in the other order, the generators are swapped.
    Model files have no discriminators: those keep their random initialization.

    Args:
        model: The model whose generators, and their averages, are overwritten.
        config: The names of the domains.
        initial: The checkpoint.

    Raises:
        CheckpointError: The checkpoint is damaged or was removed.
    """
    sources = BOTH_DIRECTIONS[::-1] if _is_reversed(config, initial) else BOTH_DIRECTIONS
    for network, direction in zip(model.generators().values(), sources, strict=True):
        generator, _ = load_generator(initial, direction)
        with torch.no_grad():
            network.load_state_dict(generator.state_dict())
    if model.averages:
        model.averages.restart()
