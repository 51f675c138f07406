"""``cyclegan train``."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from cyclegan_cli.cli import console
from cyclegan_cli.cli.dry_run import show_dry_run
from cyclegan_cli.cli.interrupts import stop_request
from cyclegan_cli.cli.options import config_options
from cyclegan_cli.config import RECIPES, TrainConfig, TrainRunConfig, layered
from cyclegan_cli.errors import CycleGANError, UsageError
from cyclegan_cli.runtime.distributed_env import (
    DistributedEnv,
    read_distributed_env,
    rendezvous_address,
    restart_count,
)
from cyclegan_cli.runtime.threads import divide_threads, limit_openmp_spin

if TYPE_CHECKING:
    from cyclegan_cli.training.plan import Plan


ECHO_SECONDS = 2.0


@config_options(TrainConfig, TrainRunConfig, partial=TrainConfig)
def train_command(given: dict[str, Any], run: TrainRunConfig) -> None:
    """Train a CycleGAN on two folders of unpaired images.

    The learning rate schedule is that of the paper (Zhu et al. 2017); --recipe paper also has its
    networks and losses.
    Ctrl-C saves and stops; --resume continues.
    """
    limit_openmp_spin()
    env = read_distributed_env()
    with _reported_errors(env, env.local_rank == 0):  # All ranks find the same invalid options.
        if run.dry_run and env.world_size > 1:
            raise UsageError("--dry-run needs a single process", "Run it without torchrun.")
        if env.world_size > 1:
            rendezvous_address()
        plan = _plan(given, run, env)
    if plan.is_complete:
        if env.is_rank_zero:
            console.info(
                f"{plan.run_dir} is complete: {plan.first_step} of {plan.total_steps} steps are "
                "done; to continue, resume with more --steps or --epochs"
            )
        return
    if run.dry_run:
        show_dry_run(plan, run.full, run.json)
        return
    if run.verbose and env.is_rank_zero:
        _show_setup(plan)
    _train(plan, run.time_limit_seconds, run.quiet)


def _show_setup(plan: Plan) -> None:
    """Show the device, the networks, and how images are loaded and held out."""
    from cyclegan_cli.runtime.devices import describe_environment

    console.info(describe_environment(plan.device))
    console.info(
        f"networks: {plan.config.base_channels} channels, {plan.config.generator_blocks} residual "
        f"blocks, discriminators of {plan.config.discriminator_channels} channels"
    )
    console.info(
        f"{plan.workers} loading threads; images in memory: {plan.cache}; "
        f"held out to measure on: {len(plan.split.val_a)} + {len(plan.split.val_b)}"
    )


def _train(plan: Plan, time_limit: float, quiet: bool) -> None:
    from cyclegan_cli.cli.progress import training_progress
    from cyclegan_cli.training.trainer import train

    env = plan.env
    divide_threads(env.local_world_size)
    echo = ECHO_SECONDS if env.is_torchrun else 0.0
    answer = "finishing this step, then saving" if env.is_rank_zero else ""
    with (
        _reported_errors(env, True),
        stop_request(answer, echo_seconds=echo) as stop_requested,
    ):
        checkpoint = train(plan, [training_progress(quiet)], stop_requested, time_limit)
    if not env.is_rank_zero:
        return
    console.result(f"checkpoint: {checkpoint}")
    if not quiet:
        from cyclegan_cli.data.formats import writable_format

        photo = plan.images_a[0]
        extension = photo.suffix if writable_format(photo.suffix) else ".png"
        translation = f"{photo.stem}_{plan.name_b}{extension}"
        command = ["cyclegan", "translate", str(photo), "-o", translation]
        console.info(f"try: {shlex.join([*command, '--checkpoint', str(plan.run_dir)])}")


SILENT_EXIT_SECONDS = 10.0  # At most; torchrun ends the process earlier.


@contextmanager
def _reported_errors(env: DistributedEnv, is_reporter: bool) -> Iterator[None]:
    """Prefix errors with the rank, or exit silently if another rank reports them.

    torchrun ends all processes once one has failed. Silent ones wait for that, so that the report
    is not cut off.
    """
    try:
        yield
    except CycleGANError as error:
        if error.exit_code == 0 or not is_reporter:
            if not is_reporter:
                time.sleep(SILENT_EXIT_SECONDS)
            raise typer.Exit(error.exit_code) from None
        if not env.is_rank_zero:
            error.message = f"process {env.shard}: {error.message}"
        raise


def _plan(given: dict[str, Any], run: TrainRunConfig, env: DistributedEnv) -> Plan:
    if "steps" in given and ("epochs" in given or "decay_epochs" in given):
        raise UsageError("--steps and --epochs exclude each other", "Give one of them.")
    from cyclegan_cli.training.plan import (
        plan_new,
        plan_restarted,
        plan_resumed,
        read_config_values,
    )

    if run.resume is not None:
        return plan_resumed(run.resume, given, env)
    from_file = read_config_values(run.config) if run.config else {}
    config = TrainConfig(**layered(layered(RECIPES[run.recipe], from_file), given))
    return plan_restarted(config, env) if restart_count() else plan_new(config, env)
