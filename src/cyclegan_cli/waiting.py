"""How the threads of a computation wait for each other."""

from __future__ import annotations

import os

# What decides it already, in the OpenMP libraries that torch comes with.
DECIDED_BY = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# Turns of an empty loop; 300,000 by default (GNU libgomp, GOMP_SPINCOUNT).
SPINS = "1000"


def wait_briefly() -> None:
    """Let threads that wait for others soon give their core away; to be called before torch is.

    By default they go round in an empty loop for milliseconds. Where another program wants the
    cores as well, that loop is what they are spent on: with two cores and one other training, a
    step of a small network takes 30 times as long. On idle cores it makes no difference.
    It concerns the whole process, so it is for programs to call, not for libraries; and whoever
    has set one of the variables in question is left alone.
    """
    if not any(name in os.environ for name in DECIDED_BY):
        os.environ["GOMP_SPINCOUNT"] = SPINS
