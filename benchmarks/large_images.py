"""Time and memory of large images: strips, the untiled network and naive tiles, 64 × 9.

    python benchmarks/large_images.py [--megapixels 1 4 12 24 48] [--precision fp32]

Each measurement runs in its own process, whose peak memory is measured,
Python and torch included. All ways get the same random weights and the same image. The untiled
network is the textbook's (eager, NCHW, stock modules); it is left out above --untiled-up-to
megapixels. Tiles are 512 pixels square, each normalized by itself, as in tools that tile.
The last column says how far a result is from that of strips, in dB and in pixel values of 255.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from cyclegan_cli.checkpoints.header import ModelInfo
from cyclegan_cli.config import GeneratorConfig, PrecisionChoice
from cyclegan_cli.data.image import PixelArray
from cyclegan_cli.data.tensors import array_to_tensor, tensor_to_array
from cyclegan_cli.models.networks import ResnetGenerator, initialize_weights
from cyclegan_cli.models.padding import reflect_to_multiple
from cyclegan_cli.runtime.memory import keep_freed_memory
from cyclegan_cli.translation.translator import Translator, TranslatorOptions
from textbook import generator_like

WAYS = ("strips", "untiled", "tiles")
TILE = 512


def image(width: int, height: int) -> PixelArray:
    """Return an image of smooth shapes and fine noise, brighter at the bottom."""
    random = np.random.default_rng(0)
    coarse = torch.from_numpy(random.random((1, 3, 12, 16), dtype=np.float32))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    smooth *= torch.linspace(0.3, 1, height)[:, None]
    pixels = (smooth[0] * 230).permute(1, 2, 0).to(torch.uint8).numpy()
    pixels += random.integers(0, 25, pixels.shape, dtype=np.uint8)
    return pixels


def trained_like_generator() -> ResnetGenerator:
    """Generator with random weights large enough for every layer to have an effect."""
    generator = ResnetGenerator(GeneratorConfig()).eval().requires_grad_(False)
    initialize_weights(generator, torch.Generator().manual_seed(0))
    return generator


@torch.inference_mode()
def measure(way: str, width: int, height: int, precision: PrecisionChoice, result: Path) -> None:
    """Translate one image, save the result, and print seconds and peak memory as JSON."""
    pixels, generator = image(width, height), trained_like_generator()
    if way == "strips":
        keep_freed_memory()  # As the command does.
        info = ModelInfo("model", generator.config, "a", "b", {}, {})
        options = TranslatorOptions(device="cpu", precision=precision)
        translate = Translator(generator, info, "a2b", torch.device("cpu"), options)
    else:
        translate = _eager(generator, way)
    start = time.perf_counter()
    translated = translate(pixels)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    np.save(result, translated)
    print(json.dumps({"seconds": seconds, "peak_rss_bytes": peak}))


def _eager(generator: ResnetGenerator, way: str):  # type: ignore[no-untyped-def]
    network = generator_like(generator)

    def whole(pixels: PixelArray) -> PixelArray:
        height, width, _ = pixels.shape
        padded = reflect_to_multiple(array_to_tensor(pixels))
        return tensor_to_array(network(padded)[..., :height, :width])

    def tiles(pixels: PixelArray) -> PixelArray:
        translated = np.empty_like(pixels)
        for top in range(0, pixels.shape[0], TILE):
            for left in range(0, pixels.shape[1], TILE):
                tile = np.s_[top : top + TILE, left : left + TILE]
                translated[tile] = whole(pixels[tile])
        return translated

    return whole if way == "untiled" else tiles


def measured(
    way: str, width: int, height: int, precision: str, folder: Path
) -> tuple[dict[str, float], PixelArray]:
    """Run it in a new process."""
    result = folder / f"{way}.npy"
    command = [
        sys.executable, __file__, "--measure", way, "--size", str(width), str(height),
        "--precision", precision, "--result", str(result),
    ]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout), np.load(result)


def difference(found: PixelArray, expected: PixelArray) -> str:
    """PSNR in dB and the largest difference in pixel values."""
    error = found.astype(np.float32) - expected
    mean_square = float(np.square(error).mean())
    decibels = 10 * math.log10(255**2 / mean_square) if mean_square else math.inf
    return f"{decibels:.1f} dB, {abs(error).max():.0f} of 255"


def main() -> None:
    """Parse arguments, run the benchmark and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--megapixels", nargs="+", type=float, default=[1, 4, 12, 24, 48])
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--untiled-up-to", type=float, default=12, help="megapixels")
    parser.add_argument("--tiles-up-to", type=float, default=12, help="megapixels")
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--size", nargs=2, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        width, height = arguments.size
        measure(arguments.measure, width, height, arguments.precision, arguments.result)
        return
    print("| megapixels | size | way | seconds | peak memory | difference to strips |")
    print("|---|---|---|---|---|---|")
    limits = dict(
        zip(WAYS, (math.inf, arguments.untiled_up_to, arguments.tiles_up_to), strict=True)
    )
    for megapixels in arguments.megapixels:
        height = round(math.sqrt(megapixels * 1e6 * 3 / 4) / 4) * 4
        width = round(height * 4 / 3)
        with tempfile.TemporaryDirectory() as folder:
            for way in (way for way in WAYS if megapixels <= limits[way]):
                found, pixels = measured(way, width, height, arguments.precision, Path(folder))
                if way == "strips":
                    expected, shown = pixels, ""
                else:
                    shown = difference(pixels, expected)
                print(
                    f"| {megapixels:g} | {width}×{height} | {way} | {found['seconds']:.1f} "
                    f"| {found['peak_rss_bytes'] / 1e9:.2f} GB | {shown} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
