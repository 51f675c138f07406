"""Files of torch.save are read; hostile ones are refused."""

import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cyclegan_cli.checkpoints.header import TensorInfo
from cyclegan_cli.checkpoints.pth import is_torch_file, read_torch_file, tensor_infos
from cyclegan_cli.errors import CheckpointError

TENSORS = {
    "a": torch.arange(12, dtype=torch.float32).view(3, 4),
    "b": torch.zeros(0, 5, dtype=torch.bfloat16),
    "c": torch.tensor(3),
    "d": torch.ones(4, 6, dtype=torch.float16).T,
}
LAYOUTS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


def saved(path: Path, content: Any, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as refusal:
        read_torch_file(path)
    assert refusal.value.message.startswith((f"{path} ", f"cannot read {path}"))
    return refusal.value.message


@LAYOUTS
def test_read_torch_file_returns_the_saved_tensors(tmp_path, legacy):
    found = read_torch_file(saved(tmp_path / "x.pth", TENSORS, legacy))
    for name, tensor in TENSORS.items():
        assert torch.equal(found[name], tensor)
    assert tensor_infos(found) == {
        "a": TensorInfo("F32", (3, 4)),
        "b": TensorInfo("BF16", (0, 5)),
        "c": TensorInfo("I64", ()),
        "d": TensorInfo("F16", (6, 4)),
    }


@LAYOUTS
def test_nested_dicts_have_dotted_names(tmp_path, legacy):
    content = {"epoch": 3, "netG_A": {"model": {1: torch.zeros(2)}}, "note": "text"}
    path = saved(tmp_path / "x.pth", content, legacy)
    assert list(read_torch_file(path)) == ["netG_A.model.1"]


class Code:
    def __reduce__(self) -> Any:
        return os.system, ("exit 1",)


@LAYOUTS
@pytest.mark.parametrize("content", [{"w": Code()}, torch.nn.Linear(2, 2)], ids=["call", "module"])
def test_code_is_refused_by_name(tmp_path, legacy, content):
    message = refused(saved(tmp_path / "x.pth", content, legacy))
    assert "names code" in message
    assert "system" in message or "Linear" in message


def rezipped(path: Path, change: Callable[[dict[str, bytes]], None], **options: Any) -> Path:
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def test_zip_bomb_is_refused(tmp_path):
    def grow(entries):
        entries["x/data/0"] = bytes(50_000_000)

    path = saved(tmp_path / "x.pth", TENSORS)
    assert "compressed" in refused(rezipped(path, grow, compression=zipfile.ZIP_DEFLATED))


def test_storage_smaller_than_claimed_is_refused(tmp_path):
    def shrink(entries):
        entries["x/data/0"] = entries["x/data/0"][:-1]

    refused(rezipped(saved(tmp_path / "x.pth", TENSORS), shrink))


def test_missing_storage_is_refused(tmp_path):
    refused(rezipped(saved(tmp_path / "x.pth", TENSORS), lambda e: e.pop("x/data/0") and None))


def test_many_overlapping_tensors_are_refused(tmp_path):
    whole = torch.zeros(1000)
    content = {str(index): whole.view(10, 100) for index in range(9)}
    assert "overlap" in refused(saved(tmp_path / "x.pth", content))


def test_expanded_tensor_larger_than_the_file_is_refused(tmp_path):
    content = {"w": torch.zeros(1).expand(1 << 40, 1 << 20)}
    assert "larger than the file" in refused(saved(tmp_path / "x.pth", content))


@pytest.mark.parametrize("changed", [b"J\xff\xff\xff\x7f", b"J\xff\xff\xff\xff"])
def test_storage_that_claims_gigabytes_is_refused(tmp_path, changed):
    path = saved(tmp_path / "x.pth", {"w": torch.zeros(70_000)}, legacy=True)
    content = path.read_bytes()
    count = b"J" + struct.pack("<i", 70_000)
    assert count in content
    path.write_bytes(content.replace(count, changed))
    refused(path)


def test_other_archives_are_named(tmp_path):
    def archive(*names):
        with zipfile.ZipFile(tmp_path / "x.pth", "w") as stream:
            for name in names:
                stream.writestr(name, b"pt2")
        return tmp_path / "x.pth"

    assert "TorchScript" in refused(archive("m/data.pkl", "m/constants.pkl"))
    assert ".pt2" in refused(archive("m/archive_format", "m/models/model.json"))
    assert "zip file of another program" in refused(archive("letter.txt"))


def test_is_torch_file_checks_magic_bytes_and_extension(tmp_path):
    assert is_torch_file(saved(tmp_path / "weights", TENSORS))
    assert is_torch_file(saved(tmp_path / "old", TENSORS, legacy=True))
    (tmp_path / "x.PTH").write_bytes(b"hello")
    assert is_torch_file(tmp_path / "x.PTH")
    (tmp_path / "x.onnx").write_bytes(b"hello")
    assert not is_torch_file(tmp_path / "x.onnx")
    with pytest.raises(CheckpointError, match="cannot read"):
        is_torch_file(tmp_path / "missing")


def test_names_that_would_exhaust_memory_are_refused(tmp_path):
    """Nested names are as long as their prefix."""
    inner = {f"{number}": torch.zeros(1) for number in range(300)}
    torch.save({"n" * 100_000: inner}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError):
        read_torch_file(tmp_path / "x.pth")
