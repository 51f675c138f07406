"""CPU threads: how many to use, and how OpenMP threads wait.

At the end of each parallel loop, OpenMP threads spin for a few milliseconds before they sleep.
On idle cores this is fastest, since waking a thread costs more than the next loop. When another
program needs the cores, they are spent on spinning: a step of a small network takes 30 times as
long.

GNU's libgomp, which torch uses on Linux, reduces the spin count from 300,000 to 100 while there
are more OpenMP threads than cores (libgomp documentation, GOMP_SPINCOUNT). `limit_openmp_spin`
makes use of this: while other programs occupy the cores, it keeps idle OpenMP teams alive.
Results and their order of evaluation do not change.
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

# With any of these the user has configured how OpenMP threads wait.
SPIN_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
PERIOD_SECONDS = 0.5
# Cores in use by other processes that our threads need. On two cores it measures 0.0 to 0.1 on an
# idle machine, and 1.0 beside another program that computes.
BUSY_ABOVE = 0.3
IDLE_BELOW = 0.15
IDLE_PERIODS = 6  # Consecutive idle periods before threads spin longer again.


def available_cores() -> int:
    """Number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def divide_threads(local_world_size: int) -> None:
    """Give each of several processes on this machine an equal share of the cores.

    `torchrun` sets ``OMP_NUM_THREADS=1`` where it is unset; any other value is the user's choice.
    """
    if local_world_size > 1 and os.environ.get("OMP_NUM_THREADS", "1") == "1":
        torch.set_num_threads(max(available_cores() // local_world_size, 1))


@contextmanager
def limit_openmp_spin() -> Iterator[None]:
    """Let waiting OpenMP threads yield their cores early while other programs need them.

    Does nothing if one of ``SPIN_VARIABLES`` is set, on systems other than Linux, or with a single
    thread. The setting is process-wide, so it is meant for programs, not for libraries.
    """
    is_configured = any(name in os.environ for name in SPIN_VARIABLES)
    if sys.platform != "linux" or torch.get_num_threads() == 1 or is_configured:
        yield
        return
    monitor = CoreMonitor()
    monitor.start()
    try:
        yield
    finally:
        monitor.stop()


class CoreMonitor(threading.Thread):
    """Measures twice a second how busy other processes are, and keeps idle teams meanwhile."""

    def __init__(self) -> None:
        super().__init__(name="core-monitor", daemon=True)
        self._stopped = threading.Event()
        # Read here: the number of threads is per thread, and this one's may differ.
        self._threads = torch.get_num_threads()
        self._teams: list[IdleTeam] = []
        self._idle_periods = 0

    @property
    def is_spin_limited(self) -> bool:
        """Whether idle teams are alive."""
        return bool(self._teams)

    def run(self) -> None:
        """Measure until `stop`."""
        spare_cores = available_cores() - self._threads
        seconds, since = other_processes_seconds(), time.perf_counter()
        while not self._stopped.wait(PERIOD_SECONDS):
            seconds_now, now = other_processes_seconds(), time.perf_counter()
            self.update((seconds_now - seconds) / (now - since) - spare_cores)
            seconds, since = seconds_now, now
        self._stop_teams()

    def update(self, busy_cores: float) -> None:
        """Start or stop idle teams.

        Args:
            busy_cores: Number of cores that other processes used during the last period, less
                those that our threads do not need.
        """
        self._idle_periods = self._idle_periods + 1 if busy_cores < IDLE_BELOW else 0
        if busy_cores > BUSY_ABOVE and not self._teams:
            for _ in range(required_teams(self._threads)):
                try:
                    self._teams.append(IdleTeam(self._threads))
                except RuntimeError:  # The container's limit of processes is reached.
                    break
        elif self._idle_periods >= IDLE_PERIODS:
            self._stop_teams()

    def stop(self) -> None:
        """Stop the monitor and its teams, and wait for them."""
        self._stopped.set()
        self.join()

    def _stop_teams(self) -> None:
        for team in self._teams:
            team.stop()
        self._teams = []


class IdleTeam:
    """A thread that makes OpenMP create a team of threads and then sleeps.

    Args:
        threads: Size of the team.

    Raises:
        RuntimeError: The system cannot start another thread.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="idle-openmp-team", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the team and wait for it."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        # Large enough to be divided among all threads; the memory is freed at once.
        torch.set_num_threads(self._threads)
        torch.ones(self._threads << 16)
        self._stopped.wait()


def required_teams(threads: int) -> int:
    """Number of idle teams that make more OpenMP threads than there are cores."""
    return available_cores() // threads


def other_processes_seconds() -> float:
    """CPU seconds that other processes have used so far on the cores available to this one."""
    cores = os.sched_getaffinity(0)
    busy = sum(
        times.user + times.nice + times.system + times.irq + times.softirq
        for core, times in enumerate(psutil.cpu_times(percpu=True))
        if core in cores
    )
    return float(busy) - time.process_time()
