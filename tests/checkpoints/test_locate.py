"""From what a user names, or does not name, to a checkpoint file."""

from __future__ import annotations

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
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, with no checkpoint named in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    return tmp_path


# --- named -----------------------------------------------------------------------------------


def test_a_file_is_what_it_is_whatever_its_name(tmp_path: Path) -> None:
    run_folder(tmp_path / "run", "anything.bin")
    assert checkpoint_file(tmp_path / "run" / "anything.bin") == tmp_path / "run" / "anything.bin"


@pytest.mark.parametrize("name", [MODEL_FILE, STATE_FILE])
def test_a_run_folder_stands_for_one_of_its_files(tmp_path: Path, name: str) -> None:
    run = run_folder(tmp_path / "run", MODEL_FILE, STATE_FILE)
    assert checkpoint_file(run, name) == run / name


def test_a_run_folder_stands_for_its_model(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", MODEL_FILE, STATE_FILE)
    assert checkpoint_file(run) == run / MODEL_FILE


def test_a_folder_without_a_checkpoint_is_refused_and_says_what_it_lacks(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", STATE_FILE)
    with pytest.raises(CheckpointError, match=rf"run has no {MODEL_FILE}") as refusal:
        checkpoint_file(run)
    assert "run folder" in refusal.value.hint


def test_a_folder_named_like_a_checkpoint_is_none(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    (run / MODEL_FILE).mkdir()
    with pytest.raises(CheckpointError, match="has no"):
        checkpoint_file(run)


def test_what_does_not_exist_is_refused_and_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint .*missing") as refusal:
        checkpoint_file(tmp_path / "missing")
    assert "cyclegan train" in refusal.value.hint
    assert refusal.value.exit_code == 4


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nnn"):
        checkpoint_file(tmp_path / ("n" * 300))


def test_a_model_in_the_package_has_a_name(here: Path) -> None:
    found = checkpoint_file(Path("day2night"))
    assert found == pretrained_file("day2night")
    assert chosen_checkpoint(Path("day2night"), "latest") == found
    with pytest.raises(UsageError, match="day2night is a single model"):
        chosen_checkpoint(Path("day2night"), "best")
    run_folder(here / "day2night", MODEL_FILE)
    assert checkpoint_file(Path("day2night")) == Path("day2night", MODEL_FILE)


@pytest.mark.parametrize("name", ["day2nigh", "../day2night", "day2night.safetensors", "", "."])
def test_other_names_are_none_of_a_model(here: Path, name: str) -> None:
    with pytest.raises(CheckpointError):
        checkpoint_file(Path(name))


# --- not named -------------------------------------------------------------------------------


def test_the_newest_run_is_the_default(here: Path) -> None:
    run_folder(here / "runs" / "old", MODEL_FILE, modified=1_000)
    run_folder(here / "runs" / "new", MODEL_FILE, modified=3_000)
    run_folder(here / "runs" / "zz-between", MODEL_FILE, modified=2_000)
    assert default_checkpoint().resolve() == (here / "runs" / "new" / MODEL_FILE).resolve()


def test_runs_without_a_model_are_passed_over(here: Path) -> None:
    run_folder(here / "runs" / "a", MODEL_FILE, modified=1_000)
    run_folder(here / "runs" / "b", STATE_FILE, modified=2_000)
    run_folder(here / "runs" / "c" / "deeper", MODEL_FILE, modified=2_000)
    (here / "runs" / "d").touch()
    assert default_checkpoint() == Path("runs", "a", MODEL_FILE)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_that_leads_nowhere_is_passed_over(here: Path) -> None:
    run_folder(here / "runs" / "a", MODEL_FILE)
    run_folder(here / "runs" / "b").joinpath(MODEL_FILE).symlink_to(here / "gone")
    assert default_checkpoint() == Path("runs", "a", MODEL_FILE)


@pytest.mark.parametrize("named", ["run", f"run/{MODEL_FILE}"])
def test_the_environment_goes_before_the_newest_run(
    here: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    run_folder(here / "runs" / "new", MODEL_FILE)
    run_folder(here / "run", MODEL_FILE)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, named)
    assert default_checkpoint() == Path("run", MODEL_FILE)


def test_an_environment_that_names_nothing_real_is_refused_though_there_are_runs(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_folder(here / "runs" / "new", MODEL_FILE)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "gone")
    with pytest.raises(CheckpointError, match="gone"):
        default_checkpoint()


def test_an_empty_environment_names_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_folder(here / "runs" / "new", MODEL_FILE)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "")
    assert default_checkpoint() == Path("runs", "new", MODEL_FILE)


@pytest.mark.parametrize("folders", [[], ["runs"], ["runs/empty"]])
def test_without_any_run_the_model_in_the_package_is_taken(
    here: Path, monkeypatch: pytest.MonkeyPatch, folders: list[str]
) -> None:
    for folder in folders:
        (here / folder).mkdir(parents=True)
    assert default_checkpoint() == pretrained_file("day2night")
    monkeypatch.setattr(locate, "pretrained_file", lambda name: None)
    with pytest.raises(CheckpointError, match="there is no checkpoint") as refusal:
        default_checkpoint()
    assert refusal.value.exit_code == 4
    assert "--checkpoint" in refusal.value.hint
