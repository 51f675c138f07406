"""``cyclegan train --dry-run``: the settings and the cost of a training, as text or JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cyclegan_cli.cli import console
from cyclegan_cli.config import TrainConfig, option_name

if TYPE_CHECKING:
    from cyclegan_cli.training.estimate import StepCost
    from cyclegan_cli.training.plan import Plan
    from cyclegan_cli.training.preflight import DomainReport, Preflight

SCHEMA_VERSION = 1  # Of the JSON (docs/training.md). New keys do not change it.
# Options that have rows of their own.
SHOWN_OPTIONS = frozenset(
    {"domain_a", "domain_b", "name_a", "name_b", "val_a", "val_b", "run_dir", "device",
     "precision", "workers", "cache", "steps", "decay_steps", "epochs", "decay_epochs",
     "learning_rate", "channels_a", "channels_b", "crop_size", "load_size", "batch_size"}
)  # fmt: skip


def show_dry_run(plan: Plan, full: bool, as_json: bool) -> None:
    """Check the images, measure a few steps, and print the results. Write nothing.

    Args:
        plan: The training.
        full: Whether to check every image instead of a sample.
        as_json: Whether to print JSON.

    Raises:
        DataError: No image of a domain can be read or, with ``--strict``, one of them cannot.
        DeviceError: A step does not fit into memory.
    """
    from cyclegan_cli.training.estimate import disk_space, measure_steps
    from cyclegan_cli.training.preflight import DRY_RUN, FULL, preflight

    for note in plan.notes:
        console.info(note)
    found = preflight(plan, FULL if full else DRY_RUN)
    for sentence in (*plan.warnings, *found.warnings()):
        console.warn(sentence)
    if plan.config.strict:
        found.check_strict()
    cost = measure_steps(plan)
    found = dataclasses.replace(found, disk=disk_space(plan, cost.seconds))
    if as_json:
        console.json_line(_document(plan, found, cost))
        return
    rows = [*_data_rows(found), *_run_rows(plan), *_cost_rows(plan, found, cost)]
    console.table("dry run: nothing is trained or written", rows)


def _document(plan: Plan, found: Preflight, cost: StepCost) -> dict[str, Any]:
    config = plan.config
    left = plan.total_steps - plan.first_step
    return {
        "schema": SCHEMA_VERSION,
        "domains": {"a": found.a.to_document(), "b": found.b.to_document()},
        "same_files": found.duplicates.to_document() if found.duplicates else None,
        "warnings": [*plan.warnings, *found.warnings()],
        "run_dir": str(plan.run_dir),
        "device": str(plan.device),
        "precision": config.precision,
        "steps": {"done": plan.first_step, "total": plan.total_steps},
        "epochs": round(plan.epoch_of(plan.total_steps), 3),
        "learning_rate": {
            "now": plan.learning_rate_at(plan.first_step),
            "falls_after_step": plan.constant_steps,
            "last": plan.learning_rate_at(plan.total_steps - 1),
        },
        "memory_bytes": cost.memory,
        "pictures_in_memory_bytes": min(plan.cache.needed, plan.cache.budget),
        "seconds_per_step": round(cost.seconds, 4),
        "seconds_left": round(cost.seconds * left),
        "disk": {"needed_bytes": found.disk.run, "free_bytes": found.disk.free},
        "options": config.to_document(),
    }


def _data_rows(found: Preflight) -> Iterator[tuple[str, str]]:
    for letter, report in (("A", found.a), ("B", found.b)):
        validation = f", {report.val_images} for validation" if report.val_images else ""
        validation += f" ({len(report.unusable_val)} left out)" if report.unusable_val else ""
        yield (
            f"domain {letter}: {report.name}",
            f"{report.folder}: {report.images:,} images{validation}",
        )
        if facts := report.survey.facts():
            formats = ", ".join(f"{count:,} {kind}" for kind, count in facts["formats"].items())
            yield "", f"{formats}; short side {_spread(facts['short_side'])} pixels"
        if report.format is not None:
            clipped = "" if report.clipped is None else f"; {report.clipped:.2%} clipped"
            yield "", f"{report.format}{clipped}"
        yield "", _left_out(report)
    if found.duplicates is None:
        yield "duplicates", "not searched for in a data set of this size; use --full"
    else:
        counts = {
            "in A": found.duplicates.a,
            "in B": found.duplicates.b,
            "in both": found.duplicates.across,
        }
        named = ", ".join(f"{len(groups)} {where}" for where, groups in counts.items() if groups)
        yield "duplicates", named or "none"


def _spread(facts: dict[str, float]) -> str:
    if facts["smallest"] == facts["largest"]:
        return f"{facts['smallest']:g}"
    return f"{facts['smallest']:g} to {facts['largest']:g}, median {facts['median']:g}"


def _left_out(report: DomainReport) -> str:
    checked = f"{report.checked:,} checked, {report.decoded:,} of them decoded"
    enlarged = f", {report.enlarged:,} enlarged" if report.enlarged else ""
    return f"{checked}: {len(report.unusable) or 'none'} left out{enlarged}"


def _run_rows(plan: Plan) -> Iterator[tuple[str, str]]:
    config = plan.config
    yield "run folder", str(plan.run_dir)
    yield "device", f"{plan.device} in {config.precision}, {plan.workers} loading threads"
    yield (
        "crops",
        f"{config.batch_size} of {config.crop_size} pixels per step and domain, "
        f"from images of {config.load_size}",
    )
    yield (
        "steps",
        f"{plan.first_step:,} done of {plan.total_steps:,} "
        f"({plan.epoch_of(plan.total_steps):.1f} epochs of {plan.epoch_items:,} images)",
    )
    yield "learning rate", _schedule(plan)
    yield "other options", ", ".join(_chosen_options(config)) or "the defaults"


def _schedule(plan: Plan) -> str:
    first = plan.learning_rate_at(plan.first_step)
    if plan.constant_steps >= plan.total_steps:
        return f"{first:g} to the end"
    last = plan.learning_rate_at(plan.total_steps - 1)
    falls = f"falling to {last:g} at step {plan.total_steps:,}"
    if plan.constant_steps <= plan.first_step:
        return f"{first:g} at step {plan.first_step + 1:,}, {falls}"
    return f"{first:g} to step {plan.constant_steps:,}, then {falls}"


def _chosen_options(config: TrainConfig) -> Iterator[str]:
    """Yield the options that differ from their defaults."""
    values = config.to_document()
    for field in dataclasses.fields(config):
        value = values.get(field.name)
        if field.name in SHOWN_OPTIONS or value is None or value == field.default:
            continue
        if isinstance(value, bool):
            yield option_name(field.name if value else f"no_{field.name}")
        else:
            yield f"{option_name(field.name)} {value}"


def _cost_rows(plan: Plan, found: Preflight, cost: StepCost) -> Iterator[tuple[str, str]]:
    from cyclegan_cli.training.estimate import duration_advice, gigabytes

    left = plan.total_steps - plan.first_step
    where = "on the GPU" if plan.device.type == "cuda" else "in total"
    yield "images in memory", str(plan.cache)
    yield "memory without images", f"{gigabytes(cost.memory)} {where}, measured"
    yield (
        "time",
        f"{console.duration(cost.seconds * left)} "
        f"({cost.seconds:.3g} s per step, measured on {cost.steps} steps)",
    )
    if advice := duration_advice(plan, plan.first_step, cost.seconds).partition("; ")[2]:
        yield "", advice
    yield (
        "disk",
        f"up to {gigabytes(found.disk.run)} needed; {gigabytes(found.disk.free)} free",
    )
