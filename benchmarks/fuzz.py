"""Damage files at random and see that inspect and the loaders answer with a sentence.

    python benchmarks/fuzz.py FILE... [--minutes 5] [--seed 0]

Every round changes bytes of one of the files (mostly near its beginning or end, where headers are)
or cuts it, then describes it (as text and as JSON, with statistics of all tensors) and, if that
goes well, compares it with itself and loads its generators.
Files may be .safetensors, .pth, .onnx, .pt2 and .xml (its .bin beside it). Anything but a
description or an error of ours is printed with the round's seed, warnings of libraries too, and so
is a round that takes more than 10 seconds or traces more memory than 20 MB and three times the
file.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
import tracemalloc
import warnings
from collections import Counter
from pathlib import Path

from cyclegan_cli.checkpoints.reading import read_model
from cyclegan_cli.checkpoints.store import load_generator
from cyclegan_cli.errors import CycleGANError
from cyclegan_cli.inspection import Request, describe
from cyclegan_cli.inspection.comparison import compare

SLOWEST_SECONDS = 10
EVERYTHING = Request(weights=True, receptive_field=True)
CHECKPOINTS = (".safetensors", ".pth")


def damaged(content: bytes, chance: random.Random) -> bytes:
    """A copy with some bytes changed, and sometimes a part missing or doubled."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        near = chance.randrange(min(len(changed), 4000))
        place = chance.choice((near, len(changed) - 1 - near, chance.randrange(len(changed))))
        changed[place] = chance.choice((0, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    if chance.random() < 0.2:
        first, last = sorted(chance.randrange(len(changed)) for _ in range(2))
        changed[first:last] = b"" if chance.random() < 0.5 else changed[first:last] * 2
    return bytes(changed)


def answer(path: Path) -> str:
    """What the program says of a file: ``described``, ``loaded`` or the name of its error."""
    try:
        summary = describe(path, EVERYTHING)
        facts = summary.to_document()
        str(facts), json.dumps(facts, allow_nan=False)
        if summary.of_checkpoint:
            json.dumps(compare(path, path).to_document(), allow_nan=False)
        if path.suffix not in CHECKPOINTS:
            return "described"
        for direction in read_model(path).directions:
            load_generator(path, direction)
    except CycleGANError as error:
        return type(error).__name__
    return "loaded"


def main() -> int:
    """Parse, damage until the time is over, print what happened."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("error")
    originals = {path: path.read_bytes() for path in arguments.files}
    answers: Counter[str] = Counter()
    end, number = time.monotonic() + 60 * arguments.minutes, arguments.seed
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            chance = random.Random(number)
            original = chance.choice(list(originals))
            path = Path(folder, f"damaged{original.suffix}")
            path.write_bytes(damaged(originals[original], chance))
            if (numbers := original.with_suffix(".bin")).exists():
                shutil.copy(numbers, path.with_suffix(".bin"))
            tracemalloc.start()
            start = time.monotonic()
            try:
                found = answer(path)
            except Exception as error:
                found = f"BUG {type(error).__name__}"
                print(f"seed {number}, {original}: {error!r}")
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            if time.monotonic() - start > SLOWEST_SECONDS:
                found = "BUG slow"
                print(f"seed {number}, {original}: {time.monotonic() - start:.0f} s")
            if peak > 20_000_000 + 3 * path.stat().st_size:
                found = "BUG memory"
                print(f"seed {number}, {original}: {peak:,} bytes")
            answers[f"{original.suffix} {found}"] += 1
            number += 1
    for name, count in sorted(answers.items()):
        print(f"{count:8,}  {name}")
    return int(any("BUG" in name for name in answers))


if __name__ == "__main__":
    raise SystemExit(main())
