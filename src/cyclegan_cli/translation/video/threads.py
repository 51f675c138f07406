"""Run the decoder and the encoder of a video beside the network.

Bounded queues connect the threads, so only a few frames are in memory at once.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")
QUEUE_BYTES = 256 << 20
LONGEST_QUEUE = 8
# A thread that waits notices within this time that the other one has ended.
POLL_SECONDS = 0.2


def queue_length(frame_bytes: int) -> int:
    """Return the number of frames in a queue, by the size of one."""
    return min(max(QUEUE_BYTES // max(frame_bytes, 1), 1), LONGEST_QUEUE)


class Prefetcher(Generic[Item]):
    """Iterates over ``items`` in a thread, a few items ahead.

    Args:
        items: The items; an exception is raised where they are consumed.
        length: Number of items ahead.
    """

    def __init__(self, items: Iterable[Item], length: int) -> None:
        self._items = items
        self._queue: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(length)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put((item, None)):
                    return
            self._put((None, None))
        except BaseException as error:
            self._put((None, error))

    def _put(self, entry: tuple[Item | None, BaseException | None]) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(entry, timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def __iter__(self) -> Iterator[Item]:
        while True:
            item, error = self._queue.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item

    def close(self) -> None:
        """Stop the thread and wait for its end."""
        self._stopped.set()
        self._thread.join()


class Consumer(Generic[Item]):
    """Calls a function for each item in a thread.

    Args:
        function: The function; its exception is raised by :meth:`put` or :meth:`finish`.
        length: Number of items that wait.
    """

    def __init__(self, function: Callable[[Item], None], length: int) -> None:
        self._function = function
        self._queue: queue.Queue[Item | None] = queue.Queue(length)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._function(item)
                except BaseException as error:
                    self._error = error

    def put(self, item: Item) -> None:
        """Add an item; waits while the queue is full."""
        self._queue.put(item)  # The thread takes items even after an error.
        self._raise()

    def finish(self) -> None:
        """Wait until all items are consumed."""
        self._queue.put(None)
        self._thread.join()
        self._raise()

    def abandon(self) -> None:
        """End the thread, and ignore its error."""
        self._queue.put(None)
        self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
