"""Signals as requests to stop, which long work polls."""

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

# A closed terminal, a scheduler that warns before it kills the process (SIGUSR1 or SIGUSR2), or the
# CPU time limit. By default each ends the process. Windows has none of them.
WARNING_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
]


class StopRequest:
    """Holds the first signal that asked to stop."""

    signal_number: int | None = None

    def __call__(self) -> int | None:
        """Return the number of the signal, or None."""
        return self.signal_number


def leave_at_once(code: int) -> None:
    """Exit at once, whatever threads are running, and discard files being written."""
    abandon_writes()
    os._exit(code)


@contextmanager
def stop_request(
    answer: str, at_second: Callable[[int], object] = sys.exit, echo_seconds: float = 0.0
) -> Iterator[StopRequest]:
    """Treat the first signal as a request to stop; a second SIGINT or SIGTERM stops at once.

    SIGHUP, SIGUSR1, SIGUSR2 and SIGXCPU are requests too; repeating them has no effect. If SIGHUP
    was ignored when the process started (``nohup``), it stays ignored.

    Args:
        answer: Message printed on the first signal; empty for none.
        at_second: Called on the second signal, with 130 for SIGINT and 143 for SIGTERM.
        echo_seconds: Time after the first signal in which others are ignored: torchrun forwards to
            its processes what a terminal has sent them already.

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
            if number in WARNING_SIGNALS:
                return  # Schedulers and CPU limits repeat their warnings.
            at_second(128 + number)
        request.signal_number = number
        echoes_until = time.monotonic() + echo_seconds
        if answer:
            console.info(f"{answer}; repeat to stop at once")

    handled = [
        number for number in WARNING_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN
    ]
    previous = {
        number: signal.signal(number, handle)
        for number in (signal.SIGINT, signal.SIGTERM, *handled)
    }
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
