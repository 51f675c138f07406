"""From what a user names, or does not name, to a checkpoint file."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from cyclegan_cli.checkpoints.original_names import generator_files
from cyclegan_cli.checkpoints.pretrained import DEFAULT_MODEL, pretrained_file
from cyclegan_cli.config import Which as Which
from cyclegan_cli.errors import CheckpointError, UsageError

MODEL_FILE = "model.safetensors"
BEST_FILE = "best.safetensors"
STATE_FILE = "state.safetensors"
CONFIG_FILE = "config.toml"
HEALTH_FILE = "health.json"
KEPT_FOLDER = "checkpoints"
SAMPLES_FOLDER = "samples"
TABLES = ("metrics.csv", "validation.csv", "kid.csv")
RUNS_FOLDER = Path("runs")
ENVIRONMENT_VARIABLE = "CYCLEGAN_CHECKPOINT"
MODELS_THERE_ARE = (
    "cyclegan train makes one; cyclegan inspect --models lists those that are in the package."
)
HOW_TO_GET_ONE = f"Name one with --checkpoint, or set CYCLEGAN_CHECKPOINT; {MODELS_THERE_ARE}"


def checkpoint_file(path: Path, name: str = MODEL_FILE) -> Path:
    """The checkpoint that a user names: a file, or a run folder that has one.

    A folder with generators of the original implementation or its kin (``latest_net_G_A.pth``) is
    one by itself. What does not exist may be the name of a model in the package.

    Args:
        path: What was named.
        name: Which file of a run folder is meant.

    Raises:
        CheckpointError: There is none.
    """
    refuse_locked(path)
    if os.path.isdir(path):
        if not (path / name).is_file():
            if name == MODEL_FILE and generator_files(path):
                return path
            hint = "Name a run folder that cyclegan train has written."
            if (path / MODEL_FILE).is_file():
                hint = f"It has {MODEL_FILE}, its latest model."
            raise CheckpointError(f"the folder {path} has no {name}", hint)
        return path / name
    if not os.path.exists(path):
        in_package = pretrained_file(str(path)) if name == MODEL_FILE else None
        if in_package is None:
            raise CheckpointError(f"there is no checkpoint {path}", MODELS_THERE_ARE)
        return in_package
    return path


def refuse_locked(folder: Path) -> None:
    """Refuse a folder that may not be looked into.

    Raises:
        CheckpointError: It is one.
    """
    if os.path.isdir(folder) and not os.access(folder, os.R_OK | os.X_OK):
        raise CheckpointError(f"cannot read the folder {folder}: permission denied")


def chosen_checkpoint(path: Path, which: Which) -> Path:
    """The checkpoint that a user names, or the best one of a run folder.

    Raises:
        CheckpointError: There is none.
        UsageError: The best one is asked for of a file.
    """
    if which == "best" and not path.is_dir() and (path.is_file() or pretrained_file(str(path))):
        raise UsageError(
            f"--which best chooses within a run folder, but {path} is a single model",
            "Name a run folder, or leave --which out.",
        )
    return checkpoint_file(path, BEST_FILE if which == "best" else MODEL_FILE)


def default_checkpoint(which: Which = "latest") -> Path:
    """``$CYCLEGAN_CHECKPOINT``, else the newest run below ``./runs``, else the package's model.

    Args:
        which: Which model of the run folder.

    Raises:
        CheckpointError: Neither exists.
        UsageError: The best one is asked for of a file.
    """
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        try:
            return chosen_checkpoint(Path(named), which)
        except (CheckpointError, UsageError) as error:
            raise type(error)(f"${ENVIRONMENT_VARIABLE}: {error.message}", error.hint) from error
    found = [(path.stat().st_mtime, path) for path in RUNS_FOLDER.glob(f"*/{MODEL_FILE}")]
    if not found:
        in_package = pretrained_file(DEFAULT_MODEL) if which == "latest" else None
        if in_package is None:
            raise CheckpointError("there is no checkpoint to translate with", HOW_TO_GET_ONE)
        return in_package
    newest = max(found)[1]
    return chosen_checkpoint(newest.parent, which) if which == "best" else newest


def why_not_resumable(run: Path) -> str:
    """Why a run folder with a ``config.toml`` cannot go on, in one sentence; empty where it can.

    A run without a state begins anew, which is right only where it was ended before it had any
    results: the first are preceded by a checkpoint. Where there are some, beginning anew would
    overwrite them: the state was deleted, not copied, or is on a disk that is not mounted.
    """
    for name in (STATE_FILE, MODEL_FILE, BEST_FILE, KEPT_FOLDER):
        path = run / name
        if path.is_symlink() and not path.exists():
            return f"{path} is a link to {os.readlink(path)}, which does not exist"
    if not (run / STATE_FILE).exists() and (result := next(_results(run), None)):
        return f"{run} has {result.relative_to(run)} but no {STATE_FILE}, the training's state"
    return ""


def _results(run: Path) -> Iterator[Path]:
    """What a training has produced, the best to go on with first; of many such files the last."""
    yield from (path for path in (run / MODEL_FILE, run / BEST_FILE) if path.exists())
    yield from sorted((run / KEPT_FOLDER).glob("*.safetensors"))[-1:]
    yield from (path for path in map(run.joinpath, TABLES) if path.is_file() and _has_rows(path))
    yield from sorted((run / SAMPLES_FOLDER).glob("*.jpg"))[-1:]


def _has_rows(table: Path) -> bool:
    """Whether there is more than the names of the columns; a table that is locked may have some."""
    try:
        with table.open("rb") as stream:
            return any(itertools.islice(stream, 1, 2))
    except OSError:
        return True
