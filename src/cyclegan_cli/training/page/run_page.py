"""Writes ``index.html``: everything that a run says about itself, in one file without requests."""

from __future__ import annotations

import base64
import datetime
import hashlib
import importlib.resources
import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, Literal

from cyclegan_cli import files
from cyclegan_cli.checkpoints.locate import HEALTH_FILE
from cyclegan_cli.models.cyclegan import LOSS_NAMES
from cyclegan_cli.training.page import samples, sections
from cyclegan_cli.training.page.charts import Chart, Row, draw, number
from cyclegan_cli.training.page.curves import loss_charts, quality_charts
from cyclegan_cli.training.plan import Plan
from cyclegan_cli.training.tables import (
    METRICS_FILE,
    VALIDATION_COLUMNS,
    VALIDATION_FILE,
    whole_rows,
)
from cyclegan_cli.training.validation import mean_distance

State = Literal["training", "finished", "stopped", "failed"]
PAGE_FILE = "index.html"
DRAWN_METRICS = ("step", "learning_rate", *LOSS_NAMES, "images_per_second", "seconds")
# With curves and text the page stays below 8 MB.
MOST_PICTURE_CHARACTERS = 7_000_000


class RunPage:
    """The page of one run, written anew whenever it is asked to.

    It shows what is in the run folder, so that a resumed run's page goes on where it was.

    Args:
        plan: The run.
        samples_folder: Where its sample grids are.
    """

    def __init__(self, plan: Plan, samples_folder: Path) -> None:
        self.plan = plan
        self.frames = samples.Frames(samples_folder, MOST_PICTURE_CHARACTERS)

    def write(self, step: int, state: State = "training", reason: str = "") -> None:
        """Write the page.

        Args:
            step: Steps done.
            state: Whether the run goes on, and if not, how it ended.
            reason: Why it goes on no more.

        Raises:
            OutputError: It cannot be written.
        """
        plan = self.plan
        metrics = _numbers(plan.run_dir / METRICS_FILE, DRAWN_METRICS)
        validation = _numbers(plan.run_dir / VALIDATION_FILE, VALIDATION_COLUMNS)
        quality, quality_points = _drawn(
            quality_charts(plan.name_a, plan.name_b, validation), validation, step
        )
        losses, loss_points = _drawn(
            loss_charts(plan.name_a, plan.name_b, plan.config.lambda_identity > 0), metrics, step
        )
        data = samples.document(self.frames.chosen(step)) | {
            "names": [plan.name_a, plan.name_b],
            "training": state == "training",
            "lastStep": max(step, 1),
            "charts": quality_points + loss_points,
        }
        parts = {
            "title": escape(f"{plan.name_a} ⇄ {plan.name_b}"),
            "state": _state(state, reason),
            "progress": sections.progress(step, plan.total_steps),
            "facts": sections.tiles(_facts(plan, step, metrics, validation)),
            "health": sections.health(plan.run_dir / HEALTH_FILE),
            "quality": _section("quality", "Quality", quality),
            "losses": _section("losses", "Losses", losses),
            "commands": sections.commands(_commands(plan, step)),
            "configuration": sections.configuration(plan.config),
            "folder": escape(str(plan.run_dir.absolute())),
            "data": json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
        }
        files.write_text(plan.run_dir / PAGE_FILE, _page(parts))


def _numbers(path: Path, columns: Sequence[str]) -> list[Row]:
    return [{name: float(row[name]) for name in columns} for row in whole_rows(path, columns)]


def _drawn(charts: list[Chart], rows: list[Row], step: int) -> tuple[str, list[Any]]:
    drawn = [draw(chart, rows, step) for chart in charts] if rows else []
    return "".join(html for html, _ in drawn), [points for _, points in drawn]


def _section(name: str, heading: str, charts: str) -> str:
    if not charts:
        return ""
    return f'<section id="{name}"><h2>{heading}</h2><div class="charts">{charts}</div></section>'


def _state(state: State, reason: str) -> str:
    written = datetime.datetime.now().astimezone()
    why = f"<span>{escape(reason)}</span>" if reason else ""
    return (
        f'<b class="pill {state}">{state}</b>{why}<span>written '
        f'<time datetime="{written.isoformat(timespec="seconds")}">'
        f"{written:%Y-%m-%d %H:%M}</time></span>"
    )


def _facts(
    plan: Plan, step: int, metrics: Sequence[Row], validation: Sequence[Row]
) -> list[tuple[str, str]]:
    facts = [("epoch", f"{plan.epoch_of(step):.1f} of {plan.epoch_of(plan.total_steps):.1f}")]
    if metrics:
        last = metrics[-1]
        speed = last["images_per_second"]
        facts += [
            ("trained for", sections.duration(last["seconds"])),
            ("speed", f"{number(speed)} images/s"),
        ]
        left = (plan.total_steps - step) * plan.config.batch_size
        if left and speed > 0:
            facts.append(("left, at this speed", sections.duration(left / speed)))
    if validation:
        best = min(validation, key=mean_distance)
        facts.append(("best model", f"step {best['step']:,.0f}"))
    counts = f"{len(plan.pictures_a):,} + {len(plan.pictures_b):,}"
    return [*facts, ("pictures", counts), ("device", f"{plan.device}, {plan.config.precision}")]


def _commands(plan: Plan, step: int) -> list[tuple[str, list[str]]]:
    run = str(plan.run_dir.absolute())
    shown = [
        (
            f"Translate {real} to {fake}",
            ["cyclegan", "translate", "photo.jpg", "--to", fake, "--checkpoint", run],
        )
        for real, fake in ((plan.name_a, plan.name_b), (plan.name_b, plan.name_a))
    ]
    if step < plan.total_steps:
        shown.append(("Go on, if it was stopped", ["cyclegan", "train", "--resume", run]))
    return shown


def _page(parts: dict[str, str]) -> str:
    """Fill the template; the script may run because the page's own policy names its digest."""
    script, style = _asset("page.js"), _asset("page.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = parts | {"script": script, "style": style, "digest": digest}
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("page.html"))


def _asset(name: str) -> str:
    folder = importlib.resources.files("cyclegan_cli.training.page")
    return folder.joinpath(name).read_text(encoding="utf-8")
