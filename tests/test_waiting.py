import os
import subprocess
import sys

import pytest

from cyclegan_cli.waiting import DECIDED_BY, SPINS, wait_briefly


def test_threads_wait_briefly_unless_somebody_has_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in DECIDED_BY:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    wait_briefly()
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    wait_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == SPINS
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    wait_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "7"


def test_the_program_decides_before_torch_is_there() -> None:
    script = (
        "import os, sys, runpy\n"
        "sys.argv = ['cyclegan', 'inspect', 'nothing']\n"
        "try: runpy.run_module('cyclegan_cli', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)\n"
    )
    environment = {name: text for name, text in os.environ.items() if name not in DECIDED_BY}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"{SPINS} False"
