"""Digests in place of paths give the answers that the paths would give."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from cyclegan_cli.translation.outputs import LedgerBuilder, digest, shard_hash

NAMES = st.integers(0, 12).map(lambda number: f"p{number}".encode())
PAIRS = st.lists(st.tuples(NAMES, NAMES), max_size=40)


def builder_of(pairs: list[tuple[bytes, bytes]]) -> LedgerBuilder:
    draft = LedgerBuilder()
    for source, output in pairs:
        draft.add(digest(source), digest(output), shard_hash(source))
    return draft


@given(PAIRS)
def test_conflicts_are_those_of_the_paths(pairs: list[tuple[bytes, bytes]]) -> None:
    _, conflicts = builder_of(pairs).build(skip_outputs=False)
    writers = defaultdict(set)
    for source, output in pairs:
        writers[output].add(source)
    inputs = {source for source, _ in pairs}
    assert conflicts.shared == {digest(out) for out, sources in writers.items() if len(sources) > 1}
    assert conflicts.inputs == {digest(output) for output in writers if output in inputs}
    assert bool(conflicts) == bool(conflicts.shared or conflicts.inputs)


@given(PAIRS)
def test_inputs_that_are_outputs_can_be_passed_over(pairs: list[tuple[bytes, bytes]]) -> None:
    ledger, conflicts = builder_of(pairs).build(skip_outputs=True)
    left = {
        (source, output)
        for source, output in pairs
        if all(source != other_output or source == other for other, other_output in pairs)
    }
    inputs = {source for source, _ in left}
    assert conflicts.inputs == {digest(output) for _, output in left if output in inputs}
    assert len(ledger) == len({output for _, output in left})


@given(PAIRS)
def test_each_output_is_taken_once(pairs: list[tuple[bytes, bytes]]) -> None:
    ledger, _ = builder_of(pairs).build(skip_outputs=False)
    taken = [output for _, output in pairs if ledger.take(digest(output))]
    assert sorted(taken) == sorted({output for _, output in pairs})
    assert not ledger.take(digest(b"never seen"))


@given(PAIRS, st.integers(1, 7), st.randoms())
def test_shares_are_disjoint_and_complete_in_whatever_order(
    pairs: list[tuple[bytes, bytes]], count: int, random: object
) -> None:
    taken: list[bytes] = []
    for index in range(count):
        random.shuffle(pairs)  # type: ignore[attr-defined]
        ledger, _ = builder_of(pairs).build(skip_outputs=False)
        ledger.keep_shard(index, count)
        mine = [output for _, output in pairs if ledger.take(digest(output))]
        assert len(mine) == len(ledger)
        taken += mine
    assert sorted(taken) == sorted({output for _, output in pairs})


def test_share_numbers_stay_what_they_are() -> None:
    """Otherwise the jobs of an array that is running while we are upgraded would overlap."""
    assert shard_hash(b"photos/a.jpg") == 12356256285255488763
