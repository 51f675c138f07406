"""Run folders: how far and how well they are, what they measured last, what disk they take."""

from __future__ import annotations

import csv
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from cyclegan_cli.checkpoints.container import read_header
from cyclegan_cli.checkpoints.header import model_info, state_info
from cyclegan_cli.checkpoints.locate import (
    BEST_FILE,
    CONFIG_FILE,
    MODEL_FILE,
    STATE_FILE,
    why_not_resumable,
)
from cyclegan_cli.errors import CheckpointError
from cyclegan_cli.inspection.checkpoints import listed, model_facts
from cyclegan_cli.inspection.health import health_of
from cyclegan_cli.inspection.summary import Facts, Request, Summary


def is_run(path: Path) -> bool:
    """Whether a folder is a run, also one that has no checkpoint yet."""
    begun = (path / CONFIG_FILE).is_file() and (path / "metrics.csv").is_file()
    return begun or any((path / name).is_file() for name in (MODEL_FILE, STATE_FILE))


def describe_runs(path: Path, runs: list[Path]) -> Summary:
    """A folder of runs: how far each of them is."""
    return Summary(path, "runs", {"runs": {run.name: _progress(run) for run in runs}})


def _progress(run: Path) -> Any:
    try:
        return describe_run(run, Request()).facts.get("progress", "no checkpoint")
    except CheckpointError as error:
        return error.message


def describe_run(path: Path, request: Request) -> Summary:
    """A run folder.

    Raises:
        CheckpointError: One of its checkpoints is damaged.
    """
    sizes = _sizes(path)
    samples = [file for file in sizes if file.parent.name == "samples"]
    facts: Facts = {
        "bytes": sum(sizes.values()),
        "disk": {
            name: (path / name).stat().st_size
            for name in (MODEL_FILE, BEST_FILE, STATE_FILE)
            if (path / name).is_file()
        }
        | {"samples": sum(sizes[file] for file in samples)},
        "resumable": any((path / name).is_file() for name in (STATE_FILE, CONFIG_FILE))
        and not why_not_resumable(path),
        "samples": len(samples),
    }
    if (path / STATE_FILE).exists():
        facts |= _state_facts(path / STATE_FILE)
    if (health := health_of(path)) is not None:
        facts["health"] = health
    for name, table in (("last_metrics", "metrics.csv"), ("last_validation", "validation.csv")):
        if last := _last_row(path / table):
            facts[name] = last
    if (path / BEST_FILE).exists():
        facts["best"] = _best(path / BEST_FILE)
    if (path / MODEL_FILE).exists():
        header = read_header(path / MODEL_FILE)
        facts |= model_facts(path / MODEL_FILE, header, request) | listed(
            path / MODEL_FILE, header.tensors, request
        )
    return Summary(path, "run", facts)


def _sizes(folder: Path) -> dict[Path, int]:
    """Bytes of every file; a run that goes on renames and removes its own meanwhile."""
    sizes = {}
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if file.is_file():
                sizes[file] = file.stat().st_size
    return sizes


def _state_facts(path: Path) -> Facts:
    state = state_info(path, read_header(path))
    training = state.model.training
    counts = (training.get("pictures_a"), training.get("pictures_b"))
    items = max([1, *(count for count in counts if isinstance(count, int))])
    total = state.train_config().total_steps(items, state.ranks)
    return {
        "progress": {"step": state.step, "of": total},
        "trained_seconds": round(state.seconds, 1),
        **({"processes": state.ranks} if state.ranks > 1 else {}),
    }


def _best(path: Path) -> Facts:
    training = model_info(path, read_header(path)).training
    return {name: training[name] for name in ("step", "swd") if name in training}


def _last_row(path: Path) -> dict[str, float | None]:
    if not path.is_file():
        return {}
    with path.open(newline="", errors="replace") as stream:
        last: dict[str, float | None] = {}
        try:
            for row in csv.DictReader(stream):
                last = {name: _finite(float(row[name])) for name in row if name != "health"}
        except (TypeError, ValueError, csv.Error):
            pass  # Half a row: the run is being written, or was killed.
    return last


def _finite(value: float) -> float | None:
    """JSON knows neither nan nor infinity."""
    return value if math.isfinite(value) else None
