"""One training a run folder."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cyclegan_cli.errors import OutputError, UsageError
from cyclegan_cli.training.plan import plan_new, plan_resumed
from cyclegan_cli.training.run_dir import LOCK_FILE, RunDirectory
from cyclegan_cli.training.trainer import train
from runs import STEPS

HOLDER = """
import sys
from pathlib import Path
from cyclegan_cli.training.run_dir import RunDirectory
run = RunDirectory(Path(sys.argv[1]))
run.lock()
print("held", flush=True)
sys.stdin.read()
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    """Another process that has the lock."""
    folder.mkdir(exist_ok=True)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout.readline() == "held\n"
    return holder


@pytest.fixture
def holder(config):
    process = hold(config.run_dir)
    yield process
    process.kill()
    process.communicate()


def test_second_training_in_folder_is_refused(config, holder):
    with pytest.raises(UsageError, match="another training is running in"):
        train(plan_new(config))
    assert [path.name for path in config.run_dir.iterdir()] == [LOCK_FILE]


def test_resume_of_locked_run_is_refused(config):
    train(plan_new(config))
    before = {path: path.read_bytes() for path in config.run_dir.iterdir() if path.is_file()}
    holder = hold(config.run_dir)
    with pytest.raises(UsageError, match="another training is running in"):
        train(plan_resumed(config.run_dir, {"steps": STEPS + 1}))
    holder.kill()
    holder.communicate()
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_killed_training_releases_lock(config, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    (config.run_dir / ".cyclegan-0123456789abcdef.tmp").touch()
    train(plan_new(config))
    assert not list(config.run_dir.glob("*.tmp"))


def test_finished_training_releases_lock(config):
    train(plan_new(config))
    hold(config.run_dir).communicate()


def test_state_saved_after_planning_is_refused(config):
    train(plan_new(config))
    planned = plan_resumed(config.run_dir, {"steps": STEPS + 1})
    train(plan_resumed(config.run_dir, {"steps": STEPS + 2}))
    with pytest.raises(UsageError, match=f"has just saved .* at step {STEPS + 2}"):
        train(planned)


def test_two_new_runs_in_one_folder_are_refused(config):
    first, second = plan_new(config), plan_new(config)
    train(first)
    with pytest.raises(UsageError, match="another training has just saved"):
        train(second)


def test_lock_failure_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match=r"cannot write .*\.lock: no such file or directory"):
        RunDirectory(tmp_path / "missing").lock()


def test_lock_works_without_o_cloexec(tmp_path, monkeypatch):
    monkeypatch.delattr("os.O_CLOEXEC")
    run = RunDirectory(tmp_path)
    run.lock()
    run.close()
