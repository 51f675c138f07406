"""Weights of the Inception network, drawn at random: the real ones are downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch_fidelity import feature_extractor_inceptionv3 as fidelity


def random_extractor() -> fidelity.FeatureExtractorInceptionV3:
    """The network of torch-fidelity, in which something of an image is left in the features."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        torch.manual_seed(0)
        extractor = fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    # As first drawn, nothing of an image would be left after so many layers.
    for tensor in extractor.state_dict().values():
        if tensor.dim() == 4:
            torch.nn.init.kaiming_normal_(tensor)
    return extractor


def save_random_weights(path: Path) -> None:
    """Save the weights of :func:`random_extractor`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(random_extractor().state_dict(), path)
