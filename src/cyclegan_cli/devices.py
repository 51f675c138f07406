"""What this machine can compute on, in which number format, and how much memory it has."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cyclegan_cli.config import PrecisionChoice
from cyclegan_cli.errors import DeviceError, UsageError

if TYPE_CHECKING:
    import torch


# How torch's backends say it, where they have no exception of their own for it.
OUT_OF_MEMORY_WORDS = (
    "not enough memory", "can't allocate memory", "out of memory", "alloc_failed",
)  # fmt: skip

# Of what is free, for the rest of this process and for everybody else.
SPARED = 0.2
# Names, separated by commas, of what the CPU is taken to have, whatever it has: for tests.
CPU_FEATURES_VARIABLE = "CYCLEGAN_CPU_FEATURES"
CGROUP = Path("/sys/fs/cgroup")


def choose_device(name: str) -> torch.device:
    """The device that ``--device`` stands for; ``auto`` is the first of cuda, mps, cpu.

    Raises:
        UsageError: Not a device's name.
        DeviceError: This machine has no such device.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    match = re.fullmatch(r"(cpu|mps|cuda)|cuda:(0|[1-9]\d{0,3})", name)
    if match is None:
        raise UsageError(f"--device must be auto, cpu, cuda, cuda:N or mps, found {name!r}")
    _require(match[1] or "cuda", int(match[2] or 0), name)
    return torch.device(name)


def device_of_rank(name: str, rank: int, ranks: int) -> str:
    """The device that ``--device`` stands for in one of several processes on this machine.

    Args:
        name: The option; ``auto`` and ``cuda`` give each process a CUDA device of its own, as far
            as there are enough.
        rank: Which process, from 0.
        ranks: Of how many.
    """
    import torch

    if ranks > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{rank % torch.cuda.device_count()}"
    return name


def divide_threads(ranks: int) -> None:
    """Give each of several processes on this machine an equal part of its cores.

    torchrun sets ``OMP_NUM_THREADS`` to 1 where it is not set; any other number is the user's.
    """
    import torch

    if ranks > 1 and os.environ.get("OMP_NUM_THREADS", "1") == "1":
        torch.set_num_threads(max(available_cores() // ranks, 1))


def available_cores() -> int:
    """Cores that this process may run on (not those that the machine has)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def host_memory_free() -> int:
    """Bytes that this process can still have: the machine's, or its container's if fewer."""
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        most = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text()) - _given_back_when_needed()
    except (OSError, ValueError):
        return free  # No cgroups (version 2) here.
    return min(free, int(most) - used) if most.isdigit() else free


def peak_memory() -> int:
    """The most bytes of memory that this process has had so far."""
    status = Path("/proc/self/status")
    if status.exists():
        # What getrusage says here can be the peak of the process that started this one.
        [line] = re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())
        return int(line) * 1024
    import psutil

    if hasattr(found := psutil.Process().memory_info(), "peak_wset"):
        return int(found.peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts bytes.


def _given_back_when_needed() -> int:
    """Bytes that a container is charged for files that it has read."""
    try:
        lines = (CGROUP / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    counts = dict(line.split(maxsplit=1) for line in lines)
    return int(counts.get("inactive_file", 0))


def _require(kind: str, index: int, name: str) -> None:
    import torch

    hint = "Use --device cpu, or auto."
    if kind == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            f"--device {name}: this machine has no CUDA device that torch can use", hint
        )
    if kind == "cuda" and index >= torch.cuda.device_count():
        raise DeviceError(f"--device {name}: found {torch.cuda.device_count()} CUDA devices", hint)
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"--device {name}: this machine has no Metal device", hint)


def choose_precision(choice: PrecisionChoice, device: torch.device) -> PrecisionChoice:
    """The number format that ``--precision`` stands for.

    ``auto`` is the first of bf16, where the hardware multiplies it natively, and fp32; never tf32,
    as all hardware that has it has bf16, too.

    Raises:
        DeviceError: tf32 is asked for, and the device does not have it.
    """
    require_precision(choice, device)
    if choice != "auto":
        return choice
    return "bf16" if has_native_bf16(device) else "fp32"


def set_fp32_precision(precision: PrecisionChoice) -> None:
    """Have CUDA compute what is fp32 in TF32 with ``tf32``, and exactly with all others.

    torch's own default rounds the inputs of cuDNN's convolutions to 10 bits, of matrix products
    not. This holds for the whole process, and nothing else in it changes these settings.
    """
    import torch

    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"


def require_precision(choice: PrecisionChoice, device: torch.device) -> None:
    """Refuse ``tf32`` where there is none.

    Raises:
        DeviceError: The device does not have it.
    """
    import torch

    if choice != "tf32":
        return
    found = str(device)
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability >= (8, 0):
            return
        found = f"{device} of capability {capability[0]}.{capability[1]}"
    raise DeviceError(
        f"--precision tf32 needs an NVIDIA GPU of compute capability 8.0 or more, found {found}",
        "Use --precision auto, or fp32.",
    )


def has_native_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 natively (emulation is slower than fp32)."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return any(_cpu_has(feature) for feature in ("avx512_bf16", "amx_bf16"))
    return False


def has_amx() -> bool:
    """Whether the CPU multiplies matrices of bfloat16 in units of their own."""
    return _cpu_has("amx_bf16")


def _cpu_has(feature: str) -> bool:
    forced = os.environ.get(CPU_FEATURES_VARIABLE)
    if forced is not None:
        return feature in forced.split(",")
    import torch

    if hasattr(torch.cpu, "get_capabilities"):
        return bool(torch.cpu.get_capabilities().get(feature, False))
    # torch < 2.11 has no public question for it.
    private_name = {
        "avx512_bf16": "_is_avx512_bf16_supported",
        "amx_bf16": "_is_amx_tile_supported",
    }
    return bool(getattr(torch.cpu, private_name[feature], lambda: False)())


@contextmanager
def memory_errors(what: str, hint: str) -> Iterator[None]:
    """Turn torch's out-of-memory errors into ours.

    Args:
        what: What did not fit, the start of the sentence.
        hint: What to make smaller.

    Raises:
        DeviceError: The memory was too small.
    """
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise DeviceError(f"{what}: not enough memory", hint) from error
    except RuntimeError as error:
        if not any(words in str(error).lower() for words in OUT_OF_MEMORY_WORDS):
            raise
        raise DeviceError(f"{what}: not enough memory", hint) from error
