"""Fuzz all file readers with randomly damaged files.

    python benchmarks/fuzz.py [FILE...] [--minutes 5] [--seed 0] [--samples FOLDER] [--keep FOLDER]

Every round changes bytes of one sample (mostly near its beginning or end, where headers are), cuts
it or doubles a part, and gives it to all that reads such a file: images are decoded, shrunk and
written again; checkpoints and exported models are described (with statistics of all tensors),
compared with themselves and loaded; a configuration becomes options; a list becomes paths; a run's
tables and health are described.

Without FILE the samples are made: an image of each format, with EXIF, XMP and a colour profile
where the format has them; images whose offsets and counts are loops, fan-outs and repeats; the
files of a tiny training; its exports. ``--samples`` keeps them, and
a round depends on nothing but its seed and the samples.

Anything but a result or an error of ours is reported with its seed, and the damaged file is kept in
``--keep``: other exceptions, warnings of libraries, a process that died, more than 10 seconds, more
memory than 300 MB and ten times the file. The exit code is then 1.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import multiprocessing
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
import torch
from PIL import Image, ImageCms

from cyclegan_cli.checkpoints import locate
from cyclegan_cli.checkpoints.store import load_generator
from cyclegan_cli.config import TrainConfig
from cyclegan_cli.data.bands import read_bands
from cyclegan_cli.data.decode import decode, decode_opaque, pixel_bytes
from cyclegan_cli.data.encode import encode
from cyclegan_cli.data.formats import ARRAY_FORMATS, extension_of, readable_formats
from cyclegan_cli.data.open_image import limit_pixels, probe
from cyclegan_cli.data.volumes import list_parts
from cyclegan_cli.errors import CycleGANError
from cyclegan_cli.inspection import Request, describe
from cyclegan_cli.inspection.comparison import compare
from cyclegan_cli.training.plan import read_config_values
from cyclegan_cli.translation.inputs import PathList

SLOWEST_SECONDS = 10
MOST_BYTES, MOST_BYTES_A_BYTE = 300e6, 10
# Far above what a round may take, to be stopped before the machine is in trouble.
LIMIT_BYTES = 8_000_000_000
MOST_PIXELS = 4_000_000
EVERYTHING = Request(weights=True, receptive_field=True)
CHECKPOINTS = (".safetensors", ".pth")
MODELS = (*CHECKPOINTS, ".onnx", ".pt2", ".xml")
WORDS = (b"", b"nan", b"1e999", b"-1", b"0", b"true", b"[[[[", b"{" * 500, b"9" * 400, b"\xff\xfe")
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'  # noqa: E501


# What is damaged


def make_samples(folder: Path) -> None:
    """Write one sample file of every supported kind."""
    folder.mkdir(parents=True, exist_ok=True)
    make_images(folder)
    make_hostile(folder)
    make_volumes(folder)
    domains = folder / "a", folder / "b"
    for seed, domain in enumerate(domains):
        domain.mkdir(exist_ok=True)
        for number in range(3):
            noise(40, 40, 3 * seed + number).save(domain / f"{number}.png")
    run = folder / "run"
    cyclegan(
        "train", "--domain-a", domains[0], "--domain-b", domains[1], "--run-dir", run, "--steps", 2,
        "--base-channels", 2, "--discriminator-channels", 2, "--residual-blocks", 1, "--load-size",
        36, "--crop-size", 32, "--pool-size", 1, "--device", "cpu", "--quiet",
    )  # fmt: skip
    for target in ("pth", "onnx", "pt2", "openvino"):
        suffix = "xml" if target == "openvino" else target
        cyclegan("export", run, "--format", target, "-o", folder / f"model.{suffix}")
    tensors = torch.load(folder / "model.pth", weights_only=True)
    torch.save(tensors, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    (folder / "paths.list").write_bytes(b"a/0.png\na/1.png\n./b/../b/2.png\n\xff.png\n/\n..\n\n")


def make_hostile(folder: Path) -> None:
    """Crafted files that would take excessive time or memory: loops, fan-outs, repeats."""
    tests = Path(__file__).resolve().parents[1] / "tests"
    sys.path.insert(0, str(tests))
    for name, content in importlib.import_module("hostile_files").files().items():
        (folder / f"hostile {name}").write_bytes(content)


def make_volumes(folder: Path) -> None:
    """Images of DICOM and NIfTI, and arrays."""
    nibabel: Any = importlib.import_module("nibabel")  # Of an extra.
    for path in (Path(__file__).resolve().parents[1] / "tests" / "data" / "dicom").glob("*.dcm"):
        shutil.copy(path, folder)
    values = np.arange(4000, dtype=np.int16).reshape(20, 20, 10)
    for name in ("volume.nii", "volume.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), folder / name)
    np.savez_compressed(folder / "array.npz", values[..., :5])
    np.save(folder / "array.npy", values[..., :5])


def cyclegan(*arguments: object) -> None:
    """Run the command line."""
    command = [sys.executable, "-m", "cyclegan_cli", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """``[height, width, 3]`` of random 8-bit values."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def make_images(folder: Path) -> None:
    """Small images of all writable formats, with all the metadata that they can hold."""
    readable_formats()  # Registers those of the extras.
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x010F: "Maker", 0x0110: "Model", 0x0132: "2020:01:01 00:00:00"})
    exif.get_ifd(0x8769)[0x920A] = 50.0
    exif.get_ifd(0x8825)[1] = "N"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    more = {"exif": exif, "icc_profile": profile, "xmp": XMP}
    frames = {"save_all": True, "append_images": ...}
    kinds: dict[str, tuple[str, str, dict[str, Any]]] = {
        "photo.jpg": ("RGB", "JPEG", more), "cmyk.jpg": ("CMYK", "JPEG", {}),
        "progressive.jpg": ("L", "JPEG", {"progressive": True}),
        "photo.mpo": ("RGB", "MPO", frames), "photo.png": ("RGBA", "PNG", more),
        "palette.png": ("P", "PNG", {"transparency": 0}), "animated.png": ("RGB", "PNG", frames),
        "photo.webp": ("RGBA", "WEBP", more), "animated.webp": ("RGB", "WEBP", frames),
        "photo.tif": ("RGB", "TIFF", {"exif": exif, "icc_profile": profile}),
        "pages.tif": ("RGB", "TIFF", frames),
        "lzw.tif": ("RGB", "TIFF", {"compression": "tiff_lzw"}),
        "jpeg.tif": ("RGB", "TIFF", {"compression": "jpeg"}),
        "fax.tif": ("1", "TIFF", {"compression": "group4"}), "cmyk.tif": ("CMYK", "TIFF", {}),
        "animated.gif": ("P", "GIF", frames), "photo.bmp": ("RGB", "BMP", {}),
        "photo.jp2": ("RGB", "JPEG2000", {}), "photo.avif": ("RGB", "AVIF", more),
        "photo.heic": ("RGB", "HEIF", more), "photo.ppm": ("RGB", "PPM", {}),
        "photo.tga": ("RGBA", "TGA", {"compression": "tga_rle"}), "photo.pcx": ("P", "PCX", {}),
        "photo.sgi": ("RGB", "SGI", {}), "photo.ico": ("RGBA", "ICO", {}),
        "photo.dds": ("RGBA", "DDS", {}), "photo.qoi": ("RGB", "QOI", {}),
    }  # fmt: skip
    for name, (mode, kind, options) in kinds.items():
        if kind not in Image.SAVE:
            continue
        if options is frames:
            # Anew for each format, as writers of one leave in an image what confuses another's.
            options = options | {"append_images": [noise(24, 16, 1), noise(24, 16, 1)]}
        noise(24, 16).convert(mode).save(folder / name, kind, **options)
    wide = np.random.default_rng(0).integers(0, 65536, (16, 24, 3), dtype=np.uint16)
    (folder / "deep.png").write_bytes(imagecodecs.png_encode(wide))
    (folder / "deep.jp2").write_bytes(imagecodecs.jpeg2k_encode(wide))
    for compression in (None, "lzw", "zlib", "zstd", "lzma", "packbits", "jpeg2000"):
        path = folder / f"deep-{compression}.tif"
        tifffile.imwrite(path, wide, photometric="rgb", compression=compression)
    tifffile.imwrite(folder / "tiles.tif", wide, photometric="rgb", tile=(16, 16))
    tifffile.imwrite(folder / "big.tif", wide, photometric="rgb", bigtiff=True)


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Return a copy with changed bytes, and sometimes a removed, repeated or replaced part."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        near = chance.randrange(min(len(changed), chance.choice((64, 512, 4000))))
        place = chance.choice((near, len(changed) - 1 - near, chance.randrange(len(changed))))
        changed[place] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    kind = chance.random()
    first, last = sorted(chance.randrange(len(changed)) for _ in range(2))
    if kind < 0.1:
        changed[first:last] = b""
    elif kind < 0.2:
        changed[first:last] = changed[first:last] * 2
    elif kind < 0.25:
        changed[first : first + 4] = struct.pack(
            chance.choice("<>") + "I", chance.choice((0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 65536))
        )
    elif kind < 0.3:
        changed[first : first + 8] = chance.choice(WORDS)
    return bytes(changed)


# Who reads it


def read_image(path: Path) -> str:
    """Decode an image in every way, and encode it again."""
    describe(path, EVERYTHING).to_document()
    probe(path), pixel_bytes(path)
    decode_opaque(path, shrink_to=8)
    image = decode(path)
    stream = io.BytesIO()
    encode(image, stream, "PNG" if image.animation else "TIFF")
    again = decode(io.BytesIO(stream.getvalue()))
    shapes = [[frame.shape for frame in one.frames] for one in (image, again)]
    assert shapes[0] == shapes[1], f"frames of {shapes[0]} came back as {shapes[1]}"
    return "translated"


def read_volume(path: Path) -> str:
    """Describe a volume or array, and read its first slices."""
    describe(path, EVERYTHING).to_document()
    probe(path)
    for part in list_parts([path])[:3]:
        read_bands(part, str(part))
    return "read"


def read_model(path: Path) -> str:
    """Describe a checkpoint or an exported model, compare it with itself, and load it."""
    summary = describe(path, EVERYTHING)
    facts = summary.to_document()
    str(facts), json.dumps(facts, allow_nan=False)
    if summary.is_checkpoint:
        json.dumps(compare(path, path).to_document(), allow_nan=False)
    if path.suffix not in CHECKPOINTS:
        return "described"
    checkpoint = locate.read_checkpoint(path)
    for direction in checkpoint.info.directions:
        load_generator(checkpoint, direction)
    return "loaded"


def read_options(path: Path) -> str:
    """Read a configuration."""
    TrainConfig(**read_config_values(path))
    return "configured"


def read_list(path: Path) -> str:
    """Read a list of paths, separated by newlines or NUL bytes."""
    for null in (False, True):
        with path.open("rb") as stream:
            list(PathList(stream, path.name, null))
    return "listed"


def read_run(path: Path) -> str:
    """Inspect a run directory that contains a damaged table or report."""
    facts = describe(path.parent, EVERYTHING).to_document()
    json.dumps(facts, allow_nan=False)
    return "described"


def reader_of(sample: Path) -> Callable[[Path], str] | None:
    """Return the reader of a sample; None for its companion files."""
    if sample.suffix in MODELS:
        return read_model
    if extension_of(sample.name) in ARRAY_FORMATS:
        return read_volume
    if sample.suffix in (".toml", ".list"):
        return read_options if sample.suffix == ".toml" else read_list
    if sample.name in ("metrics.csv", "validation.csv", "health.json"):
        return read_run
    return None if sample.suffix in (".bin", ".html", ".lock", ".json", ".csv") else read_image


def place_for(sample: Path, folder: Path) -> Path:
    """Return the path for a damaged copy, beside copies of its companion files."""
    if sample.name in ("metrics.csv", "validation.csv", "health.json"):
        shutil.copytree(sample.parent, folder / "run", dirs_exist_ok=True)
        return folder / "run" / sample.name
    if (numbers := sample.with_suffix(".bin")).exists():
        shutil.copy(numbers, folder / "damaged.bin")
    return folder / f"damaged{extension_of(sample.name)}"


# Rounds


def one_round(number: int, samples: list[Path]) -> tuple[str, str]:
    """Damage a sample and read it; returns a description and the outcome."""
    chance = random.Random(number)
    sample = chance.choice(samples)
    read = reader_of(sample)
    assert read is not None
    with tempfile.TemporaryDirectory() as folder:
        path = place_for(sample, Path(folder))
        path.write_bytes(damaged(sample.read_bytes(), chance))
        before, start = forget_peak(), time.monotonic()
        try:
            found = read(path)
        except CycleGANError as error:
            found = type(error).__name__
        except Exception as error:
            found = f"BUG {type(error).__name__}: {error}"
        seconds, grown = time.monotonic() - start, peak() - before
        if seconds > SLOWEST_SECONDS:
            found = f"BUG {seconds:.0f} seconds, {found}"
        if grown > MOST_BYTES + MOST_BYTES_A_BYTE * path.stat().st_size:
            found = f"BUG {grown / 1e6:,.0f} MB, {found}"
    return sample.name, found


def forget_peak() -> int:
    """Reset the peak memory of this process on Linux; returns the current usage in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """Peak memory since then, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def work(connection: Connection, numbers: range, samples: list[Path]) -> None:
    """Run rounds, and report the start and end of each."""
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    warnings.simplefilter("error")
    limit_pixels(MOST_PIXELS)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # Decoders of libtiff print what they find.
    for number in numbers:
        connection.send((number, *one_round(number, samples)))


def rounds(first: int, minutes: float, samples: list[Path]) -> list[tuple[int, str, str]]:
    """Run rounds in a process that is replaced when it crashes or hangs."""
    context = multiprocessing.get_context("fork")
    results: list[tuple[int, str, str]] = []
    end, number = time.monotonic() + 60 * minutes, first
    while time.monotonic() < end:
        ours, theirs = context.Pipe(duplex=False)
        numbers = range(number, number + 1_000_000)
        process = context.Process(target=work, args=(theirs, numbers, samples), daemon=True)
        process.start()
        theirs.close()
        failure = ""
        while not failure and time.monotonic() < end:
            if not ours.poll(6 * SLOWEST_SECONDS):
                failure = "BUG hangs"
                break
            try:
                results.append(ours.recv())
            except EOFError:
                process.join()
                failure = f"BUG died with {process.exitcode}"
            else:
                number = results[-1][0] + 1
        process.kill()
        process.join()
        if failure:
            name = random.Random(number).choice(samples).name
            results.append((number, name, failure))
            number += 1
    return results


def keep(number: int, samples: list[Path], folder: Path) -> None:
    """Write the damaged file of a round."""
    chance = random.Random(number)
    sample = chance.choice(samples)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{number}-{sample.name}").write_bytes(damaged(sample.read_bytes(), chance))


def main() -> int:
    """Parse arguments, fuzz until the time is up, and print a summary."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the first round; they count up")
    parser.add_argument("--samples", type=Path, help="made if missing; default: a temporary folder")
    parser.add_argument("--keep", type=Path, default=Path("fuzzed"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.samples or Path(temporary)
        if not arguments.files and not (folder / "paths.list").exists():
            make_samples(folder)
        found = arguments.files or [p for p in sorted(folder.rglob("*")) if p.is_file()]
        samples = [path for path in found if path.stat().st_size and reader_of(path)]
        results = rounds(arguments.seed, arguments.minutes, samples)
        bugs = [result for result in results if "BUG" in result[2]]
        for number, name, what in bugs:
            keep(number, samples, arguments.keep)
            print(f"seed {number}, {name}: {what}")
    answers = Counter(f"{Path(name).suffix} {what.split(':')[0]}" for _, name, what in results)
    for answer, count in sorted(answers.items()):
        print(f"{count:8,}  {answer}")
    return int(bool(bugs))


if __name__ == "__main__":
    raise SystemExit(main())
