"""Exported .pth files: the original network loads them and computes the same."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cyclegan_cli.checkpoints.header import ModelInfo
from cyclegan_cli.checkpoints.store import load_generator, save_generators
from cyclegan_cli.config import Direction, GeneratorConfig, Resampling
from generators import generator
from original import OriginalGenerator, original_generator


def image() -> torch.Tensor:
    return torch.rand((1, 3, 24, 32), generator=torch.Generator().manual_seed(3)) * 2 - 1


def saved(path: Path, resampling: Resampling) -> Path:
    """A checkpoint of both directions."""
    directions: tuple[Direction, ...] = ("a2b", "b2a")
    networks = {one: generator(2, 1, seed, resampling=resampling)
                for seed, one in enumerate(directions)}  # fmt: skip
    config = GeneratorConfig(2, 1, resampling=resampling)
    save_generators(path, networks, ModelInfo("model", config, "day", "night", {}, {}))
    return path


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 1e-2)])
@pytest.mark.parametrize(("direction", "letter"), [("a2b", "A"), ("b2a", "B")])
@pytest.mark.parametrize("resampling", ["strided", "cut"])
def test_original_network_loads_the_export(
    cyclegan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    direction: Any,
    letter: str,
    precision: str,
    tolerance: float,
    resampling: Resampling,
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = saved(tmp_path / "x.safetensors", resampling)
    options = ["--format", "pth", "--direction", direction, "--precision", precision]
    answer = cyclegan("export", checkpoint, *options)
    assert answer.code == 0, answer.err
    weights = torch.load(f"latest_net_G_{letter}.pth", weights_only=True)
    assert {type(tensor) for tensor in weights.values()} == {torch.Tensor}
    original = OriginalGenerator(width=2, blocks=1, antialias=resampling == "cut").eval()
    original.load_state_dict(weights, strict=True)
    ours, _ = load_generator(checkpoint, direction)
    with torch.inference_mode():
        torch.testing.assert_close(original(image()), ours(image()), rtol=0, atol=tolerance)


def test_blurs_are_refused_in_the_originals_layout(
    cyclegan, run_folder: Path, tmp_path: Path
) -> None:
    answer = cyclegan("export", run_folder, "--format", "pth", "-o", tmp_path / "x.pth")
    assert (answer.code, answer.out) == (2, "")
    assert "has blurs between its layers (--resampling blur)" in answer.errors[0]
    assert list(tmp_path.iterdir()) == []


def test_norms_in_residual_blocks_alone_are_refused_in_the_originals_layout(
    cyclegan, tmp_path: Path
) -> None:
    network = generator(2, 1, norms="residual")
    info = ModelInfo("model", network.config, "day", "night", {}, {}, ("a2b",))
    save_generators(tmp_path / "x.safetensors", {"a2b": network}, info)
    answer = cyclegan("export", tmp_path / "x.safetensors", "--format", "pth")
    assert (answer.code, answer.out) == (2, "")
    assert "has norms in its residual blocks alone (--norms residual)" in answer.errors[0]
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize("resampling", ["strided", "cut"])
def test_exported_pth_folder_is_a_checkpoint(
    cyclegan, tmp_path: Path, resampling: Resampling
) -> None:
    folder, checkpoint = tmp_path / "day2night", saved(tmp_path / "x.safetensors", resampling)
    answer = cyclegan("export", checkpoint, "--format", "pth", "--direction", "both", "-o", folder)
    assert answer.code == 0, answer.err
    assert {f.name for f in folder.iterdir()} == {"latest_net_G_A.pth", "latest_net_G_B.pth"}
    again = tmp_path / "again.safetensors"
    answer = cyclegan(
        "export", folder, "--format", "safetensors", "--direction", "both", "-o", again
    )
    assert answer.code == 0, answer.err
    expected = load_file(checkpoint)
    found = load_file(again)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_pth_file_is_converted_with_domain_names(cyclegan, tmp_path):
    network = original_generator(affine=True)
    torch.save(network.state_dict(), tmp_path / "old.pth")
    options = ["--format", "safetensors", "--domains", "day,night", "--json"]
    answer = cyclegan("export", tmp_path / "old.pth", "-o", tmp_path / "new.safetensors", *options)
    assert answer.code == 0, answer.err
    [report] = answer.documents
    assert (report["from"], report["to"]) == ("day", "night")
    ours, info = load_generator(tmp_path / "new.safetensors", "a2b")
    assert (info.name_a, info.name_b, info.directions) == ("day", "night", ("a2b",))
    assert info.training == {"imported_from": "old.pth"}
    torch.testing.assert_close(ours(image()), network(image()), rtol=0, atol=1e-5)


def test_pth_export_does_not_overwrite_its_source(cyclegan, tmp_path):
    torch.save(original_generator().state_dict(), tmp_path / "latest_net_G_A.pth")
    answer = cyclegan(
        "export", tmp_path, "--format", "pth", "-o", tmp_path / "latest_net_G_A.pth", "--overwrite"
    )
    assert (answer.code, answer.out) == (2, "")
    assert "is the checkpoint itself" in answer.errors[0]
