"""One set of work for several processes: every part of it for exactly one of them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cyclegan_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.distributed import Store  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Share:
    """This process's part of the work.

    Attributes:
        index: Which, from 0.
        count: Of how many.
    """

    index: int = 0
    count: int = 1

    def part(self, inner: Share) -> Share:
        """The share ``inner`` of this share."""
        return Share(self.index * inner.count + inner.index, self.count * inner.count)

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"


WHOLE = Share()


def parse_shard(text: str) -> Share:
    """What ``--shard K/N`` stands for, with K from 1 to N.

    Raises:
        UsageError: It is written differently, or there is no K-th of N.
    """
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    index, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= index <= count:
        raise UsageError(
            f"--shard must be K/N with K from 1 to N, found {text!r}", "As in --shard 3/16."
        )
    return Share(index - 1, count)


@dataclass(frozen=True)
class Rank:
    """This process among those that torchrun started; alone without it.

    Attributes:
        share: Its rank of all ranks.
        local: Its rank and their number on this machine.
        launched: Whether torchrun looks after it, which ends all when one exits with an error.
    """

    share: Share = WHOLE
    local: Share = WHOLE
    launched: bool = False

    @property
    def is_first(self) -> bool:
        """Whether it speaks for all."""
        return self.share.index == 0


ALONE = Rank()
ALONE_OR_TORCHRUN = (
    "Unset RANK and WORLD_SIZE to work in one process; for several let torchrun set all of them."
)


def rank_of(environment: Mapping[str, str] = os.environ) -> Rank:
    """This process's rank, from the variables that torchrun sets.

    Raises:
        UsageError: They make no sense.
    """
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return ALONE
    share = _share(environment, "RANK", "WORLD_SIZE")
    local = WHOLE
    if "LOCAL_RANK" in environment and "LOCAL_WORLD_SIZE" in environment:
        local = _share(environment, "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return Rank(share, local, "TORCHELASTIC_RUN_ID" in environment)


def _share(environment: Mapping[str, str], rank: str, size: str) -> Share:
    values = environment[rank], environment[size]
    if not all(re.fullmatch(r"[0-9]{1,9}", value) for value in values) or not (
        int(values[0]) < int(values[1])
    ):
        raise UsageError(
            f"the environment has {rank}={values[0]} and {size}={values[1]}: no rank of so many",
            ALONE_OR_TORCHRUN,
        )
    return Share(int(values[0]), int(values[1]))


@dataclass(frozen=True)
class Address:
    """Where the processes of a training meet.

    Attributes:
        host: Name or number of the first process's machine.
        port: Of TCP.
        is_torchrun_s: Whether torchrun listens there; else the first process does.
    """

    host: str
    port: int
    is_torchrun_s: bool

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def address_of(environment: Mapping[str, str] = os.environ) -> Address:
    """Where the processes meet, from the variables that torchrun sets.

    Raises:
        UsageError: They are missing or make no sense.
    """
    host, port = (environment.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
    ranks = f"RANK={environment.get('RANK')} and WORLD_SIZE={environment.get('WORLD_SIZE')}"
    for name, value in (("MASTER_ADDR", host), ("MASTER_PORT", port)):
        if not value:
            raise UsageError(f"the environment has {ranks}, but no {name}", ALONE_OR_TORCHRUN)
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 2**16:
        raise UsageError(
            f"the environment has {ranks}, but MASTER_PORT={port}, which is no port",
            ALONE_OR_TORCHRUN,
        )
    return Address(host, int(port), environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True")


def restarts() -> int:
    """How often torchrun has started this work again after a process had failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def meeting_point() -> Store:
    """Where the processes that torchrun started leave words for each other.

    It is connected to at once: who would have to wait for somebody to listen there, waits first.

    torchrun may keep it over a restart, with what the processes before have left there, who are
    dead: so each restart has its own part of it.
    """
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    address = address_of()
    listens = not address.is_torchrun_s and os.environ["RANK"] == "0"
    store = TCPStore(
        # A machine may not know, or not reach, the name that others have for it.
        "127.0.0.1" if listens else address.host,
        address.port,
        is_master=listens,
        wait_for_workers=False,
        multi_tenant=True,
    )
    return PrefixStore(f"cyclegan/{restarts()}", store)
