"""``torchrun … -m cyclegan_cli train``: real processes, on the CPU."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

import trainings
from cyclegan_cli.checkpoints.header import read_header
from cyclegan_cli.errors import DeviceError
from cyclegan_cli.runtime.distributed_env import DistributedEnv
from cyclegan_cli.training import distributed
from preloaded import Preloaded
from trainings import TINY, draw_domains, free_port, wait_for_steps

pytestmark = pytest.mark.slow

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
OPTIONS = [
    *TINY, "--steps", "40", "--log-every", "1", "--checkpoint-every", "3", "--sample-every", "10",
    "--validate-every", "6", "--val-fraction", "0.3", "--workers", "1", "--norms", "all",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return draw_domains(tmp_path_factory.mktemp("together"), 9, 8)


def start(folder: Path, *arguments: str, launch: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return trainings.start([*TORCHRUN, *launch, "-m", "cyclegan_cli", "train", *arguments], folder)


def finish(folder: Path, *arguments: str) -> tuple[list[int], str, str]:
    """Exit codes, stdout and stderr of two processes with the environment of torchrun."""
    together = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    together |= {"MASTER_PORT": str(free_port()), "COLUMNS": "100"}
    ranks = [
        Preloaded(
            ["train", *arguments],
            folder,
            os.environ | together | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    written = [rank.communicate(timeout=240) for rank in ranks]
    out, err = ("".join(texts) for texts in zip(*written, strict=True))
    return [rank.wait(0) for rank in ranks], out, err


def model(folder: Path, run: str) -> bytes:
    return (folder / run / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(folder):
    command = [*TORCHRUN, "-m", "cyclegan_cli", "train", *OPTIONS, "--run-dir", "whole"]
    code, out, err = trainings.finish(command, folder)
    assert code == 0, err
    # The first process alone speaks.
    assert out == "checkpoint: whole/model.safetensors\n"
    assert err.count("training day <-> night to step 40") == 1
    assert "2 processes with a batch size of 1 each: 2 images of each domain per step" in err
    assert "warning" not in err.lower()
    tensors = read_header(folder / "whole" / "state.safetensors").tensors
    assert {"pool_a.images", "rank.1.pool_a.images"} <= tensors.keys()
    return model(folder, "whole")


def test_killed_rank_is_restarted_with_identical_result(folder, whole):
    process = start(folder, *OPTIONS, "--run-dir", "hurt", launch=("--max-restarts", "1"))
    wait_for_steps(folder, "hurt", 7)
    children = psutil.Process(process.pid).children()
    [second] = [one for one in children if one.environ().get("RANK") == "1"]
    second.kill()
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "from step" in err
    assert model(folder, "hurt") == whole


def test_ctrl_c_saves_and_resume_gives_identical_model(folder, whole):
    process = start(folder, *OPTIONS, "--run-dir", "stopped")
    wait_for_steps(folder, "stopped", 4)
    os.killpg(process.pid, signal.SIGINT)  # As a terminal does; torchrun passes it on once more.
    _, err = process.communicate(timeout=120)
    [step] = re.findall(r"error: stopped after step (\d+) of 40; the run was saved", err)
    assert 4 <= int(step) < 40
    assert err.count("error: ") == 1
    codes, _, err = finish(folder, "--resume", "stopped")
    assert codes == [0, 0], err
    assert model(folder, "stopped") == whole


def test_invalid_options_are_reported_once(folder):
    codes, _, err = finish(folder, *OPTIONS, "--run-dir", "r", "--crop-size", "33")
    assert all(codes)
    assert err.count("error: --crop-size 33 ") == 1
    assert "cyclegan_cli/" not in err.replace("-m cyclegan_cli", "")
    assert not (folder / "r").exists()


def test_error_on_rank_zero_ends_all_ranks(folder):
    shutil.copytree(folder / "day", folder / "spoilt")
    (folder / "spoilt" / "0.png").write_text("no image")
    spoilt = ["--domain-a", "spoilt", "--run-dir", "r", "--strict"]
    codes, _, err = finish(folder, *OPTIONS, *spoilt)
    assert codes[0] == 3
    assert err.count("error: ") == 1
    assert "error: --strict: --domain-a: 1 of 9 checked images will be left out" in err
    assert not (folder / "r").exists()


def test_dry_run_is_refused_under_torchrun(folder):
    codes, _, err = finish(folder, *OPTIONS, "--dry-run")
    assert all(codes)
    assert err.count("error: --dry-run needs a single process") == 1


ALONE_IN_TWO = {"RANK": "0", "WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (ALONE_IN_TWO, "RANK=0 and WORLD_SIZE=2, but no MASTER_ADDR"),
        (ALONE_IN_TWO | {"MASTER_ADDR": "127.0.0.1"}, "but no MASTER_PORT"),
        (ALONE_IN_TWO | {"MASTER_ADDR": "a", "MASTER_PORT": "x"}, "MASTER_PORT=x, which is no"),
        (ALONE_IN_TWO | {"MASTER_ADDR": "a", "MASTER_PORT": "70000"}, "MASTER_PORT=70000"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 and WORLD_SIZE=2"),
    ],
)
def test_incomplete_torchrun_environment_is_a_usage_error(
    folder, cyclegan, monkeypatch, variables, said
):
    monkeypatch.chdir(folder)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    answer = cyclegan("train", *OPTIONS, "--run-dir", "half")
    assert answer.code == 2
    assert said in answer.err
    assert "hint: Unset RANK and WORLD_SIZE" in answer.err
    assert not (folder / "half").exists()


@pytest.mark.parametrize(("rank", "awaited"), [
    ("0", "1 other process of 2 to join at"), ("1", "rank 0 to listen at"),
])  # fmt: skip
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_waiting_for_other_ranks_handles_signals(folder, monkeypatch, rank, awaited, number, code):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    process = Preloaded(["train", *OPTIONS, "--run-dir", "lonely"], folder)
    line = process.stderr.readline()
    assert f"process {int(rank) + 1}/2: waiting for {awaited} 127.0.0.1:" in line
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"stopped while waiting for {awaited}" in err
    assert "Traceback" not in err
    assert not (folder / "lonely").exists()


def test_join_times_out(monkeypatch):
    monkeypatch.setattr(distributed, "JOIN_SECONDS", 0.0)
    monkeypatch.setattr(distributed, "REPORT_AFTER_SECONDS", 0.0)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    for index in (0, 1):
        monkeypatch.setenv("RANK", str(index))
        rank = DistributedEnv(index, 2)
        with (
            pytest.raises(DeviceError, match="timed out"),
            distributed.process_group(rank, torch.device("cpu")),
        ):
            pass


def test_occupied_port_is_a_device_error(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        monkeypatch.setenv("RANK", "0")
        with (
            pytest.raises(DeviceError, match="cannot join the other processes at 127"),
            distributed.process_group(DistributedEnv(0, 2), torch.device("cpu")),
        ):
            pass
