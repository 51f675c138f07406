"""Kill and resume a training repeatedly, and compare it with an uninterrupted one.

    python benchmarks/soak.py --kills 10

Trains a small model on the example images without interruption; then the same again, killed by
SIGKILL at random moments (in the middle of a step, of a file being written, of start-up) and
resumed after each. The final models of both must be equal to the byte, and so must the training
states and tables, but for the folder and the seconds that they name.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cyclegan_cli.checkpoints.container import read_header

EXAMPLES = Path(__file__).parent.parent / "examples" / "emoji"
CLOCKED = ("seconds", "images_per_second")
CLI = [sys.executable, "-m", "cyclegan_cli"]


def options(run: Path, steps: int, workers: int) -> list[str]:
    """The same small training every time, saved often so that kills hit the saving too.

    With everything on that resume must carry over: averages, validation, health, samples, a best
    model, numbered models, several loading threads.
    """
    return [
        "train", "--domain-a", str(EXAMPLES / "fluent"), "--domain-b", str(EXAMPLES / "noto"),
        "--load-size", "36", "--crop-size", "32", "--base-channels", "4", "--residual-blocks", "2",
        "--discriminator-channels", "4", "--steps", str(steps), "--checkpoint-every", "7",
        "--sample-every", "20", "--log-every", "5", "--validate-every", "11", "--val-fraction",
        "0.1", "--ema", "0.99", "--keep-checkpoints", "2", "--precision", "fp32", "--device", "cpu",
        "--workers", str(workers), "--run-dir", str(run), "--quiet",
    ]  # fmt: skip


def digest(path: Path) -> str:
    """SHA-256 of the tensors of a file, without its metadata."""
    raw = path.read_bytes()
    header = int.from_bytes(raw[:8], "little")
    return hashlib.sha256(raw[8 + header :]).hexdigest()


def kill_and_resume(run: Path, arguments: argparse.Namespace, draw: random.Random) -> list[str]:
    """Train to the end through ``--kills`` kills; returns the step of each."""
    hits: list[str] = []
    command = options(run, arguments.steps, arguments.workers)
    while True:
        process = subprocess.Popen([*CLI, *command])
        if len(hits) == arguments.kills:
            process.wait()
            if process.returncode:
                raise SystemExit(f"the last resume failed with exit code {process.returncode}")
            return hits
        # A kill at any moment between the interpreter's start and well into the steps.
        try:
            process.wait(draw.uniform(0.5, arguments.longest))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        else:
            raise SystemExit(f"ended before kill {len(hits) + 1}: raise --steps")
        hits.append(_where(run))
        print(f"kill {len(hits)}: {hits[-1]}", flush=True)
        if (run / "config.toml").exists():
            command = ["train", "--resume", str(run), "--quiet"]


def _where(run: Path) -> str:
    if not (run / "config.toml").exists():
        return "before the run folder"
    leftovers = len(list(run.glob(".cyclegan-*.tmp")))
    writing = ", while a file was being written" if leftovers else ""
    if not (run / "state.safetensors").exists():
        return "before the first checkpoint" + writing
    step = read_header(run / "state.safetensors").document["state"]["step"]
    return f"after the checkpoint of step {step}{writing}"


def main() -> None:
    """Parse arguments, run both trainings, and compare them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--longest", type=float, default=9.0, help="seconds before a kill, at most")
    parser.add_argument("--seed", type=int, default=None, help="of the moments")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else int(time.time())
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder, "whole"), Path(folder, "killed")
        subprocess.run([*CLI, *options(whole, arguments.steps, arguments.workers)], check=True)
        kill_and_resume(killed, arguments, random.Random(seed))
        compare(whole, killed)
    print(f"{arguments.kills} kills: models, tables and the state's tensors are identical")


def compare(whole: Path, killed: Path) -> None:
    """Exit with an error unless both runs have equal results."""
    exact = ["model.safetensors", "best.safetensors", "health.json"]
    exact += [str(path.relative_to(whole)) for path in sorted(whole.glob("checkpoints/*"))]
    for name in exact:
        if (whole / name).read_bytes() != (killed / name).read_bytes():
            raise SystemExit(f"DIFFERENT: {name}")
    if digest(whole / "state.safetensors") != digest(killed / "state.safetensors"):
        raise SystemExit("DIFFERENT: the tensors of state.safetensors")
    for name in ("metrics.csv", "validation.csv"):
        if numbers(whole / name) != numbers(killed / name):
            raise SystemExit(f"DIFFERENT: {name}")


def numbers(table: Path) -> list[dict[str, str]]:
    """Rows of a table without columns of measured time."""
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [{name: row[name] for name in row if name not in CLOCKED} for row in rows]


if __name__ == "__main__":
    main()
