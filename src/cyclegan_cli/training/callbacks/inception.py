"""Kernel Inception Distance of the translations; needs the extra ``metrics``.

The distance is the one of Bińkowski et al. 2018, computed by torch-fidelity. Unlike the Fréchet
Inception Distance (FID) it is unbiased for small validation sets. The weights of the Inception
network are downloaded.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cyclegan_cli.errors import DataError, UsageError
from cyclegan_cli.training.callbacks.base import TrainingCallback, TrainingRun
from cyclegan_cli.training.callbacks.logging import StepTable
from cyclegan_cli.training.validation import ValidationBatch

KID_FILE = "kid.csv"
KID_COLUMNS = ("step", "kid_a2b", "kid_b2a")
FEATURES = "2048"
# As for files of torch hub, the file name contains the beginning of the SHA-256 digest.
WEIGHTS_DIGEST = "6726825d"


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
        """Load the Inception network to a device."""
        from torch_fidelity.feature_extractor_inceptionv3 import (  # noqa: PLC0415 an extra
            FeatureExtractorInceptionV3,
        )

        weights = _weights()
        self.device = device
        self.extractor: Any = FeatureExtractorInceptionV3(
            "inception-v3-compat", [FEATURES], feature_extractor_weights_path=str(weights)
        ).to(device)

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
        from torch_fidelity.metric_kid import kid_features_to_metric  # noqa: PLC0415 an extra

        count = min(len(fakes), len(reals))
        options = {"kid_subsets": 1, "kid_subset_size": count, "verbose": False}
        found = kid_features_to_metric(self._features(fakes), self._features(reals), **options)
        return float(found["kernel_inception_distance_mean"])

    @torch.no_grad()
    def _features(self, images: Tensor) -> Tensor:
        """Return the features of ``[N, 3, H, W]`` in [-1, 1]: ``[N, 2048]``."""
        pixels = ((images + 1) * 127.5).round().clamp(0, 255).to(self.device, torch.uint8)
        return torch.cat([self.extractor(one.unsqueeze(0))[0] for one in pixels])


def _weights() -> Path:
    """Return the file with the weights of the network, downloading it if necessary.

    Raises:
        DataError: The file cannot be downloaded, or has the wrong digest.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import (  # noqa: PLC0415 an extra
        URL_INCEPTION_V3,
    )

    path = Path(torch.hub.get_dir(), "checkpoints", URL_INCEPTION_V3.rpartition("/")[2])
    hint = f"Download it from {URL_INCEPTION_V3}, or train without --kid."
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(
                URL_INCEPTION_V3, str(path), hash_prefix=WEIGHTS_DIGEST, progress=False
            )
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"--kid needs the weights of the Inception network, {path}, which cannot be "
                f"downloaded: {reason}",
                hint,
            ) from error
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if not digest.startswith(WEIGHTS_DIGEST):
        raise DataError(f"--kid: {path} is damaged: its digest is wrong", hint)
    return path
