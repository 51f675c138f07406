"""``cyclegan train``."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cyclegan_cli.cli import console
from cyclegan_cli.cli.dry_run import show_dry_run
from cyclegan_cli.cli.interrupts import stop_request
from cyclegan_cli.cli.options import config_options, parse_duration
from cyclegan_cli.cli.verbosity import say_how_it_trains
from cyclegan_cli.config import TrainConfig, layered, refuse_both
from cyclegan_cli.errors import CycleGANError, UsageError
from cyclegan_cli.runtime.distributed_env import (
    DistributedEnv,
    read_distributed_env,
    rendezvous_address,
    restart_count,
)

if TYPE_CHECKING:
    from cyclegan_cli.training.plan import Plan


ECHO_SECONDS = 2.0


@config_options(TrainConfig, partial=True)
def train_command(
    given: dict[str, Any],
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            readable=False,  # Whoever opens it says what is wrong.
            help="TOML file that sets any of these options; the command line wins.",
            metavar="FILE",
            rich_help_panel="Run",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            readable=False,  # Whoever opens it says what is wrong.
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
        bool,
        typer.Option(
            "--dry-run",
            help="Look at the images, make a few steps, and say what the training would do and "
            "take: memory, time, disk. Nothing is left behind.",
            rich_help_panel="Run",
        ),
    ] = False,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="With --dry-run, look at every image instead of a sample.",
            rich_help_panel="Run",
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="With --dry-run, say it in JSON.", rich_help_panel="Run"),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress.", rich_help_panel="Run")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", help="Also say where and how it computes.", rich_help_panel="Run"
        ),
    ] = False,
) -> None:
    """Learn to translate between two folders of images, in both directions.

    Networks, losses and schedule are by default the paper's (Zhu et al. 2017). Ctrl-C saves and
    stops; --resume goes on.
    """
    refuse_both("--verbose", "--quiet", verbose and quiet)
    seconds = math.inf if time_limit is None else parse_duration(time_limit)
    for option, is_given in (("--full", full), ("--json", as_json)):
        if is_given and not dry_run:
            raise UsageError(f"{option} needs --dry-run", "Give both, or leave it out.")
    env = read_distributed_env()
    with _speaking(env, env.local_rank == 0):  # All have the same to say of bad options.
        if dry_run and env.world_size > 1:
            raise UsageError("--dry-run is for one process", "Leave torchrun out.")
        if env.world_size > 1:
            rendezvous_address()
        plan = _plan(given, config_file, resume, env)
    if plan.is_complete:
        if env.is_rank_zero:
            console.say(
                f"{plan.run_dir} is complete: it has done {plan.first_step} of {plan.total_steps} "
                "steps; to train it further, resume with more --steps or --epochs"
            )
        return
    if dry_run:
        show_dry_run(plan, full, as_json)
        return
    from cyclegan_cli.runtime.threads import divide_threads, limit_openmp_spin
    from cyclegan_cli.training.trainer import train

    divide_threads(env.local_world_size)
    echo = ECHO_SECONDS if env.is_torchrun else 0.0
    if verbose and env.is_rank_zero:
        say_how_it_trains(plan)
    answer = "finishing this step, then saving" if env.is_rank_zero else ""
    with (
        _speaking(env, True),
        console.training_watcher(quiet) as watcher,
        stop_request(answer, echo_seconds=echo) as stop_requested,
        limit_openmp_spin(),
    ):
        checkpoint = train(plan, watcher, stop_requested, seconds)
    if not env.is_rank_zero:
        return
    console.result(f"checkpoint: {checkpoint}")
    if not quiet:
        from cyclegan_cli.data.formats import writable_format

        photo = plan.images_a[0]
        ending = photo.suffix if writable_format(photo.suffix) else ".png"
        translation = f"{photo.stem}_{plan.name_b}{ending}"
        command = ["cyclegan", "translate", str(photo), "-o", translation]
        console.say(f"try: {shlex.join([*command, '--checkpoint', str(plan.run_dir)])}")


SILENT_SECONDS = 10.0  # At most: torchrun ends them earlier.


@contextmanager
def _speaking(env: DistributedEnv, speaks: bool) -> Iterator[None]:
    """Let a process that is not the first say who it is, or end without a word.

    torchrun ends all processes as soon as one has failed: those without a word wait for that.
    """
    try:
        yield
    except CycleGANError as error:
        if error.exit_code == 0 or not speaks:
            if not speaks:
                time.sleep(SILENT_SECONDS)
            raise typer.Exit(error.exit_code) from None
        if not env.is_rank_zero:
            error.message = f"process {env.shard}: {error.message}"
        raise


def _plan(
    given: dict[str, Any], config_file: Path | None, resume: Path | None, env: DistributedEnv
) -> Plan:
    _refuse_two_lengths(given)
    from cyclegan_cli.training.plan import (
        plan_new,
        plan_restarted,
        plan_resumed,
        read_config_values,
    )

    if resume is not None:
        if config_file is not None:
            raise UsageError(
                "--resume and --config exclude each other", "A run remembers its own options."
            )
        return plan_resumed(resume, given, env)
    from_file = read_config_values(config_file) if config_file else {}
    config = TrainConfig(**layered(from_file, given))
    return plan_restarted(config, env) if restart_count() else plan_new(config, env)


def _refuse_two_lengths(given: dict[str, Any]) -> None:
    if "steps" in given and ("epochs" in given or "decay_epochs" in given):
        raise UsageError(
            "--steps and --epochs exclude each other", "Give the length in one of them."
        )
