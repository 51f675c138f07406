"""Free memory, out-of-memory errors, and the allocator."""

import platform
import subprocess
import sys

import pytest
import torch

from cyclegan_cli.errors import DeviceError
from cyclegan_cli.runtime import memory
from cyclegan_cli.runtime.memory import host_memory_free, keep_freed_memory, memory_errors

COUNT = """
import resource, sys
from cyclegan_cli.runtime.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
bytearray(8 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    bytearray(8 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_kept():
    def faults(how):
        command = [sys.executable, "-c", COUNT, how]
        return int(subprocess.run(command, check=True, capture_output=True).stdout)

    assert faults("keep") < 100
    # Without it: 2048 pages of 4 KB each time, or 4 of 2 MB.
    assert faults("as it is") > faults("keep")


def test_other_c_libraries_are_not_configured(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()


def test_failed_cpu_allocation_is_a_device_error():
    with pytest.raises(DeviceError) as caught, memory_errors("training", "Use less."):
        torch.empty(2**55, dtype=torch.uint8)  # more than an address space
    assert (caught.value.message, caught.value.hint) == ("training: not enough memory", "Use less.")
    assert caught.value.exit_code == 5
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried ..."),
        pytest.param(RuntimeError("MPS backend out of memory (MPS allocated: 5.50 GB, other ...)")),
    ],
    ids=["cuda", "python", "cpu on Windows", "mps"],
)
def test_memory_errors_are_device_errors(error):
    with pytest.raises(DeviceError, match="training: ") as caught, memory_errors("training", ""):
        raise error
    assert caught.value.__cause__ is error


def test_other_errors_pass_through():
    error = RuntimeError("shapes do not fit")
    with pytest.raises(RuntimeError) as caught, memory_errors("training", "Use less."):
        raise error
    assert caught.value is error


# Free memory


def test_cgroup_limit_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    without = host_memory_free()
    (tmp_path / "memory.current").write_text("600000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert abs(host_memory_free() - without) < 5e8
    (tmp_path / "memory.max").write_text("1000000\n")
    assert host_memory_free() == 400_000


def test_cgroup_page_cache_counts_as_free(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    (tmp_path / "memory.current").write_text("900000\n")
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.stat").write_text("anon 100000\ninactive_file 700000\n")
    assert host_memory_free() == 800_000
