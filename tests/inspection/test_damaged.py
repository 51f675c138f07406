"""Damaged files of every kind: their contents are read, or they are refused in one sentence."""

import json
import os
import pickle
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cyclegan_cli.checkpoints.locate import read_checkpoint
from cyclegan_cli.checkpoints.store import load_generator
from cyclegan_cli.errors import CheckpointError, CycleGANError
from cyclegan_cli.inspection import Request, describe
from original import original_generator

CHECKPOINTS = ("model.safetensors", "state.safetensors", "zip.pth", "legacy.pth")
MODELS = tuple(
    pytest.param(
        f"x.{extension}",
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed"),
        ],
    )
    for extension, package in (("onnx", "onnxscript"), ("pt2", "onnxscript"), ("xml", "openvino"))
)
every_kind = pytest.mark.parametrize("name", [*CHECKPOINTS, *MODELS])


@pytest.fixture
def whole(request, name, run_folder, tmp_path):
    """A valid file of a kind, which the test may change."""
    path = tmp_path / name
    if path.suffix == ".safetensors":
        return shutil.copy(run_folder / name, path)
    if path.suffix == ".pth":
        weights = original_generator(blocks=1, width=2).state_dict()
        torch.save(weights, path, _use_new_zipfile_serialization=name == "zip.pth")
        return path
    model = request.getfixturevalue("exported_models")[path.suffix[1:]]
    if path.suffix == ".xml":
        shutil.copy(model.with_suffix(".bin"), path.with_suffix(".bin"))
    return shutil.copy(model, path)


def read(path: Path) -> None:
    """Describe a file, and load it if it is a checkpoint."""
    summary = describe(path, Request(weights=True))
    json.dumps(summary.to_document(), allow_nan=False)
    if summary.is_checkpoint:
        checkpoint = read_checkpoint(path)
        for direction in checkpoint.info.directions:
            load_generator(checkpoint, direction)


def assert_refused(path: Path) -> None:
    with pytest.raises(CheckpointError) as refusal:
        read(path)
    assert refusal.value.exit_code == 4
    assert str(path) in refusal.value.message
    assert "\n" not in refusal.value.message


@every_kind
def test_whole_file_is_read(whole):
    read(whole)


@every_kind
@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.1, 0.5, 0.99, 0.999])
def test_truncated_file_is_refused(whole, fraction):
    content = whole.read_bytes()
    whole.write_bytes(content[: int(len(content) * fraction)])
    assert_refused(whole)


@every_kind
@pytest.mark.parametrize(
    "content",
    [
        b"x",
        b"hello, this is text",
        b"\x80",
        bytes(300),
        b"\x3a\xff\xff\xff\xff\x7f",
        b"PK\x03\x04" + bytes(100),
        pickle.dumps({"a": 1}),
        (1 << 40).to_bytes(8, "little") + b"{}",
        (9).to_bytes(8, "little") + b'{"w": {}}',
    ],
)
def test_other_content_is_refused(whole, content):
    whole.write_bytes(content)
    assert_refused(whole)


@every_kind
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_changed_bytes_are_read_or_refused(whole, data):
    content = bytearray(whole.read_bytes())
    changed = whole.with_stem("changed")
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    changed.write_bytes(content)
    if whole.suffix == ".xml":
        shutil.copy(whole.with_suffix(".bin"), changed.with_suffix(".bin"))
    try:
        read(changed)
    except CheckpointError as error:
        assert "\n" not in error.message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
@pytest.mark.parametrize("name", ["x.safetensors", "x.onnx", "x.pt2", "x.pth", "x.xml"])
def test_pipe_is_refused_instead_of_read_forever(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(CycleGANError, match="is not a file") as refusal:
        describe(tmp_path / name)
    assert refusal.value.exit_code in (3, 4)
