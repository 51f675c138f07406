"""Images per second, from file to file: a textbook loop, ONNX Runtime, and this package.

    python benchmarks/translate.py [--sizes 256x256,1024x768,4000x3000] [--json FILE]

Each program runs in its own process, whose peak memory is measured. They take turns on the same
folder of JPEGs, and the median of all rounds is reported. The network has 64 channels and 9 blocks.

- textbook: stock modules, eager, fp32, NCHW; Pillow decodes, the network runs, Pillow encodes,
  one image after another.
- onnxruntime: the same loop around the exported model.
- cyclegan: ``cyclegan translate``, its start-up without Python's imports included.

The share is relative to the arithmetic of direct convolutions at the peak speed of convolutions on
this machine; Winograd convolutions need less arithmetic and can exceed it.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cyclegan_cli.checkpoints.header import ModelInfo
from cyclegan_cli.checkpoints.store import load_generator, save_generators
from cyclegan_cli.config import GeneratorConfig
from cyclegan_cli.data.tensors import array_to_tensor, tensor_to_array
from cyclegan_cli.models.shapes import generator_flops
from large_images import image, trained_like_generator
from textbook import generator_like

WAYS = ("textbook", "onnxruntime", "cyclegan")
CONVOLUTION = (256, 64)  # Channels and side of the one that the peak is measured with.


def in_textbook_manner(folder: Path, precision: str) -> Callable[[], None]:
    """Decode, translate, encode, with stock modules."""
    del precision
    network = generator_like(load_generator(folder / "model.safetensors", "a2b")[0])
    return _loop(folder, lambda images: network(images))


def in_onnxruntime(folder: Path, precision: str) -> Callable[[], None]:
    """Decode, translate, encode, with ONNX Runtime and the exported model."""
    del precision
    import onnxruntime  # noqa: PLC0415

    session = onnxruntime.InferenceSession(folder / "model.onnx")
    return _loop(
        folder,
        lambda images: torch.from_numpy(session.run(None, {"picture": images.numpy()})[0]),
    )


def _loop(folder: Path, network: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], None]:
    @torch.inference_mode()
    def work() -> None:
        for path in sorted((folder / "in").iterdir()):
            translated = network(array_to_tensor(np.asarray(Image.open(path).convert("RGB"))))
            Image.fromarray(tensor_to_array(translated)).save(folder / "out" / path.name)

    return work


def in_cyclegan(folder: Path, precision: str) -> Callable[[], None]:
    """Translate with this package."""
    from cyclegan_cli.cli.app import app  # noqa: PLC0415

    command = [
        "translate", str(folder / "in"), "-o", str(folder / "out"), "--overwrite", "--quiet",
        "--checkpoint", str(folder / "model.safetensors"), "--precision", precision,
        "--device", "cpu",
    ]  # fmt: skip
    return lambda: app(command, standalone_mode=False)


def serve(way: str, folder: Path, precision: str) -> None:
    """Per line on stdin, translate the folder once and print seconds and peak memory."""
    prepare = {
        "textbook": in_textbook_manner, "onnxruntime": in_onnxruntime, "cyclegan": in_cyclegan
    }[way]  # fmt: skip
    work = prepare(folder, precision)
    for _ in sys.stdin:
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "peak_rss_bytes": peak}), flush=True)


def make_folder(folder: Path, width: int, height: int, count: int) -> None:
    """Write images, a checkpoint, and its export."""
    (folder / "in").mkdir()
    (folder / "out").mkdir()
    photo = Image.fromarray(image(width, height))
    for number in range(count):
        photo.save(folder / "in" / f"{number:03}.jpg")
    generator = trained_like_generator()
    info = ModelInfo("model", generator.config, "a", "b", {}, {}, ("a2b",))
    checkpoint = folder / "model.safetensors"
    save_generators(checkpoint, {"a2b": generator}, info)
    command = [sys.executable, "-m", "cyclegan_cli", "export", str(checkpoint), "-o"]
    subprocess.run([*command, str(folder / "model.onnx")], check=True, capture_output=True)


def alternate(folder: Path, ways: list[str], precision: str, rounds: int) -> dict[str, Any]:
    """Median seconds and peak memory of each implementation."""
    workers = {
        way: subprocess.Popen(
            [sys.executable, __file__, "--serve", way, "--folder", str(folder),
             "--precision", precision],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for way in ways
    }  # fmt: skip
    answers: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, worker in workers.items():
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
            line = worker.stdout.readline()
            if line:  # Else it has died, of memory perhaps.
                answers[way].append(json.loads(line))
    for worker in workers.values():
        worker.communicate()
    return {
        way: {
            "seconds": statistics.median(answer["seconds"] for answer in found),
            "peak_rss_bytes": int(found[-1]["peak_rss_bytes"]),
        }
        for way, found in answers.items()
        if found
    }


@torch.inference_mode()
def convolution_peak() -> float:
    """Peak FLOP/s of the direct fp32 convolution of the residual blocks."""
    channels, side = CONVOLUTION
    x = torch.randn(1, channels, side + 2, side + 2).contiguous(memory_format=torch.channels_last)
    conv = torch.nn.Conv2d(channels, channels, 3).to(memory_format=torch.channels_last)
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        conv(x)
        seconds.append(time.perf_counter() - start)
    return 2 * channels**2 * 9 * side**2 / min(seconds)


def main() -> None:
    """Parse arguments, run the benchmark and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sizes", default="256x256,1024x768,4000x3000")
    parser.add_argument("--counts", default="64,16,1", help="images of each size")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("--serve", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.folder, arguments.precision)
        return
    peak, rows = convolution_peak(), []
    print(f"convolution peak: {peak / 1e9:.0f} GFLOP/s, {torch.get_num_threads()} threads")
    print("| size | way | images/s | ratio | peak memory | share of the convolution peak |")
    print("|---|---|---|---|---|---|")
    for size, count in zip(arguments.sizes.split(","), arguments.counts.split(","), strict=False):
        width, height = map(int, size.split("x"))
        with tempfile.TemporaryDirectory() as folder:
            make_folder(Path(folder), width, height, int(count))
            found = alternate(
                Path(folder), arguments.ways.split(","), arguments.precision, arguments.rounds
            )
        for way, numbers in found.items():
            speed = int(count) / numbers["seconds"]
            ratio = found["textbook"]["seconds"] / numbers["seconds"] if "textbook" in found else 0
            precision = arguments.precision if way == "cyclegan" else "fp32"
            rows.append({
                "name": way, "size": size, "precision": precision, "pictures_per_second": speed,
                "ratio_to_textbook": ratio, "peak_rss_bytes": numbers["peak_rss_bytes"],
            })  # fmt: skip
            share = speed * generator_flops(GeneratorConfig(), height, width) / peak
            print(
                f"| {size} | {way} | {speed:.4g} | {ratio:.2f} "
                f"| {numbers['peak_rss_bytes'] / 1e9:.2f} GB | {share:.0%} |",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
