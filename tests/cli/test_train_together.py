"""``torchrun … -m cyclegan_cli train``: real processes, on the CPU."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import trainings
from cyclegan_cli.checkpoints.container import read_header
from trainings import TINY, draw_domains, wait_for_steps

pytestmark = pytest.mark.slow

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
OPTIONS = [
    *TINY, "--steps", "40", "--log-every", "1", "--checkpoint-every", "5", "--sample-every", "20",
    "--validate-every", "10", "--val-fraction", "0.3", "--workers", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_domains(tmp_path_factory.mktemp("together"), 9, 8)


def start(folder: Path, *arguments: str, launch: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return trainings.start([*TORCHRUN, *launch, "-m", "cyclegan_cli", "train", *arguments], folder)


def finish(folder: Path, *arguments: str) -> tuple[int, str, str]:
    return trainings.finish([*TORCHRUN, "-m", "cyclegan_cli", "train", *arguments], folder)


def model(folder: Path, run: str) -> bytes:
    return (folder / run / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(folder: Path) -> bytes:
    code, out, err = finish(folder, *OPTIONS, "--run-dir", "whole")
    assert code == 0, err
    # The first process alone speaks.
    assert out == "checkpoint: whole/model.safetensors\n"
    assert err.count("training day <-> night to step 40") == 1
    assert "2 processes, each with batches of 1: 2 pictures of each domain a step" in err
    assert "warning" not in err.lower()
    tensors = read_header(folder / "whole" / "state.safetensors").tensors
    assert {"pool_a.images", "rank.1.pool_a.images"} <= tensors.keys()
    return model(folder, "whole")


def test_a_killed_process_is_restarted_and_the_run_ends_as_if_it_had_not_been(
    folder: Path, whole: bytes
) -> None:
    process = start(folder, *OPTIONS, "--run-dir", "hurt", launch=("--max-restarts", "1"))
    wait_for_steps(folder, "hurt", 12)
    children = psutil.Process(process.pid).children()
    [second] = [one for one in children if one.environ().get("RANK") == "1"]
    second.kill()
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "from step" in err
    assert model(folder, "hurt") == whole


def test_ctrl_c_saves_and_a_resumed_run_ends_as_if_it_had_not_been(
    folder: Path, whole: bytes
) -> None:
    process = start(folder, *OPTIONS, "--run-dir", "stopped")
    wait_for_steps(folder, "stopped", 7)
    os.killpg(process.pid, signal.SIGINT)  # As a terminal does; torchrun passes it on once more.
    _, err = process.communicate(timeout=120)
    [step] = re.findall(r"error: stopped after step (\d+) of 40; everything is saved", err)
    assert 7 <= int(step) < 40
    assert err.count("error: ") == 1
    code, _, err = finish(folder, "--resume", "stopped")
    assert code == 0, err
    assert model(folder, "stopped") == whole


def test_bad_options_are_one_sentence(folder: Path) -> None:
    code, _, err = finish(folder, *OPTIONS, "--run-dir", "r", "--crop-size", "33")
    assert code != 0
    assert err.count("error: --crop-size 33 ") == 1
    assert "cyclegan_cli/" not in err.replace("-m cyclegan_cli", "")
    assert not (folder / "r").exists()


def test_what_the_first_process_refuses_ends_all(folder: Path) -> None:
    shutil.copytree(folder / "day", folder / "spoilt")
    (folder / "spoilt" / "0.png").write_text("no picture")
    spoilt = ["--domain-a", "spoilt", "--run-dir", "r", "--strict"]
    code, _, err = finish(folder, *OPTIONS, *spoilt)
    assert code != 0
    assert err.count("error: ") == 1
    assert "error: --strict: --domain-a: of 9 pictures looked at, 1 will be left out" in err
    assert not (folder / "r").exists()


def test_a_dry_run_is_for_one_process(folder: Path) -> None:
    code, _, err = finish(folder, *OPTIONS, "--dry-run")
    assert code != 0
    assert err.count("error: --dry-run is for one process") == 1
