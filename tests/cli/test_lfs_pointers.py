"""Git LFS pointers are named in errors instead of being read as files."""

import pytest

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 45527912\n"
)


@pytest.fixture
def here(tmp_path, monkeypatch, draw):
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "photo.png")
    for name in ("x.safetensors", "x.pth", "x.onnx", "x.pt2", "x.xml", "x.png", "x.jpg",
                 "run/model.safetensors", "original/latest_net_G_A.pth"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(POINTER)
    return tmp_path


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", ["x.safetensors", "x.pth", "run", "original"])
@pytest.mark.parametrize(
    "command",
    [["translate", "photo.png", "-o", "out.png", "--checkpoint"], ["export"], ["inspect"]],
    ids=lambda command: command[0],
)
def test_lfs_pointer_of_a_checkpoint(cyclegan, command, name):
    answer = cyclegan(*command, name)
    assert answer.code == 4
    assert "is a Git LFS pointer, not the file itself" in answer.errors[0]
    assert "git lfs pull" in answer.err


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", ["x.onnx", "x.pt2", "x.xml"])
def test_lfs_pointer_of_an_exported_model(cyclegan, name):
    answer = cyclegan("inspect", name)
    assert answer.code == 4
    assert f"{name} is a Git LFS pointer" in answer.errors[0]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", ["x.png", "x.jpg"])
def test_lfs_pointer_of_an_image(cyclegan, checkpoint, name):
    for command in (["inspect"], ["translate", "-o", "out.png", "--checkpoint", checkpoint]):
        answer = cyclegan(*command, name)
        assert answer.code == (3 if command == ["inspect"] else 6)
        assert f"{name} is a Git LFS pointer" in answer.err
