"""Runs ``cyclegan`` command lines in forks of a process that has imported everything already.

Pipelines in the documents start dozens of processes, and each would import torch anew, which
takes longer than all the rest. ``forking_client.py`` is the command that they start instead.
"""

import json
import os
import signal
import socket
import sys

import torch  # noqa: F401  What all commands need, imported once.

from cyclegan_cli.cli.app import app
from cyclegan_cli.translation import pipeline, translator  # noqa: F401


def serve(address: str) -> None:
    """Answer one client after the other, each in a forked process, until killed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address + ".new")
        listener.listen(64)
        os.rename(address + ".new", address)  # Who sees it can connect.
        while True:
            client, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _answer(client)
            client.close()


def _answer(client: socket.socket) -> None:
    """Be the client's process: its streams, folder, environment and arguments."""
    code = 1
    try:
        request, streams, _, _ = socket.recv_fds(client, 1 << 16, 3)
        while not request.endswith(b"\n"):
            request += client.recv(1 << 16)
        wanted = json.loads(request)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.chdir(wanted["folder"])
        os.environ.clear()
        os.environ.update(wanted["environment"])
        sys.argv = ["cyclegan", *wanted["arguments"]]
        app()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        client.sendall(bytes([code]))
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
