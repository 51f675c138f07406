"""The sections of the report as HTML. Everything that comes from the user is escaped here."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import shlex
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from cyclegan_cli.checkpoints.locate import BEST_FILE, MODEL_FILE
from cyclegan_cli.config import LEAST_STEPS, TrainConfig, duration_seconds
from cyclegan_cli.training.callbacks.base import TrainingStatus
from cyclegan_cli.training.plan import Plan
from cyclegan_cli.training.report.charts import Row, format_number
from cyclegan_cli.training.split import is_utf8
from cyclegan_cli.training.validation import mean_distance


def status_line(status: TrainingStatus, reason: str) -> str:
    """Return the status, its reason and the time of writing."""
    written = datetime.datetime.now().astimezone()
    why = f"<span>{escape(reason)}</span>" if reason else ""
    return (
        f'<b class="pill {status}">{status}</b>{why}<span>written '
        f'<time datetime="{written.isoformat(timespec="seconds")}">'
        f"{written:%Y-%m-%d %H:%M}</time></span>"
        '<b id="late" hidden>The next update is overdue: was the run killed?</b>'
    )


def facts(
    plan: Plan, step: int, metrics: Sequence[Row], validation: Sequence[Row]
) -> list[tuple[str, str]]:
    """Return names and values of the key figures.

    Args:
        plan: The training.
        step: Number of steps done.
        metrics: Rows of ``metrics.csv``.
        validation: Rows of ``validation.csv``.
    """
    found = [("epoch", f"{plan.epoch_of(step):.1f} of {plan.epoch_of(plan.total_steps):.1f}")]
    if metrics:
        found += [
            ("training time", coarse_duration(metrics[-1]["seconds"])),
            ("speed", f"{format_number(metrics[-1]['images_per_second'])} images/s"),
        ]
        left = _seconds_for(plan, plan.total_steps - step, metrics)
        if left:
            found.append(("remaining time", coarse_duration(left)))
        skipped = sum(filter(math.isfinite, (row["skipped_steps"] for row in metrics)))
        if skipped:
            found.append(("skipped steps", f"{skipped:,.0f}, gradients not finite"))
    if validation:
        best = min(validation, key=mean_distance)
        found.append(("best model", f"step {best['step']:,.0f}"))
    counts = f"{len(plan.images_a):,} + {len(plan.images_b):,}"
    return [*found, ("images", counts), ("device", f"{plan.device}, {plan.config.precision}")]


def due_in(plan: Plan, step: int, metrics: Sequence[Row]) -> float | None:
    """Return the expected seconds until the next update; None if the speed is not known."""
    left = plan.total_steps - step
    every = plan.config.sample_every
    if isinstance(every, int):
        return _seconds_for(plan, min(every, left) if every else left, metrics)
    least, to_the_end = (_seconds_for(plan, n, metrics) for n in (LEAST_STEPS, left))
    if least is None or to_the_end is None:
        return None
    return min(max(duration_seconds(every) or 0.0, least), to_the_end)


def absolute_run_dir(plan: Plan) -> Path:
    """Return the absolute run folder, or the path as given if that is not valid UTF-8."""
    path = plan.run_dir.absolute()
    return path if is_utf8(path) else plan.run_dir


def useful_commands(plan: Plan, step: int, status: TrainingStatus) -> list[tuple[str, list[str]]]:
    """Return commands that use the run, each with its purpose."""
    run = absolute_run_dir(plan)
    when = ""
    if not (plan.run_dir / MODEL_FILE).exists():
        every = plan.config.checkpoint_every
        if isinstance(every, int):
            first = f"step {min(every, plan.total_steps):,}"
        else:
            first = f"after {every}, or at the end"
        when = f", after the first checkpoint ({first})"
    shown = [
        (f"Translate {real} to {fake}{when}", _translate(run, fake))
        for real, fake in ((plan.name_a, plan.name_b), (plan.name_b, plan.name_a))
    ]
    if (plan.run_dir / BEST_FILE).exists():
        shown.append(
            ("Translate with the best model so far", _translate(run / BEST_FILE, plan.name_b))
        )
    if step < plan.total_steps:
        purpose = "Resume after an interruption" if status == "training" else "Resume"
        shown.append((purpose, ["cyclegan", "train", "--resume", str(run)]))
    return shown


def _translate(checkpoint: Path, to: str) -> list[str]:
    return ["cyclegan", "translate", "photo.jpg", "--to", to, "--checkpoint", str(checkpoint)]


def _seconds_for(plan: Plan, steps: int, metrics: Sequence[Row]) -> float | None:
    """Return the expected time of a number of steps; None if the speed is not known."""
    speed = metrics[-1]["images_per_second"] if metrics else 0.0
    return steps * plan.step_items / speed if speed > 0 else None


def coarse_duration(seconds: float) -> str:
    """Format seconds as ``1 h 2 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def tiles(facts: Iterable[tuple[str, str]]) -> str:
    """Return names and values side by side."""
    return "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts
    )


def health(path: Path) -> str:
    """Return the verdicts in ``health.json``; empty if it cannot be read."""
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
    return "".join(verdicts) or f'<p class="well">No problems detected up to step {step}.</p>'


def commands(purposes: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Return commands to copy, each with its purpose."""
    return "".join(
        f'<div class="command"><p>{escape(purpose)}</p><pre tabindex="0"><code>'
        f"{' '.join(f'<span>{escape(shlex.quote(word))}</span>' for word in words)}"
        "</code></pre></div>"
        for purpose, words in purposes
    )


def configuration(config: TrainConfig) -> str:
    """Return all options under the headings of ``--help``; changed ones are highlighted."""
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
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    shown = ("no", "yes")[value] if isinstance(value, bool) else shown
    return (
        f'<div{changed} title="{escape(field.metadata["help"])}">'
        f"<dt>{escape(field.name.replace('_', ' '))}</dt><dd>{escape(shown)}</dd></div>"
    )


def progress(done: int, total: int) -> str:
    """Return a progress bar."""
    fraction = min(done / max(total, 1), 1.0)
    return (
        f'<div class="bar" role="progressbar" aria-valuemin="0" aria-valuemax="{total}" '
        f'aria-valuenow="{done}" aria-label="steps">'
        f'<i style="width:{fraction * 100:.2f}%"></i></div>'
        f"<p>step {done:,} of {total:,} ({fraction:.0%})</p>"
    )
