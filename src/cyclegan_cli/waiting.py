"""How the threads of a computation wait for each other, beside other programs and alone.

At the end of each parallel loop, OpenMP's threads wait for the last of them: in an empty loop of
milliseconds, and only then asleep. On idle cores that is fastest, as waking costs more than the
next loop does. Where another program wants the cores as well, the empty loop is what they are
spent on: a step of a small network takes 30 times as long.

GNU's libgomp, which torch comes with on Linux, shortens the empty loop by itself, from 300,000
turns to 100, while there are more OpenMP threads than cores (its documentation, GOMP_SPINCOUNT).
So as long as other programs are busy on our cores, we keep idle teams of threads that make it so.
What is computed, and in which order, stays the same.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

# What decides it already, in the OpenMP libraries that torch comes with.
DECIDED_BY = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
PERIOD = 0.5  # Seconds between two looks.
# Cores that others are busy on and that our threads would need. Measured on two: 0.0 to 0.1 when
# alone, 1.0 beside another program that computes.
CROWDED = 0.3
ALONE = 0.15
PERIODS_ALONE = 6  # So many in a row, before threads wait long again.


@contextmanager
def considerate_waiting() -> Iterator[None]:
    """Let threads that wait for others soon give their core away while others want it.

    Whoever has set one of ``DECIDED_BY`` is left alone; elsewhere than on Linux, or with a single
    thread, there is nothing to do. It concerns the whole process, so it is for programs to use,
    not for libraries.
    """
    if not _concerns(sys.platform, torch.get_num_threads()):
        yield
        return
    watch = CoresWatch()
    watch.start()
    try:
        yield
    finally:
        watch.stop()


def _concerns(platform: str, threads: int) -> bool:
    decided = any(name in os.environ for name in DECIDED_BY)
    return platform == "linux" and threads > 1 and not decided


class CoresWatch(threading.Thread):
    """Looks, twice a second, whether others are busy on our cores, and acts on it."""

    def __init__(self) -> None:
        super().__init__(name="cores-watch", daemon=True)
        self._ended = threading.Event()
        # Asked here: in a thread of its own torch may tell what loading threads have set.
        self._threads = torch.get_num_threads()
        self._teams: list[SpareTeam] = []
        self._periods_alone = 0

    @property
    def waits_briefly(self) -> bool:
        """Whether threads that wait are to sleep soon."""
        return bool(self._teams)

    def run(self) -> None:
        """Look, until `stop`."""
        spare = len(os.sched_getaffinity(0)) - self._threads
        seconds, since = others_seconds(), time.perf_counter()
        while not self._ended.wait(PERIOD):
            seconds_now, now = others_seconds(), time.perf_counter()
            self.look((seconds_now - seconds) / (now - since) - spare)
            seconds, since = seconds_now, now
        self._dismiss()

    def look(self, taken: float) -> None:
        """Act on how many of the cores that we need others were busy on in the last period."""
        self._periods_alone = self._periods_alone + 1 if taken < ALONE else 0
        if taken > CROWDED and not self._teams:
            teams = teams_to_exceed_cores(self._threads)
            self._teams = [SpareTeam(self._threads) for _ in range(teams)]
        elif self._periods_alone >= PERIODS_ALONE:
            self._dismiss()

    def stop(self) -> None:
        """End the watch and its teams; returns when they have."""
        self._ended.set()
        self.join()

    def _dismiss(self) -> None:
        for team in self._teams:
            team.dismiss()
        self._teams = []


class SpareTeam:
    """A thread that has made OpenMP start a team for it, and then does nothing.

    Args:
        threads: Of the team.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._dismissed = threading.Event()
        self._thread = threading.Thread(target=self._be_there, name="spare-team", daemon=True)
        self._thread.start()

    def dismiss(self) -> None:
        """Let the team go; returns when it has."""
        self._dismissed.set()
        self._thread.join()

    def _be_there(self) -> None:
        # Large enough to be divided among all threads; the memory is free at once.
        torch.set_num_threads(self._threads)
        torch.ones(self._threads << 16)
        self._dismissed.wait()


def teams_to_exceed_cores(threads: int) -> int:
    """Teams, beside the computation's own, that make more OpenMP threads than there are cores."""
    return len(os.sched_getaffinity(0)) // threads


def others_seconds() -> float:
    """Seconds, so far, that other processes were busy on the cores that this one may use."""
    ours = os.sched_getaffinity(0)
    busy = sum(
        times.user + times.nice + times.system + times.irq + times.softirq
        for core, times in enumerate(psutil.cpu_times(percpu=True))
        if core in ours
    )
    return float(busy) - time.process_time()
