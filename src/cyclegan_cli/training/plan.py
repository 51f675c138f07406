"""Everything that a training needs to know before its first step, decided and checked."""

from __future__ import annotations

import codecs
import dataclasses
import hashlib
import itertools
import math
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from cyclegan_cli.checkpoints.header import StateInfo, read_model_info, read_state_info
from cyclegan_cli.checkpoints.locate import (
    BEST_FILE,
    CONFIG_FILE,
    KEPT_FOLDER,
    MODEL_FILE,
    RUNS_FOLDER,
    STATE_FILE,
    checkpoint_file,
    refuse_locked,
    why_not_resumable,
)
from cyclegan_cli.config import (
    TrainConfig,
    is_domain_name,
    layered,
    option_name,
    typed_values,
)
from cyclegan_cli.data.cache import CachePlan, plan_cache
from cyclegan_cli.errors import CheckpointError, UsageError
from cyclegan_cli.files import is_temporary
from cyclegan_cli.runtime.devices import choose_device, choose_precision, device_for_rank
from cyclegan_cli.runtime.distributed_env import SINGLE_PROCESS, DistributedEnv
from cyclegan_cli.runtime.threads import available_cores
from cyclegan_cli.training.domains import Domains, find_images, is_utf8, relative_name
from cyclegan_cli.training.fine_tuning import with_its_architecture
from cyclegan_cli.training.lock import LOCK_FILE

LENGTHS = {"steps", "epochs", "decay_epochs"}  # The options that say how long a run is.


@dataclass(frozen=True)
class Plan:
    """A training that can start.

    Attributes:
        config: The options, with everything derived filled in.
        run_dir: The run folder.
        domains: Paths of all images.
        device: Where to compute.
        resumed: What to go on from; None for a new run.
        warnings: Sentences for the user.
        env: This process among those that train together.
    """

    config: TrainConfig
    run_dir: Path
    domains: Domains
    device: torch.device
    resumed: StateInfo | None = None
    warnings: tuple[str, ...] = ()
    env: DistributedEnv = SINGLE_PROCESS

    @property
    def images_a(self) -> list[Path]:
        """Paths of domain A that are trained on, in listing order."""
        return self.domains.images_a

    @property
    def images_b(self) -> list[Path]:
        """Likewise of domain B."""
        return self.domains.images_b

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
        """Whether there are held-out images, and they are measured."""
        return bool(self.config.validate_every and self.domains.held_out_a)

    @property
    def workers(self) -> int:
        """Threads that load images ahead."""
        if self.config.workers is not None:
            return self.config.workers
        return min(4, max(1, available_cores() // (2 * self.env.local_world_size)))

    @cached_property
    def cache(self) -> CachePlan:
        """How many images are kept in memory."""
        images = len(self.images_a) + len(self.images_b)
        return plan_cache(self.config, images, processes=self.env.local_world_size)

    @property
    def epoch_items(self) -> int:
        """Images a domain in an epoch: one pass over the larger domain."""
        return max(len(self.images_a), len(self.images_b))

    @property
    def first_step(self) -> int:
        """Steps already done."""
        return self.resumed.step if self.resumed else 0

    @property
    def step_items(self) -> int:
        """Images a domain in a step, on all devices together."""
        return self.config.batch_size * self.env.world_size

    @property
    def first_item(self) -> int:
        """Images a domain that were learned from in the steps already done."""
        if self.resumed is None or self.resumed.items is None:
            return self.first_step * self.config.batch_size
        return self.resumed.items

    def items_of(self, step: int) -> int:
        """Images a domain that are learned from in the first ``step`` steps."""
        return self.first_item + (step - self.first_step) * self.step_items

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        if self.config.steps is not None or not self.first_item:
            return self.config.total_steps(self.epoch_items, self.env.world_size)
        # The steps done may have been on another number of devices.
        items = (self.config.epochs + self.config.decay_epochs) * self.epoch_items
        return self.first_step + math.ceil((items - self.first_item) / self.step_items)

    @property
    def is_complete(self) -> bool:
        """Whether a resumed run has nothing left to do."""
        if self.resumed is None or self.first_step < self.total_steps:
            return False
        return model_is_of_step(self.run_dir, self.first_step)

    @property
    def falling_steps(self) -> int:
        """Steps in which the learning rate falls, the last ones."""
        return self.config.falling_steps(self.epoch_items, self.env.world_size)

    @property
    def constant_steps(self) -> int:
        """Steps at the full learning rate, before it begins to fall."""
        return self.total_steps - self.falling_steps

    @cached_property
    def images_digest(self) -> str:
        """SHA-256 of all images' names: by it a resumed run sees that the folders changed."""
        digest = hashlib.sha256()
        for folder, images in (
            (self.config.domain_a, self.images_a),
            (self.config.domain_b, self.images_b),
        ):
            for path in images:
                digest.update(relative_name(path, folder) + b"\0")
            digest.update(b"\0")
        return digest.hexdigest()

    def epoch_of(self, step: int) -> float:
        """Passes over the larger domain after ``step`` steps."""
        return self.items_of(step) / self.epoch_items

    def learning_rate_at(self, step: int) -> float:
        """The rate of step ``step``; 0 is the first."""
        return self.config.learning_rate_at(step, self.total_steps, self.falling_steps)


def plan_new(config: TrainConfig, env: DistributedEnv = SINGLE_PROCESS) -> Plan:
    """Plan a new run.

    Args:
        config: The options.
        env: This process among those that train together.

    Raises:
        UsageError: A domain or a package is missing, or the run folder is in use.
        DataError: A folder is missing or has no images.
        DeviceError: The device is missing.
        CheckpointError: There is nothing that ``--init-from`` could begin with.
    """
    _require_extras(config)
    device = _device(config, env)
    domains = find_images(_with_absolute_paths(config))
    config = _completed(config, device)
    run_dir = _run_folder(config)
    if not is_utf8(run_dir):
        raise UsageError(f"--run-dir: the name {str(run_dir)!r} is not valid UTF-8", "Rename it.")
    config = dataclasses.replace(config, run_dir=run_dir)
    return Plan(config, run_dir, domains, device, env=env)


def plan_restarted(config: TrainConfig, env: DistributedEnv) -> Plan:
    """Plan what torchrun has started again, with the same options, after a process had failed.

    It goes on with the run folder that has these options: the one named, else the last numbered
    one. Where the failure came before there was any, it is a new run.

    Raises:
        CycleGANError: As for a new run or a resumed one.
    """
    wanted = _completed(config, _device(config, env))
    run = wanted.run_dir or _last_numbered(wanted)
    if run is None or not (run / CONFIG_FILE).is_file():
        return plan_new(config, env)
    _, saved = _saved_state(run)
    one, other = (dataclasses.replace(c, run_dir=None).to_document() for c in (wanted, saved))
    return plan_resumed(run, {}, env) if one == other else plan_new(config, env)


def _completed(config: TrainConfig, device: torch.device) -> TrainConfig:
    """With everything filled in that follows from other options, but for the run folder."""
    config = with_its_architecture(_with_names(_with_absolute_paths(config)))
    return dataclasses.replace(
        config,
        residual_blocks=config.generator_blocks,
        precision=choose_precision(config.precision, device),
    )


def plan_resumed(
    run: Path, changes: Mapping[str, Any], env: DistributedEnv = SINGLE_PROCESS
) -> Plan:
    """Plan to go on with a run from its last saved state.

    Args:
        run: The run folder.
        changes: Options that the user gave beside ``--resume``.
        env: This process among those that train together.

    Raises:
        UsageError: An option cannot be changed in the middle of a run, fewer steps are asked for
            than it has made, or a package is missing.
        CheckpointError: There is no such run, or its state is damaged.
        DataError: A folder is missing or has no images.
        DeviceError: The device is missing.
    """
    run = _run_of(run)
    info, before = _saved_state(run)
    _refuse_fixed(before, changes)
    config = TrainConfig(**layered(vars(before), changes) | {"run_dir": run})
    _require_extras(config)
    config = _with_absolute_paths(config)
    device = _device(config, env)
    config = dataclasses.replace(config, precision=choose_precision(config.precision, device))
    plan = Plan(config, run, find_images(config), device, resumed=info, env=env)
    if info is None:
        again = f"{run} was ended before it had any results, and begins again"
        return dataclasses.replace(plan, warnings=(again,))
    shortened = LENGTHS & {name for name in changes if changes[name] != getattr(before, name)}
    if shortened and plan.total_steps < plan.first_step:
        options = " and ".join(option_name(name) for name in sorted(shortened))
        raise UsageError(
            f"{options}: {run} has done {plan.first_step} steps, more than the "
            f"{plan.total_steps} asked for",
            "To train it further, resume with more --steps or --epochs.",
        )
    return dataclasses.replace(plan, warnings=tuple(_what_has_changed(plan, info)))


def _what_has_changed(plan: Plan, info: StateInfo) -> Iterator[str]:
    if plan.images_digest != info.images:
        yield (
            "the images in the two folders are not the ones that the run began with: "
            "it goes on with those found now"
        )
    if plan.env.world_size != info.ranks:
        yield (
            f"the run was saved by {info.ranks} processes and goes on with "
            f"{plan.env.world_size}: a step has {plan.step_items} images of each domain now, "
            "and replay pools begin empty or are left out"
        )


def _run_of(path: Path) -> Path:
    """The run folder that ``--resume`` means: it, or that of the state file which is named.

    Raises:
        UsageError: Another file is named.
        CheckpointError: There is no such folder, or it may not be read.
    """
    run = path.parent if path.name == STATE_FILE and not os.path.isdir(path) else path
    if os.path.islink(run) and not os.path.exists(run):
        raise CheckpointError(
            f"--resume {run} is a link to {os.readlink(run)}, which does not exist",
            "Mount its disk, or name the run folder itself.",
        )
    if not os.path.exists(run):
        raise CheckpointError(
            f"--resume: there is no run folder {run}", "Name one that cyclegan train has written."
        )
    if not os.path.isdir(run):
        raise UsageError(
            f"--resume {run} is a file, not a run folder", f"Name its folder: {run.parent}."
        )
    refuse_locked(run)
    return run


def _device(config: TrainConfig, env: DistributedEnv) -> torch.device:
    return choose_device(device_for_rank(config.device, env.local_rank, env.local_world_size))


def model_is_of_step(run: Path, step: int) -> bool:
    """Whether a run's model file is whole and of this step; a crash may have come between."""
    try:
        return read_model_info(run / MODEL_FILE).training.get("step") == step
    except CheckpointError:
        return False


def _require_extras(config: TrainConfig) -> None:
    for name, package, extra in (
        ("tensorboard", "tensorboard", "tensorboard"),
        ("kid", "torch-fidelity", "metrics"),
    ):
        if getattr(config, name) and find_spec(package.replace("-", "_")) is None:
            raise UsageError(
                f"--{name} needs the package {package}, which is not installed",
                f"Install the extra [{extra}]: pip install {package}; or give --no-{name}.",
            )


def _saved_state(run: Path) -> tuple[StateInfo | None, TrainConfig]:
    """What a run was saved with; one killed before it had any results has only its options."""
    if reason := why_not_resumable(run):
        raise CheckpointError(reason, _without_state(run))
    options = run / CONFIG_FILE
    if options.is_file() and not (run / STATE_FILE).exists():
        return None, read_config_file(options)
    info = read_state_info(checkpoint_file(run, STATE_FILE))
    return info, info.train_config()


def _without_state(run: Path) -> str:
    """What can be done where a run's state is missing."""
    begin = f"begin a new run with its options: --config {run / CONFIG_FILE}"
    kept = sorted((run / KEPT_FOLDER).glob("*.safetensors"))
    for path in (run / MODEL_FILE, run / BEST_FILE, *kept[-1:]):
        if path.exists():
            begin = f"begin a new run with the weights that are left: --init-from {path}"
            break
    return f"Put the file back (or mount its disk), or {begin}."


def read_config_file(path: Path) -> TrainConfig:
    """The options in a ``config.toml``.

    Raises:
        UsageError: It cannot be read, or sets something that is no option or makes no sense.
    """
    return TrainConfig(**read_config_values(path))


def read_config_values(path: Path) -> dict[str, Any]:
    """The options that a TOML file sets, with their types checked.

    Raises:
        UsageError: It cannot be read, or sets something that is no option.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {(error.strerror or '').lower()}") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UsageError(f"{path} is not valid TOML: it is UTF-16", "Save it as UTF-8.")
    try:
        document = tomllib.loads(content.removeprefix(codecs.BOM_UTF8).decode())
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not valid TOML: byte {error.start} is not UTF-8", "Save it as UTF-8."
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error
    return typed_values(document, str(path))


def _refuse_fixed(before: TrainConfig, changes: Mapping[str, Any]) -> None:
    for field in dataclasses.fields(TrainConfig):
        fixed = not field.metadata["on_resume"]
        if field.name in changes and fixed and changes[field.name] != getattr(before, field.name):
            raise UsageError(
                f"{option_name(field.name)} cannot be changed by --resume: the run has "
                f"{getattr(before, field.name)}",
                "Leave it out, or start a new run.",
            )


def _with_names(config: TrainConfig) -> TrainConfig:
    """Name the domains after their folders, where the user did not; equal names get _a and _b."""
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
    """So that the run can be resumed from anywhere."""
    paths = {name: getattr(config, name) for name in ("domain_a", "domain_b", "val_a", "val_b")}
    return dataclasses.replace(config, **{n: p.absolute() for n, p in paths.items() if p})


def _folder_name(folder: Path | None) -> str:
    return (folder.resolve().name if folder else "") or "domain"


def _run_folder(config: TrainConfig) -> Path:
    """The folder for a new run: the user's choice if it is free, else the first free number."""
    if config.run_dir is not None:
        if _is_taken(config.run_dir):
            raise UsageError(
                f"--run-dir {config.run_dir} already exists and is not empty",
                "Go on with it by --resume, or name another folder.",
            )
        return config.run_dir
    return next(folder for folder in _numbered(config) if not _is_taken(folder))


def _last_numbered(config: TrainConfig) -> Path | None:
    """The folder that a run without ``--run-dir`` was given last."""
    taken = list(itertools.takewhile(_is_taken, _numbered(config)))
    return taken[-1] if taken else None


def _numbered(config: TrainConfig) -> Iterator[Path]:
    first = RUNS_FOLDER / f"{config.name_a}2{config.name_b}"
    yield first
    for number in itertools.count(2):
        yield first.with_name(f"{first.name}-{number}")


def _is_taken(folder: Path) -> bool:
    """Whether there is more than what a training that was killed as it began leaves."""
    if not folder.is_dir():
        return folder.exists()
    names = (path.name for path in folder.iterdir())
    return any(name != LOCK_FILE and not is_temporary(name) for name in names)
