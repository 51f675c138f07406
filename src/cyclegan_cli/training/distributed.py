"""Several processes that train one model together, started by torchrun.

Gradients are averaged by torch's DistributedDataParallel (``CycleGAN.distribute``). Here is all
else that has to be agreed on: what is told and written by the first process alone, and when all of
them stop. One process alone agrees with itself, so that the trainer knows no difference.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from cyclegan_cli.errors import CycleGANError, DeviceError, InterruptedRunError
from cyclegan_cli.runtime.distributed_env import (
    SINGLE_PROCESS,
    TORCHRUN_HINT,
    DistributedEnv,
    rendezvous_address,
    rendezvous_store,
)

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

# The others wait while the first measures, draws and saves.
PATIENCE = timedelta(minutes=30)
# For all processes to be started: a scheduler may find a place for one long before the others.
JOIN_SECONDS = 15 * 60.0
SAY_AFTER_SECONDS = 3.0  # All come at once, mostly, and nobody needs to hear of it.
POLL_SECONDS = 0.1
# How gloo and NCCL say that a process they wait for has gone.
LOST_WORDS = (
    "connection closed by peer", "connection reset by peer", "broken pipe", "connection refused",
    "timed out waiting", "remote process exited", "socket", "nccl communicator was aborted",
)  # fmt: skip


class EndedTogetherError(CycleGANError):
    """The run has ended in good order, and the first process says how and why."""

    exit_code = 0


class Group:
    """The processes that train together; by itself, one process alone.

    Args:
        env: This one among them.
    """

    def __init__(self, env: DistributedEnv = SINGLE_PROCESS) -> None:
        self.env = env

    @property
    def index(self) -> int:
        """This process's number, from 0."""
        return self.env.rank

    @property
    def is_first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.env.is_rank_zero

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """The means over all processes, by name."""
        return dict(values)

    def highest(self, values: Sequence[int]) -> list[int]:
        """The highest of each over all processes."""
        return list(values)

    def gathered(self, tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """What the processes have, in their order, in the first one; empty in the others."""
        return [tensors]

    def of_first(self, value: Any) -> Any:
        """What the first process has."""
        return value

    def on_first(self, work: Callable[[], object]) -> None:
        """Have the first process do something; where it fails, all leave together.

        Raises:
            CycleGANError: It has failed.
            EndedTogetherError: Likewise, in the other processes.
        """
        work()

    def left_by(self, error: CycleGANError) -> CycleGANError:
        """What to raise where every process has found the same reason to leave."""
        return error if self.is_first else EndedTogetherError(error.message)


class ProcessGroup(Group):
    """Processes that are connected, over the network or in one machine.

    Args:
        env: This one among them.
    """

    def __init__(self, env: DistributedEnv) -> None:
        super().__init__(env)
        # Of numbers in host memory, whatever the networks compute on.
        self.control: Any = dist.new_group(backend="gloo", timeout=PATIENCE)

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """The means over all processes, by name."""
        sums = torch.tensor(list(values.values()), dtype=torch.float64)
        dist.all_reduce(sums, group=self.control)
        return dict(zip(values, (sums / self.env.world_size).tolist(), strict=True))

    def highest(self, values: Sequence[int]) -> list[int]:
        """The highest of each over all processes."""
        found = torch.tensor(values)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self.control)
        return [int(value) for value in found]

    def gathered(self, tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """What the processes have, in their order, in the first one; empty in the others."""
        found: list[Any] | None = [None] * self.env.world_size if self.is_first else None
        dist.gather_object(tensors, found, group=self.control)
        return found or []

    def of_first(self, value: Any) -> Any:
        """What the first process has."""
        box = [value]
        dist.broadcast_object_list(box, group=self.control)
        return box[0]

    def on_first(self, work: Callable[[], object]) -> None:
        """Have the first process do something; where it fails, all leave together."""
        error: CycleGANError | None = None
        if self.is_first:
            try:
                work()
            except CycleGANError as caught:
                error = caught
        [failed] = self.highest([error is not None])
        if error:
            raise error
        if failed:
            raise EndedTogetherError("the first process has failed")


def _nobody() -> None:
    """Nobody has asked to stop."""


class _Waiting:
    """Waits for other processes, in short pieces, so that signals are heard.

    Args:
        env: This process.
        stop_requested: Asked again and again.
        told: Is told, after a moment, what is waited for.
    """

    def __init__(
        self,
        env: DistributedEnv,
        stop_requested: Callable[[], int | None],
        told: Callable[[str], object],
    ) -> None:
        self.env = env
        self.stop_requested = stop_requested
        self.told = told
        self.started = time.monotonic()
        self.has_told = False

    def poll(self, awaited: str) -> None:
        """Wait a little.

        Args:
            awaited: What for.

        Raises:
            InterruptedRunError: Asked to stop.
            DeviceError: It has been too long.
        """
        number = self.stop_requested()
        if number:
            raise InterruptedRunError(f"stopped while waiting for {awaited}", "", number)
        waited = time.monotonic() - self.started
        if waited > JOIN_SECONDS:
            raise DeviceError(
                f"waited {JOIN_SECONDS / 60:g} minutes for {awaited}, in vain", TORCHRUN_HINT
            )
        if waited > SAY_AFTER_SECONDS and not self.has_told:
            self.told(f"process {self.env.shard}: waiting for {awaited}")
            self.has_told = True
        time.sleep(POLL_SECONDS)


def _met(waiting: _Waiting) -> Store:
    """The store of the processes, as soon as all have come there.

    Raises:
        UsageError: The environment does not say where it is.
        DeviceError: The others do not come, or nobody can listen there.
        InterruptedRunError: Asked to stop.
    """
    address, share = rendezvous_address(), waiting.env.shard
    if address.is_hosted_by_torchrun or share.index:
        while not _is_listened_at(address.host, address.port):
            waiting.poll(f"the first process to listen at {address}")
    try:
        store = rendezvous_store()
    except RuntimeError as error:
        raise DeviceError(
            f"cannot meet the other processes at {address}: {str(error).splitlines()[0]}",
            "Choose another MASTER_PORT.",
        ) from error
    store.set(f"joined/{share.index}", "")
    while missing := [
        index for index in range(share.count) if not store.check([f"joined/{index}"])
    ]:
        others = "other process" if len(missing) == 1 else "other processes"
        waiting.poll(f"{len(missing)} {others} of {share.count} to join at {address}")
    return store


def _is_listened_at(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except OSError:
        return False
    return True


@contextmanager
def joined(
    env: DistributedEnv,
    device: torch.device,
    stop_requested: Callable[[], int | None] = _nobody,
    told: Callable[[str], object] = len,
) -> Iterator[Group]:
    """The group that a process trains in, while inside.

    Args:
        env: From the environment that torchrun makes.
        device: What this process computes on.
        stop_requested: Asked while other processes are waited for.
        told: Is told that they are.

    Raises:
        UsageError: The environment does not say where the processes meet.
        DeviceError: Another process has not come, or has gone.
        InterruptedRunError: Asked to stop before all had come.
    """
    if env.world_size == 1:
        yield Group(env)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=_met(_Waiting(env, stop_requested, told)),
            rank=env.rank,
            world_size=env.world_size,
            timeout=PATIENCE,
        )
        yield ProcessGroup(env)
        dist.barrier()  # Nobody takes the connections away while others still need them.
    except RuntimeError as error:
        if not any(words in str(error).lower() for words in LOST_WORDS):
            raise
        raise DeviceError(
            "another process of this training has ended or cannot be reached",
            "What it said is the reason. Go on from the last checkpoint with --resume, or have "
            "torchrun do so: --max-restarts.",
        ) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
