"""Decode, translate and encode images concurrently.

::

    jobs ──► decoding threads ──► network ──► encoding threads ──► outcomes
      ▲                                                               │
      └──────────── InFlightLimiter: pixels and images ◄──────────────┘

A job starts when the pixels of all images in flight stay within a byte budget and few outcomes
wait to be consumed. The queues are unbounded, so only the thread that starts a job ever waits for
a later stage, and no deadlock is possible.

The network runs in the thread that consumes the outcomes. In any other thread, glibc returns the
memory of large feature maps to the operating system after each layer (5146 page faults for an
image of 256x256 pixels with the paper's network, 33 here), and another thread would have to be
woken for every image. Before each image, the consumer receives the outcomes that are ready.
"""

from __future__ import annotations

import heapq
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from cyclegan_cli.errors import CycleGANError
from cyclegan_cli.files import is_disk_full
from cyclegan_cli.runtime.distributed_env import DistributedEnv, rendezvous_store
from cyclegan_cli.translation.outputs import TranslationJob

PIXEL_BYTES = 256 << 20  # Two images of 48 megapixels do not fit.
WINDOW = 32
# On Windows a signal does not wake a waiting thread; this is the longest delay of Ctrl-C there.
POLL_SECONDS = 0.5
RANK_POLL_SECONDS = 0.2

OutcomeStatus = Literal["ok", "skipped", "rejected", "failed"]
# Values of an outcome that options ask for.
MEASURES = frozenset({"mask_share", "labels", "structure", "cycle_error"})


class JobStopped(Exception):  # noqa: N818 - as KeyboardInterrupt
    """A stop request ended a job early; it has no outcome."""


@dataclass(frozen=True)
class Outcome:
    """The result of one job.

    Attributes:
        input: Path of the image.
        output: Path of its translation, which is written only if ``ok``.
        status: ``ok``, ``skipped`` (the output exists), ``rejected`` (the structure score is too
            low, so it is not written) or ``failed``.
        error: One sentence, if failed.
        width: In pixels, if ok.
        height: In pixels, if ok.
        seconds: Time from opening the input to closing the output.
        warnings: One sentence per property of the image that the output does not preserve.
        mask_share: Share of the pixels inside of the mask, if there is one.
        labels: Paths of the copied labels, if they are copied.
        structure: How well edges are kept, if it is measured; see
            :func:`~cyclegan_cli.metrics.structure.structure_score`.
        cycle_error: Mean absolute difference to the image translated there and back, in [0, 1], if
            it is measured.
    """

    input: str
    output: str
    status: OutcomeStatus
    error: str | None = None
    width: int | None = None
    height: int | None = None
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    mask_share: float | None = None
    labels: tuple[str, ...] | None = None
    structure: float | None = None
    cycle_error: float | None = None

    def to_document(self) -> dict[str, Any]:
        """Return plain values for JSON, without measures that were not asked for."""
        found = vars(self) | {"warnings": list(self.warnings)}
        return {key: one for key, one in found.items() if one is not None or key not in MEASURES}


@dataclass
class TranslationSummary:
    """The result of all jobs of a process.

    Attributes:
        images: Number of jobs.
        counts: Number of outcomes by status.
        seconds: Total time.
        stopped: The reason for an early end: ``SIGINT``, ``SIGTERM``, ``failure`` (with
            --fail-fast) or ``disk full``; None if every job has an outcome.
    """

    images: int
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    stopped: str | None = None

    def to_document(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        names = ("ok", "skipped", "rejected", "failed")
        ok, skipped, rejected, failed = (self.counts[status] for status in names)
        return {
            "summary": {
                "pictures": self.images,
                "ok": ok,
                "skipped": skipped,
                "rejected": rejected,
                "failed": failed,
                "seconds": round(self.seconds, 4),
                "pictures_per_second": round(ok / self.seconds, 4) if ok else 0.0,
                "stopped": self.stopped,
            }
        }


@dataclass(frozen=True)
class PipelineLimits:
    """Bounds on concurrency.

    Attributes:
        workers: Number of decoding threads, and of encoding threads.
        pixel_bytes: Bytes of all images in flight; a larger image is processed alone.
        window: Number of images in flight or with an unconsumed outcome.
    """

    workers: int = 1
    pixel_bytes: int = PIXEL_BYTES
    window: int = WINDOW


DEFAULT_LIMITS = PipelineLimits()


class InFlightLimiter:
    """Limit the images in flight.

    Args:
        limits: The bounds.
    """

    def __init__(self, limits: PipelineLimits) -> None:
        self._limits = limits
        self._changed = threading.Condition()
        self._bytes = self._images = self._unconsumed = 0
        self._closed = False

    def acquire(self, size: int) -> bool:
        """Wait until an image may start; return False if the limiter is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._fits(size))
            if not self._closed:
                self._bytes += size
                self._images += 1
                self._unconsumed += 1
            return not self._closed

    def _fits(self, size: int) -> bool:
        if self._unconsumed >= self._limits.window:
            return False
        return not self._images or self._bytes + size <= self._limits.pixel_bytes

    def release(self, size: int) -> None:
        """Mark the pixels of an image as freed."""
        with self._changed:
            self._bytes -= size
            self._images -= 1
            self._changed.notify_all()

    def consumed(self) -> None:
        """Mark an outcome as consumed."""
        with self._changed:
            self._unconsumed -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Start no further image."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Stages(Protocol):
    """The stages of one job. All methods but ``translate`` are called from several threads.

    Each may raise a CycleGANError or MemoryError, which fails this image only.
    """

    def is_done(self, job: TranslationJob) -> bool:
        """Return whether to skip a job."""

    def pixel_bytes(self, job: TranslationJob) -> int:
        """Return the size of the image's pixels."""

    def decode(self, job: TranslationJob) -> Any:
        """Read the image."""

    def translate(self, image: Any) -> Any:
        """Translate the image."""

    def encode(self, job: TranslationJob, image: Any) -> Outcome:
        """Write the translation and return an outcome of status ``ok``."""

    def skip(self, job: TranslationJob) -> Outcome:
        """Return an outcome of status ``skipped``."""


@dataclass(eq=False)
class WorkItem:
    """A job in flight.

    Attributes:
        number: Index of the job.
        job: The job.
        size: Bytes of its pixels.
        started: When decoding started.
        image: The image, after decoding or translating.
        outcome: The outcome, once known.
    """

    number: int
    job: TranslationJob
    size: int = 0
    started: float = 0.0
    image: Any = None
    outcome: Outcome | None = None


class WorkerPool:
    """Threads that run the same function.

    Args:
        work: The function.
        size: Number of threads.
        on_end: Called with the pool when its last thread ends.
        on_error: Called with the exception that ``work`` raised.
    """

    def __init__(
        self,
        work: Callable[[], None],
        size: int,
        on_end: Callable[[WorkerPool], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._work, self._on_end, self._on_error = work, on_end, on_error
        self._running = size
        self._lock = threading.Lock()
        # Daemon threads: an immediate exit does not wait for an image of 48 megapixels.
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(size)]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait for all threads to end."""
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._on_error(error)
        finally:
            with self._lock:
                self._running -= 1
                is_last = self._running == 0
            if is_last:
                self._on_end(self)


class Pipeline:
    """Process jobs in three concurrent stages; an instance is used once.

    Args:
        jobs: The jobs.
        stages: The stages.
        limits: Bounds on concurrency.
        ordered: Whether outcomes come in the order of the jobs instead of as jobs complete.
        fail_fast: Whether to stop at the first failure.
        stop_requested: Called before each image. If it does not return None, the pipeline stops
            after the images that are being translated or written.
        images: Number of jobs, for the summary.

    Attributes:
        summary: The result of all jobs, counted as their outcomes are yielded.
    """

    def __init__(
        self,
        jobs: Iterable[TranslationJob],
        stages: Stages,
        limits: PipelineLimits = DEFAULT_LIMITS,
        ordered: bool = False,
        fail_fast: bool = False,
        stop_requested: Callable[[], int | None] = lambda: None,
        images: int = 0,
    ) -> None:
        self._jobs = enumerate(jobs)
        self.summary = TranslationSummary(images)
        self._stages = stages
        self._workers = limits.workers
        self._ordered, self.fail_fast = ordered, fail_fast
        self._stop_requested = stop_requested
        self._limiter = InFlightLimiter(limits)
        self._next_job = threading.Lock()
        self._stopped = False
        self._error: BaseException | None = None
        # Decoded and finished items, and each pool when it has ended.
        self._done: queue.SimpleQueue[WorkItem | WorkerPool] = queue.SimpleQueue()
        # One None per encoding thread marks the end.
        self._translated: queue.SimpleQueue[WorkItem | None] = queue.SimpleQueue()
        self._decoders = self._pool(self._decode_all)
        self._encoders = self._pool(self._encode_all)

    def _pool(self, work: Callable[[], None]) -> WorkerPool:
        return WorkerPool(work, self._workers, self._done.put, self._abort)

    def outcomes(self) -> Generator[Outcome, None, None]:
        """Process the jobs; the network runs in the calling thread.

        Yields:
            The outcome of each job, except those dropped because of a stop.

        Raises:
            OutputError: The disk is full, so no further output can be written.
        """
        try:
            for pool in (self._decoders, self._encoders):
                pool.start()
            yield from self._in_order() if self._ordered else map(self._consume, self._finished())
        except (KeyboardInterrupt, SystemExit):
            self._leave()  # Without waiting for the threads.
            raise
        except BaseException:
            self._leave()
            self._join()
            raise
        self._join()
        if self._error is not None:
            raise self._error

    def _in_order(self) -> Iterator[Outcome]:
        """Hold back early outcomes, at most a window of them."""
        waiting: list[tuple[int, WorkItem]] = []
        number = 0
        for item in self._finished():
            heapq.heappush(waiting, (item.number, item))
            while waiting and waiting[0][0] == number:
                yield self._consume(heapq.heappop(waiting)[1])
                number += 1
        # After a stop, some numbers are missing.
        yield from (self._consume(item) for _, item in sorted(waiting))

    def _consume(self, item: WorkItem) -> Outcome:
        assert item.outcome is not None
        self.summary.counts[item.outcome.status] += 1
        self._limiter.consumed()
        return item.outcome

    def _finished(self) -> Iterator[WorkItem]:
        """Yield finished items, and run the network while there are none."""
        decoded: deque[WorkItem | None] = deque()
        while (done := self._next_done(wait=not decoded)) is not self._encoders:
            if done is None:
                self._translate(decoded.popleft())
            elif done is self._decoders:
                decoded.append(None)
            elif isinstance(done, WorkItem) and done.outcome is None:
                decoded.append(done)
            elif isinstance(done, WorkItem):
                yield done

    def _next_done(self, wait: bool) -> WorkItem | WorkerPool | None:
        """Return the next item of a thread, or None."""
        while True:
            try:
                return self._done.get(block=wait, timeout=POLL_SECONDS)
            except queue.Empty:
                if not wait:
                    return None

    def _leave(self) -> None:
        self._stop()
        self._end_encoders()

    def _end_encoders(self) -> None:
        for _ in range(self._workers):
            self._translated.put(None)

    def _join(self) -> None:
        self._decoders.join()
        self._encoders.join()

    def _stop(self) -> None:
        self._stopped = True
        self._limiter.close()

    def _abort(self, error: BaseException) -> None:
        """Stop because of an error that affects every image; the first one is raised."""
        self._error = self._error or error
        self._stop()

    def _is_stopping(self) -> bool:
        if not self._stopped and self._stop_requested() is not None:
            self._stop()
        return self._stopped

    def _finish(self, item: WorkItem, outcome: Outcome) -> None:
        self._release(item)
        seconds = round(time.monotonic() - item.started, 4)
        item.outcome = replace(outcome, seconds=seconds)
        self._done.put(item)

    def _drop(self, item: WorkItem) -> None:
        self._release(item)
        self._limiter.consumed()

    def _release(self, item: WorkItem) -> None:
        item.image = None
        self._limiter.release(item.size)

    @contextmanager
    def _failing_alone(self, item: WorkItem) -> Iterator[None]:
        """Turn an error of one image into its outcome."""
        try:
            yield
        except JobStopped:
            self._stop()
            self._drop(item)
        except Exception as error:
            if is_disk_full(error) or not isinstance(error, (CycleGANError, MemoryError)):
                self._abort(error)
                self._drop(item)
                return
            self._finish(item, _failure(item.job, error))
            if self.fail_fast:
                self._stop()

    def _decode_all(self) -> None:
        while (item := self._next_item()) is not None:
            with self._failing_alone(item):
                item.image = self._stages.decode(item.job)
                self._done.put(item)

    def _next_item(self) -> WorkItem | None:
        """Return the next job to be decoded, as soon as the limiter permits."""
        with self._next_job:
            for number, job in self._jobs:
                if self._is_stopping():
                    return None
                item, outcome = self._check(number, job)
                if not self._limiter.acquire(item.size):
                    return None
                if outcome is None:
                    item.started = time.monotonic()
                    return item
                self._finish(item, outcome)
                if outcome.status == "failed" and self.fail_fast:
                    self._stop()
        return None

    def _check(self, number: int, job: TranslationJob) -> tuple[WorkItem, Outcome | None]:
        """Return a job's item, and its outcome if that is known without decoding."""
        item = WorkItem(number, job, started=time.monotonic())
        try:
            if self._stages.is_done(job):
                return item, self._stages.skip(job)
            item.size = self._stages.pixel_bytes(job)
        except (CycleGANError, MemoryError) as error:
            return item, _failure(job, error)
        return item, None

    def _translate(self, item: WorkItem | None) -> None:
        """Translate an image and queue it for encoding; None marks the end."""
        if item is None:
            self._end_encoders()
        elif self._is_stopping():
            self._drop(item)
        else:
            with self._failing_alone(item):
                item.image = self._stages.translate(item.image)
                self._translated.put(item)

    def _encode_all(self) -> None:
        while (item := self._translated.get()) is not None:
            with self._failing_alone(item):
                self._finish(item, self._stages.encode(item.job, item.image))


def _failure(job: TranslationJob, error: CycleGANError | MemoryError) -> Outcome:
    no_memory = f"{job.input}: not enough memory"
    sentence = error.message if isinstance(error, CycleGANError) else no_memory
    return Outcome(job.input, job.output, "failed", sentence)


def wait_for_all_ranks(env: DistributedEnv, stop_requested: Callable[[], int | None]) -> None:
    """Wait until every rank has called this.

    torchrun ends all processes as soon as one exits with an error. A rank with failed images
    therefore waits until the others have finished theirs.

    Args:
        env: The environment of this process.
        stop_requested: Polled while waiting; ends the wait if it does not return None.
    """
    store = rendezvous_store()
    keys = [f"cyclegan_translated/{rank}" for rank in range(env.world_size)]
    store.set(keys[env.rank], "")
    while not store.check(keys) and stop_requested() is None:
        time.sleep(RANK_POLL_SECONDS)
