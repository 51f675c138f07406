"""CPU threads: how many to use, and how OpenMP threads wait."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

# With any of these the user has configured how OpenMP threads wait.
SPIN_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# Iterations of the loop in which threads of GNU libgomp wait before they sleep; the default is
# 300,000. About a millisecond: longer than the gaps between parallel loops, so that threads of
# a program with idle cores rarely sleep, and short enough to leave the cores to other programs.
SPIN_COUNT = 20_000


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
        import torch

        torch.set_num_threads(max(available_cores() // local_world_size, 1))


def single_threaded_pool(threads: int, name: str) -> ThreadPoolExecutor:
    """Return a pool of threads that start no OpenMP teams of their own.

    Several teams have more threads than cores, and libgomp then shortens the spinning of every
    waiting thread: training of small networks took half as long again.

    Args:
        threads: Number of threads.
        name: Prefix of their names.
    """
    import torch

    # A thread that has not used torch before adopts the number that any thread has set last. Asking
    # for it first fixes it for this thread, which would otherwise compute on a single core, too.
    torch.get_num_threads()
    return ThreadPoolExecutor(threads, name, initializer=lambda: torch.set_num_threads(1))


def limit_openmp_spin() -> None:
    """Let waiting OpenMP threads yield their cores to other programs after about a millisecond.

    By default threads of libgomp, which torch uses on Linux, spin for several milliseconds at the
    end of each parallel loop. Beside another program the cores are then spent on spinning: a step
    of a small network takes 30 times as long. Results do not change.

    libgomp reads the variable when it is loaded, so this has no effect once torch is imported. It
    is process-wide, and meant for programs, not for libraries. Does nothing if one of
    ``SPIN_VARIABLES`` is set.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in SPIN_VARIABLES):
        os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)
