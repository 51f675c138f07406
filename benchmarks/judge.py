"""Distance of translated images to the target domain, compared with that of the inputs.

    python benchmarks/judge.py --inputs test/day --outputs out --target test/night [--pairs]

Prints mean luminance, the distance of colour histograms, the sliced Wasserstein distance a
pyramid level and, with ``--pairs`` (equal file names are true pairs), L1, PSNR and SSIM to the
truth; each for the inputs and for the outputs. ``--floor`` also splits the target set in two
halves and measures one against the other: what two samples of the same domain are apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from torch import Tensor

from cyclegan_cli.data.folder import list_images
from cyclegan_cli.data.tensors import to_pixel_values
from cyclegan_cli.metrics import paired
from cyclegan_cli.metrics.distances import (
    histogram_distance,
    mean_luminance,
    sliced_wasserstein_distance,
)
from cyclegan_cli.metrics.loading import load_squares


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
    """L1 in 8-bit pixel values, PSNR in dB and SSIM to the ground truth."""
    pixels, true_pixels = (to_pixel_values(one) for one in (images, truth))
    return {
        "l1": float(paired.l1(pixels, true_pixels).mean()),
        "psnr": float(paired.psnr(pixels, true_pixels).mean()),
        "ssim": float(paired.ssim(pixels, true_pixels).mean()),
    }


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
    outputs = load_squares(outputs_paths, arguments.size)
    inputs = load_squares([arguments.inputs / path for path in relative], arguments.size)
    target = load_squares(list_images(arguments.target), arguments.size)
    columns = {"inputs": measures(inputs, target), "outputs": measures(outputs, target)}
    if arguments.pairs:
        truth = load_squares([arguments.target / path for path in relative], arguments.size)
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
