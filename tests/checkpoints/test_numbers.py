"""Numbers out of files, without torch: the same as with it, in bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cyclegan_cli.checkpoints.container import Place, TensorInfo, read_header
from cyclegan_cli.checkpoints.numbers import PIECE, NumbersFile, pieces, readable
from cyclegan_cli.checkpoints.torch_files import read_torch_file
from cyclegan_cli.errors import CheckpointError

FILES = ("x.safetensors", "zip.pth", "legacy.pth")
RANDOM = torch.Generator().manual_seed(0)
TENSORS = {
    "fp32": torch.randn(3, 4, generator=RANDOM),
    "fp64": torch.randn(2, 1, 5, dtype=torch.float64, generator=RANDOM),
    "fp16": torch.randn(7, generator=RANDOM).half(),
    "bf16": torch.tensor([1.5, -0.0, float("inf"), 3e-39]).bfloat16(),
    "int64": torch.arange(-3, 3),
    "uint8": torch.arange(250, 256, dtype=torch.uint8),
    "bool": torch.tensor([True, False]),
    "scalar": torch.tensor(3.0),
    "empty": torch.zeros(0, 5),
    "transposed": torch.randn(6, 4, generator=RANDOM).T,
    "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "part": torch.randn(9, 9, generator=RANDOM)[2:5, 1:4],
    "several pieces": torch.randn(PIECE // 100, 201, generator=RANDOM).half().T,
}


def saved(folder: Path, name: str, tensors: dict[str, torch.Tensor]) -> dict[str, TensorInfo]:
    path = folder / name
    if path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in tensors.items()}, path)
        return read_header(path).tensors
    torch.save(tensors, path, _use_new_zipfile_serialization=name == "zip.pth")
    return read_torch_file(path)


@pytest.mark.parametrize("name", FILES)
def test_numbers_are_those_of_torch_in_their_order(tmp_path: Path, name: str) -> None:
    infos = saved(tmp_path, name, TENSORS)
    file = NumbersFile(tmp_path / name)
    for key, tensor in TENSORS.items():
        assert readable(infos[key])
        found = [piece for (piece,) in pieces(file.tensor(infos[key]))]
        expected = tensor.double().flatten().numpy()
        np.testing.assert_array_equal(np.concatenate([np.zeros(0), *found]), expected)
        assert all(0 < piece.size <= PIECE for piece in found)


def test_numbers_of_two_files_come_side_by_side_however_they_lie_there(tmp_path: Path) -> None:
    sides = [
        (NumbersFile(tmp_path / name), infos)
        for name in ("x.safetensors", "zip.pth")
        for infos in [saved(tmp_path, name, TENSORS)]
    ]
    for key in TENSORS:
        for first, second in pieces(*(file.tensor(infos[key]) for file, infos in sides)):
            np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("transposed", [False, True])
def test_a_large_tensor_takes_the_memory_of_its_bytes(
    tmp_path: Path, name: str, transposed: bool
) -> None:
    large = torch.ones(1000, 5000)
    infos = saved(tmp_path, name, {"w": large.T if transposed else large})
    tracemalloc.start()
    try:
        tensor = NumbersFile(tmp_path / name).tensor(infos["w"])
        assert sum(piece.sum() for (piece,) in pieces(tensor)) == 5_000_000
        assert tracemalloc.get_traced_memory()[1] < large.nbytes + 4 * 8 * PIECE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("shape", "place"),
    [
        ((3,), Place(0)),
        ((2,), Place(1)),
        ((2,), Place(0, (2,))),
        ((2, 2), Place(0, (1, 1 << 62))),
        ((1 << 40,), Place(0)),
        ((), Place(1 << 70)),
    ],
)
def test_a_tensor_beyond_the_end_is_refused(
    tmp_path: Path, shape: tuple[int, ...], place: Place
) -> None:
    (tmp_path / "x").write_bytes(bytes(8))
    with pytest.raises(CheckpointError, match="reaches beyond its end"):
        NumbersFile(tmp_path / "x").tensor(TensorInfo("F32", shape, place))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot read"):
        NumbersFile(tmp_path / "x")


@pytest.mark.parametrize("place", [Place(0), Place(0, (2,))])
def test_a_file_cut_short_meanwhile_is_refused(tmp_path: Path, place: Place) -> None:
    (tmp_path / "x").write_bytes(bytes(100_000))
    file = NumbersFile(tmp_path / "x")
    os.truncate(tmp_path / "x", 10_000)
    with pytest.raises(CheckpointError, match="reaches beyond its end"):
        file.tensor(TensorInfo("F32", (10_000,), place))


def test_tensors_with_gaps_are_read_from_the_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(bytes(80_000))
    opened: list[Path] = []
    whole_open = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, mode: (opened.append(path), whole_open(path, mode))[1]
    )
    file = NumbersFile(tmp_path / "x")
    for start in range(0, 4000, 4):  # Each of two numbers reaches through the whole file.
        file.tensor(TensorInfo("F32", (2,), Place(start, (18_000,))))
    assert len(opened) == 1


def test_what_is_elsewhere_or_of_another_type_is_not_readable() -> None:
    assert not readable(TensorInfo("F32", (2,)))
    assert not readable(TensorInfo("F8_E5M2", (2,), Place(0)))


def test_a_signalling_nan_is_a_nan_and_no_warning(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x01\x00\x80\x7f")
    info = TensorInfo("F32", (1,), Place(0))
    [(piece,)] = pieces(NumbersFile(tmp_path / "x").tensor(info))
    assert np.isnan(piece).all()


def test_torch_is_not_loaded(tmp_path: Path) -> None:
    saved(tmp_path, "zip.pth", TENSORS)
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from cyclegan_cli.checkpoints.numbers import NumbersFile, pieces\n"
        "from cyclegan_cli.checkpoints.torch_files import read_torch_file\n"
        "path = Path(sys.argv[1])\n"
        "infos = read_torch_file(path)\n"
        "assert list(pieces(NumbersFile(path).tensor(infos['fp32'])))\n"
        "print({'torch', 'safetensors'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "zip.pth")]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert (answer.stdout.strip(), answer.stderr) == ("set()", "")
