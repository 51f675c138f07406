"""``cyclegan train --dry-run``: what a training would do and take, as one screen or as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cyclegan_cli.cli import console
from cyclegan_cli.config import TrainConfig, option_name

if TYPE_CHECKING:
    from cyclegan_cli.training.measuring import Measured
    from cyclegan_cli.training.plan import Plan
    from cyclegan_cli.training.preflight import DomainReport, Preflight

SCHEMA = 1  # Of the JSON: docs/training.md. New keys do not change it; other meanings do.
# What other rows than that of the options say.
SAID = frozenset(
    {"domain_a", "domain_b", "name_a", "name_b", "val_a", "val_b", "run_dir", "device",
     "precision", "workers", "cache", "steps", "decay_steps", "epochs", "decay_epochs",
     "learning_rate", "crop_size", "load_size", "batch_size"}
)  # fmt: skip


def show_dry_run(plan: Plan, full: bool, as_json: bool) -> None:
    """Look at the images, make a few steps, and say what was found. Nothing is written.

    Args:
        plan: What would be done.
        full: Whether to look at every image instead of a sample.
        as_json: Whether to say it in JSON, on stdout.

    Raises:
        DataError: No image of a domain can be read or, with ``--strict``, one of them cannot.
        DeviceError: A step does not fit into memory.
    """
    from cyclegan_cli.training.disk import disk_need
    from cyclegan_cli.training.measuring import measure_steps
    from cyclegan_cli.training.preflight import DRY_RUN, FULL, preflight

    found = preflight(plan, FULL if full else DRY_RUN)
    for sentence in (*plan.warnings, *found.warnings()):
        console.warn(sentence)
    if plan.config.strict:
        found.refuse_useless()
    measured = measure_steps(plan)
    found = dataclasses.replace(found, disk=disk_need(plan, measured.seconds))
    if as_json:
        console.json_line(_document(plan, found, measured))
        return
    rows = [*_data_rows(found), *_run_rows(plan), *_cost_rows(plan, found, measured)]
    console.table("dry run: nothing is trained or written", rows)


def _document(plan: Plan, found: Preflight, measured: Measured) -> dict[str, Any]:
    config = plan.config
    left = plan.total_steps - plan.first_step
    return {
        "schema": SCHEMA,
        "domains": {"a": found.a.to_document(), "b": found.b.to_document()},
        "same_files": found.same.to_document() if found.same else None,
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
        "memory_bytes": measured.memory,
        "pictures_in_memory_bytes": min(plan.cache.needed, plan.cache.budget),
        "seconds_per_step": round(measured.seconds, 4),
        "seconds_left": round(measured.seconds * left),
        "disk": {"needed_bytes": found.disk.run, "free_bytes": found.disk.free},
        "options": config.to_document(),
    }


def _data_rows(found: Preflight) -> Iterator[tuple[str, str]]:
    for letter, report in (("A", found.a), ("B", found.b)):
        held_out = f", {report.held_out} more to measure on" if report.held_out else ""
        held_out += f" ({len(report.unmeasured)} left out)" if report.unmeasured else ""
        yield (
            f"domain {letter}: {report.name}",
            f"{report.folder}: {report.images:,} images{held_out}",
        )
        if facts := report.survey.facts():
            formats = ", ".join(f"{count:,} {kind}" for kind, count in facts["formats"].items())
            yield "", f"{formats}; short side {_spread(facts['short_side'])} pixels"
        yield "", _left_out(report)
    if found.same is None:
        yield "same files", "not searched for among so many images: --full does"
    else:
        counts = {"in A": found.same.a, "in B": found.same.b, "in both": found.same.across}
        named = ", ".join(f"{len(groups)} {where}" for where, groups in counts.items() if groups)
        yield "same files", named or "none"


def _spread(facts: dict[str, float]) -> str:
    if facts["smallest"] == facts["largest"]:
        return f"{facts['smallest']:g}"
    return f"{facts['smallest']:g} to {facts['largest']:g}, median {facts['median']:g}"


def _left_out(report: DomainReport) -> str:
    looked = f"{report.looked_at:,} looked at, {report.decoded:,} of them decoded"
    enlarged = f", {report.enlarged:,} enlarged" if report.enlarged else ""
    return f"{looked}: {len(report.useless) or 'none'} left out{enlarged}"


def _run_rows(plan: Plan) -> Iterator[tuple[str, str]]:
    config = plan.config
    yield "run folder", str(plan.run_dir)
    yield "device", f"{plan.device} in {config.precision}, {plan.workers} loading threads"
    yield (
        "crops",
        f"{config.batch_size} of {config.crop_size} pixels a step and domain, "
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
    """The options that are not what the paper, and so the defaults, would have."""
    values = config.to_document()
    for field in dataclasses.fields(config):
        value = values.get(field.name)
        if field.name in SAID or value is None or value == field.default:
            continue
        if isinstance(value, bool):
            yield option_name(field.name if value else f"no_{field.name}")
        else:
            yield f"{option_name(field.name)} {value}"


def _cost_rows(plan: Plan, found: Preflight, measured: Measured) -> Iterator[tuple[str, str]]:
    from cyclegan_cli.training.disk import gigabytes

    left = plan.total_steps - plan.first_step
    where = "of the GPU's" if plan.device.type == "cuda" else "in all"
    yield "images in memory", str(plan.cache)
    yield "memory without them", f"{gigabytes(measured.memory)} {where}, measured"
    yield (
        "time",
        f"{console.duration(measured.seconds * left)} "
        f"({measured.seconds:.3g} s a step, measured on {measured.steps} steps)",
    )
    yield (
        "disk",
        f"{gigabytes(found.disk.run)} needed, at most; {gigabytes(found.disk.free)} free",
    )
