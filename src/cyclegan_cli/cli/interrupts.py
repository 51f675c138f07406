"""Ctrl-C and SIGTERM as a request that long work answers at its next good moment."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from cyclegan_cli.cli import console
from cyclegan_cli.files import abandon_writes


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
    answer: str, at_second: Callable[[int], object] = sys.exit
) -> Iterator[StopRequest]:
    """While inside, the first SIGINT or SIGTERM is a request; a second one ends it at once.

    Args:
        answer: What is done about the request, for the user to know that it was heard.
        at_second: Called on the second signal, with 130 for SIGINT and 143 for SIGTERM.

    Raises:
        SystemExit: On the second signal, unless ``at_second`` does something else.
    """
    request = StopRequest()

    def handle(number: int, _frame: FrameType | None) -> None:
        if request.signal_number is not None:
            at_second(128 + number)
        request.signal_number = number
        console.say(f"{answer}; once more to stop at once")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
