"""Inception features: clean-fid's protocol, and where the weights come from."""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch_fidelity import feature_extractor_inceptionv3 as fidelity

from cyclegan_cli.errors import DataError, UsageError
from cyclegan_cli.metrics import inception
from cyclegan_cli.metrics.inception import load_inception, resize
from inception_weights import random_extractor, save_random_weights


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_address_is_that_of_torch_fidelity() -> None:
    assert inception.URL == fidelity.URL_INCEPTION_V3
    assert f"-{inception.WEIGHTS_DIGEST}." in inception.URL


@pytest.mark.slow
def test_features_equal_those_of_torch_fidelity(tmp_path: Path) -> None:
    save_random_weights(tmp_path / "weights.pth")
    loaded = load_inception(tmp_path / "weights.pth")
    assert not loaded.is_standard
    assert loaded.digest == hashlib.sha256((tmp_path / "weights.pth").read_bytes()).hexdigest()
    pixels = noise(299, 299)  # Of this size, neither resizes.
    with torch.no_grad():
        expected = random_extractor()(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0]
    torch.testing.assert_close(loaded.features(pixels), expected[0])
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
    torch.testing.assert_close(loaded.features_of(images), expected)


def test_images_are_resized_in_floating_point() -> None:
    pixels = noise(40, 600)
    resized = resize(pixels)
    assert resized.shape == (3, 299, 299)
    assert resized.dtype == torch.float32
    rounded = Image.fromarray(pixels).resize((299, 299), Image.Resampling.BICUBIC)
    expected = torch.from_numpy(np.array(rounded)).permute(2, 0, 1).float()
    difference = (resized.clamp(0, 255) - expected).abs()
    # Pillow rounds after each of two passes.
    assert 0.1 < float(difference.mean()) < 0.5
    assert float(resized.max()) > 255  # Overshoots are kept.


def test_an_image_of_the_size_of_the_network_is_not_changed() -> None:
    pixels = noise(299, 299)
    assert torch.equal(resize(pixels), torch.from_numpy(pixels).permute(2, 0, 1).float())


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit",)


@pytest.mark.parametrize(
    "content",
    [b"", b"no weights", pickle.dumps({"a": 1}), pickle.dumps(Payload())],
    ids=["empty", "text", "other", "code"],
)
def test_files_of_another_kind_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(DataError, match="weights.pth does not hold the weights of the Inception"):
        load_inception(path)


@pytest.mark.parametrize("state", [[1], {"a": torch.zeros(2)}, {}])
def test_other_tensors_are_refused(tmp_path: Path, state: object) -> None:
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(DataError, match="does not hold the weights of the Inception network"):
        load_inception(tmp_path / "weights.pth")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read the Inception weights .*: no such file"):
        load_inception(tmp_path / "weights.pth")


def test_damaged_file_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / inception.URL.rpartition("/")[2]
    path.parent.mkdir(parents=True)
    torch.save({}, path)
    with pytest.raises(DataError, match="are damaged: their digest is wrong"):
        load_inception()


def test_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match="need the package torch-fidelity") as refusal:
        load_inception()
    assert "[metrics]" in refusal.value.hint
