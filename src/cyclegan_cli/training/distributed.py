"""Several processes that train one model together, started by torchrun.

Gradients are averaged by torch's DistributedDataParallel (``CycleGAN.distribute``). Here is all
else that has to be agreed on: what is told and written by the first process alone, and when all of
them stop. One process alone agrees with itself, so that the trainer knows no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cyclegan_cli.errors import CycleGANError, DeviceError
from cyclegan_cli.sharing import ALONE, Rank, meeting_point

# The others wait while the first measures, draws and saves.
PATIENCE = timedelta(minutes=30)
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
        rank: This one among them.
    """

    def __init__(self, rank: Rank = ALONE) -> None:
        self.rank = rank

    @property
    def index(self) -> int:
        """This process's number, from 0."""
        return self.rank.share.index

    @property
    def is_first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank.is_first

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
        rank: This one among them.
    """

    def __init__(self, rank: Rank) -> None:
        super().__init__(rank)
        # Of numbers in host memory, whatever the networks compute on.
        self.control: Any = dist.new_group(backend="gloo", timeout=PATIENCE)

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """The means over all processes, by name."""
        sums = torch.tensor(list(values.values()), dtype=torch.float64)
        dist.all_reduce(sums, group=self.control)
        return dict(zip(values, (sums / self.rank.share.count).tolist(), strict=True))

    def highest(self, values: Sequence[int]) -> list[int]:
        """The highest of each over all processes."""
        found = torch.tensor(values)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self.control)
        return [int(value) for value in found]

    def gathered(self, tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """What the processes have, in their order, in the first one; empty in the others."""
        found: list[Any] | None = [None] * self.rank.share.count if self.is_first else None
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


@contextmanager
def joined(rank: Rank, device: torch.device) -> Iterator[Group]:
    """The group that a process trains in, while inside.

    Args:
        rank: From the environment that torchrun makes.
        device: What this process computes on.

    Raises:
        DeviceError: Another process has gone.
    """
    if rank.share.count == 1:
        yield Group(rank)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=meeting_point(),
            rank=rank.share.index,
            world_size=rank.share.count,
            timeout=PATIENCE,
        )
        yield ProcessGroup(rank)
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
