"""Photos at two scales, for a training whose crops show both whole scenes and details.

    python benchmarks/two_scales.py train/day -o day/

Copies each photo, and adds a crop of 5/8 of its sides, at a random position, as PNG files.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from PIL import Image

from cyclegan_cli.data.folder import list_images

PART = 5 / 8
SEED = 0


def main() -> None:
    """Parse arguments and write the photos."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    positions = random.Random(SEED)
    for path in list_images(arguments.photos):
        with Image.open(path) as image:
            photo = image.convert("RGB")
        width, height = round(photo.width * PART), round(photo.height * PART)
        left = positions.randint(0, photo.width - width)
        top = positions.randint(0, photo.height - height)
        photo.save(arguments.output / f"{path.stem}.png")
        crop = photo.crop((left, top, left + width, top + height))
        crop.save(arguments.output / f"{path.stem}_crop.png")


if __name__ == "__main__":
    main()
