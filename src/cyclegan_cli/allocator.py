"""The C library's memory allocator, told to keep what it will be asked for again."""

from __future__ import annotations

import ctypes
import platform

# Numbers of mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# The strips that images are worked on in stay below this, their feature maps do not.
FROM_THE_SYSTEM = 64 * 2**20
KEPT = 2**30


def keep_freed_memory() -> bool:
    """Let glibc keep the memory of intermediate results instead of giving it back each time.

    By default every tensor above a few MB is asked of the system anew, which hands it out page by
    page and zeroed: a tenth of the time of translating an image. It concerns the whole process,
    so it is for programs to call, not for libraries. Other C libraries are left as they are.

    Returns:
        Whether anything was done.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, FROM_THE_SYSTEM) and mallopt(M_TRIM_THRESHOLD, KEPT))
