"""NaN and infinite weights are refused wherever weights are loaded."""

import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cyclegan_cli.checkpoints.locate import MODEL_FILE, STATE_FILE
from cyclegan_cli.checkpoints.store import load_generator
from cyclegan_cli.errors import CheckpointError
from original import original_generator


def spoiled(source: Path, target: Path, name: str, value: float) -> Path:
    """A copy of a safetensors file with one element of a tensor replaced."""
    with safe_open(source, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    tensors[name].view(-1)[-1] = value
    save_file(tensors, target, metadata)
    return target


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_safetensors_weights_are_refused(checkpoint, tmp_path, value):
    name = "generator_a2b.down.0.conv.bias"
    path = spoiled(checkpoint, tmp_path / MODEL_FILE, name, value)
    with pytest.raises(CheckpointError, match=rf"1 of the \d+ elements of {name} are not finite"):
        load_generator(path, "a2b")
    load_generator(path, "b2a")  # Which is whole.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_non_finite_pth_weights_are_refused(tmp_path, dtype):
    weights = {name: tensor.to(dtype) for name, tensor in original_generator().state_dict().items()}
    weights["model.4.weight"][0, 0] = math.nan
    torch.save({"netG": weights}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"9 of the 288 elements of netG\.model\.4\.weight"):
        load_generator(tmp_path / "x.pth", "a2b")


def test_fp64_weights_beyond_fp32_are_refused(tmp_path):
    weights = {name: tensor.double() for name, tensor in original_generator().state_dict().items()}
    weights["model.1.bias"][0] = 1e300
    torch.save(weights, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"elements of model\.1\.bias are not finite"):
        load_generator(tmp_path / "x.pth", "a2b")


@pytest.mark.parametrize("command", ["translate", "export", "init-from"])
def test_commands_refuse_non_finite_weights(
    cyclegan, draw, checkpoint, tmp_path, monkeypatch, command
):
    monkeypatch.chdir(tmp_path)
    name = "generator_a2b.head.bias"
    bad = spoiled(checkpoint, tmp_path / "bad.safetensors", name, math.nan)
    for domain in ("day", "night"):
        draw(tmp_path / domain / "0.png", (40, 40))
    before = sorted(tmp_path.rglob("*"))
    arguments = {
        "translate": ["translate", "day/0.png", "-o", "out.png", "--checkpoint", bad],
        "export": ["export", bad, "--format", "safetensors", "-o", "out.safetensors"],
        "init-from": ["train", "--domain-a", "day", "--domain-b", "night", "--init-from", bad,
                      "--crop-size", "32", "--load-size", "32", "--steps", "1", "--device", "cpu"],
    }  # fmt: skip
    answer = cyclegan(*arguments[command])
    assert answer.code == 4
    assert f"elements of {name} are not finite" in answer.errors[0]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "name", ["discriminator_a.first.weight", "adam.generator_a2b.head.weight.exp_avg_sq"]
)
def test_resume_refuses_non_finite_state(cyclegan, draw, run_folder, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for domain in ("day", "night"):
        draw(tmp_path / domain / "0.png", (40, 40))
    run = tmp_path / "run"
    run.mkdir()
    spoiled(run_folder / STATE_FILE, run / STATE_FILE, name, math.inf)
    answer = cyclegan(
        "train", "--resume", run, "--domain-a", "day", "--domain-b", "night", "--device", "cpu"
    )
    assert answer.code == 4
    assert f"elements of {name} are not finite" in answer.errors[0]
