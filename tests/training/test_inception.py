"""The Kernel Inception Distance, with weights drawn at random: the real ones are downloaded."""

import csv
import dataclasses
import hashlib

import pytest
import torch
from torch_fidelity import feature_extractor_inceptionv3 as fidelity

from cyclegan_cli.errors import DataError, UsageError
from cyclegan_cli.metrics import inception
from cyclegan_cli.training import plan
from cyclegan_cli.training.callbacks.inception import KernelInceptionDistance
from cyclegan_cli.training.plan import plan_new, plan_resumed
from cyclegan_cli.training.trainer import train
from cyclegan_cli.training.validation import ValidationBatch
from inception_weights import save_random_weights
from runs import Recorder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A folder of torch hub with weights in it."""
    folder = tmp_path_factory.mktemp("hub")
    save_random_weights(folder / "hub" / "checkpoints" / inception.URL.rpartition("/")[2])
    return folder


@pytest.fixture
def weights(hub, monkeypatch):
    [path] = (hub / "hub" / "checkpoints").iterdir()
    monkeypatch.setenv("TORCH_HOME", str(hub))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(inception, "WEIGHTS_DIGEST", digest[:8])
    return path


def translated(real: torch.Tensor, fake: torch.Tensor) -> ValidationBatch:
    return ValidationBatch(real, real, fake, real, real, real, real, real)


@pytest.mark.slow
def test_equal_images_are_nearer_than_others(weights):
    random = torch.Generator().manual_seed(1)
    real = torch.rand(4, 3, 32, 32, generator=random) * 2 - 1
    kid = KernelInceptionDistance()
    kid.load(CPU)
    other = kid.distances(translated(real, -torch.ones_like(real)))
    assert other["kid_a2b"] > other["kid_b2a"]
    # An unbiased estimate of a squared distance that is 0 may lie below.
    assert abs(other["kid_b2a"]) < 0.1 * other["kid_a2b"]
    assert kid.distances(translated(real, real))["kid_a2b"] == other["kid_b2a"]


@pytest.mark.slow
def test_kid_table_is_resumed(config, weights):
    config = dataclasses.replace(config, kid=True, val_fraction=0.5, validate_every=3, steps=4)
    recorder = Recorder()
    run = plan_new(config)
    train(run, [recorder])
    assert sum("Kernel Inception Distance" in sentence for sentence in recorder.messages) == 2
    train(plan_resumed(run.run_dir, {"steps": 6}))
    with (run.run_dir / "kid.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["step"] for row in rows] == ["3", "4", "6"]
    assert all(float(row["kid_a2b"]) == float(row["kid_a2b"]) for row in rows)


def test_failed_download_of_inception_weights(config, tmp_path, monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    run = plan_new(dataclasses.replace(config, kid=True, val_fraction=0.5))
    with pytest.raises(DataError, match=r"--kid: .*cannot be downloaded: no route") as refusal:
        train(run)
    assert fidelity.URL_INCEPTION_V3 in refusal.value.hint
    assert not run.run_dir.exists()


def test_other_weights_are_refused(weights, monkeypatch):
    monkeypatch.setattr(inception, "WEIGHTS_DIGEST", "00000000")
    with pytest.raises(DataError, match="are damaged"):
        KernelInceptionDistance().load(CPU)


def test_kid_needs_validation_set(config, weights):
    run = plan_new(dataclasses.replace(config, kid=True, val_fraction=0.0))
    with pytest.raises(UsageError, match="--kid needs a validation set"):
        train(run)


def test_kid_without_extra_is_a_usage_error(config, monkeypatch):
    monkeypatch.setattr(plan, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="--kid needs the package torch-fidelity") as refusal:
        plan_new(dataclasses.replace(config, kid=True))
    assert "[metrics]" in refusal.value.hint
