"""What memory format and which norm kernel a training step is fastest with, on this machine.

    python benchmarks/layouts.py [--size 128] [--channels 64] [--rounds 5]

Runs the same step in both precisions, both memory formats, and with the two kernels that compute
an instance norm of a single picture, in alternation, and prints the median seconds of each.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time

import torch
from torch import Tensor
from torch.nn import functional as F

from cyclegan_cli.config import TrainConfig
from cyclegan_cli.models import networks
from cyclegan_cli.models.cyclegan import CycleGAN


def stock_instance_norm(
    x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None
) -> Tensor:
    """What ``torch.nn.InstanceNorm2d`` computes, by its own kernel."""
    return F.instance_norm(x, weight=scale, bias=shift, eps=networks.INSTANCE_NORM_EPSILON)


NORMS = {"batch norm's kernel": networks.instance_norm, "stock": stock_instance_norm}
FORMATS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}


def seconds(model: CycleGAN, pictures: Tensor, norm: str) -> float:
    """Time one step."""
    networks.instance_norm = NORMS[norm]
    start = time.perf_counter()
    model.step(pictures, pictures.flip(-1))
    return time.perf_counter() - start


def main() -> None:
    """Parse, measure in alternation, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    config = TrainConfig(
        load_size=arguments.size, crop_size=arguments.size, base_channels=arguments.channels
    )
    pictures = torch.rand(1, 3, arguments.size, arguments.size) * 2 - 1
    models: dict[tuple[str, ...], CycleGAN] = {}
    for bf16, layout in itertools.product((False, True), FORMATS):
        model = CycleGAN(config, torch.device("cpu"), bf16)
        model.memory_format = FORMATS[layout]
        for network in model.networks().values():
            network.to(memory_format=model.memory_format)
        models["bf16" if bf16 else "fp32", layout] = model
    times: dict[tuple[str, ...], list[float]] = {}
    for _ in range(arguments.rounds + 1):
        for (key, model), norm in itertools.product(models.items(), NORMS):
            times.setdefault((*key, norm), []).append(seconds(model, pictures, norm))
    print(f"| precision | layout | norm | seconds a step, median of {arguments.rounds} |")
    print("|---|---|---|---|")
    for key, measured in times.items():
        print(f"| {' | '.join(key)} | {statistics.median(measured[1:]):.3f} |")


if __name__ == "__main__":
    main()
