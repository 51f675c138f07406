import os
import subprocess
import sys
import threading
import time

import pytest
import torch

from cyclegan_cli import waiting
from cyclegan_cli.waiting import (
    ALONE,
    CROWDED,
    DECIDED_BY,
    PERIODS_ALONE,
    CoresWatch,
    considerate_waiting,
    others_seconds,
    teams_to_exceed_cores,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="libgomp is torch's on Linux only")


def names_of_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in DECIDED_BY:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    return monkeypatch


@linux
def test_cores_are_watched_while_it_computes_and_no_longer(undecided: pytest.MonkeyPatch) -> None:
    with considerate_waiting():
        assert "cores-watch" in names_of_threads()
    assert "cores-watch" not in names_of_threads()


@linux
@pytest.mark.parametrize("name", DECIDED_BY)
def test_who_has_decided_is_left_alone(undecided: pytest.MonkeyPatch, name: str) -> None:
    undecided.setenv(name, "7")
    with considerate_waiting():
        assert "cores-watch" not in names_of_threads()


def test_one_thread_waits_for_nobody(undecided: pytest.MonkeyPatch) -> None:
    undecided.setattr(torch, "get_num_threads", lambda: 1)
    with considerate_waiting():
        assert "cores-watch" not in names_of_threads()


@linux
def test_threads_wait_briefly_from_the_first_crowded_period_to_some_quiet_ones(
    undecided: pytest.MonkeyPatch,
) -> None:
    undecided.setattr(waiting, "teams_to_exceed_cores", lambda threads: 1)
    watch = CoresWatch()
    watch.look((ALONE + CROWDED) / 2)
    assert not watch.waits_briefly
    watch.look(CROWDED + 1)
    assert watch.waits_briefly
    assert "spare-team" in names_of_threads()
    for _ in range(PERIODS_ALONE - 1):
        watch.look(0)
    watch.look((ALONE + CROWDED) / 2)  # Not alone: the count begins anew.
    for _ in range(PERIODS_ALONE - 1):
        watch.look(0)
    assert watch.waits_briefly
    watch.look(0)
    assert not watch.waits_briefly
    assert "spare-team" not in names_of_threads()


@linux
@pytest.mark.parametrize(("cores", "threads"), [(2, 2), (8, 2), (8, 3), (64, 64), (1, 2)])
def test_spare_teams_make_more_threads_than_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    teams = teams_to_exceed_cores(threads)
    assert threads * (1 + teams) > cores
    assert threads * teams <= cores  # One team fewer would not do.


@linux
def test_an_end_in_crowded_times_leaves_no_thread(undecided: pytest.MonkeyPatch) -> None:
    undecided.setattr(waiting, "PERIOD", 0.01)
    undecided.setattr(waiting, "teams_to_exceed_cores", lambda threads: 2)
    busy = iter(range(0, 10**9, 1000))
    undecided.setattr(waiting, "others_seconds", lambda: next(busy))
    seen = threading.Event()
    undecided.setattr(
        waiting.SpareTeam, "_be_there", lambda self: (seen.set(), self._dismissed.wait())
    )
    with considerate_waiting():
        assert seen.wait(60)
    assert {"spare-team", "cores-watch"}.isdisjoint(names_of_threads())


@linux
def test_what_others_compute_counts_and_what_we_do_does_not() -> None:
    before, since = others_seconds(), time.process_time()
    while time.process_time() < since + 0.5:
        pass
    alone = others_seconds() - before
    script = "import time\nwhile time.process_time() < 1: pass"
    before = others_seconds()
    subprocess.run([sys.executable, "-c", script], check=True)
    beside = others_seconds() - before
    assert beside > 0.8
    # Whatever else is running on the machine took part in both.
    assert alone > -0.1


@linux
def test_a_spare_team_exceeds_the_cores_and_changes_no_result() -> None:
    """The teams are libgomp's own, so its threads are there to be counted."""
    script = (
        "import os, threading, time, torch\n"
        "from cyclegan_cli.waiting import SpareTeam\n"
        "torch.set_num_threads(2)\n"
        "x = torch.randn(8, 64, 64)\n"
        "before = torch.bmm(x, x).sum()\n"
        "threads = len(os.listdir('/proc/self/task'))\n"
        "team = SpareTeam(torch.get_num_threads())\n"
        "deadline = time.time() + 60\n"
        "while len(os.listdir('/proc/self/task')) < threads + 2 and time.time() < deadline:\n"
        "    time.sleep(0.01)\n"
        "assert torch.equal(torch.bmm(x, x).sum(), before)\n"
        "print(len(os.listdir('/proc/self/task')) - threads)\n"
        "team.dismiss()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert int(done.stdout) == 2
