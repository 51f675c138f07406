"""A run's folder: what a training leaves in it, and that it is one training that does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import tomli_w
from torch import Tensor

from cyclegan_cli import files
from cyclegan_cli.checkpoints.header import ModelInfo, StateInfo
from cyclegan_cli.checkpoints.locate import BEST_FILE, CONFIG_FILE, MODEL_FILE, STATE_FILE
from cyclegan_cli.checkpoints.store import save_model, save_state
from cyclegan_cli.models.cyclegan import CycleGAN
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

SAMPLES_FOLDER = "samples"


class RunFolder:
    """Writes everything that a run leaves.

    Args:
        plan: Names the folder and the options.
        model: What is saved.
        step: Steps done; tables are cut back to it.

    Raises:
        OutputError: The folder cannot be written.
    """

    def __init__(self, plan: Plan, model: CycleGAN, step: int) -> None:
        self.path = plan.run_dir
        self.plan = plan
        self.model = model
        self.page = RunPage(plan, self.path / SAMPLES_FOLDER)
        files.make_folder(self.path)
        files.remove_leftovers(self.path)
        # With it, even a run that is killed before its first checkpoint resumes. Its own folder is
        # left out, so that the file can be fed back as it is.
        options = plan.config.to_document()
        options.pop("run_dir", None)
        files.write_text(self.path / CONFIG_FILE, tomli_w.dumps(options))
        self.metrics = StepTable(self.path / METRICS_FILE, METRICS_COLUMNS, step)
        if plan.validates:
            self.validation = StepTable(self.path / VALIDATION_FILE, VALIDATION_COLUMNS, step)

    def save(self, info: StateInfo) -> None:
        """Save the state, then the model: a crash between the two loses nothing.

        Raises:
            OutputError: It cannot be written.
        """
        save_state(self.path / STATE_FILE, self.model, info)
        self.save_model(info)

    def save_model(self, info: StateInfo) -> None:
        """Save the generators alone.

        Raises:
            OutputError: They cannot be written.
        """
        save_model(self.path / MODEL_FILE, self.model, _as_model(info, {}))

    def save_best(self, info: StateInfo, swd: float) -> None:
        """Save the generators as the best ones so far.

        Args:
            info: What the run is at.
            swd: Their distance to the target domains.

        Raises:
            OutputError: They cannot be written.
        """
        save_model(self.path / BEST_FILE, self.model, _as_model(info, {"swd": round(swd, 4)}))

    def write_samples(self, step: int, pictures: Mapping[str, Tensor]) -> Path:
        """Write the grid of a step; returns where it is.

        Raises:
            OutputError: It cannot be written.
        """
        path = self.path / SAMPLES_FOLDER / f"step_{step:08d}.jpg"
        save_sample_grid(path, pictures)
        return path


def _as_model(info: StateInfo, more: dict[str, float]) -> ModelInfo:
    training = info.model.training | more
    return dataclasses.replace(info.model, kind="model", training=training)
