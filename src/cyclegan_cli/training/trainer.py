"""The training loop."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path

import torch

from cyclegan_cli.checkpoints.locate import MODEL_FILE, STATE_FILE
from cyclegan_cli.checkpoints.store import restore_state
from cyclegan_cli.config import TrainConfig
from cyclegan_cli.data.cache import ImageCache
from cyclegan_cli.data.dataset import Batch, UnpairedDataset, load_items, loader
from cyclegan_cli.data.tensors import to_unit_range
from cyclegan_cli.errors import CycleGANError, DataError, InterruptedRunError, OutputError
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.runtime.devices import has_amx, set_fp32_precision
from cyclegan_cli.runtime.memory import memory_errors
from cyclegan_cli.training.callbacks.base import (
    ScheduledCallback,
    TrainingCallback,
    TrainingRun,
    TrainingStatus,
)
from cyclegan_cli.training.callbacks.checkpointing import BestModel, Checkpointing
from cyclegan_cli.training.callbacks.health import Health
from cyclegan_cli.training.callbacks.inception import KernelInceptionDistance
from cyclegan_cli.training.callbacks.limits import (
    DurationNotice,
    Limits,
    StopRequested,
    UnreadableImages,
)
from cyclegan_cli.training.callbacks.logging import CSVLogger
from cyclegan_cli.training.callbacks.samples import SampleGrids
from cyclegan_cli.training.callbacks.tensorboard import TensorBoardLogger
from cyclegan_cli.training.callbacks.validation import Validation
from cyclegan_cli.training.compiling import compile_and_capture
from cyclegan_cli.training.distributed import ProcessGroup, process_group
from cyclegan_cli.training.estimate import LESS_MEMORY
from cyclegan_cli.training.fine_tuning import load_initial_generators
from cyclegan_cli.training.plan import Plan, plan_new
from cyclegan_cli.training.preflight import check_before_training
from cyclegan_cli.training.report.page import HTMLReport

# Items of the data set, of one image per domain each, whose colors the color loss matches; of small
# sets, fewer crops of each image.
COLOR_ITEMS, COLOR_CROPS = 128, 4


def train(
    plan: Plan | TrainConfig,
    callbacks: Sequence[TrainingCallback] = (),
    stop_requested: StopRequested = lambda: None,
    time_limit: float = math.inf,
) -> Path:
    """Train a CycleGAN.

    Under torchrun each process calls this function with its own plan.

    Args:
        plan: What to train: options for a new run, or a plan that may also resume one.
        callbacks: Called on rank 0, after the built-in callbacks.
        stop_requested: Called after each step; a signal number saves the run and ends it.
        time_limit: Seconds after which the run is saved and stopped.

    Returns:
        The path of the saved ``model.safetensors``.

    Raises:
        UsageError: An option is invalid, or another training uses the run folder.
        InterruptedRunError: A signal asked to stop; the run is saved.
        DivergedError: Values are not finite; the last checkpoint is kept.
        DataError: No image of a domain can be read or, with ``--strict``, one of them cannot.
        OutputError: The run folder cannot be written, or its disk is too small.
        CheckpointError: The state to resume from is damaged.
        DeviceError: Not enough memory, or another process of this training has ended.
        CollectiveStopError: On ranks other than 0, for an error that rank 0 raises.
    """
    plan = plan_new(plan) if isinstance(plan, TrainConfig) else plan
    callbacks = [*callbacks, *([TensorBoardLogger()] if plan.config.tensorboard else [])]

    def on_message(message: str) -> None:
        for callback in callbacks:
            callback.on_message(message)

    with (
        process_group(plan.env, plan.device, stop_requested, on_message) as group,
        memory_errors("training", LESS_MEMORY),
    ):
        plan = _agree_on_plan(plan, group)
        callbacks = callbacks if group.is_rank_zero else []
        reported: list[str] = []
        group.on_rank_zero(lambda: reported.extend(check_before_training(plan, callbacks)))
        built_in = default_callbacks(plan, stop_requested, time_limit, reported)
        return Trainer(plan, [*built_in, *callbacks], group).fit()


def default_callbacks(
    plan: Plan,
    stop_requested: StopRequested = lambda: None,
    time_limit: float = math.inf,
    reported: Iterable[str] = (),
) -> list[TrainingCallback]:
    """Return the callbacks that every training has, in the order in which they are called.

    Args:
        plan: The training.
        stop_requested: Returns the number of a signal that asks to stop, or None.
        time_limit: Seconds after which the training is saved and stopped.
        reported: Warnings about images that have been shown already.
    """
    samples = SampleGrids(plan)
    return [
        UnreadableImages(plan.config.strict, reported),
        Health(plan),
        CSVLogger(plan),
        samples,
        Validation(plan, stop_requested),
        BestModel(plan),
        *([KernelInceptionDistance()] if plan.config.kid else []),
        Checkpointing(plan),
        DurationNotice(),
        Limits(plan, stop_requested, time_limit),
        HTMLReport(plan, samples.trigger),
    ]


class Trainer:
    """The training loop. Everything beside the steps is a callback.

    Args:
        plan: What to train.
        callbacks: Called in this order. The scheduled ones are the same on all ranks.
        group: The ranks that train together.
    """

    def __init__(
        self, plan: Plan, callbacks: Sequence[TrainingCallback], group: ProcessGroup | None = None
    ) -> None:
        self.plan = plan
        self.group = group or ProcessGroup()
        self.model = _build_model(plan, self.group.rank)
        self.run = TrainingRun(plan, self.model, callbacks, self.group)
        self.scheduled = [one for one in callbacks if isinstance(one, ScheduledCallback)]

    def fit(self) -> Path:
        """Train until the last step, or until a callback ends the training."""
        run, plan = self.run, self.plan
        try:
            # First what may fail: a training that cannot start leaves no directory.
            self.group.on_rank_zero(lambda: run.call("setup", run))
            self.group.on_rank_zero(lambda: run.run_dir.open(plan.config, plan.resumed))
            dataset = self._dataset()
            self._match_colors(dataset)
            batches = self._load_batches(dataset)
            run.start_clocks()
            run.call("on_train_begin", run)
            with closing(batches):  # Ends the loading threads.
                for batch in batches:
                    run.call("on_batch", run, batch)
                    self._step(batch)
                    for callback in self._due():
                        callback.on_due(run)
                    if run.status != "training":
                        break
            if run.status == "training":  # All steps had been done before.
                run.status = "finished"
            self.group.on_rank_zero(lambda: run.call("on_train_end", run))
        except Exception as error:
            run.status, run.reason = _failure(error)
            if run.run_dir.is_open:
                with suppress(OutputError):  # The first error is the one to report.
                    run.call("on_train_end", run)
            raise
        finally:
            run.call("close", run)
            run.run_dir.close()
        return plan.run_dir / MODEL_FILE

    def _step(self, batch: Batch) -> None:
        """Update all four networks once."""
        run, model = self.run, self.model
        model.set_learning_rate(self.plan.learning_rate_at(run.step))
        model.set_color_weight(self.plan.color_weight_at(run.step))
        real_a, real_b = (
            to_unit_range(real.to(self.plan.device, non_blocking=True))
            for real in (batch.real_a, batch.real_b)
        )
        if run.step == self.plan.first_step:
            choice = self.plan.config.compile
            compile_and_capture(model, choice, real_a, real_b, run.log, run.warn)
        losses = model.step(real_a, real_b)
        run.step += 1
        if model.averages:
            model.averages.update(run.step)
        run.call("on_step_end", run, losses)

    def _due(self) -> list[ScheduledCallback]:
        """Return the callbacks that are due on all ranks, by the clock of rank 0."""
        is_rank_zero, step = self.group.is_rank_zero, self.run.step
        flags = [is_rank_zero and one.trigger.is_due(step) for one in self.scheduled]
        due = self.group.all_reduce_max(flags)
        return [one for one, is_due in zip(self.scheduled, due, strict=True) if is_due]

    def _dataset(self) -> UnpairedDataset:
        plan = self.plan
        return UnpairedDataset(
            plan.images_a, plan.images_b, plan.config, ImageCache(plan.cache), plan.formats
        )

    def _match_colors(self, dataset: UnpairedDataset) -> None:
        """Prepare the color loss from the first items of the data set.

        They are the same on all ranks, and when the training is resumed.
        """
        if not self.plan.config.color_weight:
            return
        images = max(len(self.plan.images_a), len(self.plan.images_b))
        count = min(COLOR_ITEMS, COLOR_CROPS * images)
        items = load_items(dataset, count, self.plan.workers)
        self.model.match_colors(
            (to_unit_range(item.real_a), to_unit_range(item.real_b)) for item in items
        )

    def _load_batches(self, dataset: UnpairedDataset) -> Generator[Batch]:
        plan = self.plan
        for note in plan.notes:
            self.run.log(note)
        for warning in plan.warnings:
            self.run.warn(warning)
        if plan.cache.is_short:
            self.run.warn(f"--cache ram keeps images in memory: {plan.cache}")
        return loader(
            dataset,
            plan.first_item,
            plan.total_steps - plan.first_step,
            plan.workers,
            pin_memory=plan.device.type == "cuda",
            share=plan.env.shard,
        )


def _build_model(plan: Plan, rank: int) -> CycleGAN:
    """Return the model with the weights that the training starts from."""
    # All steps have the same shapes: let cuDNN measure which of its kernels is fastest.
    torch.backends.cudnn.benchmark = True
    set_fp32_precision(plan.config.precision)
    model = CycleGAN(plan.config, plan.device, plan.bf16, rank, winograd_bf16=not has_amx())
    format_a, format_b = plan.formats
    model.may_lack_data = (format_a is not None, format_b is not None)
    if plan.resumed:
        restore_state(plan.run_dir / STATE_FILE, model, rank)
    elif plan.initial:
        load_initial_generators(model, plan.config, plan.initial)
    if plan.env.world_size > 1:
        model.distribute()
    return model


def _agree_on_plan(plan: Plan, group: ProcessGroup) -> Plan:
    """Return the plan with the run folder of rank 0.

    Raises:
        DataError: The ranks do not find the same images.
    """
    run_dir, images, step = group.broadcast((plan.run_dir, plan.images_digest, plan.first_step))
    [differs] = group.all_reduce_max([(images, step) != (plan.images_digest, plan.first_step)])
    if differs:
        raise group.collective_error(
            DataError(
                "the processes do not find the same images and the same run folder",
                "Give all machines the same folders, on a shared file system.",
            )
        )
    return dataclasses.replace(plan, run_dir=run_dir)


def _failure(error: Exception) -> tuple[TrainingStatus, str]:
    """Return the status and the reason that the report shows for an error."""
    if isinstance(error, InterruptedRunError):
        return "stopped", error.message
    if isinstance(error, CycleGANError):
        return "failed", f"{error.message}. {error.hint}".removesuffix(". ")
    return "failed", f"{type(error).__name__}: {error}".partition("\n")[0]
