"""``cyclegan inspect``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cyclegan_cli.cli import console
from cyclegan_cli.errors import CycleGANError, SomeFailedError, UsageError
from cyclegan_cli.inspection.summary import Request, Summary


def inspect_command(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Run folders, checkpoints (.safetensors, .pth), exported models (.onnx, .pt2), "
            "folders of pictures, pictures.",
            metavar="PATH",
        ),
    ],
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Compare two checkpoints: architecture, training, weights."),
    ] = False,
    weights: Annotated[
        bool, typer.Option("--weights", help="List all tensors: name, dtype, shape.")
    ] = False,
    receptive_field: Annotated[
        bool,
        typer.Option(
            "--receptive-field",
            help="What a pixel of a translation sees, and GFLOP and memory a megapixel.",
        ),
    ] = False,
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Colours of all pictures of a folder, instead of a sample of 100."
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON on stdout, one object a path.")
    ] = False,
) -> None:
    """Say what files and folders are.

    Checkpoints and models are described from their headers: no tensor is loaded, nothing in them
    is run.
    """
    if compare:
        _compare(paths, as_json)
        return
    from cyclegan_cli.inspection import describe

    request = Request(weights=weights, receptive_field=receptive_field, full=full)
    failed = 0
    for path in paths:
        try:
            summary = describe(path, request)
        except CycleGANError as error:
            if len(paths) == 1:
                raise
            console.show_error(error)
            failed += 1
            continue
        if as_json:
            console.json_line(summary.to_document())
        else:
            _show(path, summary)
    if failed:
        raise SomeFailedError(f"{failed} of {len(paths)} could not be described")


def _compare(paths: list[Path], as_json: bool) -> None:
    if len(paths) != 2:
        raise UsageError(f"--compare takes two checkpoints, found {len(paths)}", "Name two.")
    from cyclegan_cli.inspection.comparison import compare

    comparison = compare(*paths)
    if as_json:
        console.json_line(comparison.to_document())
        return
    facts = comparison.facts
    differences = {name: f"{_shown(first)} | {_shown(second)}"
                   for name, (first, second) in facts["differences"].items()}  # fmt: skip
    shown = facts | {"differences": differences or "none"}
    console.table(f"{paths[0]} | {paths[1]}", _rows(shown))


def _show(path: Path, summary: Summary) -> None:
    """A table; tensors, of which there are many, as lines behind it."""
    facts = dict(summary.facts)
    tensors = facts.pop("weights", [])
    console.table(f"{path}: {summary.kind}", _rows(_shortened(facts)))
    for tensor in tensors:
        console.result(f"{tensor['name']}  {tensor['dtype']} {tensor['shape']}")


def _shortened(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Of an exported model's own description, what a table has room for; JSON has all."""
    own = facts.get("cyclegan", {})
    if not isinstance(own, Mapping) or not isinstance(own.get("export", {}), Mapping):
        return {name: value for name, value in facts.items() if name != "cyclegan"}
    wanted = ("format", "precision", "from", "to", "source")
    export = {name: value for name, value in own.get("export", {}).items() if name in wanted}
    own = {name: own[name] for name in ("generator", "training") if name in own}
    rest = {name: value for name, value in facts.items() if name != "cyclegan"}
    return rest | ({"export": export} if export else {}) | own


def _rows(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested facts as lines of a table."""
    for name, value in facts.items():
        label = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from _rows(value, f"{label}: ")
        elif isinstance(value, list):
            yield label, "\n".join(map(str, value))
        else:
            yield label, _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
