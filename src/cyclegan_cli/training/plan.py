"""The plan of a training: resolved options, images, device and the state to resume from."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from cyclegan_cli.checkpoints.header import OLDER_OPTIONS, StateInfo, read_state_info
from cyclegan_cli.checkpoints.locate import (
    CONFIG_FILE,
    STATE_FILE,
    Checkpoint,
    checkpoint_file,
    why_not_resumable,
)
from cyclegan_cli.config import (
    BandFormats,
    TrainConfig,
    is_domain_name,
    layered,
    option_name,
    parse_bands,
    typed_values,
)
from cyclegan_cli.data.cache import CachePlan, plan_cache
from cyclegan_cli.data.domain import find_format
from cyclegan_cli.errors import CheckpointError, UsageError
from cyclegan_cli.runtime.devices import choose_device, choose_precision, device_for_rank
from cyclegan_cli.runtime.distributed_env import SINGLE_PROCESS, DistributedEnv
from cyclegan_cli.runtime.threads import available_cores
from cyclegan_cli.training.fine_tuning import initial_formats, read_initial, with_architecture
from cyclegan_cli.training.run_dir import (
    find_run,
    hint_without_state,
    last_run_dir,
    model_is_of_step,
    new_run_dir,
)
from cyclegan_cli.training.split import DataSplit, is_utf8, relative_name, split_images

LENGTH_OPTIONS = {"steps", "epochs", "decay_epochs"}


@dataclass(frozen=True)
class Plan:
    """A training that is ready to start.

    Attributes:
        config: The options, with all derived ones filled in.
        run_dir: The run folder.
        split: Paths of the training and validation images.
        device: The device to train on.
        resumed: Description of the state to resume from; None for a new run.
        warnings: Warnings to show to the user.
        env: The rank of this process.
        initial: The checkpoint that a new run starts from; None for random initialization.
        formats: How the images of domain A and B are read; None: as RGB.
        notes: Messages about the data, for the log.
    """

    config: TrainConfig
    run_dir: Path
    split: DataSplit
    device: torch.device
    resumed: StateInfo | None = None
    warnings: tuple[str, ...] = ()
    env: DistributedEnv = SINGLE_PROCESS
    initial: Checkpoint | None = None
    formats: BandFormats = (None, None)
    notes: tuple[str, ...] = ()

    @property
    def images_a(self) -> list[Path]:
        """Training images of domain A."""
        return self.split.images_a

    @property
    def images_b(self) -> list[Path]:
        """Training images of domain B."""
        return self.split.images_b

    @property
    def name_a(self) -> str:
        """Name of domain A."""
        return self.config.name_a or "a"

    @property
    def name_b(self) -> str:
        """Name of domain B."""
        return self.config.name_b or "b"

    @property
    def bf16(self) -> bool:
        """Whether convolutions run in bfloat16."""
        return self.config.precision == "bf16"

    @property
    def validates(self) -> bool:
        """Whether there is a validation set."""
        return bool(self.config.validate_every and self.split.val_a)

    @property
    def workers(self) -> int:
        """Number of threads that load images."""
        if self.config.workers is not None:
            return self.config.workers
        return min(4, max(1, available_cores() // (2 * self.env.local_world_size)))

    @cached_property
    def cache(self) -> CachePlan:
        """The cache of decoded images."""
        images = len(self.images_a) + len(self.images_b)
        has_masks = self.config.mask_a is not None
        sizes = [
            4 * (band_format.channels + has_masks) if band_format else 3 + has_masks
            for band_format in self.formats
        ]
        counts = len(self.images_a), len(self.images_b)
        size = sum(s * count for s, count in zip(sizes, counts, strict=True)) / max(images, 1)
        return plan_cache(
            self.config, images, processes=self.env.local_world_size, pixel_bytes=size
        )

    @property
    def epoch_items(self) -> int:
        """Images per domain in an epoch: one pass over the larger domain."""
        return max(len(self.images_a), len(self.images_b))

    @property
    def first_step(self) -> int:
        """Number of steps already done."""
        return self.resumed.step if self.resumed else 0

    @property
    def step_items(self) -> int:
        """Images per domain in a step, over all ranks."""
        return self.config.batch_size * self.env.world_size

    @property
    def first_item(self) -> int:
        """Images per domain in the steps already done."""
        if self.resumed is None or self.resumed.items is None:
            return self.first_step * self.config.batch_size
        return self.resumed.items

    def items_of(self, step: int) -> int:
        """Return the number of images per domain in the first ``step`` steps."""
        return self.first_item + (step - self.first_step) * self.step_items

    @property
    def total_steps(self) -> int:
        """Number of steps of the whole run."""
        if self.config.steps is not None or not self.first_item:
            return self.config.total_steps(self.epoch_items, self.env.world_size)
        # The steps done may have been made by another number of ranks.
        items = (self.config.epochs + self.config.decay_epochs) * self.epoch_items
        return self.first_step + math.ceil((items - self.first_item) / self.step_items)

    @property
    def is_complete(self) -> bool:
        """Whether a resumed run has no steps left."""
        if self.resumed is None or self.first_step < self.total_steps:
            return False
        return model_is_of_step(self.run_dir, self.first_step)

    @property
    def num_decay_steps(self) -> int:
        """Number of steps of the linear decay of the learning rate, at the end."""
        return self.config.num_decay_steps(self.epoch_items, self.env.world_size)

    @property
    def constant_steps(self) -> int:
        """Number of steps at the full learning rate."""
        return self.total_steps - self.num_decay_steps

    @cached_property
    def images_digest(self) -> str:
        """SHA-256 of the names of all images, by which a resumed run detects other images."""
        folders = (self.config.domain_a, self.images_a), (self.config.domain_b, self.images_b)
        digest = hashlib.sha256()
        for folder, images in folders:
            digest.update(b"".join(relative_name(path, folder) + b"\0" for path in images) + b"\0")
        return digest.hexdigest()

    def epoch_of(self, step: int) -> float:
        """Return the number of epochs after ``step`` steps."""
        return self.items_of(step) / self.epoch_items

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step; 0 is the first."""
        return self.config.learning_rate_at(step, self.total_steps, self.num_decay_steps)

    def color_weight_at(self, step: int) -> float:
        """Return the weight of the color loss in a step; 0 is the first.

        It decays with the cube of the learning rate. Matched colors are approximate, so the end of
        a training is left to the discriminators; but without them, colors change their place while
        the learning rate is high.
        """
        decay = self.learning_rate_at(step) / self.config.learning_rate
        return self.config.color_weight * decay**3

    @property
    def callback_state(self) -> dict[str, Any]:
        """The state of the callbacks in the checkpoint; empty for a new run."""
        return self.resumed.watch if self.resumed else {}


def plan_new(config: TrainConfig, env: DistributedEnv = SINGLE_PROCESS) -> Plan:
    """Plan a new run.

    Args:
        config: The options.
        env: The rank of this process.

    Raises:
        UsageError: A domain or a package is missing, or the run folder is in use.
        DataError: A folder does not exist or has no images.
        DeviceError: The device is not available.
        CheckpointError: ``--init-from`` names no usable checkpoint.
    """
    _require_extras(config)
    device = _device(config, env)
    config = _with_absolute_paths(config)
    split = split_images(config)
    config, initial = _completed(config, device)
    config, formats = _with_formats(config, split, initial)
    run_dir = new_run_dir(config)
    if not is_utf8(run_dir):
        raise UsageError(f"--run-dir: the name {str(run_dir)!r} is not valid UTF-8", "Rename it.")
    config = dataclasses.replace(config, run_dir=run_dir)
    return Plan(
        config,
        run_dir,
        split,
        device,
        env=env,
        initial=initial,
        formats=formats,
        notes=tuple(_format_notes(config, formats)),
    )


def _with_formats(
    config: TrainConfig, split: DataSplit, initial: Checkpoint | None
) -> tuple[TrainConfig, BandFormats]:
    """Find out how the images of both domains are read, and set the numbers of channels."""
    if initial is not None:
        return initial_formats(config, initial)
    formats = (
        find_format(config, "a", [*split.images_a, *split.val_a]),
        find_format(config, "b", [*split.images_b, *split.val_b]),
    )
    if any(formats):
        channels_a, channels_b = (
            band_format.channels if band_format else 3 for band_format in formats
        )
        config = dataclasses.replace(config, channels_a=channels_a, channels_b=channels_b)
    _check_band_options(config, formats)
    return config, formats


def _check_band_options(config: TrainConfig, formats: BandFormats) -> None:
    """Refuse options that have no effect on these domains."""
    if config.kid and any(formats):
        raise UsageError(
            "--kid measures RGB images, and a domain has other images", "Train without --kid."
        )
    counts = [band_format.channels for band_format in formats if band_format]
    shown = parse_bands(config.show_bands, "--show-bands")
    if shown and max(shown) > max(counts, default=0):
        raise UsageError(
            f"--show-bands {config.show_bands}: no domain besides RGB has {max(shown)} channels",
            "Bands are numbered from 1, after --bands-a and --bands-b.",
        )
    if config.nodata is not None and not counts:
        raise UsageError(
            "--nodata is for images that are not RGB, and both domains are RGB",
            "Omit it, or give --range-a 0,255 to read the values as they are.",
        )


def _format_notes(config: TrainConfig, formats: BandFormats) -> Iterator[str]:
    for name, band_format in zip((config.name_a, config.name_b), formats, strict=True):
        if band_format is not None:
            yield f"{name}: {band_format}"
    if config.channels("a") != config.channels("b"):
        yield (
            "the identity and color losses are left out, because the domains differ in channels: "
            f"{config.channels('a')} and {config.channels('b')}"
        )


def plan_restarted(config: TrainConfig, env: DistributedEnv) -> Plan:
    """Plan a training that torchrun has restarted, with the same options, after a failure.

    Resume the run that has these options: ``--run-dir`` or the last numbered directory. If there
    is none, start a new run.

    Raises:
        CycleGANError: As for a new run or a resumed one.
    """
    config = _with_absolute_paths(config)
    wanted, initial = _completed(config, _device(config, env))
    wanted, _ = _with_formats(wanted, split_images(config), initial)
    run = wanted.run_dir or last_run_dir(wanted)
    if run is None or not (run / CONFIG_FILE).is_file():
        return plan_new(config, env)
    _, saved = _saved_state(run)
    one, other = (dataclasses.replace(c, run_dir=None).to_document() for c in (wanted, saved))
    return plan_resumed(run, {}, env) if one == other else plan_new(config, env)


def _completed(config: TrainConfig, device: torch.device) -> tuple[TrainConfig, Checkpoint | None]:
    """Fill in all derived options except the run folder; also return the initial checkpoint."""
    config, initial = _with_names(config), read_initial(config)
    config = with_architecture(config, initial) if initial else config
    blocks, precision = config.generator_blocks, choose_precision(config.precision, device)
    config = dataclasses.replace(
        config,
        residual_blocks=blocks,
        resampling=config.generator.resampling,
        norms=config.generator.norms,
        skips=config.generator.skips,
        precision=precision,
    )
    return config, initial


def plan_resumed(
    run: Path, changes: Mapping[str, Any], env: DistributedEnv = SINGLE_PROCESS
) -> Plan:
    """Plan to resume a run from its last checkpoint.

    Args:
        run: The run folder.
        changes: Options given in addition to ``--resume``.
        env: The rank of this process.

    Raises:
        UsageError: An option cannot change during a run, the run has more steps than requested,
            or a package is missing.
        CheckpointError: The run does not exist, or its state is damaged.
        DataError: A folder does not exist or has no images.
        DeviceError: The device is not available.
    """
    run = find_run(run)
    info, before = _saved_state(run)
    _check_changes(before, changes)
    config = TrainConfig(**layered(vars(before), changes) | {"run_dir": run})
    _require_extras(config)
    config = _with_absolute_paths(config)
    device = _device(config, env)
    config = dataclasses.replace(config, precision=choose_precision(config.precision, device))
    plan = Plan(config, run, split_images(config), device, resumed=info, env=env)
    if info is None:
        initial = read_initial(config)
        config, formats = _with_formats(config, plan.split, initial)
        plan = dataclasses.replace(plan, initial=initial, config=config, formats=formats)
        restarts = f"{run} was stopped before its first checkpoint and starts again"
        return dataclasses.replace(plan, warnings=(restarts,))
    plan = dataclasses.replace(plan, formats=info.model.formats)
    _check_band_options(config, plan.formats)
    shortened = LENGTH_OPTIONS & {
        name for name in changes if changes[name] != getattr(before, name)
    }
    if shortened and plan.total_steps < plan.first_step:
        options = " and ".join(option_name(name) for name in sorted(shortened))
        raise UsageError(
            f"{options}: {run} has done {plan.first_step} steps, more than the "
            f"{plan.total_steps} requested",
            "Give more --steps or --epochs.",
        )
    return dataclasses.replace(plan, warnings=tuple(_changes_since(plan, info)))


def _changes_since(plan: Plan, info: StateInfo) -> Iterator[str]:
    if plan.images_digest != info.images:
        yield (
            "the two folders have other images than when the run started: training continues "
            "with the present ones"
        )
    if plan.env.world_size != info.ranks:
        yield (
            f"the run was saved by {info.ranks} processes and continues with "
            f"{plan.env.world_size}: a step now has {plan.step_items} images of each domain, "
            "and some replay pools start empty or are dropped"
        )


def _device(config: TrainConfig, env: DistributedEnv) -> torch.device:
    return choose_device(device_for_rank(config.device, env.local_rank, env.local_world_size))


def _require_extras(config: TrainConfig) -> None:
    extras = (("tensorboard", "tensorboard", "tensorboard"), ("kid", "torch-fidelity", "metrics"))
    for name, package, extra in extras:
        if getattr(config, name) and find_spec(package.replace("-", "_")) is None:
            raise UsageError(
                f"--{name} needs the package {package}, which is not installed",
                f"Install the extra [{extra}]: pip install {package}; or give --no-{name}.",
            )


def _saved_state(run: Path) -> tuple[StateInfo | None, TrainConfig]:
    """Return the saved state and options; without a checkpoint, only the options."""
    if reason := why_not_resumable(run):
        raise CheckpointError(reason, hint_without_state(run))
    options = run / CONFIG_FILE
    if options.is_file() and not (run / STATE_FILE).exists():
        return None, TrainConfig(**OLDER_OPTIONS | read_config_values(options))
    info = read_state_info(checkpoint_file(run, STATE_FILE))
    return info, info.train_config()


def read_config_values(path: Path) -> dict[str, Any]:
    """Read the options that a TOML file sets, and check their types.

    Raises:
        UsageError: The file cannot be read, or sets an unknown option.
    """
    try:
        document = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {(error.strerror or '').lower()}") from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not valid TOML: byte {error.start} is not UTF-8", "Save it as UTF-8."
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error
    return typed_values(document, str(path))


def _check_changes(before: TrainConfig, changes: Mapping[str, Any]) -> None:
    for field in dataclasses.fields(TrainConfig):
        fixed = not field.metadata["on_resume"]
        if field.name in changes and fixed and changes[field.name] != getattr(before, field.name):
            raise UsageError(
                f"{option_name(field.name)} cannot be changed by --resume: the run has "
                f"{getattr(before, field.name)}",
                "Omit it, or start a new run.",
            )


def _with_names(config: TrainConfig) -> TrainConfig:
    """Name unnamed domains after their folders; equal names get the suffixes _a and _b."""
    name_a = config.name_a or _folder_name(config.domain_a)
    name_b = config.name_b or _folder_name(config.domain_b)
    if name_a == name_b:
        if config.name_a and config.name_b:
            raise UsageError(f"--name-a and --name-b are both {name_a!r}", "Give them two names.")
        name_a, name_b = f"{name_a}_a", f"{name_b}_b"
    for option, name in (("--name-a", name_a), ("--name-b", name_b)):
        if not is_domain_name(name):
            raise UsageError(
                f"{option} {name!r} cannot be part of a file name", "Use letters, digits, - and _."
            )
    return dataclasses.replace(config, name_a=name_a, name_b=name_b)


def _with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """Make paths absolute, so that the run can be resumed from any directory."""
    names = ("domain_a", "domain_b", "val_a", "val_b", "mask_a", "mask_b")
    paths = {name: getattr(config, name) for name in names}
    return dataclasses.replace(config, **{n: p.absolute() for n, p in paths.items() if p})


def _folder_name(folder: Path | None) -> str:
    return (folder.resolve().name if folder else "") or "domain"
