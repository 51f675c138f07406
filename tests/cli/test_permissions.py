"""Paths that may not be read: also by root, who gives the right to read all of them away."""

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from trainings import TINY, draw_domains

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
# <linux/prctl.h>, <linux/capability.h>
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2


def respect_permissions() -> None:
    """Let the program that follows be refused what permissions forbid, though root runs it."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None)
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
                raise OSError("this root may not give rights away")


@pytest.fixture(scope="module")
def folder(run_folder):
    """``day``, ``night`` and ``run``, which all may read, and the same behind locks."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    draw_domains(folder, 3, 3)
    shutil.copytree(folder / "day", folder / "locked")
    shutil.copytree(run_folder, folder / "locked_run")
    shutil.copy(folder / "day" / "0.png", folder / "locked.png")
    shutil.copy(run_folder / "model.safetensors", folder / "locked.safetensors")
    (folder / "locked.toml").touch()
    locked = list(folder.glob("locked*"))
    for path in locked:
        path.chmod(0)
    yield folder
    for path in locked:
        path.chmod(0o700)
    shutil.rmtree(folder)


# Runs command lines one after the other, in one process that imports once.
COMMANDS = """
import json, sys
from typer.testing import CliRunner
from cyclegan_cli.cli import console
from cyclegan_cli.cli.app import app
answers = []
for arguments in json.load(sys.stdin):
    console.stderr.cache_clear()
    answer = CliRunner().invoke(app, arguments)
    answers.append([answer.exit_code, answer.stdout, answer.stderr])
json.dump(answers, sys.stdout)
"""
TRAIN = ["train", *TINY, "--run-dir", "new"]
REFUSED = [
    ([*TRAIN, "--domain-a", "locked"], 3, "locked"),
    ([*TRAIN, "--val-a", "locked", "--val-b", "night"], 3, "locked"),
    ([*TRAIN, "--init-from", "locked.safetensors"], 4, "locked.safetensors"),
    ([*TRAIN, "--config", "locked.toml"], 2, "locked.toml"),
    (["train", "--resume", "locked_run"], 4, "locked_run"),
    (
        ["translate", "day/0.png", "--checkpoint", "locked.safetensors", "-o", "x.png"],
        4,
        "locked.safetensors",
    ),
    (["translate", "day/0.png", "--checkpoint", "locked_run", "-o", "x.png"], 4, "locked_run"),
    (["export", "locked.safetensors", "--format", "onnx"], 4, "locked.safetensors"),
    (["inspect", "locked"], 3, "locked"),
    (["inspect", "locked_run"], 3, "locked_run"),
    (["inspect", "locked.png"], 3, "locked.png"),
]
SKIPPED = ["inspect", "locked.png", "day/0.png"]


@pytest.fixture(scope="module")
def answers(folder):
    """Exit code, stdout and stderr of all commands, the last of them ``SKIPPED``."""
    commands = [*(arguments for arguments, _, _ in REFUSED), SKIPPED]
    try:
        done = subprocess.run(
            [sys.executable, "-c", COMMANDS], input=json.dumps(commands), cwd=folder,
            capture_output=True, text=True, timeout=120, preexec_fn=respect_permissions,
        )  # fmt: skip
    except subprocess.SubprocessError:
        pytest.skip("root may not give rights away here")
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "number",
    range(len(REFUSED)),
    ids=[f"{words[0]}-{named}" for words, _, named in REFUSED],
)
@pytest.mark.slow
def test_unreadable_path_is_one_sentence(answers, number):
    _, code, named = REFUSED[number]
    found, _, err = answers[number]
    assert "Usage:" not in err
    assert "Traceback" not in err
    assert named in err
    assert found == code


def test_unreadable_file_does_not_stop_inspect(answers):
    code, out, err = answers[-1]
    assert code == 6
    assert "day/0.png: image" in out
    assert "locked.png" in err
