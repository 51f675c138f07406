"""Ctrl-C and SIGTERM as a request that long work answers at its next good moment."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cyclegan_cli.cli import console


class StopRequest:
    """Whether the user or the system asked to stop."""

    signal_number: int | None = None

    def __call__(self) -> int | None:
        """The signal that asked, or None."""
        return self.signal_number


@contextmanager
def stop_request(answer: str) -> Iterator[StopRequest]:
    """While inside, the first SIGINT or SIGTERM is a request; a second one ends it at once.

    Args:
        answer: What is done about the request, for the user to know that it was heard.

    Raises:
        SystemExit: On the second signal, with 130 for SIGINT and 143 for SIGTERM.
    """
    request = StopRequest()

    def handle(number: int, _frame: FrameType | None) -> None:
        if request.signal_number is not None:
            raise SystemExit(128 + number)
        request.signal_number = number
        console.say(f"{answer}; once more to stop at once")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
