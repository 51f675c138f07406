"""Sample grids: the same images, translated at intervals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.utils import make_grid

from cyclegan_cli.checkpoints.locate import SAMPLES_FOLDER
from cyclegan_cli.data.encode import encode
from cyclegan_cli.data.image import DecodedImage
from cyclegan_cli.data.tensors import tensor_to_array
from cyclegan_cli.training.callbacks.base import IntervalTrigger, ScheduledCallback, TrainingRun
from cyclegan_cli.training.plan import Plan
from cyclegan_cli.training.validation import fixed_images

SAMPLE_IMAGES = 4
GAP = 2  # Pixels between the images of a grid.
GRID_COLUMNS = ("real_a", "fake_b", "rec_a", "real_b", "fake_a", "rec_b")


class SampleGrids(ScheduledCallback):
    """Writes ``samples/step_*.jpg``. Runs with the same seed show the same images."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(IntervalTrigger(plan.config.sample_every, plan, "sample"))

    def setup(self, run: TrainingRun) -> None:
        if run.plan.config.sample_every:
            self.real_a, self.real_b = fixed_images(run.plan, SAMPLE_IMAGES)

    def on_due(self, run: TrainingRun) -> None:
        run.call("before_results", run)
        run.group.on_rank_zero(lambda: self._write(run))

    def _write(self, run: TrainingRun) -> None:
        images = {"real_a": self.real_a, "real_b": self.real_b}
        images |= run.model.translate_and_reconstruct(self.real_a, self.real_b)
        path = run.run_dir.file(SAMPLES_FOLDER) / f"step_{run.step:08d}.jpg"
        save_sample_grid(path, images)
        run.call("on_samples", run, path)
        self.trigger.reset(run.step)

    def state_dict(self, step: int) -> dict[str, Any]:
        return {"since": {"sample": self.trigger.state_dict(step)}}


def save_sample_grid(path: Path, images: Mapping[str, Tensor]) -> None:
    """Write a grid with one row per image: real, fake, reconstruction of A, then of B.

    Args:
        path: The ``.jpg`` file to write.
        images: ``real_a``, ``fake_b``, ``rec_a``, ``real_b``, ``fake_a``, ``rec_b``, each
            ``[N, 3, H, W]`` in [-1, 1].

    Raises:
        OutputError: The file cannot be written.
    """
    rows = torch.stack([images[name].cpu() for name in GRID_COLUMNS], dim=1)
    grid = make_grid(rows.flatten(0, 1), nrow=len(GRID_COLUMNS), padding=GAP, pad_value=1.0)
    encode(DecodedImage((tensor_to_array(grid.unsqueeze(0)),)), path, "JPEG")
