"""The process environment that `torchrun` sets, and how work is divided into shards."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cyclegan_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.distributed import Store  # type: ignore[attr-defined]

TORCHRUN_HINT = (
    "Unset RANK and WORLD_SIZE to work in one process; for several let torchrun set all of them."
)


@dataclass(frozen=True)
class Shard:
    """One of ``count`` disjoint parts of a list of items.

    Attributes:
        index: Zero-based index of the shard.
        count: Number of shards.
    """

    index: int = 0
    count: int = 1

    def subdivide(self, inner: Shard) -> Shard:
        """Return the shard ``inner`` of this shard."""
        return Shard(self.index * inner.count + inner.index, self.count * inner.count)

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"


SINGLE_SHARD = Shard()


def parse_shard(text: str | None) -> Shard:
    """Parse ``--shard K/N``, where K counts from 1; without it, there is one shard.

    Raises:
        UsageError: ``text`` is not of this form, or K is not in 1..N.
    """
    if text is None:
        return SINGLE_SHARD
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    index, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= index <= count:
        raise UsageError(
            f"--shard must be K/N with K from 1 to N, found {text!r}", "As in --shard 3/16."
        )
    return Shard(index - 1, count)


@dataclass(frozen=True)
class DistributedEnv:
    """Rank and world size of this process.

    Attributes:
        rank: Rank of this process among all processes.
        world_size: Number of processes.
        local_rank: Rank among the processes on this machine.
        local_world_size: Number of processes on this machine.
        is_torchrun: Whether `torchrun` supervises the process; it ends all processes when one
            exits with an error.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    is_torchrun: bool = False

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process writes files and messages for all of them."""
        return self.rank == 0

    @property
    def shard(self) -> Shard:
        """This process's shard of the work."""
        return Shard(self.rank, self.world_size)


SINGLE_PROCESS = DistributedEnv()


def read_distributed_env(environment: Mapping[str, str] = os.environ) -> DistributedEnv:
    """Read the rank of this process from the variables that `torchrun` sets.

    Raises:
        UsageError: The variables are not numbers, or a rank is not below its world size.
    """
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return SINGLE_PROCESS
    rank, world_size = _rank_and_size(environment, "RANK", "WORLD_SIZE")
    local_rank, local_world_size = 0, 1
    if "LOCAL_RANK" in environment and "LOCAL_WORLD_SIZE" in environment:
        local_rank, local_world_size = _rank_and_size(environment, "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    is_torchrun = "TORCHELASTIC_RUN_ID" in environment
    return DistributedEnv(rank, world_size, local_rank, local_world_size, is_torchrun)


def _rank_and_size(
    environment: Mapping[str, str], rank_name: str, size_name: str
) -> tuple[int, int]:
    values = environment[rank_name], environment[size_name]
    if not all(re.fullmatch(r"[0-9]{1,9}", value) for value in values) or not (
        int(values[0]) < int(values[1])
    ):
        raise UsageError(
            f"the environment has {rank_name}={values[0]} and {size_name}={values[1]}, "
            "which are not a rank and a world size",
            TORCHRUN_HINT,
        )
    return int(values[0]), int(values[1])


@dataclass(frozen=True)
class RendezvousAddress:
    """Address of the key-value store through which the processes find each other.

    Attributes:
        host: Name or IP address of rank 0's machine.
        port: TCP port.
        is_hosted_by_torchrun: Whether `torchrun` hosts the store; else rank 0 does.
    """

    host: str
    port: int
    is_hosted_by_torchrun: bool

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def rendezvous_address(environment: Mapping[str, str] = os.environ) -> RendezvousAddress:
    """Read the address of the store from the variables that `torchrun` sets.

    Raises:
        UsageError: A variable is missing or invalid.
    """
    host, port = (environment.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
    ranks = f"RANK={environment.get('RANK')} and WORLD_SIZE={environment.get('WORLD_SIZE')}"
    for name, value in (("MASTER_ADDR", host), ("MASTER_PORT", port)):
        if not value:
            raise UsageError(f"the environment has {ranks}, but no {name}", TORCHRUN_HINT)
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 2**16:
        raise UsageError(
            f"the environment has {ranks}, but MASTER_PORT={port}, which is not a port number",
            TORCHRUN_HINT,
        )
    is_hosted_by_torchrun = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return RendezvousAddress(host, int(port), is_hosted_by_torchrun)


def restart_count() -> int:
    """Number of times `torchrun` has restarted the processes after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def rendezvous_store() -> Store:
    """Connect to the key-value store shared by all processes.

    The store may outlive a restart by `torchrun`, with keys of the previous processes, so each
    restart uses its own prefix. Call it on ranks other than 0 only once the host is listening.
    """
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    address = rendezvous_address()
    is_host = not address.is_hosted_by_torchrun and os.environ["RANK"] == "0"
    store = TCPStore(
        # The host may be unable to resolve or reach its own public name.
        "127.0.0.1" if is_host else address.host,
        address.port,
        is_master=is_host,
        wait_for_workers=False,
        multi_tenant=True,
    )
    return PrefixStore(f"cyclegan/{restart_count()}", store)
