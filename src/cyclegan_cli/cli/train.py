"""``cyclegan train``."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cyclegan_cli.cli import console
from cyclegan_cli.cli.interrupts import stop_request
from cyclegan_cli.cli.options import parse_duration, with_config_options
from cyclegan_cli.config import TrainConfig, layered
from cyclegan_cli.errors import UsageError

if TYPE_CHECKING:
    from cyclegan_cli.training.plan import Plan


@with_config_options
def train_command(
    given: dict[str, Any],
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="TOML file that sets any of these options; the command line wins.",
            metavar="FILE",
            rich_help_panel="Run",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on with this run exactly where it was saved; needs no other option.",
            metavar="RUN",
            rich_help_panel="Run",
        ),
    ] = None,
    time_limit: Annotated[
        str | None,
        typer.Option(
            help="Save and end after so long, like 2h or 90m; --resume goes on.",
            metavar="TIME",
            rich_help_panel="Run",
            show_default="none",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done.", rich_help_panel="Run")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress.", rich_help_panel="Run")
    ] = False,
) -> None:
    """Learn to translate between two folders of pictures, in both directions.

    The defaults are those of the paper (Zhu et al. 2017). Ctrl-C saves and stops; --resume goes on.
    """
    seconds = math.inf if time_limit is None else parse_duration(time_limit)
    plan = _plan(given, config_file, resume)
    if dry_run:
        _show_plan(plan)
        return
    from cyclegan_cli.training.trainer import train

    with (
        console.training_watcher(quiet) as watcher,
        stop_request("finishing this step, then saving") as stop_requested,
    ):
        checkpoint = train(plan, watcher, stop_requested, seconds)
    console.result(f"checkpoint: {checkpoint}")
    if not quiet:
        photo = plan.pictures_a[0]
        command = ["cyclegan", "translate", str(photo), "-o", f"{photo.stem}_{plan.name_b}.jpg"]
        console.say(f"try: {shlex.join([*command, '--checkpoint', str(plan.run_dir)])}")


def _plan(given: dict[str, Any], config_file: Path | None, resume: Path | None) -> Plan:
    _refuse_two_lengths(given)
    from cyclegan_cli.training.plan import plan_new, plan_resumed, read_config_values

    if resume is not None:
        if config_file is not None:
            raise UsageError(
                "--resume and --config exclude each other", "A run remembers its own options."
            )
        return plan_resumed(resume, given)
    from_file = read_config_values(config_file) if config_file else {}
    return plan_new(TrainConfig(**layered(from_file, given)))


def _refuse_two_lengths(given: dict[str, Any]) -> None:
    if "steps" in given and ("epochs" in given or "decay_epochs" in given):
        raise UsageError(
            "--steps and --epochs exclude each other", "Give the length in one of them."
        )


def _show_plan(plan: Plan) -> None:
    config = plan.config
    rows = [
        (f"domain A: {plan.name_a}", f"{config.domain_a} ({len(plan.pictures_a)} pictures)"),
        (f"domain B: {plan.name_b}", f"{config.domain_b} ({len(plan.pictures_b)} pictures)"),
        ("run folder", str(plan.run_dir)),
        ("device", f"{plan.device}, {config.precision}, {plan.workers} loading threads"),
        ("pictures in memory", str(plan.cache)),
        (
            "steps",
            f"{plan.first_step} done of {plan.total_steps} "
            f"({plan.epoch_of(plan.total_steps):.1f} epochs of {plan.epoch_items} pictures)",
        ),
        (
            "learning rate",
            f"{plan.learning_rate_at(plan.first_step):g} at step {plan.first_step + 1}, "
            f"{plan.learning_rate_at(plan.total_steps - 1):g} at step {plan.total_steps}",
        ),
    ]
    shown = {"domain_a", "domain_b", "name_a", "name_b", "run_dir", "device", "precision",
             "workers", "cache", "steps", "epochs", "decay_epochs", "learning_rate"}  # fmt: skip
    rows += [
        (name.replace("_", " "), str(value))
        for name, value in config.to_document().items()
        if name not in shown
    ]
    for sentence in plan.warnings:
        console.warn(sentence)
    console.table("dry run: nothing is trained or written", rows)
