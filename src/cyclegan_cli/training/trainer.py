"""The loop: steps, the learning rate's schedule, when to measure, sample and save, how to stop."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import torch
from torch import Tensor

from cyclegan_cli.checkpoints.header import StateInfo
from cyclegan_cli.checkpoints.locate import BEST_FILE, MODEL_FILE, STATE_FILE
from cyclegan_cli.checkpoints.store import restore_state
from cyclegan_cli.data.cache import PictureCache
from cyclegan_cli.data.tensors import to_unit_range
from cyclegan_cli.data.unpaired import Batch, UnpairedDataset, loader
from cyclegan_cli.devices import memory_errors
from cyclegan_cli.errors import (
    CycleGANError,
    DataError,
    DivergedError,
    InterruptedRunError,
    OutputError,
)
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.training.compiling import Compiler
from cyclegan_cli.training.describing import state_info
from cyclegan_cli.training.fine_tuning import begin_with
from cyclegan_cli.training.fixed import fixed_pictures
from cyclegan_cli.training.interval import Interval
from cyclegan_cli.training.measuring import LESS_MEMORY
from cyclegan_cli.training.monitor import Change, Monitor
from cyclegan_cli.training.page.overview import State
from cyclegan_cli.training.plan import Plan, model_is_of_step
from cyclegan_cli.training.preflight import START, STRICT_START, preflight
from cyclegan_cli.training.run_folder import RunFolder
from cyclegan_cli.training.tables import HEALTH_COLUMN
from cyclegan_cli.training.tensorboard import with_tensorboard
from cyclegan_cli.training.validation import BestSoFar, Examiner, quality, shuffled
from cyclegan_cli.training.watcher import Watcher

SAMPLE_PICTURES = 4
StopRequested = Callable[[], int | None]


def train(
    plan: Plan, watcher: Watcher, stop_requested: StopRequested, time_limit: float = math.inf
) -> Path:
    """Train to the end, until asked to stop, or until it gets no better.

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
        DataError: No picture of a domain can be read or, with ``--strict``, one of them cannot.
        OutputError: The run folder cannot be written, or its disk has no room for a checkpoint.
        CheckpointError: The state to go on from is damaged.
        DeviceError: Not enough memory.
    """
    looked_at = preflight(plan, STRICT_START if plan.config.strict else START)
    if plan.config.strict:
        looked_at.refuse_useless()
    looked_at.disk.refuse_too_little(plan.run_dir)
    for sentence in looked_at.warnings():
        watcher.warned(sentence)
    with memory_errors("training", LESS_MEMORY), with_tensorboard(plan, watcher) as watcher:
        trainer = Trainer(plan, watcher, time_limit)
        trainer.warned_of.update(looked_at.a.named, looked_at.b.named)
        with closing(trainer.folder):
            return trainer.run(stop_requested)


class Trainer:
    """One run, from its first (or next) step to its last.

    Args:
        plan: What to do.
        watcher: Is told how it goes.
        time_limit: Seconds after which the run is to be saved and ended.
    """

    def __init__(self, plan: Plan, watcher: Watcher, time_limit: float = math.inf) -> None:
        self.plan = plan
        self.watcher = watcher
        self.time_limit = time_limit
        self.step = plan.first_step
        self.started = time.monotonic()
        self.warned_of: set[str] = set()
        # All steps have the same shapes: it pays to try which of cuDNN's kernels is fastest.
        torch.backends.cudnn.benchmark = True
        self.model = CycleGAN(plan.config, plan.device, plan.bf16)
        self.compiler = Compiler(self.model, plan.config.compile, watcher.told, watcher.warned)
        if plan.resumed:
            restore_state(plan.run_dir / STATE_FILE, self.model)
        elif plan.config.init_from:
            begin_with(self.model, plan.config)
        self._remember(plan.resumed)
        self.samples = self._sample_pictures() if plan.config.sample_every else None
        self.examiner = Examiner(plan) if plan.config.validate_every else None
        # Only now: what cannot start leaves no folder behind.
        self.folder = RunFolder(plan, self.model, self.step)

    def _remember(self, resumed: StateInfo | None) -> None:
        watch = resumed.watch if resumed else {}
        self.seconds_before = resumed.seconds if resumed else 0.0
        self.interval = Interval(self.plan.device, watch.get("interval", {}))
        self.best = BestSoFar(watch.get("best", {}))
        self.monitor = Monitor(self.plan, watch.get("monitor", {}))
        self.examined: int = watch.get("examined", self.step)

    def _sample_pictures(self) -> tuple[Tensor, Tensor]:
        """The pictures that every grid shows: the same ones in every run with the same seed."""
        plan = self.plan
        first, second = (
            fixed_pictures(
                shuffled(pictures, f"{plan.config.seed}/{domain}/samples"),
                plan.config,
                SAMPLE_PICTURES,
                domain.upper(),
            ).to(plan.device)
            for domain, pictures in (("a", plan.pictures_a), ("b", plan.pictures_b))
        )
        shown = min(len(first), len(second))
        return first[:shown], second[:shown]

    def run(self, stop_requested: StopRequested) -> Path:
        """Make all steps that are left; see :func:`train`."""
        plan = self.plan
        if plan.resumed and not model_is_of_step(plan.run_dir, self.step):
            self.folder.save_model(self._state_info())  # A crash came between the two files.
        cache = PictureCache(plan.cache)
        batches = loader(
            UnpairedDataset(plan.pictures_a, plan.pictures_b, plan.config, cache),
            self.step,
            plan.total_steps,
            plan.workers,
            pin_memory=plan.device.type == "cuda",
        )
        for sentence in plan.warnings:
            self.watcher.warned(sentence)
        if plan.cache.is_short:
            self.watcher.warned(f"--cache ram keeps pictures in memory: {plan.cache}")
        self.started = time.monotonic()
        self.interval.start_clock()
        self.watcher.started(plan)
        # From now on, they say that the run goes on, and nothing of steps that a crash has lost.
        self.folder.write_health(self.monitor.document(self.step))
        self.folder.page.write(self.step)
        try:
            with closing(batches):  # Ends the threads that load ahead.
                self._make_steps(batches, stop_requested)
        except Exception as error:
            with suppress(OutputError):  # What ended the run is the news.
                self.folder.page.write(self.step, *_how_it_ended(error))
            raise
        return plan.run_dir / MODEL_FILE

    def _make_steps(self, batches: Iterator[Batch], stop_requested: StopRequested) -> None:
        # The last session may have been asked to stop before it had measured what was due.
        self._examine(stop_requested)
        for batch in batches:
            self._make_step(batch)
            if self._is_due(self.plan.config.log_every):
                self._measure()
            if self.samples and self._is_due(self.plan.config.sample_every):
                self._sample(*self.samples)
            self._examine(stop_requested)
            if self._ends(stop_requested):
                return
            if self._is_due(self.plan.config.checkpoint_every):
                self._save()
            if self.samples and self._is_due(self.plan.config.sample_every):
                self.folder.page.write(self.step)

    def _is_due(self, interval: int) -> bool:
        """Whether what is done every so many steps is to be done now; all is, at the end."""
        return self.step % interval == 0 or self.step == self.plan.total_steps

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
        if self.model.averages:
            self.model.averages.update(self.step)
        self.watcher.stepped(self.step)

    def _tell_of_skipped(self, batch: Batch) -> None:
        for sentence in batch.skipped:
            if self.plan.config.strict:
                self._save()
                raise DataError(
                    f"--strict: {sentence}; everything is saved, step {self.step} was the last",
                    f"Mend or remove it, then go on: {self._resume_command()}",
                )
            if sentence not in self.warned_of:
                self.warned_of.add(sentence)
                self.watcher.warned(f"{sentence}; another picture takes its place")

    def _to_device(self, levels: Tensor) -> Tensor:
        return to_unit_range(levels.to(self.plan.device, non_blocking=True))

    def _measure(self) -> None:
        """Add a row of the interval's mean losses to metrics.csv."""
        means = self._finite_means()
        self._tell(self.monitor.see_losses(self.step, means, self.interval.steps))
        row = {
            "step": self.step,
            "epoch": self.plan.epoch_of(self.step),
            "learning_rate": self.plan.learning_rate_at(self.step - 1),
            **means,
            "images_per_second": self.interval.steps_per_second() * self.plan.config.batch_size,
            "seconds": self._seconds(),
        }
        self.folder.metrics.append(row | {HEALTH_COLUMN: self.monitor.word})
        self.watcher.measured(row)
        self.interval = Interval(self.plan.device, {})

    def _sample(self, real_a: Tensor, real_b: Tensor) -> None:
        pictures = {"real_a": real_a, "real_b": real_b}
        pictures |= self.model.translate_both_ways(real_a, real_b)
        self.watcher.sampled(self.step, self.folder.write_samples(self.step, pictures))

    def _examine(self, stop_requested: StopRequested) -> None:
        """Measure the quality, where that is due and nobody has asked to stop."""
        every = self.plan.config.validate_every
        if self.examiner is None or self.examined == self.step or not self._is_due(every):
            return
        before = time.monotonic()
        last = self.step == self.plan.total_steps
        found = self.examiner.examine(self.model, _never if last else stop_requested)
        if found is None:
            return  # A resumed run begins with it.
        if not found.is_finite():
            raise self._diverged("a translation is not finite")
        self.examined = self.step
        self._tell(self.monitor.see_pictures(self.step, found))
        if self.plan.validates:
            row = {"step": self.step, **quality(found), "seconds": time.monotonic() - before}
            self._validated(row)

    def _tell(self, change: Change) -> None:
        """Say how the health has changed, and write down how it is."""
        for verdict in change.found:
            self.watcher.warned(f"{verdict.sentence}. {verdict.advice}")
        for verdict in change.over:
            self.watcher.told(f"step {self.step}: no longer so: {verdict.sentence}")
        self.folder.write_health(self.monitor.document(self.step))

    def _validated(self, row: dict[str, float]) -> None:
        self.folder.validation.append(row)
        if self.best.improves(row):
            self.folder.save_best(self._state_info(), self.best.swd)
        self.watcher.validated(row)

    def _finite_means(self) -> dict[str, float]:
        """Mean losses since the last row; a run that has left the finite numbers ends here."""
        means = self.interval.means()
        for name, mean in means.items():
            if not math.isfinite(mean):
                raise self._diverged(f"the loss {name} is not finite")
        return means

    def _diverged(self, what: str) -> DivergedError:
        slower = f"--learning-rate {self.plan.config.learning_rate / 2:g} --precision fp32"
        if (self.plan.run_dir / STATE_FILE).exists():
            kept = "; the checkpoint before it is kept"
            hint = f"Go on from there more slowly: {self._resume_command()} {slower}"
        else:
            kept, hint = "", f"Begin again more slowly: {slower}"
        self.monitor.see_no_numbers(self.step, what, hint)
        self.folder.write_health(self.monitor.document(self.step))
        return DivergedError(f"{what} at step {self.step}{kept}", hint)

    def _resume_command(self) -> str:
        return shlex.join(["cyclegan", "train", "--resume", str(self.plan.run_dir)])

    def _seconds(self) -> float:
        """Seconds trained so far, in all sessions of the run."""
        return self.seconds_before + time.monotonic() - self.started

    def _save(self) -> None:
        self._finite_means()
        # The last update may have done what no loss has seen yet.
        if not self.model.is_finite():
            raise self._diverged("the weights are not finite")
        self.folder.save(self._state_info())

    def _state_info(self) -> StateInfo:
        watch = {
            "interval": self.interval.state(),
            "best": self.best.state(),
            "monitor": self.monitor.state(),
            "examined": self.examined,
        }
        return state_info(self.plan, self.model, self.step, self._seconds(), watch)

    def _ends(self, stop_requested: StopRequested) -> bool:
        """Whether this step was the session's last; then everything is saved.

        Raises:
            InterruptedRunError: Asked to stop.
        """
        plan = self.plan
        done = f"after step {self.step} of {plan.total_steps}; everything is saved"
        ended = ""
        if self.step == plan.total_steps:
            pass
        elif signal_number := stop_requested():
            self._save()
            raise self._interrupted(signal_number)
        elif time.monotonic() - self.started >= self.time_limit:
            ended = f"the time limit is reached {done}; go on: {self._resume_command()}"
        elif 0 < plan.config.patience <= self.best.worse:
            ended = (
                f"stopped {done}; the translations were nearest to their domains at step "
                f"{self.best.step} ({BEST_FILE})"
            )
        else:
            return False
        self._save()
        self.folder.page.write(self.step, "stopped" if ended else "finished", ended)
        if ended:
            self.watcher.told(ended)
        return True

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
