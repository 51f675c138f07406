import os
import subprocess
import sys
import threading
import time

import pytest
import torch

from cyclegan_cli.runtime import threads
from cyclegan_cli.runtime.threads import (
    BUSY_ABOVE,
    IDLE_BELOW,
    IDLE_PERIODS,
    SPIN_VARIABLES,
    CoreMonitor,
    limit_openmp_spin,
    other_processes_seconds,
    required_teams,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="libgomp is torch's on Linux only")


def names_of_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in SPIN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    return monkeypatch


@linux
def test_monitor_runs_inside_the_context(undecided: pytest.MonkeyPatch) -> None:
    with limit_openmp_spin():
        assert "core-monitor" in names_of_threads()
    assert "core-monitor" not in names_of_threads()


@linux
@pytest.mark.parametrize("name", SPIN_VARIABLES)
def test_user_settings_are_kept(undecided: pytest.MonkeyPatch, name: str) -> None:
    undecided.setenv(name, "7")
    with limit_openmp_spin():
        assert "core-monitor" not in names_of_threads()


def test_single_thread_needs_no_monitor(undecided: pytest.MonkeyPatch) -> None:
    undecided.setattr(torch, "get_num_threads", lambda: 1)
    with limit_openmp_spin():
        assert "core-monitor" not in names_of_threads()


@linux
def test_spin_is_limited_until_several_idle_periods(
    undecided: pytest.MonkeyPatch,
) -> None:
    undecided.setattr(threads, "required_teams", lambda threads: 1)
    monitor = CoreMonitor()
    monitor.update((IDLE_BELOW + BUSY_ABOVE) / 2)
    assert not monitor.is_spin_limited
    monitor.update(BUSY_ABOVE + 1)
    assert monitor.is_spin_limited
    assert "idle-openmp-team" in names_of_threads()
    for _ in range(IDLE_PERIODS - 1):
        monitor.update(0)
    monitor.update((IDLE_BELOW + BUSY_ABOVE) / 2)  # Resets the count.
    for _ in range(IDLE_PERIODS - 1):
        monitor.update(0)
    assert monitor.is_spin_limited
    monitor.update(0)
    assert not monitor.is_spin_limited
    assert "idle-openmp-team" not in names_of_threads()


@linux
@pytest.mark.parametrize(("cores", "threads"), [(2, 2), (8, 2), (8, 3), (64, 64), (1, 2)])
def test_required_teams_exceed_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    teams = required_teams(threads)
    assert threads * (1 + teams) > cores
    assert threads * teams <= cores  # One team fewer would not do.


@linux
def test_stopping_while_busy_leaves_no_thread(undecided: pytest.MonkeyPatch) -> None:
    undecided.setattr(threads, "PERIOD_SECONDS", 0.01)
    undecided.setattr(threads, "required_teams", lambda threads: 2)
    busy = iter(range(0, 10**9, 1000))
    undecided.setattr(threads, "other_processes_seconds", lambda: next(busy))
    seen = threading.Event()
    undecided.setattr(threads.IdleTeam, "_run", lambda self: (seen.set(), self._stopped.wait()))
    with limit_openmp_spin():
        assert seen.wait(60)
    assert {"idle-openmp-team", "core-monitor"}.isdisjoint(names_of_threads())


@linux
def test_only_other_processes_count() -> None:
    before, since = other_processes_seconds(), time.process_time()
    while time.process_time() < since + 0.5:
        pass
    alone = other_processes_seconds() - before
    script = "import time\nwhile time.process_time() < 1: pass"
    before = other_processes_seconds()
    subprocess.run([sys.executable, "-c", script], check=True)
    beside = other_processes_seconds() - before
    assert beside > 0.8
    # Whatever else is running on the machine took part in both.
    assert alone > -0.1


@linux
def test_idle_team_does_not_change_results() -> None:
    """The teams are libgomp's own, so its threads are there to be counted."""
    script = (
        "import os, threading, time, torch\n"
        "from cyclegan_cli.runtime.threads import IdleTeam\n"
        "torch.set_num_threads(2)\n"
        "x = torch.randn(8, 64, 64)\n"
        "before = torch.bmm(x, x).sum()\n"
        "threads = len(os.listdir('/proc/self/task'))\n"
        "team = IdleTeam(torch.get_num_threads())\n"
        "deadline = time.time() + 60\n"
        "while len(os.listdir('/proc/self/task')) < threads + 2 and time.time() < deadline:\n"
        "    time.sleep(0.01)\n"
        "assert torch.equal(torch.bmm(x, x).sum(), before)\n"
        "print(len(os.listdir('/proc/self/task')) - threads)\n"
        "team.stop()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert int(done.stdout) == 2
