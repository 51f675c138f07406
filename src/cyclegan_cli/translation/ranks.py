"""What the processes that torchrun started have to do with each other: next to nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

from cyclegan_cli.runtime.distributed_env import DistributedEnv, rendezvous_store

POLL_SECONDS = 0.2


def wait_for_all(env: DistributedEnv, stop_requested: Callable[[], int | None]) -> None:
    """Return when every rank has come here.

    torchrun ends all processes as soon as one exits with an error. One that has failed images
    to report waits for the others first, so that they are through with theirs.

    Args:
        env: This process.
        stop_requested: Asked now and then; anything but None ends the waiting.
    """
    store = rendezvous_store()
    store.set(_key(env.rank), "")
    keys = [_key(index) for index in range(env.world_size)]
    while not store.check(keys) and stop_requested() is None:
        time.sleep(POLL_SECONDS)


def _key(index: int) -> str:
    return f"cyclegan_translated/{index}"
