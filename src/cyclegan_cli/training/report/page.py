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
from cyclegan_cli.config import TrainConfig
from cyclegan_cli.models.cyclegan import LOSS_NAMES
from cyclegan_cli.training.callbacks.base import (
    IntervalTrigger,
    ScheduledCallback,
    TrainingRun,
    TrainingStatus,
)
from cyclegan_cli.training.callbacks.logging import (
    GRADIENT_COLUMNS,
    METRICS_FILE,
    VALIDATION_COLUMNS,
    VALIDATION_FILE,
    read_rows,
)
from cyclegan_cli.training.plan import Plan
from cyclegan_cli.training.report import frames, sections
from cyclegan_cli.training.report.charts import Chart, Row, draw
from cyclegan_cli.training.validation import mean_distance

PAGE_FILE = "index.html"
CHART_COLUMNS = (
    "step", "learning_rate", *LOSS_NAMES, *GRADIENT_COLUMNS, "images_per_second", "seconds",
)  # fmt: skip
# With charts and text the page stays below 8 MB.
MAX_IMAGE_CHARACTERS = 7_000_000


class HTMLReport(ScheduledCallback):
    """Writes ``index.html`` at the start, with each sample grid, and at the end.

    Args:
        plan: The training.
        trigger: The trigger of the sample grids.
    """

    def __init__(self, plan: Plan, trigger: IntervalTrigger) -> None:
        super().__init__(trigger)
        self.page = RunPage(plan)

    def on_train_begin(self, run: TrainingRun) -> None:
        self.on_due(run)

    def on_due(self, run: TrainingRun) -> None:
        run.group.on_rank_zero(lambda: self.on_train_end(run))

    def on_train_end(self, run: TrainingRun) -> None:
        """Write the page with the final status."""
        run.run_dir.check()
        self.page.write(run.step, run.status, run.reason)


class RunPage:
    """The report of one run, made from the files in the run folder.

    Args:
        plan: The training.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.frames = frames.Frames(plan.run_dir / SAMPLES_FOLDER, MAX_IMAGE_CHARACTERS)

    def write(self, step: int, status: TrainingStatus = "training", reason: str = "") -> None:
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
            loss_charts(plan.name_a, plan.name_b, plan.config), metrics, step
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


def quality_charts(name_a: str, name_b: str, rows: Sequence[Row]) -> list[Chart]:
    """Return the charts of ``validation.csv``; none without rows."""
    if not rows:
        return []
    there, back = f"{name_a} → {name_b}", f"{name_b} → {name_a}"
    best = min(rows, key=mean_distance)
    return [
        Chart(
            "Distance to the target domain",
            "Sliced Wasserstein distance of validation translations to real images: "
            f"lower is better, best at step {best['step']:,.0f}.",
            {"swd_a2b": there, "swd_b2a": back},
            best=int(best["step"]),
        ),
        Chart(
            "Diversity",
            "Of the validation translations: 1 is as diverse as the inputs, 0 means that all "
            "translations are equal.",
            {"diversity_a2b": there, "diversity_b2a": back},
            marked=1.0,
        ),
        Chart(
            "Validation cycle error",
            "L1 distance between images and their reconstructions.",
            {"cycle_a": f"{there} → {name_a}", "cycle_b": f"{back} → {name_b}"},
        ),
        Chart(
            "Validation identity error",
            "L1 distance between images and their translations to their own domain.",
            {"identity_a": name_a, "identity_b": name_b},
        ),
    ]


def loss_charts(name_a: str, name_b: str, config: TrainConfig) -> list[Chart]:
    """Return the charts of ``metrics.csv``; none of losses that the options disable."""
    there, back = f"{name_a} → {name_b}", f"{name_b} → {name_a}"
    identity = Chart(
        "Identity loss",
        "L1 distance between images and their translations to their own domain.",
        {"identity_a": name_a, "identity_b": name_b},
        noisy=True,
    )
    color = Chart(
        "Color loss",
        "L1 distance between the mean colors of patches and those matched by optimal transport.",
        {"color_a2b": there, "color_b2a": back},
        noisy=True,
    )
    return [
        Chart(
            "Adversarial loss",
            "Of the generators: high while the discriminators detect the translations.",
            {"adversarial_a2b": there, "adversarial_b2a": back},
            noisy=True,
        ),
        Chart(
            "Discriminator loss",
            "If it stays near zero, the discriminators have won and the generators learn nothing.",
            {"discriminator_a": name_a, "discriminator_b": name_b},
            noisy=True,
        ),
        Chart(
            "Cycle loss",
            "L1 distance between images and their reconstructions.",
            {"cycle_a": f"{there} → {name_a}", "cycle_b": f"{back} → {name_b}"},
            noisy=True,
        ),
        *([identity] if config.lambda_identity else []),
        *([color] if config.lambda_color else []),
        Chart(
            "Gradient norm",
            "Maximum between two rows. A jump by orders of magnitude is a spike.",
            {
                "gradient_norm_generators": "generators",
                "gradient_norm_discriminators": "discriminators",
            },
            noisy=True,
        ),
        Chart("Learning rate", "Of both optimizers.", {"learning_rate": "Adam"}),
        Chart(
            "Speed",
            "Images of each domain per second.",
            {"images_per_second": "images/s"},
            noisy=True,
        ),
    ]
