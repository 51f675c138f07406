"""Whole files or none: whatever goes wrong, the target is the old file or the new one."""

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from cyclegan_cli.errors import OutputError
from cyclegan_cli.files import (
    TEMPORARY_PREFIX,
    atomic_path,
    is_disk_full,
    make_folder,
    remove_leftovers,
    reserve,
    write_bytes,
    write_text,
)
from disks import small_disk

NOBODY = 65534
only_posix = pytest.mark.skipif(os.name != "posix", reason="permissions and signals of POSIX")


@pytest.fixture
def locked_folder():
    """A folder without write permission; root runs as nobody meanwhile."""
    is_root = os.geteuid() == 0
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


@pytest.fixture
def umask_027():
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.parametrize("system", ["posix", "another"])
def test_space_is_reserved_on_every_system(system, monkeypatch):
    if system == "another":
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    size = 2**20 + 10
    with tempfile.TemporaryFile() as file:
        reserve(file, size)
        found = os.fstat(file.fileno())
    assert found.st_size == size
    assert not hasattr(found, "st_blocks") or found.st_blocks * 512 >= size


def break_off(target: Path, exception: BaseException) -> None:
    """Meet with an exception in the middle of a write."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"half of the ne")
        raise exception


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# When all goes well


def test_target_is_written_at_the_end_and_its_folders_are_created(tmp_path):
    target = tmp_path / "a" / "b" / "file"
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"much longer old content")
        assert not target.exists()
    assert target.read_bytes() == b"much longer old content"
    write_bytes(target, b"new")
    assert target.read_bytes() == b"new"
    assert os.listdir(target.parent) == ["file"]


def test_open_readers_keep_the_old_file(tmp_path):
    target = tmp_path / "file"
    target.write_bytes(b"old content")
    with target.open("rb") as reader:
        assert reader.read(3) == b"old"
        write_bytes(target, b"new")
        assert reader.read() == b" content"


def test_text_is_written_as_utf_8_without_newline_conversion(tmp_path):
    write_text(tmp_path / "file", "äö\r\n日本\n")
    assert (tmp_path / "file").read_bytes() == "äö\r\n日本\n".encode()


@only_posix
@pytest.mark.usefixtures("umask_027")
@pytest.mark.parametrize("is_replaced", [False, True])
def test_permissions_follow_the_umask(tmp_path, is_replaced):
    with atomic_path(tmp_path / "file") as temporary:
        if is_replaced:  # By a writer that makes a private file.
            temporary.unlink()
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    assert mode(tmp_path / "file") == 0o640


@only_posix
@pytest.mark.parametrize("old", [0o600, 0o444, 0o640, 0o755])
def test_replaced_file_keeps_its_permissions(tmp_path, old):
    target = tmp_path / "file"
    target.write_bytes(b"old")
    target.chmod(old)
    with atomic_path(target) as temporary:
        assert mode(temporary) & 0o077 & ~old == 0, "others may read what they could not"
        temporary.write_bytes(b"new")
    assert (mode(target), target.read_bytes()) == (old, b"new")


REFUSALS = [errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL]


def refuse(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> list[object]:
    """Let a function of the system fail; returns with what it was called."""
    calls: list[object] = []

    def fail(path: object, *_: object, **__: object) -> None:
        calls.append(path)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, name, fail)
    return calls


@only_posix
@pytest.mark.parametrize("number", REFUSALS)
@pytest.mark.parametrize("name", ["chmod", "fsync"])
def test_file_systems_without_chmod_or_fsync(tmp_path, monkeypatch, name, number):
    calls = refuse(monkeypatch, name, number)
    target = tmp_path / "folder" / "file"
    with atomic_path(target) as temporary:
        temporary.unlink()
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
        temporary.write_bytes(b"new")
    assert calls
    assert target.read_bytes() == b"new"
    assert os.listdir(target.parent) == ["file"]


@only_posix
@pytest.mark.parametrize("name", ["chmod", "fsync"])
def test_failing_disk_is_an_output_error(tmp_path, monkeypatch, name):
    target = tmp_path / "file"
    write_bytes(target, b"old")
    target.chmod(0o400)
    refuse(monkeypatch, name, errno.EIO)
    with pytest.raises(OutputError):
        write_bytes(target, b"new")
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize("name", ["n" * 255, "ä" * 127 + "n"], ids=["ascii", "utf-8"])
def test_name_of_255_bytes(tmp_path, name):
    assert len(os.fsencode(name)) == 255
    write_bytes(tmp_path / name, b"new")
    assert os.listdir(tmp_path) == [name]


def test_concurrent_writers_of_one_target(tmp_path):
    target = tmp_path / "file"
    with atomic_path(target) as first, atomic_path(target) as second:
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    assert target.read_bytes() == b"first"  # the one that finished last
    assert os.listdir(tmp_path) == ["file"]


def test_fsync_precedes_the_rename(tmp_path, monkeypatch):
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def recording_fsync(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        calls.append("fsync of the folder" if is_folder else "fsync of the file")
        fsync(descriptor)

    def recording_replace(source, target):
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "replace", recording_replace)
    write_bytes(tmp_path / "file", b"new")
    assert calls[:2] == ["fsync of the file", "rename"]
    if os.name == "posix":
        assert calls[2:] == ["fsync of the folder"]


# When something goes wrong


@pytest.mark.parametrize("exception", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_exception_keeps_the_old_file(tmp_path, exception):
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with pytest.raises(type(exception)) as caught:
        break_off(target, exception)
    assert caught.value is exception
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "no such file", "/elsewhere/input.png"),
        PermissionError(errno.EACCES, "permission denied", "/elsewhere/input.png"),
        BrokenPipeError(errno.EPIPE, "broken pipe"),
        ConnectionResetError(errno.ECONNRESET, "connection reset"),
        TimeoutError(errno.ETIMEDOUT, "timed out"),
        OSError("libfoo.so: cannot open shared object file"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_unrelated_os_errors_pass_through(tmp_path, error):
    with pytest.raises(OSError) as caught:
        break_off(tmp_path / "file", error)
    assert caught.value is error
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("names", [False, True])
def test_write_errors_name_the_target(tmp_path, names):
    with (
        pytest.raises(OutputError, match=r"cannot write .*/file: no space left"),
        atomic_path(tmp_path / "file") as temporary,
    ):
        more = (str(temporary),) if names else ()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *more)


def test_target_that_is_a_folder_is_an_output_error(tmp_path):
    target = tmp_path / "folder"
    target.mkdir()
    (target / "inside").touch()
    with pytest.raises(OutputError) as caught:
        write_bytes(target, b"new")
    assert str(target) in caught.value.message
    assert os.listdir(tmp_path) == ["folder"]
    assert os.listdir(target) == ["inside"]


@pytest.mark.parametrize("below", ["name", "folder/name"])
def test_parent_that_is_a_file_is_an_output_error(tmp_path, below):
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(OutputError):
        write_bytes(tmp_path / "file" / below, b"new")
    assert (tmp_path / "file").read_bytes() == b"old"


def test_name_too_long_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="too long"):
        write_bytes(tmp_path / ("n" * 256), b"new")
    assert os.listdir(tmp_path) == []


@only_posix
def test_permission_error_names_the_file(locked_folder):
    target = locked_folder / "file"
    with pytest.raises(OutputError) as caught:
        write_bytes(target, b"new")
    assert caught.value.message == f"cannot write {target}: permission denied"
    assert caught.value.hint == ""
    assert not is_disk_full(caught.value)


def test_make_folder_creates_parents_and_accepts_existing(tmp_path):
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        make_folder(tmp_path / "file")


# When the disk is full


def check_disk_full_error(error: OutputError, target: Path) -> None:
    assert error.message.startswith(f"cannot write {target}: ")
    assert "space" in error.hint
    assert is_disk_full(error)


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full here")
def test_write_without_space_is_disk_full(tmp_path):
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with pytest.raises(OutputError) as caught, atomic_path(target):
        Path("/dev/full").write_bytes(b"new")
    check_disk_full_error(caught.value, target)
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_flush_without_space_is_disk_full(tmp_path, monkeypatch, number):
    def full(descriptor):
        raise OSError(number, os.strerror(number))

    target = tmp_path / "file"
    target.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError) as caught:
        write_bytes(target, b"new")
    check_disk_full_error(caught.value, target)
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


FILL_THE_DISK = """
import os, sys
from pathlib import Path
from cyclegan_cli.errors import OutputError
from cyclegan_cli.files import is_disk_full, write_bytes

target = Path(sys.argv[1]) / "file"
write_bytes(target, b"old")
try:
    write_bytes(target, bytes(1_000_000))
except OutputError as error:
    assert is_disk_full(error), error
    assert target.read_bytes() == b"old"
    assert os.listdir(target.parent) == ["file"]
    print("as it should be")
"""


def test_really_full_disk_keeps_the_old_file(tmp_path):
    command = [*small_disk(tmp_path, 64), sys.executable, "-c", FILL_THE_DISK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == "as it should be\n", done.stderr


def test_disk_full_is_found_in_the_cause_chain():
    outer = ValueError("no space left on device")
    assert not is_disk_full(outer)
    assert not is_disk_full(None)
    outer.__cause__ = ValueError("middle")
    outer.__cause__.__cause__ = OSError(errno.EACCES, "permission denied")
    assert not is_disk_full(outer)
    outer.__cause__.__cause__ = OSError(errno.ENOSPC, "no space left on device")
    assert is_disk_full(outer)


# When the process is killed

WRITE_HALF_AND_WAIT = """
import sys, time
from pathlib import Path
from cyclegan_cli.files import atomic_path

with atomic_path(Path(sys.argv[1])) as temporary, temporary.open("wb") as stream:
    stream.write(b"n" * 100_000)
    stream.flush()
    print("half", flush=True)
    time.sleep(60)
"""

WRITE_AGAIN_AND_AGAIN = """
import sys
from itertools import cycle
from pathlib import Path
from cyclegan_cli.files import write_bytes

for letter in cycle([b"x", b"y"]):
    write_bytes(Path(sys.argv[1]), letter * 1_000_000)
    print("once more", flush=True)
"""


def start(script: str, target: Path) -> subprocess.Popen[bytes]:
    """Start a script on a file; returns when it has printed its first line."""
    process = subprocess.Popen([sys.executable, "-c", script, str(target)], stdout=subprocess.PIPE)
    assert process.stdout.readline()
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()
    if os.name == "posix":
        assert process.returncode == -signal.SIGKILL


def test_process_killed_during_a_write_keeps_the_old_file(tmp_path):
    target = tmp_path / "file"
    target.write_bytes(b"old")
    kill(start(WRITE_HALF_AND_WAIT, target))
    assert target.read_bytes() == b"old"
    (leftover,) = (path for path in tmp_path.iterdir() if path != target)
    assert leftover.name.startswith(TEMPORARY_PREFIX)

    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("milliseconds", [3, 11, 29])
def test_process_killed_at_any_moment_leaves_a_complete_file(tmp_path, milliseconds):
    target = tmp_path / "file"
    process = start(WRITE_AGAIN_AND_AGAIN, target)
    time.sleep(milliseconds / 1000)
    kill(process)
    assert target.read_bytes() in (b"x" * 1_000_000, b"y" * 1_000_000)


def test_remove_leftovers_keeps_other_files(tmp_path):
    kept = [".hidden", ".cyclegan-notes", "cyclegan-0123.tmp", "file.tmp", ".cyclegan-folder.tmp"]
    for name in kept[:-1]:
        (tmp_path / name).touch()
    (tmp_path / kept[-1]).mkdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / f"{TEMPORARY_PREFIX}0123.tmp").touch()
    (tmp_path / f"{TEMPORARY_PREFIX}0123456789abcdef.tmp").touch()

    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "folder"])
    assert len(os.listdir(tmp_path / "folder")) == 1


def test_remove_leftovers_of_a_missing_folder(tmp_path):
    remove_leftovers(tmp_path / "missing")
    assert os.listdir(tmp_path) == []
