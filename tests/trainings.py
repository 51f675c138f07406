"""``cyclegan train`` in subprocesses, on images of noise."""

import os
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
from PIL import Image

# The smallest networks and crops that there are.
TINY = [
    "--domain-a", "day", "--domain-b", "night", "--load-size", "34", "--crop-size", "32",
    "--base-channels", "2", "--residual-blocks", "1", "--discriminator-channels", "2", "--device",
    "cpu", "--precision", "fp32", "--pool-size", "4",
]  # fmt: skip


def draw_domains(folder: Path, day: int, night: int, size: tuple[int, int] = (40, 40)) -> Path:
    """Write images of noise to ``day`` and ``night`` below a folder."""
    noise = np.random.default_rng(0)
    for name, count in (("day", day), ("night", night)):
        (folder / name).mkdir()
        for i in range(count):
            pixels = noise.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def start(command: list[str], folder: Path) -> subprocess.Popen[str]:
    """Start a process in a folder and in a new process group."""
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # One thread a process: several of these run at once in a busy CI.
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"},
        start_new_session=True,
    )


def finish(command: list[str], folder: Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a process."""
    process = start(command, folder)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def wait_for_steps(folder: Path, run: str, steps: int) -> None:
    """Return when a run with ``--log-every 1`` has made that many steps."""
    metrics = folder / run / "metrics.csv"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        if metrics.exists() and metrics.read_text().count("\n") > steps:
            return
        time.sleep(0.01)
    raise AssertionError(f"no {steps} steps in time")


def free_port() -> int:
    """A TCP port of this machine that is not in use."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
