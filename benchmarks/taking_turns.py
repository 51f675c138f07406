"""Measure several ways of doing one thing, each in a process of its own, in alternation."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any


def serve(work: Callable[[], dict[str, Any]]) -> None:
    """Do the work once for every line on stdin, and print what it found and the peak memory.

    Args:
        work: Returns numbers, ``seconds`` among them.
    """
    for _ in sys.stdin:
        found = work()
        # Linux counts in kB, macOS in bytes.
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        print(json.dumps({**found, "peak_rss_bytes": peak}), flush=True)


def in_turns(commands: Mapping[str, list[str]], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """The answers of each way; fewer than asked for from one that has died, of memory perhaps.

    Args:
        commands: Arguments for this Python, by way; each runs a script that calls :func:`serve`.
        rounds: How often each takes its turn.
    """
    workers = {
        way: subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for way, command in commands.items()
    }
    answers: dict[str, list[dict[str, Any]]] = {way: [] for way in commands}
    for _ in range(rounds):
        for way, worker in workers.items():
            assert worker.stdin is not None
            assert worker.stdout is not None
            if worker.poll() is not None:
                continue
            worker.stdin.write("go\n")
            worker.stdin.flush()
            if line := worker.stdout.readline():
                answers[way].append(json.loads(line))
    for worker in workers.values():
        worker.communicate()
    return answers


def summary(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of the seconds, and the last peak memory."""
    return {
        "seconds": statistics.median(answer["seconds"] for answer in answers),
        "peak_rss_bytes": int(answers[-1]["peak_rss_bytes"]),
    }
