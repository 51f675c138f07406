"""How many threads, and how they wait."""

import os
import subprocess
import sys

import pytest
import torch

from cyclegan_cli.runtime import threads
from cyclegan_cli.runtime.threads import SPIN_COUNT, SPIN_VARIABLES, divide_threads

# Prints what libgomp has read when torch is loaded.
SHOW_SPIN = """
from cyclegan_cli.runtime.threads import limit_openmp_spin
limit_openmp_spin()
import torch
"""


def libgomp_settings(**variables: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in SPIN_VARIABLES}
    environment |= {"OMP_DISPLAY_ENV": "verbose", **variables}
    command = [sys.executable, "-c", SHOW_SPIN]
    return subprocess.run(
        command, check=True, env=environment, capture_output=True, text=True
    ).stderr


@pytest.mark.skipif(sys.platform != "linux", reason="torch uses libgomp on Linux only")
@pytest.mark.slow
def test_libgomp_reads_the_spin_count():
    assert f"GOMP_SPINCOUNT = '{SPIN_COUNT}'" in libgomp_settings()


@pytest.mark.skipif(sys.platform != "linux", reason="torch uses libgomp on Linux only")
@pytest.mark.slow
def test_user_settings_are_kept():
    assert "GOMP_SPINCOUNT = '7'" in libgomp_settings(GOMP_SPINCOUNT="7")
    assert f"GOMP_SPINCOUNT = '{SPIN_COUNT}'" not in libgomp_settings(OMP_WAIT_POLICY="active")


def test_variable_is_not_set_after_torch_is_imported(monkeypatch):
    for name in SPIN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    threads.limit_openmp_spin()
    assert "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.parametrize(
    ("processes", "variable", "expected"),
    [(1, "1", None), (2, "1", 4), (2, None, 4), (2, "3", None)],
)
def test_processes_share_the_cores(monkeypatch, processes, variable, expected):
    chosen: list[int] = []
    monkeypatch.setattr(threads, "available_cores", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    divide_threads(processes)
    assert chosen == ([] if expected is None else [expected])
