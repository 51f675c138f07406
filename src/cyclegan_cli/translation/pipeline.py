"""Decoding and encoding in threads, beside the network.

::

    jobs ──► decoders ──► the network ──► encoders ──► outcomes
      ▲                                                   │
      └───────── admission: pixels and images ◄─────────┘

A job is admitted when the pixels of all that are under way stay within a budget of bytes, and
not too many outcomes wait for whoever asked for them. The queues are unbounded, so no thread but
an admitting one ever waits for a later one, and nothing can lock up.

The network works in the thread that asks for outcomes. In any other, glibc gives the memory of
large feature maps back to the system after each layer (5146 page faults for an image of 256x256
pixels with the paper's network, here 33), and one more would have to be woken for every image.
Before each image that thread hands over what has ended meanwhile.
"""

from __future__ import annotations

import heapq
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from cyclegan_cli.errors import CycleGANError
from cyclegan_cli.files import is_disk_full
from cyclegan_cli.translation.admission import DEFAULT_LIMITS, Admission, Limits
from cyclegan_cli.translation.outcomes import Outcome
from cyclegan_cli.translation.planning import Job

# Windows tells a waiting thread of no signal; this is how long Ctrl-C may take there.
PATIENCE_SECONDS = 0.5


class Work(Protocol):
    """What is done with an image. Every method but ``translate`` is called in several threads.

    Each may raise a CycleGANError or MemoryError for an image that cannot be done.
    """

    def is_done(self, job: Job) -> bool:
        """Whether a job need not be done at all."""

    def weigh(self, job: Job) -> int:
        """The bytes that the image's pixels will take."""

    def decode(self, job: Job) -> Any:
        """Read an image."""

    def translate(self, image: Any) -> Any:
        """Translate it."""

    def encode(self, job: Job, image: Any) -> Outcome:
        """Write the translation; returns an outcome of status ``ok``."""


@dataclass(eq=False)
class Ticket:
    """A job under way.

    Attributes:
        number: From 0 on, in the order of the jobs.
        job: What is to be done.
        weight: Bytes of its pixels.
        started: When its reading began.
        image: Its pixels, as far as they are.
        outcome: What became of it, if that is known.
    """

    number: int
    job: Job
    weight: int = 0
    started: float = 0.0
    image: Any = None
    outcome: Outcome | None = None


class Crew:
    """Threads that do the same.

    Args:
        work: What each does, until it has nothing left to do.
        size: How many there are.
        at_end: Called once, with the crew, when the last of them has ended.
        on_error: Called with what ``work`` raised.
    """

    def __init__(
        self,
        work: Callable[[], None],
        size: int,
        at_end: Callable[[Crew], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._work, self._at_end, self._on_error = work, at_end, on_error
        self._left = size
        self._lock = threading.Lock()
        # Daemons: who wants to end at once does not wait for an image of 48 megapixels.
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(size)]

    def start(self) -> None:
        """Set them to work."""
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait for the last of them to end."""
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._on_error(error)
        finally:
            with self._lock:
                self._left -= 1
                is_last = self._left == 0
            if is_last:
                self._at_end(self)


class Pipeline:
    """Works jobs off; made for one set of them.

    Args:
        jobs: What is to be done.
        work: How.
        limits: How much at once.
        ordered: Whether outcomes come in the order of the jobs rather than as they end.
        fail_fast: Whether the first failure ends it.
        stop_requested: Asked before each image; anything but None ends it, after those that
            are being translated or written.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        work: Work,
        limits: Limits = DEFAULT_LIMITS,
        ordered: bool = False,
        fail_fast: bool = False,
        stop_requested: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._jobs = enumerate(jobs)
        self._work = work
        self._workers = limits.workers
        self._ordered, self._fail_fast = ordered, fail_fast
        self._stop_requested = stop_requested
        self._admission = Admission(limits)
        self._next_job = threading.Lock()
        self._stopped = False
        self._error: BaseException | None = None
        # What decoders and encoders have done, in the end a crew that has nothing left to do.
        self._done: queue.SimpleQueue[Ticket | Crew] = queue.SimpleQueue()
        # Ends with a None for every encoder.
        self._translated: queue.SimpleQueue[Ticket | None] = queue.SimpleQueue()
        self._decoders = self._crew(self._decode_all)
        self._encoders = self._crew(self._encode_all)

    def _crew(self, work: Callable[[], None]) -> Crew:
        return Crew(work, self._workers, self._done.put, self._abort)

    def outcomes(self) -> Generator[Outcome, None, None]:
        """Do the jobs; the network works in the thread that asks for outcomes.

        Yields:
            Each job's outcome; but none of jobs that were given up because of a stop.

        Raises:
            OutputError: The disk is full: no further output could be written either.
        """
        try:
            for crew in (self._decoders, self._encoders):
                crew.start()
            yield from self._in_order() if self._ordered else self._as_they_end()
        except (KeyboardInterrupt, SystemExit):
            self._leave()  # At once: the threads are left to themselves.
            raise
        except BaseException:
            self._leave()
            self._join()
            raise
        self._join()
        if self._error is not None:
            raise self._error

    # Outcomes

    def _as_they_end(self) -> Iterator[Outcome]:
        for ticket in self._finished():
            yield self._told(ticket)

    def _in_order(self) -> Iterator[Outcome]:
        """Hold back what comes too early: at most a window of outcomes."""
        waiting: list[tuple[int, Ticket]] = []
        number = 0
        for ticket in self._finished():
            heapq.heappush(waiting, (ticket.number, ticket))
            while waiting and waiting[0][0] == number:
                yield self._told(heapq.heappop(waiting)[1])
                number += 1
        # After a stop there are gaps.
        yield from (self._told(ticket) for _, ticket in sorted(waiting))

    def _told(self, ticket: Ticket) -> Outcome:
        assert ticket.outcome is not None
        self._admission.told()
        return ticket.outcome

    def _finished(self) -> Iterator[Ticket]:
        """Run the network over what is decoded, as long as nothing finished is to be told."""
        decoded: deque[Ticket | None] = deque()
        while (done := self._next_done(wait=not decoded)) is not self._encoders:
            if done is None:
                self._pass_on(decoded.popleft())
            elif done is self._decoders:
                decoded.append(None)
            elif isinstance(done, Ticket) and done.outcome is None:
                decoded.append(done)
            elif isinstance(done, Ticket):
                yield done

    def _next_done(self, wait: bool) -> Ticket | Crew | None:
        """What a thread has done; None: nothing new."""
        while True:
            try:
                return self._done.get(block=wait, timeout=PATIENCE_SECONDS)
            except queue.Empty:
                if not wait:
                    return None

    # Ways to end

    def _leave(self) -> None:
        self._stop()
        self._dismiss_encoders()

    def _dismiss_encoders(self) -> None:
        for _ in range(self._workers):
            self._translated.put(None)

    def _join(self) -> None:
        self._decoders.join()
        self._encoders.join()

    def _stop(self) -> None:
        self._stopped = True
        self._admission.close()

    def _abort(self, error: BaseException) -> None:
        """End it because of an error that concerns more than one image; the first counts."""
        self._error = self._error or error
        self._stop()

    def _is_stopping(self) -> bool:
        if not self._stopped and self._stop_requested() is not None:
            self._stop()
        return self._stopped

    def _finish(self, ticket: Ticket, outcome: Outcome) -> None:
        self._let_go(ticket)
        seconds = round(time.monotonic() - ticket.started, 4)
        ticket.outcome = replace(outcome, seconds=seconds)
        self._done.put(ticket)

    def _give_up(self, ticket: Ticket) -> None:
        self._let_go(ticket)
        self._admission.told()

    def _let_go(self, ticket: Ticket) -> None:
        ticket.image = None
        self._admission.leave(ticket.weight)

    @contextmanager
    def _one_failing(self, ticket: Ticket) -> Iterator[None]:
        """What goes wrong with an image inside does not stop the others."""
        try:
            yield
        except Exception as error:
            if is_disk_full(error) or not isinstance(error, (CycleGANError, MemoryError)):
                self._abort(error)
                self._give_up(ticket)
                return
            self._finish(ticket, _failure(ticket.job, error))
            if self._fail_fast:
                self._stop()

    # The decoders

    def _decode_all(self) -> None:
        while (ticket := self._next_ticket()) is not None:
            with self._one_failing(ticket):
                ticket.image = self._work.decode(ticket.job)
                self._done.put(ticket)

    def _next_ticket(self) -> Ticket | None:
        """The next job that is to be done, as soon as there is room for it."""
        with self._next_job:
            for number, job in self._jobs:
                if self._is_stopping():
                    return None
                ticket, outcome = self._looked_at(number, job)
                if not self._admission.enter(ticket.weight):
                    return None
                if outcome is None:
                    ticket.started = time.monotonic()
                    return ticket
                self._finish(ticket, outcome)
                if outcome.status == "failed" and self._fail_fast:
                    self._stop()
        return None

    def _looked_at(self, number: int, job: Job) -> tuple[Ticket, Outcome | None]:
        """A job's ticket; and its outcome, where that is known from a look at the files."""
        ticket = Ticket(number, job, started=time.monotonic())
        try:
            if self._work.is_done(job):
                return ticket, Outcome(job.input, job.output, "skipped")
            ticket.weight = self._work.weigh(job)
        except (CycleGANError, MemoryError) as error:
            return ticket, _failure(job, error)
        return ticket, None

    # The network, and the encoders

    def _pass_on(self, ticket: Ticket | None) -> None:
        """Translate an image for the encoders; None: it was the last one."""
        if ticket is None:
            self._dismiss_encoders()
        elif self._is_stopping():
            self._give_up(ticket)
        else:
            with self._one_failing(ticket):
                ticket.image = self._work.translate(ticket.image)
                self._translated.put(ticket)

    def _encode_all(self) -> None:
        while (ticket := self._translated.get()) is not None:
            self._encode(ticket)

    def _encode(self, ticket: Ticket) -> None:
        with self._one_failing(ticket):
            self._finish(ticket, self._work.encode(ticket.job, ticket.image))


def _failure(job: Job, error: CycleGANError | MemoryError) -> Outcome:
    no_memory = f"{job.input}: not enough memory"
    sentence = error.message if isinstance(error, CycleGANError) else no_memory
    return Outcome(job.input, job.output, "failed", sentence)
