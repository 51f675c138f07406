"""What the processes that torchrun started have to do with each other: next to nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

from cyclegan_cli.sharing import Rank, meeting_point

POLL_SECONDS = 0.2


def wait_for_all(rank: Rank, stop_requested: Callable[[], int | None]) -> None:
    """Return when every rank has come here.

    torchrun ends all processes as soon as one exits with an error. One that has failed images
    to report waits for the others first, so that they are through with theirs.

    Args:
        rank: This process.
        stop_requested: Asked now and then; anything but None ends the waiting.
    """
    store = meeting_point()
    store.set(_key(rank.share.index), "")
    keys = [_key(index) for index in range(rank.share.count)]
    while not store.check(keys) and stop_requested() is None:
        time.sleep(POLL_SECONDS)


def _key(index: int) -> str:
    return f"cyclegan_translated/{index}"
