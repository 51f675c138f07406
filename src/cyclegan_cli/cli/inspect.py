"""``cyclegan inspect``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cyclegan_cli.cli import console
from cyclegan_cli.cli.options import config_options
from cyclegan_cli.config import InspectConfig
from cyclegan_cli.errors import CycleGANError, DataError, SomeFailedError
from cyclegan_cli.inspection import SCHEMA, Request, Summary, describe

MOST_LISTED = 20  # Messages about images.
# Kinds whose names in JSON differ from those for humans.
KIND_NAMES = {"picture": "image", "pictures": "images"}


@config_options(InspectConfig)
def inspect_command(config: InspectConfig) -> None:
    """Describe files and folders, compare two checkpoints, and measure translations.

    Checkpoints and models are described from their headers. Tensors are read only to compare two
    checkpoints and for --weights; no code in a file is executed.
    """
    if config.models:
        _list_models(config.json)
        return
    if config.against is not None:
        _measure(config, config.against)
        return
    request = Request(config.weights, config.receptive_field, config.full)
    summaries: list[Summary] = []
    for path in config.paths:
        try:
            summary = describe(path, request)
        except CycleGANError as error:
            if len(config.paths) == 1:
                raise
            console.show_error(error)
            continue
        summaries.append(summary)
        if config.json:
            console.json_line(summary.to_document())
        else:
            _show(path, summary)
    if failed := len(config.paths) - len(summaries):
        raise SomeFailedError(f"{failed} of {len(config.paths)} could not be described")
    if len(summaries) == 2 and all(summary.is_checkpoint for summary in summaries):
        _compare(config.paths[0], config.paths[1], config.json)


def _list_models(as_json: bool) -> None:
    """Print a JSON object or a table per model in the package."""
    from cyclegan_cli.checkpoints.header import read_model_info
    from cyclegan_cli.checkpoints.locate import pretrained_models

    for model in pretrained_models():
        info = read_model_info(model.path)
        facts = {
            "name": model.name,
            "path": str(model.path),
            "bytes": model.path.stat().st_size,
            "domains": {"a": info.name_a, "b": info.name_b},
            "directions": list(info.directions),
            **model.facts,
            "card": str(model.card),
        }
        if as_json:
            console.json_line({"schema": SCHEMA, "kind": "pretrained", **facts})
        else:
            facts["directions"] = ", ".join(
                f"{info.source(one)} -> {info.target(one)}" for one in info.directions
            )
            console.table(model.name, _rows({k: v for k, v in facts.items() if k != "name"}))


def _compare(one: Path, other: Path, as_json: bool) -> None:
    """Print the comparison of two checkpoints."""
    from cyclegan_cli.inspection.comparison import compare  # Imports torch.

    comparison = compare(one, other)
    if as_json:
        console.json_line(comparison.to_document())
        return
    facts = comparison.facts
    differences = {name: f"{_shown(first)} | {_shown(second)}"
                   for name, (first, second) in facts["differences"].items()}  # fmt: skip
    shown = facts | {"differences": differences or "none"}
    console.table(f"{one} | {other}: comparison", _rows(shown))


def _measure(config: InspectConfig, target: Path) -> None:
    """Print the distance of translations to the target domain and to ground truth."""
    from cyclegan_cli.inspection.translations import (  # Imports torch.
        DEFAULT_SIZE,
        MeasureRequest,
        measure,
    )

    request = MeasureRequest(
        config.paths[0],
        target,
        config.inputs,
        config.pairs,
        config.size or DEFAULT_SIZE,
        config.inception,
        config.inception_weights,
    )
    measurement = measure(request, console.info)
    facts = measurement.facts
    if config.json:
        console.json_line(measurement.to_document())
    else:
        header, rows = _quality_table(facts)
        console.grid(f"{config.paths[0]} against {target}", header, rows)
        if reason := facts["inception"]["reason"]:
            console.result(f"KID and FID are not computed: {reason}.")
    for warning in facts["warnings"]:
        console.warn(warning)
    for problem in measurement.problems[:MOST_LISTED]:
        console.show_error(DataError(problem))
    if count := len(measurement.problems):
        raise SomeFailedError(f"{count} of the images could not be read, and were left out")


def _quality_table(facts: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a table of metrics."""
    counts = facts["images"]
    titles = {
        "translations": f"translations ({counts['translations']})",
        "inputs": f"inputs unchanged ({counts.get('inputs', 0)})",
        "target_halves": f"target halves ({counts['target']})",
    }
    columns = [name for name in titles if name in facts["swd"]]
    labels = {"swd": "SWD", "kid": "KID", "fid": "FID", "l1": "L1", "psnr": "PSNR, dB"}
    labels |= {"ssim": "SSIM"}
    metrics = {**facts, **facts.get("pairs", {})}
    rows = [
        [label, *(_with_interval(metrics[name].get(column)) for column in columns)]
        for name, label in labels.items()
        if metrics.get(name) is not None
    ]
    return ["", *(titles[column] for column in columns)], rows


def _with_interval(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return ""
    if value["low"] is None:
        return _shown(value["value"])
    return f"{_shown(value['value'])}\n{_shown(value['low'])} to {_shown(value['high'])}"


def _show(path: Path, summary: Summary) -> None:
    """Print a description as a table, followed by a line per tensor."""
    facts = dict(summary.facts)
    tensors = facts.pop("weights", [])
    kind = KIND_NAMES.get(summary.kind, summary.kind)
    console.table(f"{path}: {kind}", _rows(_shortened(facts)))
    for tensor in tensors:
        console.result(
            f"{tensor['name']}  {tensor['dtype']} {tensor['shape']}"
            f"{_statistics(tensor['statistics'])}"
        )


def _statistics(facts: Mapping[str, Any] | None) -> str:
    """Return statistics in one line: ``  -0.1 to 0.1, mean 0.01 ± 0.02, zeros 3 %``."""
    if facts is None:
        return ""
    parts = []
    if facts["smallest"] is not None:
        ends = f"{_shown(facts['smallest'])} to {_shown(facts['largest'])}"
        parts += [f"{ends}, mean {_shown(facts['mean'])} ± {_shown(facts['standard_deviation'])}"]
    for name in ("zeros", "non_finite"):
        if facts[name]:
            parts.append(f"{name.replace('_', '-')} {100 * facts[name]:.3g} %")
    return "  " + ", ".join(parts)


def _shortened(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Shorten the document of an exported model, and the health of a run, to fit a table."""
    facts = {name: _health(value) if name == "health" else value for name, value in facts.items()}
    own = facts.pop("cyclegan", {})
    export = own.get("export", {})
    if not isinstance(export, Mapping):
        return facts
    wanted = ("format", "precision", "from", "to", "source")
    if export := {name: value for name, value in export.items() if name in wanted}:
        facts["export"] = export
    return facts | {name: own[name] for name in ("bands", "generator", "training") if name in own}


def _health(health: Mapping[str, Any]) -> str | list[str]:
    verdicts = health["verdicts"]
    if not verdicts:
        return f"healthy at step {_shown(health['step'])}"
    return [
        f"{one['sentence'].rstrip('.')}. {one['advice']} (step {_shown(one['step'])})"
        for one in verdicts
    ]


def _rows(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested facts as rows of a table."""
    for name, value in facts.items():
        label = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from _rows(value, f"{label}: ")
        elif isinstance(value, list):
            yield label, "\n".join(map(_line, value))
        else:
            yield label, _shown(value)


def _line(item: Any) -> str:
    """Format an element of a list."""
    if isinstance(item, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {item[name]:g}" for name in item)
    return str(item)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
