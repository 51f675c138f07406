"""Kernel Inception Distance of the translations: an extra, whose network's weights are downloaded.

The distance is that of Bińkowski et al. 2018, by torch-fidelity. Unlike the Fréchet distance (FID)
it has no bias for few images, of which there are few here.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cyclegan_cli.errors import DataError
from cyclegan_cli.training.validation import Examination

KID_FILE = "kid.csv"
KID_COLUMNS = ("step", "kid_a2b", "kid_b2a")
FEATURES = "2048"
# The file's name has the beginning of its SHA-256, as files of torch hub do.
WEIGHTS_DIGEST = "6726825d"


class InceptionJudge:
    """Measures how far translations are from real images, as the Inception network sees them.

    Args:
        device: Where it computes.

    Raises:
        DataError: The network's weights cannot be had.
    """

    def __init__(self, device: torch.device) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import (  # noqa: PLC0415 an extra
            FeatureExtractorInceptionV3,
        )

        weights = _weights()
        self.device = device
        self.extractor: Any = FeatureExtractorInceptionV3(
            "inception-v3-compat", [FEATURES], feature_extractor_weights_path=str(weights)
        ).to(device)

    def distances(self, found: Examination) -> dict[str, float]:
        """``kid_a2b`` and ``kid_b2a``: 0 is expected for images of the same domain."""
        return {
            "kid_a2b": self._distance(found.fake_b, found.real_b),
            "kid_b2a": self._distance(found.fake_a, found.real_a),
        }

    def _distance(self, fakes: Tensor, reals: Tensor) -> float:
        from torch_fidelity.metric_kid import kid_features_to_metric  # noqa: PLC0415 an extra

        count = min(len(fakes), len(reals))
        options = {"kid_subsets": 1, "kid_subset_size": count, "verbose": False}
        found = kid_features_to_metric(self._features(fakes), self._features(reals), **options)
        return float(found["kernel_inception_distance_mean"])

    @torch.no_grad()
    def _features(self, images: Tensor) -> Tensor:
        """``[N, 3, H, W]`` in [-1, 1] to ``[N, 2048]``, one image after the other."""
        levels = ((images + 1) * 127.5).round().clamp(0, 255).to(self.device, torch.uint8)
        return torch.cat([self.extractor(one.unsqueeze(0))[0] for one in levels])


def _weights() -> Path:
    """The file of the network's weights, downloaded where it is not there yet.

    Raises:
        DataError: It cannot be downloaded, or is not the one that it should be.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import (  # noqa: PLC0415 an extra
        URL_INCEPTION_V3,
    )

    path = Path(torch.hub.get_dir(), "checkpoints", URL_INCEPTION_V3.rpartition("/")[2])
    hint = f"Put it there yourself, or train without --kid: {URL_INCEPTION_V3}"
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(
                URL_INCEPTION_V3, str(path), hash_prefix=WEIGHTS_DIGEST, progress=False
            )
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"--kid needs the Inception network's weights, {path}, which cannot be "
                f"downloaded: {reason}",
                hint,
            ) from error
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if not digest.startswith(WEIGHTS_DIGEST):
        raise DataError(f"--kid: {path} is damaged, or another file than it should be", hint)
    return path
