"""Data-parallel training by several processes, started by torchrun.

``CycleGAN.step`` averages the gradients (``CycleGAN.distribute``). This module holds the other
collectives: rank 0 logs and writes, and all ranks stop together. In a single process each
collective is the identity, so that callers need not distinguish the two cases.
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

# The other ranks wait while rank 0 validates, writes samples and saves.
COLLECTIVE_TIMEOUT = timedelta(minutes=30)
# A scheduler may start one process long before the others.
JOIN_SECONDS = 15 * 60.0
REPORT_AFTER_SECONDS = 3.0  # Usually all processes start at the same time.
JOIN_POLL_SECONDS = 0.1
# Texts in the errors of gloo and NCCL when another process has ended.
CONNECTION_ERRORS = (
    "connection closed by peer", "connection reset by peer", "broken pipe", "connection refused",
    "timed out waiting", "remote process exited", "socket", "nccl communicator was aborted",
)  # fmt: skip


class CollectiveStopError(CycleGANError):
    """Raised on other ranks where all ranks stop for a reason that rank 0 reports."""

    exit_code = 0


class ProcessGroup:
    """The collectives of a single process.

    Args:
        env: The rank of this process.
    """

    def __init__(self, env: DistributedEnv = SINGLE_PROCESS) -> None:
        self.env = env

    @property
    def rank(self) -> int:
        """The rank of this process."""
        return self.env.rank

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process logs and writes for all ranks."""
        return self.env.is_rank_zero

    def all_reduce_mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the mean over all ranks of each value."""
        return dict(values)

    def all_reduce_max(self, values: Sequence[int]) -> list[int]:
        """Return the maximum over all ranks of each value."""
        return list(values)

    def gather(self, tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """Return the tensors of all ranks on rank 0, and an empty list on the others."""
        return [tensors]

    def broadcast(self, value: Any) -> Any:
        """Return the value of rank 0."""
        return value

    def on_rank_zero(self, function: Callable[[], object]) -> None:
        """Call a function on rank 0; if it fails, all ranks raise.

        Raises:
            CycleGANError: The error, on rank 0.
            CollectiveStopError: On the other ranks.
        """
        function()

    def collective_error(self, error: CycleGANError) -> CycleGANError:
        """Return what this rank raises for an error that all ranks have found."""
        return error if self.is_rank_zero else CollectiveStopError(error.message)


class DistributedProcessGroup(ProcessGroup):
    """The collectives of several connected processes.

    Args:
        env: The rank of this process.
    """

    def __init__(self, env: DistributedEnv) -> None:
        super().__init__(env)
        # For values in host memory, whatever device the networks use.
        self.gloo: Any = dist.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT)

    def all_reduce_mean(self, values: Mapping[str, float]) -> dict[str, float]:
        sums = torch.tensor(list(values.values()), dtype=torch.float64)
        dist.all_reduce(sums, group=self.gloo)
        return dict(zip(values, (sums / self.env.world_size).tolist(), strict=True))

    def all_reduce_max(self, values: Sequence[int]) -> list[int]:
        found = torch.tensor(values)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self.gloo)
        return [int(value) for value in found]

    def gather(self, tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        found: list[Any] | None = [None] * self.env.world_size if self.is_rank_zero else None
        dist.gather_object(tensors, found, group=self.gloo)
        return found or []

    def broadcast(self, value: Any) -> Any:
        objects = [value]
        dist.broadcast_object_list(objects, group=self.gloo)
        return objects[0]

    def on_rank_zero(self, function: Callable[[], object]) -> None:
        error: CycleGANError | None = None
        if self.is_rank_zero:
            try:
                function()
            except CycleGANError as caught:
                error = caught
        [failed] = self.all_reduce_max([error is not None])
        if error:
            raise error
        if failed:
            raise CollectiveStopError("rank 0 has failed")


def _joined_store(
    env: DistributedEnv,
    stop_requested: Callable[[], int | None],
    on_message: Callable[[str], object],
) -> Store:
    """Return the rendezvous store once all processes have joined.

    Polls, so that signals are handled.

    Raises:
        UsageError: The environment does not name its address.
        DeviceError: Other processes do not join, or the port is in use.
        InterruptedRunError: A signal asked to stop.
    """
    address, shard = rendezvous_address(), env.shard
    started, is_reported = time.monotonic(), False

    def wait(awaited: str) -> None:
        nonlocal is_reported
        if number := stop_requested():
            raise InterruptedRunError(f"stopped while waiting for {awaited}", "", number)
        waited = time.monotonic() - started
        if waited > JOIN_SECONDS:
            raise DeviceError(
                f"timed out after waiting {JOIN_SECONDS / 60:g} minutes for {awaited}",
                TORCHRUN_HINT,
            )
        if waited > REPORT_AFTER_SECONDS and not is_reported:
            on_message(f"process {shard}: waiting for {awaited}")
            is_reported = True
        time.sleep(JOIN_POLL_SECONDS)

    if address.is_hosted_by_torchrun or shard.index:
        while not _is_listening(address.host, address.port):
            wait(f"rank 0 to listen at {address}")
    try:
        store = rendezvous_store()
    except RuntimeError as error:
        raise DeviceError(
            f"cannot join the other processes at {address}: {str(error).splitlines()[0]}",
            "Choose another MASTER_PORT.",
        ) from error
    store.set(f"joined/{shard.index}", "")
    while missing := sum(not store.check([f"joined/{index}"]) for index in range(shard.count)):
        others = "other process" if missing == 1 else "other processes"
        wait(f"{missing} {others} of {shard.count} to join at {address}")
    return store


def _is_listening(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except OSError:
        return False
    return True


@contextmanager
def process_group(
    env: DistributedEnv,
    device: torch.device,
    stop_requested: Callable[[], int | None] = lambda: None,
    on_message: Callable[[str], object] = lambda _message: None,
) -> Iterator[ProcessGroup]:
    """Join the processes of a training, and leave them at the end of the ``with`` block.

    Args:
        env: The rank of this process, from the environment that torchrun sets.
        device: The device of this process.
        stop_requested: Called while waiting for other processes.
        on_message: Called with what this process waits for.

    Raises:
        UsageError: The environment does not name the rendezvous address.
        DeviceError: Another process did not join, or has ended.
        InterruptedRunError: A signal asked to stop before all had joined.
    """
    if env.world_size == 1:
        yield ProcessGroup(env)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=_joined_store(env, stop_requested, on_message),
            rank=env.rank,
            world_size=env.world_size,
            timeout=COLLECTIVE_TIMEOUT,
        )
        yield DistributedProcessGroup(env)
        dist.barrier()  # Keep the connections open while other ranks need them.
    except RuntimeError as error:
        if not any(text in str(error).lower() for text in CONNECTION_ERRORS):
            raise
        raise DeviceError(
            "another process of this training has ended or cannot be reached",
            "See its error message. Resume from the last checkpoint with --resume, or let torchrun "
            "do so with --max-restarts.",
        ) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
