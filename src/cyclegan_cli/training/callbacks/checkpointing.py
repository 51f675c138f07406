"""Checkpoints: the training state, the model, the best model and numbered copies."""

from __future__ import annotations

import dataclasses
import math
import re
from contextlib import suppress
from typing import Any

from cyclegan_cli import files
from cyclegan_cli.checkpoints.header import ModelInfo, StateInfo
from cyclegan_cli.checkpoints.locate import BEST_FILE, KEPT_FOLDER, MODEL_FILE, STATE_FILE
from cyclegan_cli.checkpoints.store import library_versions, pools_of, save_model, save_state
from cyclegan_cli.training.callbacks.base import (
    IntervalTrigger,
    ScheduledCallback,
    TrainingCallback,
    TrainingRun,
)
from cyclegan_cli.training.plan import Plan
from cyclegan_cli.training.run_dir import model_is_of_step
from cyclegan_cli.training.validation import mean_distance

NUMBERED_FILE = re.compile(r"step_(\d{8,})\.safetensors")


class Checkpointing(ScheduledCallback):
    """Saves ``state.safetensors`` and ``model.safetensors`` at intervals and at the end.

    The first checkpoint is saved before the first results: a run folder with results but no
    state has lost it, and is not resumed.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(IntervalTrigger(plan.config.checkpoint_every, plan))
        self.has_checkpoint = plan.resumed is not None
        self.saved_step = -1

    def on_train_begin(self, run: TrainingRun) -> None:
        """Save the model again if the last session crashed between the two files."""

        def repair() -> None:
            if run.plan.resumed and not model_is_of_step(run.plan.run_dir, run.step):
                self._save_model(run, run_state(run))

        run.group.on_rank_zero(repair)

    def before_results(self, run: TrainingRun) -> None:
        if not self.has_checkpoint:
            self._save(run, keep=False)

    def on_due(self, run: TrainingRun) -> None:
        """Save a checkpoint, and with ``--keep-checkpoints`` a numbered copy of the model."""
        self._save(run, keep=True)
        self.trigger.reset(run.step)
        self.saved_step = run.step

    def on_stop(self, run: TrainingRun) -> None:
        """Save a checkpoint unless this step already has one."""
        if self.saved_step != run.step:
            self.on_due(run)

    def _save(self, run: TrainingRun, keep: bool) -> None:
        # No loss has seen the effect of the last update yet.
        if not run.model.is_finite():
            raise run.diverged("the weights are not finite")
        has_peers = run.plan.env.world_size > 1
        pools = run.group.gather(pools_of(run.model)) if has_peers else []

        def write() -> None:
            state = run_state(run)
            save_state(run.run_dir.file(STATE_FILE), run.model, state, pools[1:])
            self._save_model(run, state)
            if keep and run.plan.config.keep_checkpoints:
                self._keep_model(run, state)

        run.group.on_rank_zero(write)
        self.has_checkpoint = True

    def _save_model(self, run: TrainingRun, state: StateInfo) -> None:
        save_model(run.run_dir.file(MODEL_FILE), run.model, _model_info(state))

    def _keep_model(self, run: TrainingRun, state: StateInfo) -> None:
        """Save a numbered copy of the model and delete the oldest one."""
        folder = run.run_dir.file(KEPT_FOLDER)
        files.make_folder(folder)
        files.remove_leftovers(folder)
        path = folder / f"step_{state.step:08d}.safetensors"
        save_model(path, run.model, _model_info(state))
        kept = sorted(
            (int(match[1]), path)
            for path in folder.iterdir()
            if (match := NUMBERED_FILE.fullmatch(path.name))
        )
        for _, path in kept[: -run.plan.config.keep_checkpoints]:
            with suppress(OSError):  # One file too many does no harm.
                path.unlink()


class BestModel(TrainingCallback):
    """Saves the model with the lowest mean distance to the target domains; stops early.

    Attributes:
        swd: The lowest mean distance so far.
        step: The step of that distance.
        worse: Number of validations since then.
    """

    def __init__(self, plan: Plan) -> None:
        state = plan.callback_state.get("best", {})
        self.patience = plan.config.patience
        self.swd: float = state.get("swd", math.inf)
        self.step: int = state.get("step", 0)
        self.worse: int = state.get("worse", 0)

    def on_train_begin(self, run: TrainingRun) -> None:
        """Stop a resumed run that has run out of patience already."""
        self._check_patience(run)

    def on_validation(self, run: TrainingRun, row: dict[str, float]) -> None:
        """Save the model if it is the best so far."""
        if self.update(row):
            info = _model_info(run_state(run), swd=round(self.swd, 4))
            save_model(run.run_dir.file(BEST_FILE), run.model, info)
        self._check_patience(run)

    def update(self, row: dict[str, float]) -> bool:
        """Compare a row of ``validation.csv`` with the best one; return whether it is better."""
        swd = mean_distance(row)
        if swd < self.swd:
            self.swd, self.step, self.worse = swd, int(row["step"]), 0
            return True
        self.worse += 1
        return False

    def _check_patience(self, run: TrainingRun) -> None:
        if 0 < self.patience <= self.worse:
            run.stop(f"the best validation was at step {self.step} ({BEST_FILE})")

    def state_dict(self, step: int) -> dict[str, Any]:
        best = {} if math.isinf(self.swd) else {"swd": self.swd, "step": self.step}
        return {"best": best | {"worse": self.worse}}


def run_state(run: TrainingRun) -> StateInfo:
    """Return the description of a run for its checkpoint."""
    plan, model, step = run.plan, run.model, run.step
    config = plan.config
    facts = {
        "step": step,
        "epoch": round(plan.epoch_of(step), 4),
        "crop_size": config.crop_size,
        "load_size": config.load_size,
        "gan_loss": config.gan_loss,
        "lambda_cycle": config.lambda_cycle,
        "lambda_identity": config.lambda_identity,
        "lambda_color": config.lambda_color,
        "ema": config.ema,
        "pictures_a": len(plan.images_a),
        "pictures_b": len(plan.images_b),
    }
    if config.slice_axis is not None:
        facts["slice_axis"] = config.slice_axis
    watch: dict[str, Any] = {"since": {}}
    for callback in run.callbacks:
        found = callback.state_dict(step)
        watch["since"] |= found.pop("since", {})
        watch |= found
    generator = model.generator_a2b.config
    items = plan.items_of(step)
    return StateInfo(
        model=ModelInfo(
            "state",
            generator,
            plan.name_a,
            plan.name_b,
            facts,
            library_versions(),
            formats=plan.formats,
        ),
        discriminator=model.discriminator_a.config,
        config=config.to_document(),
        step=step,
        seconds=run.seconds,
        images=plan.images_digest,
        watch=watch,
        items=items if items != step * config.batch_size else None,
        ranks=plan.env.world_size,
    )


def _model_info(state: StateInfo, **facts: float) -> ModelInfo:
    return dataclasses.replace(state.model, kind="model", training=state.model.training | facts)
