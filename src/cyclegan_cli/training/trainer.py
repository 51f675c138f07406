"""The loop: steps, the learning rate's schedule, when to measure, sample and save, how to stop."""

from __future__ import annotations

import dataclasses
import math
import shlex
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import torch
from torch import Tensor

from cyclegan_cli.checkpoints.header import StateInfo
from cyclegan_cli.checkpoints.locate import BEST_FILE, MODEL_FILE, STATE_FILE
from cyclegan_cli.checkpoints.store import pools_of, restore_state
from cyclegan_cli.config import CompileChoice
from cyclegan_cli.data.cache import ImageCache
from cyclegan_cli.data.dataset import Batch, UnpairedDataset, loader
from cyclegan_cli.data.tensors import to_unit_range
from cyclegan_cli.errors import (
    CycleGANError,
    DataError,
    DivergedError,
    InterruptedRunError,
    OutputError,
    UsageError,
)
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.runtime.devices import has_amx, set_fp32_precision
from cyclegan_cli.runtime.memory import memory_errors
from cyclegan_cli.training.compiling import Compiler
from cyclegan_cli.training.describing import state_info
from cyclegan_cli.training.distributed import Group, joined
from cyclegan_cli.training.fine_tuning import begin_with
from cyclegan_cli.training.fixed import fixed_images
from cyclegan_cli.training.inception import InceptionJudge
from cyclegan_cli.training.interval import Interval
from cyclegan_cli.training.measuring import LESS_MEMORY
from cyclegan_cli.training.monitor import Change, Monitor
from cyclegan_cli.training.page.overview import State
from cyclegan_cli.training.plan import Plan, model_is_of_step
from cyclegan_cli.training.preflight import START, STRICT_START, preflight
from cyclegan_cli.training.run_folder import NoFolder, RunFolder
from cyclegan_cli.training.schedule import Schedule
from cyclegan_cli.training.tables import HEALTH_COLUMN, LATER_COLUMNS
from cyclegan_cli.training.tensorboard import with_tensorboard
from cyclegan_cli.training.validation import BestSoFar, Examiner, quality, shuffled
from cyclegan_cli.training.watcher import Watcher, Watchers

SAMPLE_IMAGES = 4
# Steps in a row whose gradients are not finite, before the run ends: it will not recover.
SKIPPED_IN_A_ROW = 10
NETWORKS = ("generators", "discriminators")
ON_MY_OWN = Group()
StopRequested = Callable[[], int | None]


def train(
    plan: Plan, watcher: Watcher, stop_requested: StopRequested, time_limit: float = math.inf
) -> Path:
    """Train to the end, until asked to stop, or until it gets no better.

    Where torchrun has started several processes, each calls this with its own plan.

    Args:
        plan: What to do.
        watcher: Is told how it goes.
        stop_requested: Asked after every step; a signal's number ends the run in good order.
        time_limit: Seconds after which the run is to be saved and ended, in good order too.

    Returns:
        The path of the saved ``model.safetensors``.

    Raises:
        UsageError: Another training is at work in the run folder.
        InterruptedRunError: Asked to stop; everything is saved.
        DivergedError: The losses are not finite any more; the last checkpoint is kept.
        DataError: No image of a domain can be read or, with ``--strict``, one of them cannot.
        OutputError: The run folder cannot be written, or its disk has no room for a checkpoint.
        CheckpointError: The state to go on from is damaged.
        DeviceError: Not enough memory, or another process of this training has gone.
        EndedTogetherError: In all processes but the first, which says what it was.
    """
    with (
        joined(plan.env, plan.device, stop_requested, watcher.told) as group,
        memory_errors("training", LESS_MEMORY),
    ):
        if not group.is_first:
            return _train(plan, Watchers(), stop_requested, time_limit, group)
        with with_tensorboard(plan, watcher) as watcher:
            return _train(plan, watcher, stop_requested, time_limit, group)


def _train(
    plan: Plan, watcher: Watcher, stop_requested: StopRequested, time_limit: float, group: Group
) -> Path:
    plan = _agreed(plan, group)
    known: list[str] = []
    group.on_first(lambda: known.extend(_look(plan, watcher)))
    trainer = Trainer(plan, watcher, time_limit, group)
    trainer.warned_of.update(known)
    with closing(trainer.folder):
        return trainer.run(stop_requested)


def _agreed(plan: Plan, group: Group) -> Plan:
    """One plan for all processes, who each have made their own.

    Raises:
        DataError: They do not see the same images.
    """
    run_dir, images, step = group.of_first((plan.run_dir, plan.images_digest, plan.first_step))
    [differs] = group.highest([(images, step) != (plan.images_digest, plan.first_step)])
    if differs:
        raise group.left_by(
            DataError(
                "the processes do not all see the same images and the same run folder",
                "Give all machines the same folders, on a file system that they share.",
            )
        )
    return dataclasses.replace(plan, run_dir=run_dir)


def _look(plan: Plan, watcher: Watcher) -> list[str]:
    """The checks before the first step; returns what was said of single images."""
    found = preflight(plan, STRICT_START if plan.config.strict else START)
    if plan.config.strict:
        found.refuse_useless()
    found.disk.refuse_too_little(plan.run_dir)
    for sentence in found.warnings():
        watcher.warned(sentence)
    return [*found.a.named, *found.b.named]


class Trainer:
    """One run, from its first (or next) step to its last.

    Args:
        plan: What to do.
        watcher: Is told how it goes.
        time_limit: Seconds after which the run is to be saved and ended.
        group: The processes that train together.
    """

    def __init__(
        self, plan: Plan, watcher: Watcher, time_limit: float = math.inf, group: Group = ON_MY_OWN
    ) -> None:
        self.plan = plan
        self.watcher = watcher
        self.group = group
        self.trouble: CycleGANError | None = None
        self.time_limit = time_limit
        self.step = plan.first_step
        self.started = time.monotonic()
        self.warned_of: set[str] = set()
        # All steps have the same shapes: it pays to try which of cuDNN's kernels is fastest.
        torch.backends.cudnn.benchmark = True
        set_fp32_precision(plan.config.precision)
        self.is_saved = plan.resumed is not None
        self.model = CycleGAN(
            plan.config, plan.device, plan.bf16, group.index, winograd_bf16=not has_amx()
        )
        self.compiler = Compiler(self.model, self._compile(), watcher.told, watcher.warned)
        if plan.resumed:
            restore_state(plan.run_dir / STATE_FILE, self.model, group.index)
        elif plan.config.init_from:
            begin_with(self.model, plan.config)
        if plan.env.world_size > 1:
            self.model.distribute()
        self._remember(plan.resumed)
        self.folder: RunFolder | NoFolder = NoFolder()
        group.on_first(self._prepare)

    def _compile(self) -> CompileChoice:
        """Processes time their steps differently, and must all compile or none."""
        choice = self.plan.config.compile
        return "off" if choice == "auto" and self.plan.env.world_size > 1 else choice

    def _prepare(self) -> None:
        """What the first process needs to measure, draw and write."""
        plan = self.plan
        self.samples = self._sample_images() if plan.config.sample_every else None
        self.examiner = Examiner(plan) if plan.config.validate_every else None
        self.judge = self._inception_judge() if plan.config.kid else None
        # Only now: what cannot start leaves no folder behind.
        self.folder = RunFolder(plan, self.model, self.step)

    def _remember(self, resumed: StateInfo | None) -> None:
        watch = resumed.watch if resumed else {}
        self.seconds_before = resumed.seconds if resumed else 0.0
        self.interval = Interval(self.plan.device, watch.get("interval", {}))
        self.best = BestSoFar(watch.get("best", {}))
        self.monitor = Monitor(self.plan, watch.get("monitor", {}))
        self.examined: int = watch.get("examined", self.step)
        self.skipped: int = watch.get("skipped", 0)
        self.skipped_in_a_row: int = watch.get("skipped_in_a_row", 0)
        config, since = self.plan.config, watch.get("since", {})
        self.logging, self.sampling, self.validating, self.saving = (
            Schedule(every, self.step, self.plan.total_steps, since.get(name, {}))
            for name, every in (
                ("log", config.log_every),
                ("sample", config.sample_every),
                ("validate", config.validate_every),
                ("checkpoint", config.checkpoint_every),
            )
        )

    def _inception_judge(self) -> InceptionJudge:
        if not self.plan.validates:
            raise UsageError(
                "--kid measures held-out images, and there are none",
                "Give --val-a and --val-b, or a larger --val-fraction.",
            )
        return InceptionJudge(self.plan.device)

    def _sample_images(self) -> tuple[Tensor, Tensor]:
        """The images that every grid shows: the same ones in every run with the same seed."""
        plan = self.plan
        first, second = (
            fixed_images(
                shuffled(images, f"{plan.config.seed}/{domain}/samples"),
                plan.config,
                SAMPLE_IMAGES,
                domain.upper(),
            ).to(plan.device)
            for domain, images in (("a", plan.images_a), ("b", plan.images_b))
        )
        shown = min(len(first), len(second))
        return first[:shown], second[:shown]

    def run(self, stop_requested: StopRequested) -> Path:
        """Make all steps that are left; see :func:`train`."""
        plan = self.plan
        self.group.on_first(self._mend)
        cache = ImageCache(plan.cache)
        batches = loader(
            UnpairedDataset(plan.images_a, plan.images_b, plan.config, cache),
            plan.first_item,
            plan.total_steps - self.step,
            plan.workers,
            pin_memory=plan.device.type == "cuda",
            share=plan.env.shard,
        )
        for sentence in plan.warnings:
            self.watcher.warned(sentence)
        if plan.cache.is_short:
            self.watcher.warned(f"--cache ram keeps images in memory: {plan.cache}")
        self.started = time.monotonic()
        self.interval.start_clock()
        for schedule in (self.sampling, self.validating, self.saving):
            schedule.start_clock()
        self.watcher.started(plan)
        # From now on, they say that the run goes on, and nothing of steps that a crash has lost.
        self.group.on_first(self._say_that_it_goes_on)
        try:
            with closing(batches):  # Ends the threads that load ahead.
                self._make_steps(batches, stop_requested)
        except Exception as error:
            with suppress(OutputError):  # What ended the run is the news.
                self.folder.write_page(self.step, *_how_it_ended(error))
            raise
        return plan.run_dir / MODEL_FILE

    def _mend(self) -> None:
        if self.plan.resumed and not model_is_of_step(self.plan.run_dir, self.step):
            self.folder.save_model(self._state_info())  # A crash came between the two files.

    def _say_that_it_goes_on(self) -> None:
        self.folder.write_health(self.monitor.document(self.step))
        self.folder.write_page(self.step)

    def _make_steps(self, batches: Iterator[Batch], stop_requested: StopRequested) -> None:
        # The last session may have been asked to stop before it had measured what was due.
        [measures] = self._agreed_to_be_due(self.validating)
        if measures:
            self._examine(stop_requested)
        for batch in batches:
            self._make_step(batch)
            logs, draws, measures, saves = self._agreed_to_be_due(
                self.logging, self.sampling, self.validating, self.saving
            )
            if (logs or draws) and not self.is_saved:
                self._save(is_due=False)  # What has results but no state has lost it.
            if logs:
                self._measure()
            if draws:
                self.group.on_first(self._sample)
            if measures:
                self._examine(stop_requested)
            if self._ends(stop_requested):
                return
            if saves:
                self._save()
            if draws:
                self.group.on_first(lambda: self.folder.write_page(self.step))

    def _agreed_to_be_due(self, *schedules: Schedule) -> list[int]:
        """Which of them are due, by the first process's clock: all take part in what follows."""
        is_first = self.group.is_first
        return self.group.highest([is_first and one.is_due(self.step) for one in schedules])

    def _make_step(self, batch: Batch) -> None:
        self._tell_of_skipped(batch)
        self.model.set_learning_rate(self.plan.learning_rate_at(self.step))
        losses = self.compiler.step(
            self._to_device(batch.real_a),
            self._to_device(batch.real_b),
            self.plan.total_steps - self.step,
        )
        self.interval.add(losses)
        self.step += 1
        if losses.is_applied:
            self.skipped_in_a_row = 0
        else:
            self._count_skipped()
        if self.model.averages:
            self.model.averages.update(self.step)
        self.watcher.stepped(self.step)

    def _count_skipped(self) -> None:
        """Count a step that was not applied: one is an accident, a row of them the end."""
        self.skipped += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row == SKIPPED_IN_A_ROW:
            raise self._diverged(f"the gradients of {self.skipped_in_a_row} steps are not finite")
        if self.skipped > 1 and self.skipped.bit_count() == 1:  # 2, 4, 8 ...
            self.watcher.warned(
                f"step {self.step}: the gradients are not finite, and the step is skipped; "
                f"{self.skipped} steps so far. If there are more and more, go on with "
                "--precision fp32 or a smaller --learning-rate"
            )

    def _tell_of_skipped(self, batch: Batch) -> None:
        for sentence in batch.skipped:
            if self.plan.config.strict:
                self.trouble = DataError(
                    f"--strict: {sentence}; everything is saved, after step {self.step + 1}",
                    f"Mend or remove it, then go on: {self._resume_command()}",
                )
            elif sentence not in self.warned_of:
                self.warned_of.add(sentence)
                self.watcher.warned(f"{sentence}; another image takes its place")

    def _to_device(self, levels: Tensor) -> Tensor:
        return to_unit_range(levels.to(self.plan.device, non_blocking=True))

    def _measure(self) -> None:
        """Add a row of the interval's mean losses to metrics.csv."""
        if not self.interval.steps:
            return  # All were skipped: the row comes with the next step that was not.
        means = self.group.mean(self.interval.means())
        rate = self.plan.learning_rate_at(self.step - 1)
        norms = self.interval.gradient_norms
        sizes = dict(zip(NETWORKS, self.model.update_sizes(), strict=True))
        changes = (
            self.monitor.see_losses(self.step, means, self.interval.steps),
            self.monitor.see_gradients(self.step, dict(zip(NETWORKS, norms, strict=True))),
            self.monitor.see_updates(self.step, sizes, rate),
        )
        speed = self.interval.steps_per_second() * self.plan.step_items
        row = {
            "step": self.step,
            "epoch": self.plan.epoch_of(self.step),
            "learning_rate": rate,
            **means,
            **dict(zip(LATER_COLUMNS, (*norms, self.interval.skipped), strict=True)),
            "images_per_second": speed,
            "seconds": self._seconds(),
        }
        self.group.on_first(lambda: self._write_down(row, changes))
        self.interval = Interval(self.plan.device, {})

    def _write_down(self, row: dict[str, float], changes: Iterable[Change]) -> None:
        for change in changes:
            self._tell(change)
        self.folder.add_metrics(row | {HEALTH_COLUMN: self.monitor.word})
        self.watcher.measured(row)

    def _sample(self) -> None:
        assert self.samples is not None
        real_a, real_b = self.samples
        images = {"real_a": real_a, "real_b": real_b}
        images |= self.model.translate_kronecker(real_a, real_b)
        self.watcher.sampled(self.step, self.folder.write_samples(self.step, images))
        self.sampling.done(self.step)

    def _examine(self, stop_requested: StopRequested) -> None:
        """Measure the quality, where nobody has asked to stop."""
        if self.examined == self.step:
            return
        if self.plan.env.world_size > 1:
            stop_requested = _never  # All are asked after the step.
        if self.plan.validates and not self.is_saved:
            self._save(is_due=False)
        self.group.on_first(lambda: self._examine_now(stop_requested))

    def _examine_now(self, stop_requested: StopRequested) -> None:
        assert self.examiner is not None
        before = time.monotonic()
        last = self.step == self.plan.total_steps
        found = self.examiner.examine(self.model, _never if last else stop_requested)
        if found is None:
            return  # A resumed run begins with it.
        self.examined = self.step
        if not found.is_finite():
            raise self._diverged("a translation is not finite")
        self._tell(self.monitor.see_images(self.step, found))
        if self.plan.validates:
            row = {"step": self.step, **quality(found), "seconds": time.monotonic() - before}
            self._validated(row)
            if self.judge:
                self._add_inception_distances(self.judge.distances(found))
        self.validating.done(self.step)

    def _tell(self, change: Change) -> None:
        """Say how the health has changed, and write down how it is."""
        for verdict in change.found:
            self.watcher.warned(f"{verdict.sentence}. {verdict.advice}")
        for verdict in change.over:
            self.watcher.told(f"step {self.step}: no longer so: {verdict.sentence}")
        self.folder.write_health(self.monitor.document(self.step))

    def _validated(self, row: dict[str, float]) -> None:
        self.folder.add_validation(row)
        if self.best.improves(row):
            self.folder.save_best(self._state_info(), self.best.swd)
        self.watcher.validated(row)

    def _add_inception_distances(self, distances: dict[str, float]) -> None:
        self.folder.add_kid({"step": self.step, **distances})
        a2b, b2a = distances.values()
        plan = self.plan
        self.watcher.told(
            f"step {self.step}: Kernel Inception Distance {a2b:.4f} {plan.name_a} -> "
            f"{plan.name_b}, {b2a:.4f} {plan.name_b} -> {plan.name_a}"
        )

    def _diverged(self, what: str) -> CycleGANError:
        slower = f"--learning-rate {self.plan.config.learning_rate / 2:g} --precision fp32"
        if (self.plan.run_dir / STATE_FILE).exists():
            kept = "; the checkpoint before it is kept"
            hint = f"Go on from there more slowly: {self._resume_command()} {slower}"
        else:
            kept, hint = "", f"Begin again more slowly: {slower}"
        self.monitor.see_no_numbers(self.step, what, hint)
        self.folder.write_health(self.monitor.document(self.step))
        return self.group.left_by(DivergedError(f"{what} at step {self.step}{kept}", hint))

    def _resume_command(self) -> str:
        return shlex.join(["cyclegan", "train", "--resume", str(self.plan.run_dir)])

    def _seconds(self) -> float:
        """Seconds trained so far, in all sessions of the run."""
        return self.seconds_before + time.monotonic() - self.started

    def _save(self, is_due: bool = True) -> None:
        """Save everything; before its time, where the first results are about to be written.

        No run has results but no state, so that :func:`why_not_resumable` sees that it was lost.
        """
        # The last update may have done what no gradient has seen yet.
        if not self.model.is_finite():
            raise self._diverged("the weights are not finite")
        pools = self.group.gathered(pools_of(self.model)) if self.plan.env.world_size > 1 else []
        self.group.on_first(lambda: self.folder.save(self._state_info(), pools[1:], keep=is_due))
        if is_due:
            self.saving.done(self.step)
        self.is_saved = True

    def _state_info(self) -> StateInfo:
        watch = {
            "interval": self.interval.state(),
            "best": self.best.state(),
            "monitor": self.monitor.state(),
            "examined": self.examined,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "since": {
                "sample": self.sampling.state(self.step),
                "validate": self.validating.state(self.step),
            },
        }
        return state_info(self.plan, self.model, self.step, self._seconds(), watch)

    def _ends(self, stop_requested: StopRequested) -> bool:
        """Whether this step was the session's last; then everything is saved.

        Raises:
            InterruptedRunError: Asked to stop.
            DataError: An image cannot be read, and ``--strict`` is on.
        """
        plan = self.plan
        done = f"after step {self.step} of {plan.total_steps}; everything is saved"
        ended = ""
        signal_number, out_of_time, out_of_patience, trouble = self._asked(stop_requested)
        if trouble:
            self._save()
            raise self.trouble or self.group.left_by(
                DataError("another process has found an image that cannot be read")
            )
        if self.step == plan.total_steps:
            pass
        elif signal_number:
            self._save()
            raise self.group.left_by(self._interrupted(signal_number))
        elif out_of_time:
            ended = f"the time limit is reached {done}; go on: {self._resume_command()}"
        elif out_of_patience:
            ended = (
                f"stopped {done}; the translations were nearest to their domains at step "
                f"{self.best.step} ({BEST_FILE})"
            )
        else:
            return False
        self._save()
        self.group.on_first(lambda: self._end(ended))
        return True

    def _end(self, why: str) -> None:
        self.folder.write_page(self.step, "stopped" if why else "finished", why)
        if why:
            self.watcher.told(why)

    def _asked(self, stop_requested: StopRequested) -> list[int]:
        """What all processes know of reasons to stop; only the first has a clock and a measure."""
        is_first = self.group.is_first
        return self.group.highest(
            [
                stop_requested() or 0,
                is_first and time.monotonic() - self.started >= self.time_limit,
                is_first and 0 < self.plan.config.patience <= self.best.worse,
                self.trouble is not None,
            ]
        )

    def _interrupted(self, signal_number: int) -> InterruptedRunError:
        return InterruptedRunError(
            f"stopped after step {self.step} of {self.plan.total_steps}; everything is saved",
            f"Go on with: {self._resume_command()}",
            signal_number,
        )


def _how_it_ended(error: Exception) -> tuple[State, str]:
    if isinstance(error, InterruptedRunError):
        return "stopped", error.message
    if isinstance(error, CycleGANError):
        return "failed", f"{error.message}. {error.hint}".removesuffix(". ")
    return "failed", f"{type(error).__name__}: {error}".partition("\n")[0]


def _never() -> None:
    """Nobody has asked to stop."""
