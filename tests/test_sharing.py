"""Which part of the work is a process's own."""

from __future__ import annotations

import pytest

from cyclegan_cli.errors import UsageError
from cyclegan_cli.sharing import WHOLE, Rank, Share, parse_shard, rank_of


@pytest.mark.parametrize(
    ("text", "share"), [("1/1", WHOLE), ("3/16", Share(2, 16)), ("16/16", Share(15, 16))]
)
def test_shards_count_from_one(text: str, share: Share) -> None:
    assert parse_shard(text) == share
    assert str(share) == text


@pytest.mark.parametrize(
    "text", ["", "3", "0/4", "5/4", "1/0", "a/b", "1/2/3", "-1/4", " 1/2", "1/2\n", "١/٢", "1.0/2"]
)
def test_other_shards_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--shard must be K/N"):
        parse_shard(text)


def test_shards_and_ranks_combine() -> None:
    parts = {Share(s, 3).part(Share(r, 2)) for s in range(3) for r in range(2)}
    assert parts == {Share(index, 6) for index in range(6)}


def test_alone_without_the_variables_of_torchrun() -> None:
    assert rank_of({}) == Rank()
    assert rank_of({"RANK": "3"}).is_first


def test_ranks_come_from_the_variables_of_torchrun() -> None:
    rank = rank_of(
        {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4",
         "TORCHELASTIC_RUN_ID": "none"}
    )  # fmt: skip
    assert rank == Rank(Share(5, 8), Share(1, 4), launched=True)
    assert not rank.is_first


@pytest.mark.parametrize(("rank", "size"), [("2", "2"), ("x", "2"), ("-1", "2"), ("0", "0")])
def test_ranks_that_make_no_sense_are_refused(rank: str, size: str) -> None:
    with pytest.raises(UsageError, match=f"RANK={rank} and WORLD_SIZE={size}"):
        rank_of({"RANK": rank, "WORLD_SIZE": size})
