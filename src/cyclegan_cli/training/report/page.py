"""The report of a run: ``index.html``, one file without external resources."""

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
from cyclegan_cli.checkpoints.locate import HEALTH_FILE, SAMPLES_FOLDER
from cyclegan_cli.models.cyclegan import LOSS_NAMES
from cyclegan_cli.training.callbacks.base import Status
from cyclegan_cli.training.plan import Plan
from cyclegan_cli.training.report import frames, sections
from cyclegan_cli.training.report.charts import Chart, Row, draw
from cyclegan_cli.training.report.curves import loss_charts, quality_charts
from cyclegan_cli.training.tables import (
    LATER_COLUMNS,
    METRICS_FILE,
    VALIDATION_COLUMNS,
    VALIDATION_FILE,
    read_rows,
)

PAGE_FILE = "index.html"
CHART_COLUMNS = (
    "step", "learning_rate", *LOSS_NAMES, *LATER_COLUMNS, "images_per_second", "seconds",
)  # fmt: skip
# With charts and text the page stays below 8 MB.
MAX_IMAGE_CHARACTERS = 7_000_000


class RunPage:
    """The report of one run, made from the files in the run folder.

    Args:
        plan: The training.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.frames = frames.Frames(plan.run_dir / SAMPLES_FOLDER, MAX_IMAGE_CHARACTERS)

    def write(self, step: int, status: Status = "training", reason: str = "") -> None:
        """Write the page.

        Args:
            step: Number of steps done.
            status: Whether the training continues, or how it ended.
            reason: Why it ended.

        Raises:
            OutputError: The page cannot be written.
        """
        plan = self.plan
        metrics = _read_rows(plan.run_dir / METRICS_FILE, CHART_COLUMNS)
        validation = _read_rows(plan.run_dir / VALIDATION_FILE, VALIDATION_COLUMNS)
        quality, quality_points = _drawn(
            quality_charts(plan.name_a, plan.name_b, validation), validation, step
        )
        losses, loss_points = _drawn(
            loss_charts(plan.name_a, plan.name_b, plan.config.lambda_identity > 0), metrics, step
        )
        data = frames.document(self.frames.select(step)) | {
            "names": [plan.name_a, plan.name_b],
            "training": status == "training",
            "dueIn": sections.due_in(plan, step, metrics) if status == "training" else None,
            "lastStep": max(step, 1),
            "charts": quality_points + loss_points,
        }
        parts = {
            "title": escape(f"{plan.name_a} ⇄ {plan.name_b}"),
            "status": sections.status_line(status, reason),
            "progress": sections.progress(step, plan.total_steps),
            "facts": sections.tiles(sections.facts(plan, step, metrics, validation)),
            "quality": _section("quality", "Quality", quality),
            "losses": _section("losses", "Losses", losses),
            "health": sections.health(plan.run_dir / HEALTH_FILE),
            "commands": sections.commands(sections.useful_commands(plan, step, status)),
            "configuration": sections.configuration(plan.config),
            "folder": escape(str(sections.absolute_run_dir(plan))),
            "data": json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
        }
        files.write_text(plan.run_dir / PAGE_FILE, _fill_template(parts))


def _read_rows(path: Path, columns: Sequence[str]) -> list[Row]:
    return [
        {name: float(row.get(name) or "nan") for name in columns}
        for row in read_rows(path, columns)
    ]


def _drawn(charts: list[Chart], rows: list[Row], step: int) -> tuple[str, list[Any]]:
    drawn = [draw(chart, rows, step) for chart in charts] if rows else []
    return "".join(html for html, _ in drawn), [points for _, points in drawn]


def _section(name: str, heading: str, charts: str) -> str:
    if not charts:
        return ""
    return f'<section id="{name}"><h2>{heading}</h2><div class="charts">{charts}</div></section>'


def _fill_template(parts: dict[str, str]) -> str:
    """Fill the template. Its content security policy allows the script by its digest."""
    script, style = _asset("page.js"), _asset("page.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = parts | {"script": script, "style": style, "digest": digest}
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("page.html"))


def _asset(name: str) -> str:
    folder = importlib.resources.files("cyclegan_cli.training.report")
    return folder.joinpath(name).read_text(encoding="utf-8")
