"""Real processes of ``python -m cyclegan_cli`` that start at once.

A training imports for five seconds of CPU time before its first step. A server process imports the
same once; each command is a fork of it, with its own environment, folder, streams and process
group. What a new interpreter does is tested by processes of :mod:`subprocess`.
"""

import atexit
import gc
import importlib
import io
import json
import os
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

# The first step of an optimizer imports torch._dynamo.
IMPORTED = (
    "torch._dynamo", "cyclegan_cli.cli.progress", "cyclegan_cli.cli.translate",
    "cyclegan_cli.training.trainer", "cyclegan_cli.translation.pipeline",
)  # fmt: skip
SERVE = "import sys; import preloaded; preloaded.serve(int(sys.argv[1]))"
_servers: dict[int, "_Server"] = {}


class Preloaded:
    """A command line in a process of its own; the methods are those of ``subprocess.Popen``.

    Args:
        arguments: Of the program.
        folder: The current folder of the process.
        environment: All variables; None: those of this process.
    """

    def __init__(
        self,
        arguments: Sequence[object],
        folder: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        request = {
            "arguments": [str(argument) for argument in arguments],
            "folder": str(folder or Path.cwd()),
            "environment": dict(os.environ if environment is None else environment),
        }
        out, err, status = os.pipe(), os.pipe(), os.pipe()
        with tempfile.TemporaryFile() as file, open(os.devnull) as nothing:
            file.write(json.dumps(request).encode())
            file.flush()
            writers = [out[1], err[1], status[1]]
            _server().request([nothing.fileno(), *writers, file.fileno()])
        for end in writers:
            os.close(end)
        self.stdout, self.stderr = (os.fdopen(end, encoding="utf-8") for end in (out[0], err[0]))
        self._status = status[0]
        self.pid = self._reported()
        self.returncode: int | None = None

    def _reported(self) -> int:
        """The next number that the server reports of the process."""
        line = b""
        while not line.endswith(b"\n"):
            byte = os.read(self._status, 1)
            if not byte:
                raise RuntimeError("the server of processes has ended")
            line += byte
        return int(line)

    def wait(self, timeout: float) -> int:
        """Return the exit code, negative for a signal's number."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("cyclegan", timeout)
            self.returncode = self._reported()
        return self.returncode

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        """Read stdout and stderr to their ends, and wait for the process."""
        parts: dict[int, list[bytes]] = {self.stdout.fileno(): [], self.stderr.fileno(): []}
        waiting = set(parts)
        deadline = time.monotonic() + timeout
        while waiting:
            left = max(deadline - time.monotonic(), 0)
            ready, _, _ = select.select(list(waiting), [], [], left)
            if not ready:
                raise subprocess.TimeoutExpired("cyclegan", timeout)
            for descriptor in ready:
                content = os.read(descriptor, 1 << 16)
                parts[descriptor].append(content)
                if not content:
                    waiting.remove(descriptor)
        out, err = (b"".join(content).decode() for content in parts.values())
        self.wait(timeout)
        self.close()
        return out, err

    def kill(self) -> None:
        """Kill this process alone."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """Send a signal to this process alone; its process group has the number ``pid``."""
        if self.returncode is None:
            with suppress(ProcessLookupError):  # It has ended.
                os.kill(self.pid, number)

    def send_group_signal(self, number: int) -> None:
        """Send a signal to the process group, as a terminal and a scheduler do."""
        with suppress(ProcessLookupError):  # It has ended, and is not a zombie.
            os.killpg(self.pid, number)

    def close(self) -> None:
        """Kill the process group if it still runs, and close the streams."""
        if self.returncode is None:
            self.send_group_signal(signal.SIGKILL)
            self.wait(60)
        if not self.stdout.closed:
            os.close(self._status)
        self.stdout.close()
        self.stderr.close()


def write_program(path: Path) -> int:
    """Write a program that runs commands as :class:`Preloaded` does; signals do not reach them.

    Returns:
        The descriptor that the program has to inherit.
    """
    descriptor = _server().descriptor
    path.write_text(f'#!/bin/sh\nexec {shlex.join(_client(descriptor))} "$@"\n')
    path.chmod(0o755)
    return descriptor


def run(
    arguments: Sequence[object], content: bytes = b"", **streams: Any
) -> subprocess.CompletedProcess[bytes]:
    """Run a command in the current folder with some standard input.

    Args:
        arguments: Of the program.
        content: Standard input, through a pipe.
        **streams: ``stdout`` and ``stderr`` as of ``subprocess.run``; others are pipes.
    """
    descriptor = _server().descriptor
    return subprocess.run(
        [*_client(descriptor), *map(str, arguments)],
        input=content,
        timeout=120,
        pass_fds=[descriptor],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams,
    )


def _client(descriptor: int) -> list[str]:
    return [sys.executable, "-I", "-S", __file__, str(descriptor)]


def _run_here(descriptor: int, arguments: list[str]) -> int:
    """Run a command with the streams of this process; return its exit code."""
    request = {
        "arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ),
    }  # fmt: skip
    reading, writing = os.pipe()
    with socket.socket(fileno=descriptor) as requests, tempfile.TemporaryFile() as file:
        file.write(json.dumps(request).encode())
        file.flush()
        socket.send_fds(requests, [b"x"], [0, 1, 2, writing, file.fileno()])
        requests.detach()
    os.close(writing)
    with os.fdopen(reading) as status:
        _, code = status.read().split()
    return int(code) if int(code) >= 0 else 128 - int(code)


class _Server:
    """The process that imports once and forks."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            number = str(theirs.fileno())
            folders = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
            self._process = subprocess.Popen(
                [sys.executable, "-c", SERVE, number],
                pass_fds=[theirs.fileno()],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, folders))},
                stdin=subprocess.DEVNULL,
            )

    @property
    def descriptor(self) -> int:
        """Of the socket that takes requests."""
        return self._socket.fileno()

    def request(self, descriptors: list[int]) -> None:
        socket.send_fds(self._socket, [b"x"], descriptors)

    def close(self) -> None:
        """End the server; its last processes have ended."""
        self._socket.close()
        self._process.wait()


def _server() -> _Server:
    if os.getpid() not in _servers:
        _servers[os.getpid()] = _Server()
    return _servers[os.getpid()]


def close_server() -> None:
    """End the server of this process, if it has one."""
    if server := _servers.pop(os.getpid(), None):
        server.close()


# In the server


def serve(descriptor: int) -> None:
    """Fork for each request, until the other side closes the socket."""
    for name in IMPORTED:
        importlib.import_module(name)

    gc.freeze()  # A collection would copy the memory that the processes share.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Nobody waits for the watchers.
    with socket.socket(fileno=descriptor) as requests:
        while True:
            message, descriptors, _, _ = socket.recv_fds(requests, 1, 5)
            if not message:
                return
            if os.fork() == 0:
                requests.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _watch(descriptors)
            for one in descriptors:
                os.close(one)


def _watch(descriptors: list[int]) -> None:
    """Fork the command, and report its process and exit code."""
    status = descriptors[3]
    pid = os.fork()
    if pid == 0:
        os.close(status)
        _run(descriptors)
    for one in descriptors:
        if one != status:
            os.close(one)
    os.setpgid(pid, pid)
    os.write(status, f"{pid}\n".encode())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(status, f"{code}\n".encode())
    os._exit(0)


def _run(descriptors: list[int]) -> None:
    with open(descriptors[4], "rb") as file:
        file.seek(0)
        request = json.load(file)
    os.setpgid(0, 0)  # Both sides do: whichever is first.
    for target, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"):  # nohup and schedulers ignore some.
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    sys.stdin, sys.stdout = os.fdopen(0, encoding="utf-8"), os.fdopen(1, "w", encoding="utf-8")
    unbuffered = os.fdopen(2, "wb", buffering=0)
    sys.stderr = io.TextIOWrapper(unbuffered, "utf-8", "backslashreplace", write_through=True)
    sys.argv = ["cyclegan", *request["arguments"]]
    code = 1
    try:
        runpy.run_module("cyclegan_cli", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        # As multiprocessing ends its processes: the end of an interpreter frees all modules first.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(_run_here(int(sys.argv[1]), sys.argv[2:]))
