"""From what a user names, or does not name, to a checkpoint."""

import os
from pathlib import Path

import pytest

from cyclegan_cli.checkpoints import locate
from cyclegan_cli.checkpoints.locate import (
    ENVIRONMENT_VARIABLE,
    MODEL_FILE,
    STATE_FILE,
    checkpoint_file,
    chosen_checkpoint,
    default_checkpoint,
    pretrained_file,
)
from cyclegan_cli.errors import CheckpointError, UsageError


def run_folder(folder: Path, *names: str, modified: int = 1_000) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()
        os.utime(folder / name, (modified, modified))
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder, with no checkpoint named in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    return tmp_path


# --- named -----------------------------------------------------------------------------------


def test_checkpoint_is_a_file_or_one_of_a_run_folder(tmp_path):
    run = run_folder(tmp_path / "run", MODEL_FILE, STATE_FILE, "anything.bin")
    assert checkpoint_file(run / "anything.bin") == run / "anything.bin"
    assert checkpoint_file(run, STATE_FILE) == run / STATE_FILE
    assert checkpoint_file(run, MODEL_FILE) == checkpoint_file(run) == run / MODEL_FILE


def test_folder_without_a_checkpoint_is_refused(tmp_path):
    run = run_folder(tmp_path / "run", STATE_FILE)
    (run / MODEL_FILE).mkdir()
    with pytest.raises(CheckpointError, match=rf"run has no {MODEL_FILE}") as refusal:
        checkpoint_file(run)
    assert "run folder" in refusal.value.hint


def test_missing_checkpoint_is_refused_with_a_hint(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint .*missing") as refusal:
        checkpoint_file(tmp_path / "missing")
    assert "cyclegan train" in refusal.value.hint
    assert refusal.value.exit_code == 4


def test_pretrained_model_is_found_by_name(here):
    found = checkpoint_file(Path("day2night"))
    assert found == pretrained_file("day2night")
    assert chosen_checkpoint(Path("day2night"), "latest") == found
    with pytest.raises(UsageError, match="day2night is a single model"):
        chosen_checkpoint(Path("day2night"), "best")
    run_folder(here / "day2night", MODEL_FILE)
    assert checkpoint_file(Path("day2night")) == Path("day2night", MODEL_FILE)


@pytest.mark.parametrize(
    "name", ["day2nigh", "../day2night", "day2night.safetensors", "", ".", "n" * 300]
)
def test_other_names_are_not_pretrained_models(here, name):
    with pytest.raises(CheckpointError):
        checkpoint_file(Path(name))


# --- not named -------------------------------------------------------------------------------


def test_newest_run_is_the_default(here):
    run_folder(here / "runs" / "old", MODEL_FILE, modified=1_000)
    run_folder(here / "runs" / "new", MODEL_FILE, modified=3_000)
    run_folder(here / "runs" / "zz-between", MODEL_FILE, modified=2_000)
    assert default_checkpoint().resolve() == (here / "runs" / "new" / MODEL_FILE).resolve()


def test_runs_without_a_model_are_skipped(here):
    run_folder(here / "runs" / "a", MODEL_FILE, modified=1_000)
    run_folder(here / "runs" / "b", STATE_FILE, modified=2_000)
    run_folder(here / "runs" / "c" / "deeper", MODEL_FILE, modified=2_000)
    (here / "runs" / "d").touch()
    assert default_checkpoint() == Path("runs", "a", MODEL_FILE)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_dangling_link_is_skipped(here):
    run_folder(here / "runs" / "a", MODEL_FILE)
    run_folder(here / "runs" / "b").joinpath(MODEL_FILE).symlink_to(here / "gone")
    assert default_checkpoint() == Path("runs", "a", MODEL_FILE)


@pytest.mark.parametrize("named", ["run", f"run/{MODEL_FILE}"])
def test_environment_variable_overrides_the_newest_run(here, monkeypatch, named):
    run_folder(here / "runs" / "new", MODEL_FILE)
    run_folder(here / "run", MODEL_FILE)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, named)
    assert default_checkpoint() == Path("run", MODEL_FILE)


def test_environment_variable_is_ignored_if_empty_and_refused_if_missing(here, monkeypatch):
    run_folder(here / "runs" / "new", MODEL_FILE)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "")
    assert default_checkpoint() == Path("runs", "new", MODEL_FILE)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "gone")
    with pytest.raises(CheckpointError, match=r"\$CYCLEGAN_CHECKPOINT: there is no .*gone"):
        default_checkpoint()


@pytest.mark.parametrize("folders", [[], ["runs"], ["runs/empty"]])
def test_pretrained_model_is_the_default_without_runs(here, monkeypatch, folders):
    for folder in folders:
        (here / folder).mkdir(parents=True)
    assert default_checkpoint() == pretrained_file("day2night")
    monkeypatch.setattr(locate, "pretrained_file", lambda name: None)
    with pytest.raises(CheckpointError, match="there is no checkpoint") as refusal:
        default_checkpoint()
    assert refusal.value.exit_code == 4
    assert "--checkpoint" in refusal.value.hint
