"""Kernel Inception Distance of the translations; needs the extra ``metrics``.

The distance is the one of Bińkowski et al. 2018. Unlike the Fréchet Inception Distance (FID) it is
unbiased for small validation sets. The weights of the Inception network are downloaded.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_cli.errors import DataError, UsageError
from cyclegan_cli.metrics.features import kernel_distance
from cyclegan_cli.metrics.inception import load_inception
from cyclegan_cli.training.callbacks.base import TrainingCallback, TrainingRun
from cyclegan_cli.training.callbacks.logging import StepTable
from cyclegan_cli.training.validation import ValidationBatch

KID_FILE = "kid.csv"
KID_COLUMNS = ("step", "kid_a2b", "kid_b2a")


class KernelInceptionDistance(TrainingCallback):
    """Measures the distance of the translations to real images in ``kid.csv``."""

    def setup(self, run: TrainingRun) -> None:
        """Load the Inception network.

        Raises:
            UsageError: There is no validation set.
            DataError: The weights of the network are not available.
        """
        if not run.plan.validates:
            raise UsageError(
                "--kid needs a validation set, and there is none",
                "Give --val-a and --val-b, or a larger --val-fraction.",
            )
        self.load(run.plan.device)

    def load(self, device: torch.device) -> None:
        """Load the Inception network to a device.

        Raises:
            DataError: The weights of the network are not available.
        """
        try:
            self.inception = load_inception(device=device)
        except DataError as error:
            hint = f"{error.hint.removesuffix('.')}, or train without --kid."
            raise DataError(f"--kid: {error.message}", hint) from error

    def on_train_begin(self, run: TrainingRun) -> None:
        """Create the table, or remove the rows that the resumed run will write again."""
        run.group.on_rank_zero(lambda: self._open(run))

    def _open(self, run: TrainingRun) -> None:
        self.table = StepTable(run.run_dir.file(KID_FILE), KID_COLUMNS, run.step)

    def on_validation_batch(self, run: TrainingRun, batch: ValidationBatch) -> None:
        distances = self.distances(batch)
        run.run_dir.check()
        self.table.append({"step": run.step, **distances})
        plan, (a2b, b2a) = run.plan, distances.values()
        run.log(
            f"step {run.step}: Kernel Inception Distance {a2b:.4f} {plan.name_a} -> "
            f"{plan.name_b}, {b2a:.4f} {plan.name_b} -> {plan.name_a}"
        )

    def distances(self, batch: ValidationBatch) -> dict[str, float]:
        """Return ``kid_a2b`` and ``kid_b2a``; the expected value for one distribution is 0."""
        return {
            "kid_a2b": self._distance(batch.fake_b, batch.real_b),
            "kid_b2a": self._distance(batch.fake_a, batch.real_a),
        }

    def _distance(self, fakes: Tensor, reals: Tensor) -> float:
        features = [self.inception.features_of(images) for images in (fakes, reals)]
        return kernel_distance(*features)
