"""Time and memory of large pictures: the untiled network beside strips, 64 channels × 9 blocks.

    python benchmarks/large_pictures.py [--sizes 1024x768 2000x1500] [--untiled-up-to 4]

Each measurement runs in a process of its own, whose peak memory is that of the whole process,
Python and torch included. Both ways get the same random weights and picture, in fp32; where both
run, the largest difference of their results is printed in levels of 8 bits.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import torch

from cyclegan_cli.config import GeneratorConfig
from cyclegan_cli.models.networks import ResnetGenerator, initialise_weights
from cyclegan_cli.translation.strips import translate_in_strips
from cyclegan_cli.translation.translator import STRIP_ROWS


def measure(width: int, height: int, way: str) -> None:
    """Translate one picture and print seconds, peak memory and some of the result as JSON."""
    random = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        generator = ResnetGenerator(GeneratorConfig()).eval()
        initialise_weights(generator, random)
        picture = torch.rand(1, 3, height, width, generator=random) * 2 - 1
        start = time.perf_counter()
        if way == "strips":
            translated = translate_in_strips(generator, picture, STRIP_ROWS)
        else:
            translated = generator(picture)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sample = translated[0, :, :: height // 16, :: width // 16].flatten().tolist()
    print(json.dumps({"seconds": seconds, "peak_rss_bytes": peak, "sample": sample}))


def measured(width: int, height: int, way: str) -> dict[str, object]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--measure", way, "--sizes", f"{width}x{height}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, object] = json.loads(done.stdout)
    return result


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=["1024x768", "2000x1500", "4000x3000"])
    parser.add_argument("--untiled-up-to", type=float, default=4, help="megapixels")
    parser.add_argument("--measure", choices=["strips", "untiled"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = [tuple(map(int, size.split("x"))) for size in arguments.sizes]
    if arguments.measure:
        width, height = sizes[0]
        measure(width, height, arguments.measure)
        return
    print("| size | way | seconds | peak memory | largest difference |")
    print("|---|---|---|---|---|")
    for width, height in sizes:
        results = {"strips": measured(width, height, "strips")}
        if width * height <= arguments.untiled_up_to * 1e6:
            results["untiled"] = measured(width, height, "untiled")
        samples = [torch.tensor(result["sample"]) for result in results.values()]
        difference = f"{float((samples[0] - samples[-1]).abs().max()) * 127.5:.4f} levels"
        for way, result in results.items():
            peak = f"{float(str(result['peak_rss_bytes'])) / 1e9:.2f} GB"
            shown = difference if len(results) == 2 and way == "strips" else ""
            print(f"| {width}×{height} | {way} | {result['seconds']:.1f} | {peak} | {shown} |")


if __name__ == "__main__":
    main()
