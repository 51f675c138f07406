"""Run several implementations in alternation, each in its own process."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any


def serve(work: Callable[[], dict[str, Any]]) -> None:
    """Call ``work`` once per line on stdin, and print its result and the peak memory as JSON.

    Args:
        work: Returns measurements, including ``seconds``.
    """
    for _ in sys.stdin:
        found = work()
        # In kB on Linux, in bytes on macOS.
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        print(json.dumps({**found, "peak_rss_bytes": peak}), flush=True)


def alternate(commands: Mapping[str, list[str]], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Collect measurements of each implementation; fewer if its process died.

    Args:
        commands: Python arguments by implementation; each runs a script that calls :func:`serve`.
        rounds: Number of measurements of each.
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
    """Return the median of the seconds and the last peak memory."""
    return {
        "seconds": statistics.median(answer["seconds"] for answer in answers),
        "peak_rss_bytes": int(answers[-1]["peak_rss_bytes"]),
    }
