"""What a file or folder is, in facts. Checkpoints are described without torch, numpy or Pillow."""

from __future__ import annotations

import csv
import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclegan_cli.checkpoints.container import Header, TensorInfo, read_header
from cyclegan_cli.checkpoints.header import (
    FORMAT_NAME,
    model_info,
    state_info,
)
from cyclegan_cli.checkpoints.locate import CONFIG_FILE, MODEL_FILE, STATE_FILE
from cyclegan_cli.errors import CheckpointError, DataError

Facts = dict[str, Any]
MOST_UNREADABLE_LISTED = 20


@dataclass(frozen=True)
class Summary:
    """A description.

    Attributes:
        path: What is described.
        kind: ``run``, ``runs`` (a folder of them), ``model``, ``state``, ``safetensors`` (of
            another program), ``pictures`` (a folder) or ``picture``.
        facts: Plain values by name; fit for JSON.
    """

    path: Path
    kind: str
    facts: Facts

    def to_document(self) -> Facts:
        """As plain values for JSON."""
        return {"path": str(self.path), "kind": self.kind, **self.facts}


def describe(path: Path | str) -> Summary:
    """Describe a run folder or a folder of them, a checkpoint, a folder of pictures or a picture.

    Raises:
        DataError: There is nothing, or nothing that this program knows.
        CheckpointError: A damaged checkpoint.
    """
    path = Path(path)
    if path.is_dir():
        if _is_run(path):
            return _describe_run(path)
        runs = sorted(filter(_is_run, path.iterdir()))
        return _describe_runs(path, runs) if runs else _describe_pictures(path)
    if not path.exists():
        raise DataError(f"there is no file or folder {path}")
    if path.suffix == ".safetensors":
        return _describe_safetensors(path)
    return _describe_picture(path)


def _is_run(path: Path) -> bool:
    begun = (path / CONFIG_FILE).is_file() and (path / "metrics.csv").is_file()
    return begun or any((path / name).is_file() for name in (MODEL_FILE, STATE_FILE))


def _describe_runs(path: Path, runs: list[Path]) -> Summary:
    return Summary(path, "runs", {"runs": {run.name: _progress(run) for run in runs}})


def _progress(run: Path) -> Any:
    try:
        return _describe_run(run).facts.get("progress", "no checkpoint")
    except CheckpointError as error:
        return error.message


def _describe_safetensors(path: Path) -> Summary:
    header = read_header(path)
    facts: Facts = {"bytes": path.stat().st_size}
    if header.document.get("format") != FORMAT_NAME:
        facts |= {"tensors": len(header.tensors), "parameters": _count(header.tensors, "")}
        return Summary(path, "safetensors", facts)
    info = model_info(path, header)
    facts |= _model_facts(path, header)
    if info.kind == "state":
        state = state_info(path, header)
        facts["discriminator"] = vars(state.discriminator) | {
            "parameters": _count(header.tensors, "discriminator_a.")
        }
        facts["trained_seconds"] = round(state.seconds, 1)
    return Summary(path, info.kind, facts)


def _model_facts(path: Path, header: Header) -> Facts:
    info = model_info(path, header)
    return {
        "domains": {"a": info.name_a, "b": info.name_b},
        "generator": vars(info.generator)
        | {"parameters": _count(header.tensors, "generator_a2b.")},
        "dtypes": sorted({tensor.dtype for tensor in header.tensors.values()}),
        "training": info.training,
        "format_version": header.document["version"],
        "versions": info.versions,
    }


def _count(tensors: Mapping[str, TensorInfo], prefix: str) -> int:
    return sum(math.prod(t.shape) for name, t in tensors.items() if name.startswith(prefix))


def _describe_run(path: Path) -> Summary:
    contents = [file for file in path.rglob("*") if file.is_file()]
    facts: Facts = {
        "bytes": sum(file.stat().st_size for file in contents),
        "resumable": (path / STATE_FILE).exists() or (path / CONFIG_FILE).exists(),
        "samples": sum(file.parent.name == "samples" for file in contents),
    }
    if (path / STATE_FILE).exists():
        state = state_info(path / STATE_FILE, read_header(path / STATE_FILE))
        config = state.train_config()
        training = state.model.training
        counts = (training.get("pictures_a"), training.get("pictures_b"))
        items = max([1, *(count for count in counts if isinstance(count, int))])
        facts["progress"] = {"step": state.step, "of": config.total_steps(items)}
        facts["trained_seconds"] = round(state.seconds, 1)
    if last := _last_metrics(path / "metrics.csv"):
        facts["last_metrics"] = last
    if (path / MODEL_FILE).exists():
        facts |= _model_facts(path / MODEL_FILE, read_header(path / MODEL_FILE))
    return Summary(path, "run", facts)


def _last_metrics(path: Path) -> dict[str, float | None]:
    if not path.exists():
        return {}
    with path.open(newline="", errors="replace") as stream:
        last: dict[str, float | None] = {}
        for row in csv.DictReader(stream):
            try:
                last = {name: _finite(float(value)) for name, value in row.items()}
            except (TypeError, ValueError):
                break  # Half a row: the run is being written, or was killed.
    return last


def _finite(value: float) -> float | None:
    """JSON knows neither nan nor infinity."""
    return value if math.isfinite(value) else None


def _describe_pictures(path: Path) -> Summary:
    from cyclegan_cli.data.listing import list_pictures
    from cyclegan_cli.data.opening import probe

    formats: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    sizes: list[tuple[int, int]] = []
    unreadable: list[str] = []
    pictures = list_pictures(path)
    for picture in pictures:
        try:
            found = probe(picture)
        except DataError as error:
            unreadable.append(error.message)
            continue
        formats[found.format] += 1
        modes[found.mode] += 1
        sizes.append((found.width, found.height))
    facts: Facts = {"pictures": len(pictures), "unreadable": len(unreadable)}
    if sizes:
        facts |= {"formats": dict(formats.most_common()), "modes": dict(modes.most_common())}
        facts["short_side"] = _spread([min(size) for size in sizes])
        facts["long_side"] = _spread([max(size) for size in sizes])
    if unreadable:
        facts["problems"] = unreadable[:MOST_UNREADABLE_LISTED]
    return Summary(path, "pictures", facts)


def _spread(values: list[int]) -> Facts:
    measures: dict[str, Callable[[list[int]], float]] = {
        "smallest": min, "median": statistics.median, "largest": max
    }  # fmt: skip
    return {name: round(measure(values)) for name, measure in measures.items()}


def _describe_picture(path: Path) -> Summary:
    from cyclegan_cli.data.opening import probe

    return Summary(path, "picture", {"bytes": path.stat().st_size, **vars(probe(path))})
