"""Distance of translated images to the target domain, compared with that of the inputs.

    python benchmarks/judge.py --inputs test/day --outputs out --target test/night [--pairs]

Prints mean luminance, the distance of colour histograms, the sliced Wasserstein distance a
pyramid level and, with ``--pairs`` (equal file names are true pairs), L1 and PSNR to the truth;
each for the inputs and for the outputs. ``--floor`` also splits the target set in two halves and
measures one against the other: what two samples of the same domain are apart.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from cyclegan_cli.data.decode import decode
from cyclegan_cli.data.folder import list_images
from cyclegan_cli.data.tensors import array_to_tensor
from cyclegan_cli.metrics.distances import (
    histogram_distance,
    mean_luminance,
    sliced_wasserstein_distance,
)


def load(paths: list[Path], size: int) -> Tensor:
    """Center crops resized to ``size``: ``[N, 3, size, size]`` in [-1, 1]."""
    return torch.cat([_square(array_to_tensor(decode(p).frames[0]), size) for p in paths])


def _square(image: Tensor, size: int) -> Tensor:
    height, width = image.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[..., top : top + side, left : left + side]
    return F.interpolate(
        square, size=(size, size), mode="bicubic", antialias=True, align_corners=False
    ).clamp(-1, 1)


def measures(images: Tensor, target: Tensor) -> dict[str, float]:
    """All unpaired metrics of a set with respect to the target domain."""
    distances = sliced_wasserstein_distance(images, target)
    return {
        "luminance": mean_luminance(images),
        "histogram_distance": histogram_distance(images, target),
        "swd_mean": statistics.mean(distances),
        **{f"swd_level_{i}": distance for i, distance in enumerate(distances)},
    }


def paired_measures(images: Tensor, truth: Tensor) -> dict[str, float]:
    """L1 in 8-bit pixel values and PSNR in dB to the ground truth."""
    difference = (images - truth) * 127.5
    mse = difference.square().mean(dim=(1, 2, 3))
    psnr = [10 * math.log10(255**2 / max(float(value), 1e-9)) for value in mse]
    return {"l1": float(difference.abs().mean()), "psnr": statistics.mean(psnr)}


def main() -> None:
    """Parse arguments, run the benchmark and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for name in ("--inputs", "--outputs", "--target"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--pairs", action="store_true")
    parser.add_argument("--floor", action="store_true")
    parser.add_argument("--size", type=int, default=256, help="side that all are compared at")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    outputs_paths = list_images(arguments.outputs)
    relative = [path.relative_to(arguments.outputs) for path in outputs_paths]
    outputs = load(outputs_paths, arguments.size)
    inputs = load([arguments.inputs / path for path in relative], arguments.size)
    target = load(list_images(arguments.target), arguments.size)
    columns = {"inputs": measures(inputs, target), "outputs": measures(outputs, target)}
    if arguments.pairs:
        truth = load([arguments.target / path for path in relative], arguments.size)
        columns["inputs"] |= paired_measures(inputs, truth)
        columns["outputs"] |= paired_measures(outputs, truth)
    if arguments.floor:
        columns["target's other half"] = measures(target[::2], target[1::2])
    if arguments.json:
        print(json.dumps(columns))
        return
    print("| measure | " + " | ".join(columns) + f" | target: {mean_luminance(target):.1f} |")
    print("|---|" + "---|" * (len(columns) + 1))
    for name in columns["outputs"]:
        cells = [f"{column[name]:.2f}" if name in column else "" for column in columns.values()]
        print(f"| {name} | " + " | ".join(cells) + " | |")


if __name__ == "__main__":
    main()
