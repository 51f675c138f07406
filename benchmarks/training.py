"""Seconds per training step of a textbook implementation and of this package.

    python benchmarks/training.py [--size 256 --batch 1 --channels 64 --blocks 9 --json FILE]
    python benchmarks/training.py --device cuda --ways textbook,cyclegan,cyclegan-compiled

Each way works in a process of its own, so that its peak memory is its own. They begin with the
same weights, see the same images, and take turns; the median of all timed steps counts, after
steps that only warm up. Without --size five settings are measured: the paper's at 256×256 pixels
with batch 1 and at 128×128 with batches of 1 and 4 (64 channels, 9 blocks), and those for CPUs at
128×128 and 64×64 (32 channels, 6 blocks). Whole trainings with their loaders: loop.py.

- textbook: stock modules, eager, fp32, NCHW, six generator calls, two plain Adams; on a GPU with
  torch's defaults, which compute convolutions in TF32, and with cuDNN's choice of kernels.
- cyclegan: what ``cyclegan train`` does by default on this machine, with the textbook's layers
  (``--resampling strided``).
- cyclegan-eager: the same without CUDA graphs. On a CPU the default is eager too, so this is
  another measurement of the same.
- cyclegan-compiled: with ``--compile on``.
- cyclegan-fp32: with ``--precision fp32``.

The loss difference is the largest relative one of the first step's eight losses to the textbook's.
The share is that of the step's arithmetic at the speed of this machine's matrix products, in the
precision used. Peak memory is that of the process or, on a GPU, that of torch's tensors.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alternate import alternate, serve, summary
from cyclegan_cli.config import DiscriminatorConfig, GeneratorConfig, TrainConfig
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.models.shapes import discriminator_flops, generator_flops
from cyclegan_cli.runtime.devices import (
    describe_environment,
    has_amx,
    has_native_bf16,
    set_fp32_precision,
)
from textbook import TextbookCycleGAN

WAYS = ("textbook", "cyclegan", "cyclegan-eager", "cyclegan-compiled", "cyclegan-fp32")
# Size, batch, channels, blocks.
SETTINGS = ((256, 1, 64, 9), (128, 1, 64, 9), (128, 4, 64, 9), (128, 1, 32, 6), (64, 1, 32, 6))
WARM_UP = 2
Step = Callable[[Tensor, Tensor], list[float]]


def textbook(config: TrainConfig, device: torch.device) -> Step:
    """The textbook's step."""
    return TextbookCycleGAN(CycleGAN(config, device, bf16=False)).step


def cyclegan(
    config: TrainConfig, device: torch.device, *, bf16: bool, compiled: bool, captured: bool
) -> Step:
    """This tool's step."""
    set_fp32_precision("fp32")
    model = CycleGAN(config, device, bf16=bf16, winograd_bf16=not has_amx())
    shape = (config.batch_size, 3, config.crop_size, config.crop_size)
    images = torch.zeros(shape, device=device), torch.zeros(shape, device=device)
    if compiled:
        model.compile(*images)
    if captured and device.type == "cuda":
        model.capture_graphs(*images)
    # Without the last two, the color losses, which the textbook does not have.
    return lambda real_a, real_b: model.step(real_a, real_b).stacked().tolist()[:-2]


def prepare(way: str, config: TrainConfig, device: torch.device) -> Step:
    """The step of one way."""
    torch.backends.cudnn.benchmark = True
    if way == "textbook":
        return textbook(config, device)
    bf16 = has_native_bf16(device) and way != "cyclegan-fp32"
    compiled, captured = way == "cyclegan-compiled", way != "cyclegan-eager"
    return cyclegan(config, device, bf16=bf16, compiled=compiled, captured=captured)


def measure(
    way: str,
    setting: tuple[int, int, int, int],
    steps: int,
    device: torch.device,
) -> None:
    """Per line on stdin, run a few steps and print their median seconds."""
    size, batch, channels, blocks = setting
    config = TrainConfig(
        load_size=size, crop_size=size, residual_blocks=blocks, batch_size=batch,
        base_channels=channels, discriminator_channels=channels, resampling="strided", norms="all",
        lambda_identity=0.5,
    )  # fmt: skip
    step = prepare(way, config, device)
    random = torch.Generator().manual_seed(0)
    first: list[float] = []

    def one_step() -> float:
        real_a, real_b = (
            (torch.rand(batch, 3, size, size, generator=random) * 2 - 1).to(device)
            for _ in range(2)
        )
        start = time.perf_counter()
        losses = step(real_a, real_b)
        first.extend(losses if not first else [])
        return time.perf_counter() - start

    def work() -> dict[str, Any]:
        if not first:
            for _ in range(WARM_UP):
                one_step()
        found = {"seconds": statistics.median(one_step() for _ in range(steps)), "losses": first}
        if device.type == "cuda":
            found["peak_gpu_bytes"] = torch.cuda.max_memory_allocated(device)
        return found

    serve(work)


def step_flops(size: int, batch: int, channels: int, blocks: int) -> int:
    """FLOPs of a step: a backward pass costs twice the forward pass.

    Six passes of generators; of discriminators two for the generators' sake, without gradients of
    weights, and four for their own.
    """
    generator = generator_flops(GeneratorConfig(channels, blocks), size, size)
    discriminator = discriminator_flops(DiscriminatorConfig(channels), size, size)
    return batch * (6 * 3 * generator + (2 * 2 + 4 * 3) * discriminator)


def matrix_product_peak(dtype: torch.dtype, device: torch.device) -> float:
    """Peak FLOP/s of large matrix products."""
    side = 8192 if device.type == "cuda" else 2048
    x = torch.randn(side, side, device=device).to(dtype)
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        torch.mm(x, x)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds)


def check_published_facts() -> None:
    """Use the networks of the paper."""
    model = CycleGAN(
        TrainConfig(residual_blocks=9, resampling="strided", norms="all"), torch.device("cpu"),
        bf16=False,
    )  # fmt: skip
    copy = TextbookCycleGAN(model)
    for network, expected in ((copy.g_a2b, 11_378_179), (copy.d_a, 2_764_737)):
        assert sum(parameter.numel() for parameter in network.parameters()) == expected
    assert copy.d_a(torch.zeros(1, 3, 256, 256)).shape == (1, 1, 30, 30)


Rows = list[dict[str, Any]]


def compare(
    setting: tuple[int, int, int, int],
    ways: list[str],
    steps: int,
    rounds: int,
    device: torch.device,
) -> Rows:
    """Measure one setting and print its table rows."""
    size, batch, channels, blocks = setting
    commands = {
        way: [__file__, "--serve", way, "--size", str(size), "--batch", str(batch),
              "--channels", str(channels), "--blocks", str(blocks), "--steps", str(steps),
              "--device", str(device)]
        for way in ways
    }  # fmt: skip
    answers = alternate(commands, rounds)
    found = {way: summary(given) for way, given in answers.items() if given}
    rows = []
    for way, numbers in found.items():
        ratio = found["textbook"]["seconds"] / numbers["seconds"] if "textbook" in found else 0
        peak = answers[way][-1].get("peak_gpu_bytes", numbers["peak_rss_bytes"])
        rows.append({
            "name": way, "size": size, "batch": batch, "channels": channels, "blocks": blocks,
            "seconds_per_step": numbers["seconds"],
            "ratio_to_textbook": ratio, "peak_bytes": peak,
        })  # fmt: skip
        bf16 = way not in ("textbook", "cyclegan-fp32") and has_native_bf16(device)
        dtype = torch.bfloat16 if bf16 else torch.float32
        share = step_flops(*setting) / numbers["seconds"] / matrix_product_peak(dtype, device)
        difference = largest_difference(answers[way], answers.get("textbook"))
        print(
            f"| {size}x{size} | {batch} | {channels}, {blocks} | {way} "
            f"| {numbers['seconds']:.4f} | {ratio:.2f} "
            f"| {peak / 1e9:.2f} GB | {difference:.1e} | {share:.0%} |",
            flush=True,
        )
    return rows


def largest_difference(
    answers: list[dict[str, Any]], reference: list[dict[str, Any]] | None
) -> float:
    """Largest relative difference between the losses of the first step."""
    if not reference:
        return 0.0
    pairs = zip(answers[0]["losses"], reference[0]["losses"], strict=True)
    return float(max(abs(own - theirs) / abs(theirs) for own, theirs in pairs))


def main() -> None:
    """Parse arguments, run the benchmark and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", type=int, help="side of the images, in pixels")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--steps", type=int, default=5, help="timed steps a turn")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way")
    parser.add_argument("--ways", default="textbook,cyclegan,cyclegan-eager,cyclegan-fp32")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("--serve", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    setting = (arguments.size, arguments.batch, arguments.channels, arguments.blocks)
    if arguments.serve:
        measure(arguments.serve, setting, arguments.steps, arguments.device)
        return
    check_published_facts()
    settings = [setting] if arguments.size else SETTINGS
    print(describe_environment(arguments.device))
    print(
        "| size | batch | channels, blocks | way | s/step | ratio | peak memory "
        "| loss difference | share of peak |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    rows = []
    for one in settings:
        rows += compare(
            one, arguments.ways.split(","), arguments.steps, arguments.rounds, arguments.device
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
