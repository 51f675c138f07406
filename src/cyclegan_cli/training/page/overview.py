"""What a run's page says first and last: how the run is, in words and numbers, and what to do."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Literal

from cyclegan_cli.checkpoints.locate import BEST_FILE, MODEL_FILE
from cyclegan_cli.config import LEAST_STEPS, duration_seconds
from cyclegan_cli.training.domains import is_utf8
from cyclegan_cli.training.page import sections
from cyclegan_cli.training.page.charts import Row, number
from cyclegan_cli.training.plan import Plan
from cyclegan_cli.training.validation import mean_distance

State = Literal["training", "finished", "stopped", "failed"]


def state(state: State, reason: str) -> str:
    """Whether the run goes on, why not, and when that was so, as HTML."""
    written = datetime.datetime.now().astimezone()
    why = f"<span>{escape(reason)}</span>" if reason else ""
    return (
        f'<b class="pill {state}">{state}</b>{why}<span>written '
        f'<time datetime="{written.isoformat(timespec="seconds")}">'
        f"{written:%Y-%m-%d %H:%M}</time></span>"
        '<b id="late" hidden>A new page is overdue: was the run killed?</b>'
    )


def facts(
    plan: Plan, step: int, metrics: Sequence[Row], validation: Sequence[Row]
) -> list[tuple[str, str]]:
    """Names and values of what is asked first.

    Args:
        plan: The run.
        step: Steps done.
        metrics: Rows of ``metrics.csv``.
        validation: Rows of ``validation.csv``.
    """
    found = [("epoch", f"{plan.epoch_of(step):.1f} of {plan.epoch_of(plan.total_steps):.1f}")]
    if metrics:
        found += [
            ("trained for", sections.duration(metrics[-1]["seconds"])),
            ("speed", f"{number(metrics[-1]['images_per_second'])} images/s"),
        ]
        left = _seconds_for(plan, plan.total_steps - step, metrics)
        if left:
            found.append(("left, at this speed", sections.duration(left)))
        skipped = sum(filter(math.isfinite, (row["skipped_steps"] for row in metrics)))
        if skipped:
            found.append(("skipped steps", f"{skipped:,.0f}, gradients not finite"))
    if validation:
        best = min(validation, key=mean_distance)
        found.append(("best model", f"step {best['step']:,.0f}"))
    counts = f"{len(plan.images_a):,} + {len(plan.images_b):,}"
    return [*found, ("pictures", counts), ("device", f"{plan.device}, {plan.config.precision}")]


def due_in(plan: Plan, step: int, metrics: Sequence[Row]) -> float | None:
    """Seconds until the run writes its next page, if it goes on as fast; None if nobody knows."""
    left = plan.total_steps - step
    every = plan.config.sample_every
    if isinstance(every, int):
        return _seconds_for(plan, min(every, left) if every else left, metrics)
    least, to_the_end = (_seconds_for(plan, n, metrics) for n in (LEAST_STEPS, left))
    if least is None or to_the_end is None:
        return None
    return min(max(duration_seconds(every) or 0.0, least), to_the_end)


def folder(plan: Plan) -> Path:
    """The run's folder from anywhere; as it was given, where text cannot say that."""
    path = plan.run_dir.absolute()
    # A folder above it may have a name that is not.
    return path if is_utf8(path) else plan.run_dir


def commands(plan: Plan, step: int, state: State) -> list[tuple[str, list[str]]]:
    """What can be done with the run: each purpose, and the words of its command."""
    run = folder(plan)
    when = ""
    if not (plan.run_dir / MODEL_FILE).exists():
        every = plan.config.checkpoint_every
        if isinstance(every, int):
            first = f"step {min(every, plan.total_steps):,}"
        else:
            first = f"after {every}, or at the end"
        when = f", once the first checkpoint is saved ({first})"
    shown = [
        (f"Translate {real} to {fake}{when}", _translate(run, fake))
        for real, fake in ((plan.name_a, plan.name_b), (plan.name_b, plan.name_a))
    ]
    if (plan.run_dir / BEST_FILE).exists():
        shown.append(("With the best model so far", _translate(run / BEST_FILE, plan.name_b)))
    if step < plan.total_steps:
        purpose = "Go on, should it be killed" if state == "training" else "Go on"
        shown.append((purpose, ["cyclegan", "train", "--resume", str(run)]))
    return shown


def _translate(checkpoint: Path, to: str) -> list[str]:
    return ["cyclegan", "translate", "photo.jpg", "--to", to, "--checkpoint", str(checkpoint)]


def _seconds_for(plan: Plan, steps: int, metrics: Sequence[Row]) -> float | None:
    """How long so many steps take; None where the speed is not known."""
    speed = metrics[-1]["images_per_second"] if metrics else 0.0
    return steps * plan.step_items / speed if speed > 0 else None
