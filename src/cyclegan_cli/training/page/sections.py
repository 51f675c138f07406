"""The parts of a run's page as HTML. Everything that a user named is escaped here."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from cyclegan_cli.config import TrainConfig


def duration(seconds: float) -> str:
    """``3725`` to ``1 h 2 min``: what somebody who waits wants to know."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def tiles(facts: Iterable[tuple[str, str]]) -> str:
    """Names and values side by side."""
    return "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts
    )


def health(path: Path) -> str:
    """The verdicts of a run's ``health.json``; nothing if there is none that can be read."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        step = f"{document['step']:,}"
        verdicts = [
            f'<p class="trouble"><b>Step {verdict["step"]:,}: {escape(verdict["sentence"])}.</b> '
            f"{escape(verdict['advice'])}</p>"
            for verdict in document["verdicts"]
        ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ""
    return "".join(verdicts) or f'<p class="well">No trouble seen up to step {step}.</p>'


def commands(sentences: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Commands to copy, each with what it is for."""
    return "".join(
        f'<div class="command"><p>{escape(purpose)}</p><pre tabindex="0"><code>'
        f"{' '.join(f'<span>{escape(shlex.quote(word))}</span>' for word in words)}"
        "</code></pre></div>"
        for purpose, words in sentences
    )


def configuration(config: TrainConfig) -> str:
    """All options under the headings of ``--help``; those that are not the default stand out."""
    options = config.to_document()
    panels: dict[str, str] = {}
    for field in dataclasses.fields(TrainConfig):
        if field.name in options:
            panel = field.metadata["panel"]
            panels[panel] = panels.get(panel, "") + _option(field, options[field.name])
    return "".join(
        f"<section><h3>{escape(panel)}</h3><dl>{shown}</dl></section>"
        for panel, shown in panels.items()
    )


def _option(field: dataclasses.Field[Any], value: Any) -> str:
    changed = "" if value == field.default else ' class="changed"'
    shown = ("no", "yes")[value] if isinstance(value, bool) else _plain(value)
    return (
        f'<div{changed} title="{escape(field.metadata["help"])}">'
        f"<dt>{escape(field.name.replace('_', ' '))}</dt><dd>{escape(shown)}</dd></div>"
    )


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def progress(done: int, total: int) -> str:
    """A bar and its percentage."""
    share = min(done / max(total, 1), 1.0)
    return (
        f'<div class="bar" role="progressbar" aria-valuemin="0" aria-valuemax="{total}" '
        f'aria-valuenow="{done}" aria-label="steps"><i style="width:{share * 100:.2f}%"></i></div>'
        f"<p>step {done:,} of {total:,} ({share:.0%})</p>"
    )
