"""Files of torch.save, told without torch: the same tensors, or a refusal."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cyclegan_cli.checkpoints.container import TensorInfo
from cyclegan_cli.checkpoints.torch_files import LONGEST_PICKLE, is_torch_file, read_torch_file
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
def test_names_shapes_and_dtypes_are_those_of_torch(tmp_path: Path, legacy: bool) -> None:
    found = read_torch_file(saved(tmp_path / "x.pth", TENSORS, legacy))
    assert found == {
        "a": TensorInfo("F32", (3, 4)),
        "b": TensorInfo("BF16", (0, 5)),
        "c": TensorInfo("I64", ()),
        "d": TensorInfo("F16", (6, 4)),
    }


@LAYOUTS
def test_dicts_in_dicts_have_dotted_names(tmp_path: Path, legacy: bool) -> None:
    content = {"epoch": 3, "netG_A": {"model": {1: torch.zeros(2)}}, "note": "text"}
    path = saved(tmp_path / "x.pth", content, legacy)
    assert read_torch_file(path) == {"netG_A.model.1": TensorInfo("F32", (2,))}


@LAYOUTS
def test_only_the_beginning_is_read(tmp_path: Path, legacy: bool) -> None:
    path = saved(tmp_path / "x.pth", {"w": torch.zeros(16_000_000)}, legacy)
    tracemalloc.start()
    try:
        read_torch_file(path)
        assert tracemalloc.get_traced_memory()[1] < 9_000_000
    finally:
        tracemalloc.stop()


@LAYOUTS
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_file_that_is_cut_is_refused(tmp_path: Path, legacy: bool, share: float) -> None:
    content = saved(tmp_path / "x.pth", TENSORS, legacy).read_bytes()
    (tmp_path / "x.pth").write_bytes(content[: int(len(content) * share)])
    refused(tmp_path / "x.pth")


class Code:
    def __reduce__(self) -> Any:
        return os.system, ("exit 1",)


@LAYOUTS
@pytest.mark.parametrize("content", [{"w": Code()}, torch.nn.Linear(2, 2)], ids=["call", "module"])
def test_code_is_refused_by_its_name(tmp_path: Path, legacy: bool, content: Any) -> None:
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


def test_a_bomb_is_refused_unread(tmp_path: Path) -> None:
    def grow(entries: dict[str, bytes]) -> None:
        entries["x/data/0"] = bytes(50_000_000)

    path = saved(tmp_path / "x.pth", TENSORS)
    assert "compressed" in refused(rezipped(path, grow, compression=zipfile.ZIP_DEFLATED))


def test_a_list_of_tensors_of_megabytes_is_refused_unread(tmp_path: Path) -> None:
    def grow(entries: dict[str, bytes]) -> None:
        entries["x/data.pkl"] = b"N0" * LONGEST_PICKLE

    assert "too long" in refused(rezipped(saved(tmp_path / "x.pth", TENSORS), grow))


def test_a_storage_of_another_size_is_refused(tmp_path: Path) -> None:
    def shrink(entries: dict[str, bytes]) -> None:
        entries["x/data/0"] = entries["x/data/0"][:-1]

    assert "does not fit" in refused(rezipped(saved(tmp_path / "x.pth", TENSORS), shrink))


def test_a_missing_storage_is_refused(tmp_path: Path) -> None:
    refused(rezipped(saved(tmp_path / "x.pth", TENSORS), lambda e: e.pop("x/data/0") and None))


def test_a_file_of_a_big_endian_machine_is_refused(tmp_path: Path) -> None:
    def swap(entries: dict[str, bytes]) -> None:
        entries["x/byteorder"] = b"big"

    assert "big-endian" in refused(rezipped(saved(tmp_path / "x.pth", TENSORS), swap))


def test_an_entry_that_is_elsewhere_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pth", {"w": torch.zeros(3)})
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("x/data/0").header_offset
    content = bytearray(path.read_bytes())
    content[place + 28 : place + 30] = b"\xff\xff"
    path.write_bytes(content)
    assert "not where its directory says" in refused(path)


def test_tensors_that_share_their_numbers_many_times_are_refused(tmp_path: Path) -> None:
    whole = torch.zeros(1000)
    content = {str(index): whole.view(10, 100) for index in range(9)}
    assert "overlap" in refused(saved(tmp_path / "x.pth", content))


def test_a_shape_out_of_nothing_is_refused(tmp_path: Path) -> None:
    content = {"w": torch.zeros(1).expand(1 << 40, 1 << 20)}
    assert "beyond its storage" in refused(saved(tmp_path / "x.pth", content))


@pytest.mark.parametrize("changed", [b"J\xff\xff\xff\x7f", b"J\xff\xff\xff\xff"])
def test_a_storage_that_claims_gigabytes_is_refused(tmp_path: Path, changed: bytes) -> None:
    path = saved(tmp_path / "x.pth", {"w": torch.zeros(70_000)}, legacy=True)
    content = path.read_bytes()
    count = b"J" + struct.pack("<i", 70_000)
    assert count in content
    path.write_bytes(content.replace(count, changed))
    refused(path)


def test_other_archives_are_called_what_they_are(tmp_path: Path) -> None:
    def archive(*names: str) -> Path:
        with zipfile.ZipFile(tmp_path / "x.pth", "w") as stream:
            for name in names:
                stream.writestr(name, b"pt2")
        return tmp_path / "x.pth"

    assert "TorchScript" in refused(archive("m/data.pkl", "m/constants.pkl"))
    assert ".pt2" in refused(archive("m/archive_format", "m/models/model.json"))
    assert "zip file of something else" in refused(archive("letter.txt"))


@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"hello", pickle.dumps({"a": 1}), b"PK\x03\x04" + bytes(100)]
)
def test_what_is_no_file_of_torch_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    refused(tmp_path / "x.pth")


def test_it_is_known_by_its_first_bytes_or_its_name(tmp_path: Path) -> None:
    assert is_torch_file(saved(tmp_path / "weights", TENSORS))
    assert is_torch_file(saved(tmp_path / "old", TENSORS, legacy=True))
    (tmp_path / "x.PTH").write_bytes(b"hello")
    assert is_torch_file(tmp_path / "x.PTH")
    (tmp_path / "x.onnx").write_bytes(b"hello")
    assert not is_torch_file(tmp_path / "x.onnx")
    with pytest.raises(CheckpointError, match="cannot read"):
        is_torch_file(tmp_path / "missing")


@LAYOUTS
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_changed_bytes_give_tensors_or_a_refusal_and_nothing_else(
    tmp_path: Path, legacy: bool, data: st.DataObject
) -> None:
    content = bytearray(saved(tmp_path / "x.pth", TENSORS, legacy).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "y.pth").write_bytes(content)
    try:
        found = read_torch_file(tmp_path / "y.pth")
    except CheckpointError as error:
        assert "\n" not in error.message
    else:
        assert all(isinstance(tensor, TensorInfo) for tensor in found.values())


def test_no_heavy_library_is_loaded(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from cyclegan_cli.checkpoints.torch_files import read_torch_file\n"
        "assert read_torch_file(Path(sys.argv[1]))\n"
        "print({'torch', 'numpy', 'PIL', 'safetensors'} & set(sys.modules))"
    )
    path = saved(tmp_path / "x.pth", TENSORS)
    answer = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True)
    assert (answer.stdout.strip(), answer.stderr) == ("set()", "")


def test_names_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    """One long name, and below it many: each of those would be as long."""
    inner = {f"{number}": torch.zeros(1) for number in range(300)}
    torch.save({"n" * 100_000: inner}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError):
        read_torch_file(tmp_path / "x.pth")
