"""The allocator keeps what it is asked for again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from cyclegan_cli.allocator import keep_freed_memory

COUNT = """
import resource, sys
from cyclegan_cli.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
bytearray(8 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    bytearray(8 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_memory_that_was_freed_is_not_asked_of_the_system_again() -> None:
    def faults(how: str) -> int:
        command = [sys.executable, "-c", COUNT, how]
        return int(subprocess.run(command, check=True, capture_output=True).stdout)

    assert faults("keep") < 100
    # What it is about: 2048 pages of 4 KB each time, or 4 of 2 MB.
    assert faults("as it is") > faults("keep")


def test_other_c_libraries_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
