"""Ctrl-C and SIGTERM as a request that long work answers at its next good moment."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from cyclegan_cli.cli import console
from cyclegan_cli.files import abandon_writes

# Besides Ctrl-C and SIGTERM: the terminal was closed, a scheduler warns (SIGUSR1, and SIGUSR2 for
# those that are set up with it), the CPU time that a user may have is used up. By default each
# would end the process at once. Windows has none of them.
WARNINGS = [
    getattr(signal, name)
    for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
]


class StopRequest:
    """Whether the user or the system asked to stop."""

    signal_number: int | None = None

    def __call__(self) -> int | None:
        """The signal that asked, or None."""
        return self.signal_number


def leave_at_once(code: int) -> None:
    """End the process though its threads are at work, without the files that they are writing."""
    abandon_writes()
    os._exit(code)


@contextmanager
def stop_request(
    answer: str, at_second: Callable[[int], object] = sys.exit, echo_seconds: float = 0.0
) -> Iterator[StopRequest]:
    """While inside, the first signal that asks to stop is a request; a second one ends it at once.

    SIGINT and SIGTERM ask, and so do SIGHUP, SIGUSR1, SIGUSR2 and SIGXCPU, which warn: of these
    a second one changes nothing. A process started with SIGHUP ignored (``nohup``) ignores it.

    Args:
        answer: What is done about the request, for the user to know that it was heard; empty to
            say nothing.
        at_second: Called on the second signal, with 130 for SIGINT and 143 for SIGTERM.
        echo_seconds: For so long after the first, others are taken for its echo: torchrun passes
            on to its processes what a terminal has sent them already.

    Raises:
        SystemExit: On the second signal, unless ``at_second`` does something else.
    """
    request = StopRequest()
    echoes_until = 0.0

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal echoes_until
        if time.monotonic() < echoes_until:
            return
        if request.signal_number is not None:
            if number in WARNINGS:
                return  # Schedulers and CPU limits warn again and again.
            at_second(128 + number)
        request.signal_number = number
        echoes_until = time.monotonic() + echo_seconds
        if answer:
            console.say(f"{answer}; once more to stop at once")

    heard = [number for number in WARNINGS if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {
        number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM, *heard)
    }
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
