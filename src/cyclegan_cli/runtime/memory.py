"""Free memory, peak memory, memory budgets, and out-of-memory errors."""

from __future__ import annotations

import ctypes
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cyclegan_cli.errors import DeviceError

if TYPE_CHECKING:
    import torch

# Messages of torch backends that raise a plain RuntimeError when memory runs out.
OUT_OF_MEMORY_MESSAGES = (
    "not enough memory", "can't allocate memory", "out of memory", "alloc_failed",
)  # fmt: skip
# Fraction of the free memory left to the rest of this process and to other processes.
RESERVED_FRACTION = 0.2
CGROUP = Path("/sys/fs/cgroup")

# Parameters of mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# Buffers of a strip are smaller than this; whole feature maps are larger and still mapped.
MMAP_THRESHOLD_BYTES = 64 * 2**20
TRIM_THRESHOLD_BYTES = 2**30


def host_memory_free() -> int:
    """Bytes that this process can still allocate, limited by the machine and its cgroup."""
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text()) - _reclaimable_bytes()
    except (OSError, ValueError):
        return free  # No cgroup v2.
    return min(free, int(limit) - used) if limit.isdigit() else free


def _reclaimable_bytes() -> int:
    """Bytes of page cache charged to the cgroup, which the kernel reclaims under pressure."""
    try:
        lines = (CGROUP / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    counts = dict(line.split(maxsplit=1) for line in lines)
    return int(counts.get("inactive_file", 0))


def memory_budget(device: torch.device, limit: int | None) -> float:
    """Bytes that may be allocated on ``device`` in addition to those in use.

    Args:
        device: Where to compute.
        limit: Limit for the whole process (for CUDA, its share of the GPU) in bytes; None for a
            fraction of the free memory.
    """
    import psutil
    import torch

    if device.type == "cuda":
        # torch reuses cached blocks, so they count as free.
        used = torch.cuda.memory_allocated(device)
        cached = torch.cuda.memory_reserved(device) - used
        free = torch.cuda.mem_get_info(device)[0] + cached
    else:
        free, used = host_memory_free(), int(psutil.Process().memory_info().rss)
    return free * (1 - RESERVED_FRACTION) if limit is None else min(limit - used, free)


def peak_memory() -> int:
    """Peak resident memory of this process in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # After fork and exec, getrusage can report the peak of the parent process.
        [line] = re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())
        return int(line) * 1024
    import psutil

    if hasattr(found := psutil.Process().memory_info(), "peak_wset"):
        return int(found.peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # In bytes on macOS.


@contextmanager
def memory_errors(subject: str, hint: str) -> Iterator[None]:
    """Convert torch's out-of-memory errors.

    Args:
        subject: What did not fit; the start of the message.
        hint: What to make smaller.

    Raises:
        DeviceError: The body ran out of memory.
    """
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise DeviceError(f"{subject}: not enough memory", hint) from error
    except RuntimeError as error:
        if not any(message in str(error).lower() for message in OUT_OF_MEMORY_MESSAGES):
            raise
        raise DeviceError(f"{subject}: not enough memory", hint) from error


def keep_freed_memory() -> bool:
    """Configure glibc to keep freed buffers instead of returning them to the system.

    By default every tensor above a few MB is mapped page by page and zeroed, which takes a
    tenth of the time of translating an image. The setting is process-wide, so it is meant for
    programs, not for libraries.

    Returns:
        Whether it was applied: False on C libraries other than glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
        and mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
    )
