"""Writes ``index.html``: everything that a run says about itself, in one file without requests."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from cyclegan_cli import files
from cyclegan_cli.checkpoints.locate import HEALTH_FILE
from cyclegan_cli.models.cyclegan import LOSS_NAMES
from cyclegan_cli.training.page import overview, samples, sections
from cyclegan_cli.training.page.charts import Chart, Row, draw
from cyclegan_cli.training.page.curves import loss_charts, quality_charts
from cyclegan_cli.training.page.overview import State
from cyclegan_cli.training.plan import Plan
from cyclegan_cli.training.tables import (
    LATER_COLUMNS,
    METRICS_FILE,
    VALIDATION_COLUMNS,
    VALIDATION_FILE,
    whole_rows,
)

PAGE_FILE = "index.html"
DRAWN_METRICS = (
    "step", "learning_rate", *LOSS_NAMES, *LATER_COLUMNS, "images_per_second", "seconds",
)  # fmt: skip
# With curves and text the page stays below 8 MB.
MOST_IMAGE_CHARACTERS = 7_000_000


class RunPage:
    """The page of one run, written anew whenever it is asked to.

    It shows what is in the run folder, so that a resumed run's page goes on where it was.

    Args:
        plan: The run.
        samples_folder: Where its sample grids are.
    """

    def __init__(self, plan: Plan, samples_folder: Path) -> None:
        self.plan = plan
        self.frames = samples.Frames(samples_folder, MOST_IMAGE_CHARACTERS)

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
            "dueIn": overview.due_in(plan, step, metrics) if state == "training" else None,
            "lastStep": max(step, 1),
            "charts": quality_points + loss_points,
        }
        parts = _words(plan, step, state) | {
            "state": overview.state(state, reason),
            "facts": sections.tiles(overview.facts(plan, step, metrics, validation)),
            "quality": _section("quality", "Quality", quality),
            "losses": _section("losses", "Losses", losses),
            "data": json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
        }
        files.write_text(plan.run_dir / PAGE_FILE, _page(parts))


def _words(plan: Plan, step: int, state: State) -> dict[str, str]:
    """The parts that need no table."""
    return {
        "title": escape(f"{plan.name_a} ⇄ {plan.name_b}"),
        "progress": sections.progress(step, plan.total_steps),
        "health": sections.health(plan.run_dir / HEALTH_FILE),
        "commands": sections.commands(overview.commands(plan, step, state)),
        "configuration": sections.configuration(plan.config),
        "folder": escape(str(overview.folder(plan))),
    }


def _numbers(path: Path, columns: Sequence[str]) -> list[Row]:
    return [
        {name: float(row.get(name) or "nan") for name in columns}
        for row in whole_rows(path, columns)
    ]


def _drawn(charts: list[Chart], rows: list[Row], step: int) -> tuple[str, list[Any]]:
    drawn = [draw(chart, rows, step) for chart in charts] if rows else []
    return "".join(html for html, _ in drawn), [points for _, points in drawn]


def _section(name: str, heading: str, charts: str) -> str:
    if not charts:
        return ""
    return f'<section id="{name}"><h2>{heading}</h2><div class="charts">{charts}</div></section>'


def _page(parts: dict[str, str]) -> str:
    """Fill the template; the script may run because the page's own policy names its digest."""
    script, style = _asset("page.js"), _asset("page.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = parts | {"script": script, "style": style, "digest": digest}
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("page.html"))


def _asset(name: str) -> str:
    folder = importlib.resources.files("cyclegan_cli.training.page")
    return folder.joinpath(name).read_text(encoding="utf-8")
