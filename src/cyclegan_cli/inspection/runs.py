"""Run folders: progress, health, last metrics, and disk usage."""

from __future__ import annotations

import csv
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from cyclegan_cli.checkpoints.header import (
    file_size,
    model_info,
    parse_document,
    read_header,
    read_model_info,
    read_state_info,
)
from cyclegan_cli.checkpoints.locate import (
    BEST_FILE,
    CONFIG_FILE,
    HEALTH_FILE,
    MODEL_FILE,
    STATE_FILE,
    why_not_resumable,
)
from cyclegan_cli.errors import CheckpointError
from cyclegan_cli.inspection.checkpoints import listed_weights, model_facts
from cyclegan_cli.inspection.summary import Facts, Request, Summary

HEALTH_SCHEMA = 1
MAX_HEALTH_BYTES = 1_000_000
VERDICT = {"kind": str, "step": int, "sentence": str, "advice": str}


def is_run(path: Path) -> bool:
    """Return whether a folder is a run, with or without a checkpoint."""
    has_begun = (path / CONFIG_FILE).is_file() and (path / "metrics.csv").is_file()
    return has_begun or any((path / name).is_file() for name in (MODEL_FILE, STATE_FILE))


def describe_runs(path: Path, runs: list[Path]) -> Summary:
    """Describe a folder of runs by the progress of each."""
    progress: dict[str, Any] = {}
    for run in runs:
        try:
            progress[run.name] = describe_run(run, Request()).facts.get("progress", "no checkpoint")
        except CheckpointError as error:
            progress[run.name] = error.message
    return Summary(path, "runs", {"runs": progress})


def describe_run(path: Path, request: Request) -> Summary:
    """Describe a run folder.

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
    if (health := _health(path)) is not None:
        facts["health"] = health
    for name, table in (("last_metrics", "metrics.csv"), ("last_validation", "validation.csv")):
        if last := _last_row(path / table):
            facts[name] = last
    if (path / BEST_FILE).exists():
        training = read_model_info(path / BEST_FILE).training
        facts["best"] = {name: training[name] for name in ("step", "swd") if name in training}
    if (path / MODEL_FILE).exists():
        file = path / MODEL_FILE
        header = read_header(file)
        facts |= model_facts(model_info(file, header), header, request)
        facts |= listed_weights(file, header.tensors, request)
    return Summary(path, "run", facts)


def _sizes(folder: Path) -> dict[Path, int]:
    """Return the size of every file; a running training may remove files meanwhile."""
    sizes = {}
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if file.is_file():
                sizes[file] = file.stat().st_size
    return sizes


def _state_facts(path: Path) -> Facts:
    state = read_state_info(path)
    training = state.model.training
    counts = (training.get("pictures_a"), training.get("pictures_b"))
    items = max([1, *(count for count in counts if isinstance(count, int))])
    total = state.train_config().total_steps(items, state.ranks)
    return {
        "progress": {"step": state.step, "of": total},
        "trained_seconds": round(state.seconds, 1),
        **({"processes": state.ranks} if state.ranks > 1 else {}),
    }


def _health(run: Path) -> Facts | None:
    """Return the last health check of a training.

    Returns:
        ``step`` and ``verdicts`` (none: healthy); None if there is no such file, or if it is
        damaged or of another version, because the run is described without it, too.
    """
    path = run / HEALTH_FILE
    try:
        if file_size(path) > MAX_HEALTH_BYTES:
            return None
        document = parse_document(path.read_bytes())
        verdicts = [{key: verdict[key] for key in VERDICT} for verdict in document["verdicts"]]
    except (CheckpointError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    is_known = document.get("schema") == HEALTH_SCHEMA and type(document.get("step")) is int
    if not is_known or any(
        type(v[key]) is not kind for v in verdicts for key, kind in VERDICT.items()
    ):
        return None
    return {"step": document["step"], "verdicts": verdicts}


def _last_row(path: Path) -> dict[str, float | None]:
    if not path.is_file():
        return {}
    with path.open(newline="", errors="replace") as stream:
        last: dict[str, float | None] = {}
        try:
            for row in csv.DictReader(stream):
                values = {name: float(row[name]) for name in row if name != "health"}
                # JSON has neither NaN nor infinity.
                last = {n: value if math.isfinite(value) else None for n, value in values.items()}
        except (TypeError, ValueError, csv.Error):
            pass  # An incomplete row: it is being written, or the run was killed.
    return last
