"""Sample grids: the same images, translated at intervals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.utils import make_grid

from cyclegan_cli.checkpoints.locate import SAMPLES_FOLDER
from cyclegan_cli.config import parse_bands
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
        save_sample_grid(path, visible(images, run.plan))
        run.call("on_samples", run, path)
        self.trigger.reset(run.step)

    def state_dict(self, step: int) -> dict[str, Any]:
        return {"since": {"sample": self.trigger.state_dict(step)}}


SHOWN_PERCENTILES = (0.02, 0.98)
DOMAIN_IMAGES = {"a": ("real_a", "rec_a", "fake_a"), "b": ("real_b", "rec_b", "fake_b")}


def visible(images: Mapping[str, Tensor], plan: Plan) -> dict[str, Tensor]:
    """Convert images of domains that are not RGB to RGB.

    Three bands are shown as red, green and blue, or one as gray, stretched by percentiles of the
    real images.

    Args:
        images: ``[N, C, H, W]`` in [-1, 1], by the names in ``GRID_COLUMNS``.
        plan: The training, with ``--show-bands``.

    Returns:
        ``[N, 3, H, W]`` in [-1, 1], by the same names.
    """
    shown = dict(images)
    chosen = parse_bands(plan.config.show_bands, "--show-bands")
    for (domain, names), band_format in zip(DOMAIN_IMAGES.items(), plan.formats, strict=True):
        if band_format is None:
            continue
        default = (1, 2, 3) if band_format.channels >= 3 else (1,)
        bands = chosen if chosen and max(chosen) <= band_format.channels else default
        indices = [band - 1 for band in bands]
        real = images[f"real_{domain}"][:, indices].transpose(0, 1).flatten(1).float().cpu()
        ends = torch.tensor(SHOWN_PERCENTILES)
        low, high = torch.quantile(real[:, :: max(1, real.shape[1] // 100_000)], ends, dim=1)
        low, scale = low.view(1, -1, 1, 1), 2 / (high - low).clamp(min=1e-6).view(1, -1, 1, 1)
        for name in names:
            stretched = (images[name][:, indices].float().cpu() - low) * scale - 1
            shown[name] = stretched.clamp(-1, 1).expand(-1, 3, -1, -1)
    return shown


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
