"""From what a user names, or does not name, to a checkpoint and its description. No torch here."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from cyclegan_cli.checkpoints.header import Direction, Header, ModelInfo, model_info, read_header
from cyclegan_cli.checkpoints.pth import PthGenerator, generator_files, is_torch_file, read_pth
from cyclegan_cli.config import Domains, Which
from cyclegan_cli.errors import CheckpointError, UsageError

MODEL_FILE = "model.safetensors"
BEST_FILE = "best.safetensors"
STATE_FILE = "state.safetensors"
CONFIG_FILE = "config.toml"
HEALTH_FILE = "health.json"
KEPT_FOLDER = "checkpoints"
SAMPLES_FOLDER = "samples"
TABLE_FILES = ("metrics.csv", "validation.csv", "kid.csv")
RUNS_FOLDER = Path("runs")
DEFAULT_MODEL = "day2night"
ENVIRONMENT_VARIABLE = "CYCLEGAN_CHECKPOINT"
AVAILABLE_MODELS = "cyclegan train makes one; cyclegan inspect --models lists those in the package."


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose header has been read.

    Attributes:
        path: A safetensors or ``.pth`` file, or a folder with ``.pth`` files.
        info: The description of its model.
        header: The header of a safetensors file.
        generators: The generators of ``.pth`` files, by direction.
    """

    path: Path
    info: ModelInfo
    header: Header | None = None
    generators: Mapping[Direction, PthGenerator] = dataclasses.field(default_factory=dict)

    def files(self, directions: Iterable[Direction]) -> list[Path]:
        """Return the files that hold the generators of these directions."""
        if not self.generators:
            return [self.path]
        return list(dict.fromkeys(self.generators[direction].file for direction in directions))


def read_checkpoint(path: Path, domains: Domains | None = None) -> Checkpoint:
    """Read the header of a checkpoint.

    Args:
        path: A safetensors file of this program, a ``.pth`` file of the original implementation,
            or a folder with ``latest_net_G_A.pth`` and ``latest_net_G_B.pth``.
        domains: Names of the domains A and B that replace those of the checkpoint.

    Raises:
        CheckpointError: It is damaged or of another program.
    """
    if path.is_dir() or (path.suffix != ".safetensors" and is_torch_file(path)):
        info, generators = read_pth(path)
        checkpoint = Checkpoint(path, info, generators=generators)
    else:
        header = read_header(path)
        checkpoint = Checkpoint(path, model_info(path, header), header)
    if domains is None:
        return checkpoint
    info = dataclasses.replace(checkpoint.info, name_a=domains[0], name_b=domains[1])
    return dataclasses.replace(checkpoint, info=info)


@dataclass(frozen=True)
class Pretrained:
    """A model that comes with the package.

    Attributes:
        name: Its name for ``--checkpoint``.
        path: Its file.
        card: Its model card.
        facts: The front matter of the card: ``description``, ``data``, ``licence``.
    """

    name: str
    path: Path
    card: Path
    facts: dict[str, str]


def pretrained_models() -> list[Pretrained]:
    """Return all models in the package, by name."""
    folder = Path(str(resources.files("cyclegan_cli"))) / "pretrained"
    models = []
    for path in sorted(folder.glob("*.safetensors")):
        card = path.with_suffix(".md")
        _, front_matter, _ = card.read_text(encoding="utf-8").split("---\n", 2)
        facts = dict(line.split(": ", 1) for line in front_matter.splitlines())
        models.append(Pretrained(path.stem, path, card, facts))
    return models


def pretrained_file(name: str) -> Path | None:
    """Return the file of the model in the package that has this name."""
    return next((model.path for model in pretrained_models() if model.name == name), None)


def checkpoint_file(path: Path, name: str = MODEL_FILE) -> Path:
    """Return the checkpoint that a user names: a file, or the one in a run folder.

    A folder with generators of the original implementation (``latest_net_G_A.pth``) is itself a
    checkpoint. A path that does not exist may be the name of a model in the package.

    Args:
        path: The path or name.
        name: The file of a run folder.

    Raises:
        CheckpointError: There is no checkpoint.
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
            raise CheckpointError(f"there is no checkpoint {path}", AVAILABLE_MODELS)
        return in_package
    return path


def refuse_locked(folder: Path) -> None:
    """Check that a folder, if it is one, can be listed.

    Raises:
        CheckpointError: Permission is denied.
    """
    if os.path.isdir(folder) and not os.access(folder, os.R_OK | os.X_OK):
        raise CheckpointError(f"cannot read the folder {folder}: permission denied")


def chosen_checkpoint(path: Path, which: Which) -> Path:
    """Return the checkpoint that a user names, or the best one of a run folder.

    Raises:
        CheckpointError: There is no checkpoint.
        UsageError: The best one of a single file is requested.
    """
    if which == "best" and not path.is_dir() and (path.is_file() or pretrained_file(str(path))):
        raise UsageError(
            f"--which best chooses within a run folder, but {path} is a single model",
            "Name a run folder, or omit --which.",
        )
    return checkpoint_file(path, BEST_FILE if which == "best" else MODEL_FILE)


def default_checkpoint(which: Which = "latest") -> Path:
    """Return ``$CYCLEGAN_CHECKPOINT``, else the newest run in ``./runs``, else the package's model.

    Args:
        which: The latest or the best model of a run folder.

    Raises:
        CheckpointError: There is none of them.
        UsageError: The best one of a single file is requested.
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
            raise CheckpointError(
                "there is no checkpoint to translate with",
                f"Name one with --checkpoint, or set CYCLEGAN_CHECKPOINT; {AVAILABLE_MODELS}",
            )
        return in_package
    newest = max(found)[1]
    return chosen_checkpoint(newest.parent, which) if which == "best" else newest


def why_not_resumable(run: Path) -> str:
    """Return why a run folder with a ``config.toml`` cannot be resumed; empty if it can.

    A run without a state starts from scratch, which is correct only if it ended before it had
    results: a checkpoint precedes the first. Otherwise starting would overwrite them: the state
    was deleted or not copied, or is on a disk that is not mounted.
    """
    for name in (STATE_FILE, MODEL_FILE, BEST_FILE, KEPT_FOLDER):
        path = run / name
        if path.is_symlink() and not path.exists():
            return f"{path} is a link to {os.readlink(path)}, which does not exist"
    if not (run / STATE_FILE).exists() and (result := next(_results(run), None)):
        return f"{run} has {result.relative_to(run)} but no {STATE_FILE}, the training's state"
    return ""


def remaining_models(run: Path) -> Iterator[Path]:
    """Yield the models of a run, the one to continue from first; of numbered ones the last."""
    yield from (path for path in (run / MODEL_FILE, run / BEST_FILE) if path.exists())
    yield from sorted((run / KEPT_FOLDER).glob("*.safetensors"))[-1:]


def _results(run: Path) -> Iterator[Path]:
    yield from remaining_models(run)
    yield from (
        path for path in map(run.joinpath, TABLE_FILES) if path.is_file() and _has_rows(path)
    )
    yield from sorted((run / SAMPLES_FOLDER).glob("*.jpg"))[-1:]


def _has_rows(table: Path) -> bool:
    """Return whether a table has more than its header; assume so if it cannot be read."""
    try:
        with table.open("rb") as stream:
            return any(itertools.islice(stream, 1, 2))
    except OSError:
        return True
