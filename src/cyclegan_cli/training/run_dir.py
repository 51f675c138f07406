"""The run folder: its name, its lock, and what a resumed run finds in it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import tomli_w

from cyclegan_cli import files
from cyclegan_cli.checkpoints.header import StateInfo, read_model_info, read_state_info
from cyclegan_cli.checkpoints.locate import (
    CONFIG_FILE,
    MODEL_FILE,
    RUNS_FOLDER,
    STATE_FILE,
    refuse_locked,
    remaining_models,
)
from cyclegan_cli.config import TrainConfig
from cyclegan_cli.errors import CheckpointError, OutputError, UsageError

LOCK_FILE = ".lock"


class RunDirectory:
    """The directory that a training writes to. Only one process at a time has it open.

    The system releases the lock when the process ends. The lock file remains.

    Args:
        path: The directory; :meth:`open` creates it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor: int | None = None  # Of the locked file.

    @property
    def is_open(self) -> bool:
        """Whether this process holds the lock of the directory."""
        return self.descriptor is not None

    def open(self, config: TrainConfig, resumed: StateInfo | None) -> None:
        """Create and lock the directory, and write ``config.toml``.

        Raises:
            OutputError: The directory cannot be written.
            UsageError: Another training uses it, or has used it since the training was planned.
        """
        files.make_folder(self.path)
        self.lock()
        try:
            self._check_step(resumed)
            files.remove_leftovers(self.path)
            # A run that is killed before its first checkpoint resumes from this file alone. It
            # does not name its own directory, so that --config accepts it for a new run.
            options = config.to_document()
            options.pop("run_dir", None)
            files.write_text(self.path / CONFIG_FILE, tomli_w.dumps(options))
        except BaseException:
            self.close()
            raise

    def lock(self) -> None:
        """Lock the directory, which exists.

        Raises:
            UsageError: Another process holds the lock.
            OutputError: The lock file cannot be created.
        """
        path = self.path / LOCK_FILE
        try:
            self.descriptor = files.lock_file(path)
        except BlockingIOError as error:
            raise UsageError(
                f"another training is running in {self.path}",
                "Wait for it or stop it, or choose another folder with --run-dir.",
            ) from error
        except OSError as error:
            raise OutputError(f"cannot write {path}: {(error.strerror or '').lower()}") from error

    def _check_step(self, resumed: StateInfo | None) -> None:
        path = self.path / STATE_FILE
        expected = resumed.step if resumed else None
        found = read_state_info(path).step if path.exists() else None
        if found != expected:
            raise UsageError(
                f"another training has just saved {path}, at step {found}",
                "Run the command again to resume from there.",
            )

    def file(self, name: str) -> Path:
        """Return the path of a file in the directory, for writing.

        Raises:
            OutputError: The directory was removed or replaced.
        """
        self.check()
        return self.path / name

    def check(self) -> None:
        """Check that the directory is still the one that was locked.

        Raises:
            OutputError: The directory was removed or replaced.
        """
        try:
            found = os.stat(self.path / LOCK_FILE)
            if self.descriptor is not None and os.path.samestat(found, os.fstat(self.descriptor)):
                return
        except OSError:
            pass
        raise OutputError(
            f"the run folder {self.path} was removed or replaced during the training",
            "Nothing more can be saved in it: start again, or resume from a copy.",
        )

    def close(self) -> None:
        """Release the directory."""
        if self.descriptor is not None:
            os.close(self.descriptor)
        self.descriptor = None


def new_run_dir(config: TrainConfig) -> Path:
    """Return the directory of a new run: ``--run-dir`` or the first free number.

    Raises:
        UsageError: ``--run-dir`` is in use.
    """
    if config.run_dir is None:
        return next(folder for folder in _numbered(config) if not _is_used(folder))
    if _is_used(config.run_dir):
        raise UsageError(
            f"--run-dir {config.run_dir} already exists and is not empty",
            "Resume it with --resume, or choose another folder.",
        )
    return config.run_dir


def last_run_dir(config: TrainConfig) -> Path | None:
    """Return the last numbered directory of runs without ``--run-dir``."""
    used = list(itertools.takewhile(_is_used, _numbered(config)))
    return used[-1] if used else None


def _numbered(config: TrainConfig) -> Iterator[Path]:
    first = RUNS_FOLDER / f"{config.name_a}2{config.name_b}"
    yield first
    for number in itertools.count(2):
        yield first.with_name(f"{first.name}-{number}")


def _is_used(folder: Path) -> bool:
    """Return whether it holds more than the files of a training killed at its start."""
    if not folder.is_dir():
        return folder.exists()
    names = (path.name for path in folder.iterdir())
    return any(name != LOCK_FILE and not files.is_temporary(name) for name in names)


def find_run(path: Path) -> Path:
    """Return the run folder that ``--resume`` names, itself or by its state file.

    Raises:
        UsageError: The path is another file.
        CheckpointError: The directory does not exist or cannot be read.
    """
    run = path.parent if path.name == STATE_FILE and not os.path.isdir(path) else path
    if os.path.islink(run) and not os.path.exists(run):
        raise CheckpointError(
            f"--resume {run} is a link to {os.readlink(run)}, which does not exist",
            "Mount its disk, or name the run folder itself.",
        )
    if not os.path.exists(run):
        raise CheckpointError(
            f"--resume: there is no run folder {run}",
            "Name one that cyclegan train has written.",
        )
    if not os.path.isdir(run):
        raise UsageError(
            f"--resume {run} is a file, not a run folder", f"Name its folder: {run.parent}."
        )
    refuse_locked(run)
    return run


def model_is_of_step(run: Path, step: int) -> bool:
    """Return whether the model of a run is complete and of this step, as its state is."""
    try:
        return read_model_info(run / MODEL_FILE).training.get("step") == step
    except CheckpointError:
        return False


def hint_without_state(run: Path) -> str:
    """Return what the user can do if the state of a run is missing."""
    begin = f"start a new run with its options: --config {run / CONFIG_FILE}"
    if model := next(remaining_models(run), None):
        begin = f"start a new run from the remaining weights: --init-from {model}"
    return f"Put the file back (or mount its disk), or {begin}."
