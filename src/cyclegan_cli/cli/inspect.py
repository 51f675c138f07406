"""``cyclegan inspect``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cyclegan_cli.cli import console


def inspect_command(
    path: Annotated[
        Path,
        typer.Argument(
            help="A run folder, a .safetensors file, a folder of pictures, or a picture.",
            metavar="PATH",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Say what a file or folder is.

    Only headers are read: a checkpoint is described without loading its tensors.
    """
    from cyclegan_cli.inspection import describe

    summary = describe(path)
    if as_json:
        console.json_line(summary.to_document())
    else:
        console.table(f"{path}: {summary.kind}", _rows(summary.facts))


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
