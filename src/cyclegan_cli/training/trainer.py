"""The loop: steps, the learning rate's schedule, when to save and sample, and how to stop."""

from __future__ import annotations

import dataclasses
import math
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

import tomli_w
import torch
from torch import Tensor

from cyclegan_cli import files
from cyclegan_cli.checkpoints.header import ModelInfo, StateInfo
from cyclegan_cli.checkpoints.locate import CONFIG_FILE, MODEL_FILE, STATE_FILE
from cyclegan_cli.checkpoints.store import (
    library_versions,
    restore_state,
    save_model,
    save_state,
)
from cyclegan_cli.data.cache import PictureCache
from cyclegan_cli.data.tensors import to_unit_range
from cyclegan_cli.data.unpaired import (
    Batch,
    UnpairedDataset,
    center_crop,
    load_training_picture,
    loader,
    random_order,
)
from cyclegan_cli.devices import memory_errors
from cyclegan_cli.errors import (
    DataError,
    DivergedError,
    InterruptedRunError,
)
from cyclegan_cli.models.cyclegan import LOSS_NAMES, CycleGAN
from cyclegan_cli.training.plan import Plan, model_is_of_step
from cyclegan_cli.training.report import MetricsFile, save_sample_grid

SAMPLE_PICTURES = 4
LESS_MEMORY = "Lower --batch-size, --crop-size or --base-channels, or use --cache none."


class Watcher(Protocol):
    """Whoever wants to know how a training goes; the command line's console is one."""

    def started(self, plan: Plan) -> None:
        """The first step is about to be made."""

    def stepped(self, step: int) -> None:
        """So many steps are done."""

    def measured(self, row: dict[str, float]) -> None:
        """A row was added to metrics.csv."""

    def warned(self, sentence: str) -> None:
        """Something is worth telling, and the run goes on."""


def train(plan: Plan, watcher: Watcher, stop_requested: Callable[[], int | None]) -> Path:
    """Train to the end, or until asked to stop.

    Args:
        plan: What to do.
        watcher: Is told how it goes.
        stop_requested: Asked after every step; a signal's number ends the run in good order.

    Returns:
        The path of the finished ``model.safetensors``.

    Raises:
        InterruptedRunError: Asked to stop; everything is saved.
        DivergedError: The losses are not finite any more; the last checkpoint is kept.
        DataError: No picture of a domain can be read.
        OutputError: The run folder cannot be written.
        CheckpointError: The state to go on from is damaged.
        DeviceError: Not enough memory.
    """
    with memory_errors("training", LESS_MEMORY):
        return Trainer(plan, watcher).run(stop_requested)


class Trainer:
    """One run, from its first (or next) step to its last.

    Args:
        plan: What to do.
        watcher: Is told how it goes.
    """

    def __init__(self, plan: Plan, watcher: Watcher) -> None:
        self.plan = plan
        self.watcher = watcher
        self.step = plan.first_step
        self.seconds_before = plan.resumed.seconds if plan.resumed else 0.0
        self.warned_of: set[str] = set()
        self.started = time.monotonic()
        self.model = CycleGAN(plan.config, plan.device, plan.bf16)
        if plan.resumed:
            restore_state(plan.run_dir / STATE_FILE, self.model)
        self.samples = self._sample_pictures() if plan.config.sample_every else None
        # Only now: what cannot start leaves no folder behind.
        self._prepare_folder()
        self._start_interval()

    def _prepare_folder(self) -> None:
        folder = self.plan.run_dir
        files.make_folder(folder)
        files.remove_leftovers(folder)
        # With it, even a run that is killed before its first checkpoint resumes. Its own folder is
        # left out, so that the file can be fed back as it is.
        options = self.plan.config.to_document()
        options.pop("run_dir", None)
        files.write_text(folder / CONFIG_FILE, tomli_w.dumps(options))
        self.metrics = MetricsFile(folder / "metrics.csv", self.step)
        if self.plan.resumed and not model_is_of_step(folder, self.step):
            self._save_model()  # A crash came between the two files.

    def run(self, stop_requested: Callable[[], int | None]) -> Path:
        """Make all steps that are left; see :func:`train`."""
        plan = self.plan
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
        self._start_interval()
        self.watcher.started(plan)
        with closing(batches):  # Ends the threads that load ahead.
            self._make_steps(batches, stop_requested)
        return plan.run_dir / MODEL_FILE

    def _make_steps(
        self, batches: Iterator[Batch], stop_requested: Callable[[], int | None]
    ) -> None:
        plan, config = self.plan, self.plan.config
        for batch in batches:
            self._make_step(batch)
            last = self.step == plan.total_steps
            if last or self.step % config.log_every == 0:
                self._measure()
            if self.samples and (last or self.step % config.sample_every == 0):
                self._sample(*self.samples)
            signal_number = stop_requested()
            if last or signal_number or self.step % config.checkpoint_every == 0:
                self._save()
            if signal_number and not last:
                raise self._interrupted(signal_number)

    def _make_step(self, batch: Batch) -> None:
        for sentence in batch.skipped:
            if sentence not in self.warned_of:
                self.warned_of.add(sentence)
                self.watcher.warned(f"{sentence}; another picture takes its place")
        self.model.set_learning_rate(self.plan.learning_rate_at(self.step))
        losses = self.model.step(self._to_device(batch.real_a), self._to_device(batch.real_b))
        # Summed on the device: reading a number would wait for it.
        self.loss_sum += losses.stacked()
        self.interval_steps += 1
        self.step += 1
        self.watcher.stepped(self.step)

    def _to_device(self, levels: Tensor) -> Tensor:
        return to_unit_range(levels.to(self.plan.device, non_blocking=True))

    def _start_interval(self) -> None:
        self.loss_sum = torch.zeros(len(LOSS_NAMES), device=self.plan.device)
        self.interval_steps = 0
        self.interval_started = time.monotonic()

    def _measure(self) -> None:
        """Add a row of the interval's mean losses to metrics.csv."""
        means = self._finite_means()
        now = time.monotonic()
        images = self.interval_steps * self.plan.config.batch_size
        row = {
            "step": self.step,
            "epoch": self.plan.epoch_of(self.step),
            "learning_rate": self.plan.learning_rate_at(self.step - 1),
            **dict(zip(LOSS_NAMES, means, strict=True)),
            "images_per_second": images / max(now - self.interval_started, 1e-9),
            "seconds": self._seconds(),
        }
        self.metrics.append(row)
        self.watcher.measured(row)
        self._start_interval()

    def _finite_means(self) -> list[float]:
        """Mean losses since the last row; a run that has left the finite numbers ends here."""
        means: list[float] = (self.loss_sum / max(self.interval_steps, 1)).tolist()
        if all(map(math.isfinite, means)):
            return means
        name = LOSS_NAMES[next(i for i, mean in enumerate(means) if not math.isfinite(mean))]
        raise self._diverged(f"the loss {name} is not finite")

    def _diverged(self, what: str) -> DivergedError:
        slower = f"--learning-rate {self.plan.config.learning_rate / 2:g} --precision fp32"
        if (self.plan.run_dir / STATE_FILE).exists():
            kept = "; the checkpoint before it is kept"
            hint = f"Go on from there more slowly: {self._resume_command()} {slower}"
        else:
            kept, hint = "", f"Begin again more slowly: {slower}"
        return DivergedError(f"{what} at step {self.step}{kept}", hint)

    def _resume_command(self) -> str:
        return shlex.join(["cyclegan", "train", "--resume", str(self.plan.run_dir)])

    def _seconds(self) -> float:
        """Seconds trained so far, in all sessions of the run."""
        return self.seconds_before + time.monotonic() - self.started

    def _sample_pictures(self) -> tuple[Tensor, Tensor]:
        """The pictures that every grid shows: the same ones in every run with the same seed."""
        count = min(SAMPLE_PICTURES, len(self.plan.pictures_a), len(self.plan.pictures_b))
        first, second = (
            self._fixed_pictures(domain, pictures, count)
            for domain, pictures in (("a", self.plan.pictures_a), ("b", self.plan.pictures_b))
        )
        shown = min(len(first), len(second))
        return first[:shown], second[:shown]

    def _fixed_pictures(self, domain: str, pictures: Sequence[Path], count: int) -> Tensor:
        """The middles of ``count`` readable pictures: ``[count, 3, crop, crop]`` in [-1, 1]."""
        config = self.plan.config
        found: list[Tensor] = []
        for index in random_order(f"{config.seed}/{domain}/samples", len(pictures)):
            try:
                picture = load_training_picture(pictures[index], config)
            except DataError:
                continue  # The loader says so when its turn comes.
            found.append(center_crop(picture, config.crop_size))
            if len(found) == count:
                break
        if not found:
            raise DataError(f"no picture of domain {domain.upper()} can be read")
        return self._to_device(torch.stack(found))

    def _sample(self, real_a: Tensor, real_b: Tensor) -> None:
        pictures = {"real_a": real_a, "real_b": real_b}
        pictures |= self.model.translate_both_ways(real_a, real_b)
        save_sample_grid(self.plan.run_dir / "samples" / f"step_{self.step:08d}.jpg", pictures)

    def _save(self) -> None:
        """Save the state, then the model: a crash between the two loses nothing."""
        if self.interval_steps:
            self._finite_means()
        # The last update may have done what no loss has seen yet.
        if not self.model.is_finite():
            raise self._diverged("the weights are not finite")
        save_state(self.plan.run_dir / STATE_FILE, self.model, self._state_info())
        self._save_model()

    def _save_model(self) -> None:
        info = dataclasses.replace(self._state_info().model, kind="model")
        save_model(self.plan.run_dir / MODEL_FILE, self.model, info)

    def _state_info(self) -> StateInfo:
        config = self.plan.config
        model = ModelInfo(
            kind="state",
            generator=self.model.generator_a2b.config,
            name_a=self.plan.name_a,
            name_b=self.plan.name_b,
            training={
                "step": self.step,
                "epoch": round(self.plan.epoch_of(self.step), 4),
                "crop_size": config.crop_size,
                "load_size": config.load_size,
                "gan_loss": config.gan_loss,
                "lambda_cycle": config.lambda_cycle,
                "lambda_identity": config.lambda_identity,
                "pictures_a": len(self.plan.pictures_a),
                "pictures_b": len(self.plan.pictures_b),
            },
            versions=library_versions(),
        )
        return StateInfo(
            model=model,
            discriminator=self.model.discriminator_a.config,
            config=config.to_document(),
            step=self.step,
            seconds=self._seconds(),
            pictures=self.plan.pictures_digest,
        )

    def _interrupted(self, signal_number: int) -> InterruptedRunError:
        return InterruptedRunError(
            f"stopped after step {self.step} of {self.plan.total_steps}; everything is saved",
            f"Go on with: {self._resume_command()}",
            signal_number,
        )
