"""Exported .pth files: the original network loads them and computes the same."""

import pytest
import torch
from safetensors.torch import load_file

from cyclegan_cli.checkpoints.store import load_generator
from original import OriginalGenerator, original_generator


def image() -> torch.Tensor:
    return torch.rand((1, 3, 24, 32), generator=torch.Generator().manual_seed(3)) * 2 - 1


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 1e-2)])
@pytest.mark.parametrize(("direction", "letter"), [("a2b", "A"), ("b2a", "B")])
def test_original_network_loads_the_export(
    cyclegan, run_folder, tmp_path, monkeypatch, direction, letter, precision, tolerance
):
    monkeypatch.chdir(tmp_path)
    options = ["--format", "pth", "--direction", direction, "--precision", precision]
    answer = cyclegan("export", run_folder, *options)
    assert answer.code == 0, answer.err
    weights = torch.load(f"latest_net_G_{letter}.pth", weights_only=True)
    assert {type(tensor) for tensor in weights.values()} == {torch.Tensor}
    original = OriginalGenerator(width=2, blocks=1).eval()
    original.load_state_dict(weights, strict=True)
    ours, _ = load_generator(run_folder / "model.safetensors", direction)
    with torch.inference_mode():
        torch.testing.assert_close(original(image()), ours(image()), rtol=0, atol=tolerance)


def test_exported_pth_folder_is_a_checkpoint(cyclegan, run_folder, tmp_path):
    folder = tmp_path / "day2night"
    answer = cyclegan("export", run_folder, "--format", "pth", "--direction", "both", "-o", folder)
    assert answer.code == 0, answer.err
    assert {f.name for f in folder.iterdir()} == {"latest_net_G_A.pth", "latest_net_G_B.pth"}
    again = tmp_path / "again.safetensors"
    answer = cyclegan(
        "export", folder, "--format", "safetensors", "--direction", "both", "-o", again
    )
    assert answer.code == 0, answer.err
    expected = load_file(run_folder / "model.safetensors")
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
