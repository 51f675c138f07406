"""Which part of the work is a process's own."""

import pytest

from cyclegan_cli.errors import UsageError
from cyclegan_cli.runtime.distributed_env import (
    SINGLE_SHARD,
    DistributedEnv,
    Shard,
    parse_shard,
    read_distributed_env,
)


@pytest.mark.parametrize(
    ("text", "share"), [("1/1", SINGLE_SHARD), ("3/16", Shard(2, 16)), ("16/16", Shard(15, 16))]
)
def test_shards_are_one_based(text, share):
    assert parse_shard(text) == share
    assert str(share) == text


@pytest.mark.parametrize(
    "text", ["", "3", "0/4", "5/4", "1/0", "a/b", "1/2/3", "-1/4", " 1/2", "1/2\n", "١/٢", "1.0/2"]
)
def test_invalid_shard_is_rejected(text):
    with pytest.raises(UsageError, match="--shard must be K/N"):
        parse_shard(text)


def test_shards_subdivide_by_rank():
    parts = {Shard(s, 3).subdivide(Shard(r, 2)) for s in range(3) for r in range(2)}
    assert parts == {Shard(index, 6) for index in range(6)}


def test_single_process_without_torchrun_variables():
    assert read_distributed_env({}) == DistributedEnv()
    assert read_distributed_env({"RANK": "3"}).is_rank_zero


def test_ranks_from_torchrun_variables():
    env = read_distributed_env(
        {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4",
         "TORCHELASTIC_RUN_ID": "none"}
    )  # fmt: skip
    assert env == DistributedEnv(5, 8, 1, 4, is_torchrun=True)
    assert not env.is_rank_zero


@pytest.mark.parametrize(("rank", "size"), [("2", "2"), ("x", "2"), ("-1", "2"), ("0", "0")])
def test_invalid_ranks_are_rejected(rank, size):
    with pytest.raises(UsageError, match=f"RANK={rank} and WORLD_SIZE={size}"):
        read_distributed_env({"RANK": rank, "WORLD_SIZE": size})
