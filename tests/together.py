"""What processes do that train together, for tests: each function is one process's whole work."""

import hashlib
import os
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing

from cyclegan_cli.config import TrainConfig
from cyclegan_cli.errors import DataError
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.runtime.distributed_env import DistributedEnv
from cyclegan_cli.training.callbacks import base
from cyclegan_cli.training.distributed import CollectiveStopError, process_group
from cyclegan_cli.training.plan import plan_new
from cyclegan_cli.training.trainer import train
from runs import ClockRecorder, Recorder

CPU = torch.device("cpu")
Work = Callable[..., Any]
IMPORTED = ["torch._dynamo", "torch.distributed", "cyclegan_cli.training.trainer"]


def together(work: Work, folder: Path, ranks: int, *arguments: Any) -> list[Any]:
    """Have processes do some work; what each returned."""
    # Forks of a process that has imported for five seconds what each of them would.
    get_context("forkserver").set_forkserver_preload(IMPORTED)
    multiprocessing.start_processes(
        _join, (work, folder, ranks, arguments), nprocs=ranks, start_method="forkserver"
    )
    return [torch.load(folder / f"answer-{rank}", weights_only=False) for rank in range(ranks)]


def _join(index: int, work: Work, folder: Path, ranks: int, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=index, world_size=ranks
    )
    torch.save(work(index, *arguments), folder / f"answer-{index}")
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def images_of(steps: int, batch: int, size: int = 32) -> Tensor:
    """``[steps, 2, batch, 3, size, size]``: of both domains, in [-1, 1]."""
    random = torch.Generator().manual_seed(3)
    return torch.rand(steps, 2, batch, 3, size, size, generator=random) * 2 - 1


def gradients(model: CycleGAN) -> dict[str, Tensor]:
    """Copies of all gradients, by network and parameter."""
    return {
        f"{name}.{key}": parameter.grad.clone()
        for name, network in model.networks().items()
        for key, parameter in network.named_parameters()
        if parameter.grad is not None
    }


def weights(model: CycleGAN) -> dict[str, Tensor]:
    """Copies of all weights, by network and parameter."""
    return {
        f"{name}.{key}": tensor.clone()
        for name, network in model.networks().items()
        for key, tensor in network.state_dict().items()
    }


def learn_by_sgd(index: int, config: TrainConfig, ranks: int, steps: int) -> Any:
    """The first step's gradients, and the weights after some steps of plain gradient descent.

    Adam divides by the gradient's size and so makes its rounding errors as large as steps: with it
    a rounding error could not be told from a fault. For the same reason all is computed in
    fp64: where an absolute value or a rectifier changes its sign, a rounding error of fp32 becomes
    a difference of 1e-3 within twenty steps, between two runs of one process, too.
    """
    model = CycleGAN(config, CPU, bf16=False)
    for network in model.networks().values():
        network.double()
    if ranks > 1:
        model.distribute()
    for name in ("generator_optimizer", "discriminator_optimizer"):
        parameters = getattr(model, name).param_groups[0]["params"]
        setattr(model, name, torch.optim.SGD(parameters, lr=2e-4))
    size = 2 // ranks
    mine = slice(index * size, (index + 1) * size)
    first: dict[str, Tensor] = {}
    for real_a, real_b in images_of(steps, 2).double():
        model.step(real_a[mine], real_b[mine])
        first = first or gradients(model)
    return first, weights(model)


def learn_by_adam(index: int, config: TrainConfig, steps: int) -> str:
    """A digest of all weights after some steps, on images that differ between processes."""
    model = CycleGAN(config, CPU, bf16=False, rank=index)
    if index:
        with torch.no_grad():  # The first process's weights count.
            for network in model.networks().values():
                for parameter in network.parameters():
                    parameter.zero_()
    model.distribute()
    for real_a, real_b in images_of(steps, 2):
        model.step(real_a[index : index + 1], real_b[index : index + 1])
    digest = hashlib.sha256()
    for tensor in weights(model).values():
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def agree(index: int, ranks: int, port: int) -> dict[str, Any]:
    """The results of a group's collectives."""
    rank = _as_torchrun_starts(index, ranks, port)
    found: dict[str, Any] = {}
    with process_group(rank, CPU) as group:
        found["mean"] = group.all_reduce_mean({"x": float(index), "y": 2.0})
        found["highest"] = group.all_reduce_max([index, 5 - index, False])
        found["gathered"] = group.gather({"mine": torch.full((index + 1,), index)})
        found["of_first"] = group.broadcast(Path(f"from-{index}"))
        group.on_rank_zero(lambda: found.update(worked=True))
        try:
            group.on_rank_zero(_fail)
        except (DataError, CollectiveStopError) as error:
            found["failed"] = type(error).__name__
        found["left_by"] = type(group.collective_error(DataError("x"))).__name__
    return found


def train_by_own_clock(index: int, config: TrainConfig, ranks: int, port: int) -> dict[str, Any]:
    """Samples and validations of a distributed run, where only the clock of rank 0 advances."""
    rank = _as_torchrun_starts(index, ranks, port)
    recorder = Recorder() if index else ClockRecorder(30)
    base.monotonic = recorder.clock if isinstance(recorder, ClockRecorder) else float
    train(plan_new(config, rank), [recorder])
    return {
        "drawn": [step for step, _ in recorder.grids],
        "validated": [row["step"] for row in recorder.validations],
    }


def _as_torchrun_starts(index: int, ranks: int, port: int) -> DistributedEnv:
    dist.destroy_process_group()
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(index), "WORLD_SIZE": str(ranks)}
    return DistributedEnv(index, ranks, index, ranks)


def _fail() -> None:
    raise DataError("the disk is full")
