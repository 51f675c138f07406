"""The pipeline never hangs, and yields every outcome once within its limits."""

import errno
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyclegan_cli.errors import DataError, OutputError
from cyclegan_cli.translation.outputs import TranslationJob
from cyclegan_cli.translation.pipeline import (
    DEFAULT_LIMITS,
    InFlightLimiter,
    Outcome,
    Pipeline,
    PipelineLimits,
)

pytestmark = pytest.mark.timeout(120)
STAGES = ("is_done", "pixel_bytes", "decode", "translate", "encode")


class UnforeseenError(Exception):
    """An unexpected error."""


def full_disk() -> OutputError:
    error = OutputError("cannot write x: no space left on device")
    error.__cause__ = OSError(errno.ENOSPC, "no space left on device")
    return error


class FakeStages:
    """Stages without images.

    Args:
        events: Called in a stage, by ``(stage, number of the job)``.
        weights: Pixel bytes by job, 1 by default.
    """

    def __init__(
        self,
        events: dict[tuple[str, int], Callable[[], object]] | None = None,
        weights: dict[int, int] | None = None,
        skipped: frozenset[int] = frozenset(),
    ) -> None:
        self.events, self.weights, self.skipped = events or {}, weights or {}, skipped
        self.lock = threading.Lock()
        self.held: Counter[int] = Counter()
        self.most_held = self.most_weight = self.most_translated = 0
        self.done: list[int] = []

    def _happen(self, stage: str, job: TranslationJob) -> int:
        number = int(job.input)
        self.events.get((stage, number), lambda: None)()
        return number

    def is_done(self, job: TranslationJob) -> bool:
        return self._happen("is_done", job) in self.skipped

    def pixel_bytes(self, job: TranslationJob) -> int:
        return self.weights.get(self._happen("pixel_bytes", job), 1)

    def decode(self, job: TranslationJob) -> Any:
        number = int(job.input)
        with self.lock:
            self.held[number] = self.weights.get(number, 1)
            self.most_held = max(self.most_held, len(self.held))
            self.most_weight = max(self.most_weight, self.held.total())
        try:
            self._happen("decode", job)
        except BaseException:
            self._drop(number)
            raise
        return job

    def translate(self, image: Any) -> Any:
        try:
            self._happen("translate", image)
        except BaseException:
            self._drop(int(image.input))
            raise
        return image

    def encode(self, job: TranslationJob, image: Any) -> Outcome:
        assert image is job
        self._drop(int(job.input))
        number = self._happen("encode", job)
        with self.lock:
            self.done.append(number)
        return Outcome(job.input, job.output, "ok")

    def skip(self, job: TranslationJob) -> Outcome:
        return Outcome(job.input, job.output, "skipped")

    def _drop(self, number: int) -> None:
        with self.lock:
            del self.held[number]


def jobs(count: int) -> list[TranslationJob]:
    return [TranslationJob(str(number), f"{number}.out") for number in range(count)]


def run(
    count: int, stages: FakeStages, limits: PipelineLimits = DEFAULT_LIMITS, **options: Any
) -> list[Outcome]:
    return [*Pipeline(jobs(count), stages, limits, **options).outcomes()]


def raising(error: BaseException) -> Callable[[], object]:
    def raise_it() -> None:
        raise error

    return raise_it


def threads_of_pipelines() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "_run" in thread.name]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert threads_of_pipelines() == []


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 40), st.integers(1, 4), st.integers(1, 12), st.booleans(),
    st.sets(st.integers(0, 40)), st.dictionaries(st.integers(0, 40), st.sampled_from(STAGES[1:])),
    st.dictionaries(st.integers(0, 40), st.integers(0, 30)),
    st.dictionaries(st.tuples(st.sampled_from(STAGES), st.integers(0, 40)),
                    st.floats(0, 0.003), max_size=12),
)  # fmt: skip
def test_every_job_has_one_outcome_in_order_if_requested(
    count, workers, window, ordered, skipped, failing, weights, delays
):
    events: dict[tuple[str, int], Callable[[], object]] = {
        key: lambda seconds=seconds: time.sleep(seconds) for key, seconds in delays.items()
    }
    events |= {(stage, n): raising(DataError(f"no {n}")) for n, stage in failing.items()}
    stages = FakeStages(events, weights, frozenset(skipped))
    limits = PipelineLimits(workers, pixel_bytes=20, window=window)
    outcomes = run(count, stages, limits, ordered=ordered)
    numbers = [int(outcome.input) for outcome in outcomes]
    assert sorted(numbers) == [*range(count)]
    assert not ordered or numbers == [*range(count)]
    for number, outcome in zip(numbers, outcomes, strict=True):
        expected = "failed" if number in failing else "ok"
        assert outcome.status == ("skipped" if number in skipped else expected)
    assert stages.most_held <= window
    assert stages.most_weight <= max(20, *weights.values(), 0) if weights else True


def test_pipeline_waits_for_consumer():
    stages = FakeStages()
    outcomes = Pipeline(jobs(1000), stages, PipelineLimits(2, window=8)).outcomes()
    for taken in range(1, 4):
        next(outcomes)
        time.sleep(0.02)
        assert len(stages.done) <= taken + 8
    outcomes.close()
    assert len(stages.done) < 1000


# The first two write nothing, so no disk is full for them.
@pytest.mark.parametrize(
    ("stage", "error"),
    [(stage, UnforeseenError("?")) for stage in STAGES]
    + [(stage, full_disk()) for stage in STAGES if stage not in ("is_done", "pixel_bytes")],
    ids=lambda part: part if isinstance(part, str) else type(part).__name__,
)
@pytest.mark.parametrize("number", [0, 7, 49])
def test_unexpected_error_stops_pipeline_and_is_raised(stage, number, error):
    stages = FakeStages({(stage, number): raising(error)})
    yielded: list[Outcome] = []
    with pytest.raises(type(error)) as caught:
        yielded.extend(Pipeline(jobs(50), stages, PipelineLimits(3)).outcomes())
    assert caught.value is error
    assert number not in stages.done


def test_outcomes_before_full_disk_are_yielded():
    stages = FakeStages({("encode", 3): raising(full_disk())})
    yielded: list[int] = []
    with pytest.raises(OutputError):
        yielded.extend(int(outcome.input) for outcome in Pipeline(jobs(50), stages).outcomes())
    assert sorted(yielded) == sorted(stages.done)
    assert {0, 1, 2} <= set(yielded)
    assert len(yielded) < 50


def test_error_of_job_iterator_stops_pipeline():
    def listed():
        yield from jobs(3)
        raise UnforeseenError

    pipeline = Pipeline(listed(), FakeStages(), PipelineLimits(2))
    with pytest.raises(UnforeseenError):
        list(pipeline.outcomes())


@pytest.mark.parametrize("stage", STAGES[1:])
def test_fail_fast_stops_at_first_failure(stage):
    stages = FakeStages({(stage, 5): raising(DataError("no"))})
    outcomes = run(1000, stages, PipelineLimits(2), fail_fast=True, ordered=True)
    assert [o.input for o in outcomes if o.status == "failed"] == ["5"]
    assert len(outcomes) < 100
    assert sorted(stages.done) == sorted(int(o.input) for o in outcomes if o.status == "ok")


@pytest.mark.parametrize("error", [MemoryError(), DataError("not enough memory")])
@pytest.mark.parametrize("stage", STAGES[1:])
def test_failed_image_does_not_stop_others(stage, error):
    outcomes = run(9, FakeStages({(stage, 4): raising(error)}), ordered=True)
    assert [o.status for o in outcomes] == ["ok"] * 4 + ["failed"] + ["ok"] * 4
    assert "not enough memory" in str(outcomes[4].error)


@pytest.mark.parametrize("ordered", [False, True])
def test_stop_request_finishes_translated_images(ordered):
    requests: list[int] = []
    stages = FakeStages({("translate", 6): lambda: requests.append(15)})
    outcomes = run(
        1000,
        stages,
        PipelineLimits(3),
        ordered=ordered,
        stop_requested=lambda: (requests or [None])[0],
    )
    yielded = [int(outcome.input) for outcome in outcomes]
    assert 6 in yielded
    assert sorted(yielded) == sorted(stages.done)
    assert len(yielded) < 100


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_early_exit_of_consumer_ends_threads(interrupt):
    outcomes = Pipeline(jobs(1000), FakeStages(), PipelineLimits(2)).outcomes()
    next(outcomes)
    with pytest.raises(interrupt):
        outcomes.throw(interrupt)
    deadline = time.monotonic() + 60
    while threads_of_pipelines() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_network_runs_in_consumer_thread():
    threads: dict[str, threading.Thread] = {}

    def note(stage):
        return lambda: threads.update({stage: threading.current_thread()})

    run(1, FakeStages({(stage, 0): note(stage) for stage in STAGES}))
    assert threads["translate"] is threading.current_thread()
    assert len({threads[stage] for stage in ("decode", "translate", "encode")}) == 3


def test_ready_outcomes_are_yielded_before_next_translation():
    yielded: list[int] = []
    yielded_before: dict[int, list[int]] = {}
    being_written = [threading.Event() for _ in range(5)]

    def translating(number):
        def note():
            yielded_before[number] = [*yielded]
            # The only encoder is at the last one, so those before it have ended.
            assert not number or being_written[number - 1].wait(10)

        return note

    stages = FakeStages({("translate", number): translating(number) for number in range(5)})
    stages.events |= {("encode", n): event.set for n, event in enumerate(being_written)}
    for outcome in Pipeline(jobs(5), stages).outcomes():
        yielded += [int(outcome.input)]
    assert yielded_before[4][:2] == [0, 1]
    assert yielded == [0, 1, 2, 3, 4]


def test_interrupt_in_network_is_raised_and_ends_threads():
    stages = FakeStages({("translate", 3): raising(KeyboardInterrupt())})
    with pytest.raises(KeyboardInterrupt):
        run(1000, stages, PipelineLimits(2))
    assert len(stages.done) <= 3
    deadline = time.monotonic() + 60
    while threads_of_pipelines() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_closed_limiter_admits_no_image():
    limiter = InFlightLimiter(PipelineLimits(window=1))
    assert limiter.acquire(1)
    threading.Timer(0.05, limiter.close).start()
    assert not limiter.acquire(1)
    assert not limiter.acquire(0)
