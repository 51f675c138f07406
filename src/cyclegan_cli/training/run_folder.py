"""A run's folder: what a training leaves in it, and that it is one training that does."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import tomli_w
from torch import Tensor

from cyclegan_cli import files
from cyclegan_cli.checkpoints.header import ModelInfo, StateInfo, read_state_info
from cyclegan_cli.checkpoints.locate import (
    BEST_FILE,
    CONFIG_FILE,
    HEALTH_FILE,
    KEPT_FOLDER,
    MODEL_FILE,
    SAMPLES_FOLDER,
    STATE_FILE,
)
from cyclegan_cli.checkpoints.store import save_model, save_state
from cyclegan_cli.errors import OutputError, UsageError
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.training.inception import KID_COLUMNS, KID_FILE
from cyclegan_cli.training.lock import RunLock
from cyclegan_cli.training.page.overview import State
from cyclegan_cli.training.page.run_page import RunPage
from cyclegan_cli.training.plan import Plan
from cyclegan_cli.training.report import save_sample_grid
from cyclegan_cli.training.tables import (
    METRICS_COLUMNS,
    METRICS_FILE,
    VALIDATION_COLUMNS,
    VALIDATION_FILE,
    StepTable,
)

KEPT_NAME = re.compile(r"step_(\d{8,})\.safetensors")


class RunFolder:
    """Writes everything that a run leaves.

    Args:
        plan: Names the folder and the options.
        model: What is saved.
        step: Steps done; tables are cut back to it.

    Raises:
        OutputError: The folder cannot be written.
        UsageError: Another training is at work in it.
    """

    def __init__(self, plan: Plan, model: CycleGAN, step: int) -> None:
        self.path = plan.run_dir
        self.plan = plan
        self.model = model
        self.page = RunPage(plan, self.path / SAMPLES_FOLDER)
        files.make_folder(self.path)
        self.lock = RunLock(self.path)
        try:
            self._refuse_progress()
            self._begin(step)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another training have the folder."""
        self.lock.release()

    def _require(self) -> None:
        """Check that the folder is still there, before something is written into another one.

        Raises:
            OutputError: It has been removed or replaced under the training.
        """
        if not self.lock.is_in_place():
            raise OutputError(
                f"the run folder {self.path} was removed or replaced under the training",
                "Nothing more can be saved in it: begin again, or resume from a copy.",
            )

    def _refuse_progress(self) -> None:
        """Between the plan and the lock another training may have been at work here."""
        path = self.path / STATE_FILE
        expected = self.plan.resumed.step if self.plan.resumed else None
        found = read_state_info(path).step if path.exists() else None
        if found != expected:
            raise UsageError(
                f"another training has just saved {path}, at step {found}",
                "Run the command again to go on from there.",
            )

    def _begin(self, step: int) -> None:
        """Write the options and the heads of the tables."""
        files.remove_leftovers(self.path)
        # With it, even a run that is killed before it has any results resumes. Its own folder is
        # left out, so that the file can be fed back as it is.
        options = self.plan.config.to_document()
        options.pop("run_dir", None)
        files.write_text(self.path / CONFIG_FILE, tomli_w.dumps(options))
        self.metrics = StepTable(self.path / METRICS_FILE, METRICS_COLUMNS, step)
        if self.plan.validates:
            self.validation = StepTable(self.path / VALIDATION_FILE, VALIDATION_COLUMNS, step)
        if self.plan.config.kid:
            self.kid = StepTable(self.path / KID_FILE, KID_COLUMNS, step)

    def add_metrics(self, row: Mapping[str, float | str]) -> None:
        """Add a row to metrics.csv.

        Raises:
            OutputError: It cannot be written.
        """
        self._require()
        self.metrics.append(row)

    def add_validation(self, row: Mapping[str, float | str]) -> None:
        """Add a row to validation.csv.

        Raises:
            OutputError: It cannot be written.
        """
        self._require()
        self.validation.append(row)

    def add_kid(self, row: Mapping[str, float | str]) -> None:
        """Add a row to kid.csv.

        Raises:
            OutputError: It cannot be written.
        """
        self._require()
        self.kid.append(row)

    def write_page(self, step: int, state: State = "training", reason: str = "") -> None:
        """Write index.html, see :meth:`RunPage.write`.

        Raises:
            OutputError: It cannot be written.
        """
        self._require()
        self.page.write(step, state, reason)

    def save(
        self, info: StateInfo, others: Sequence[Mapping[str, Tensor]] = (), keep: bool = True
    ) -> None:
        """Save the state, then the model: a crash between the two loses nothing.

        Args:
            info: What the run is at.
            others: The replay pools of other processes, see :func:`save_state`.
            keep: Whether ``--keep-checkpoints`` keeps the model, too.

        Raises:
            OutputError: It cannot be written.
        """
        self._require()
        save_state(self.path / STATE_FILE, self.model, info, others)
        self.save_model(info)
        if keep and self.plan.config.keep_checkpoints:
            self._keep_model(info)

    def _keep_model(self, info: StateInfo) -> None:
        """Save the generators under a name of their own, and let go of the oldest such file."""
        folder = self.path / KEPT_FOLDER
        files.make_folder(folder)
        files.remove_leftovers(folder)
        save_model(folder / f"step_{info.step:08d}.safetensors", self.model, _as_model(info, {}))
        kept = sorted(
            (int(match[1]), path)
            for path in folder.iterdir()
            if (match := KEPT_NAME.fullmatch(path.name))
        )
        for _, path in kept[: -self.plan.config.keep_checkpoints]:
            with suppress(OSError):  # One file too many harms nobody.
                path.unlink()

    def save_model(self, info: StateInfo) -> None:
        """Save the generators alone.

        Raises:
            OutputError: They cannot be written.
        """
        self._require()
        save_model(self.path / MODEL_FILE, self.model, _as_model(info, {}))

    def save_best(self, info: StateInfo, swd: float) -> None:
        """Save the generators as the best ones so far.

        Args:
            info: What the run is at.
            swd: Their distance to the target domains.

        Raises:
            OutputError: They cannot be written.
        """
        self._require()
        save_model(self.path / BEST_FILE, self.model, _as_model(info, {"swd": round(swd, 4)}))

    def write_health(self, document: Mapping[str, Any]) -> None:
        """Write what is wrong with the run, or that nothing is.

        Raises:
            OutputError: It cannot be written.
        """
        self._require()
        files.write_text(self.path / HEALTH_FILE, json.dumps(document, indent=1) + "\n")

    def write_samples(self, step: int, images: Mapping[str, Tensor]) -> Path:
        """Write the grid of a step; returns where it is.

        Raises:
            OutputError: It cannot be written.
        """
        self._require()
        path = self.path / SAMPLES_FOLDER / f"step_{step:08d}.jpg"
        save_sample_grid(path, images)
        return path


class NoFolder:
    """What a process writes that is not the first of its training: nothing."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not hasattr(RunFolder, name):
            raise AttributeError(name)
        return _do_nothing


def _do_nothing(*_: Any) -> None:
    pass


def _as_model(info: StateInfo, more: dict[str, float]) -> ModelInfo:
    training = info.model.training | more
    return dataclasses.replace(info.model, kind="model", training=training)
