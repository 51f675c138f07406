"""A data set with exact ground truth: photos, and maps drawn from them.

    python benchmarks/map_pairs.py photos/train photos/test -o maps/

The change keeps shapes and removes texture, as from aerial images to maps: a median filter, eight
classes by brightness and by the excess of blue and green, a color per class, and dark outlines.
The other direction has to invent texture.

Writes ``train/photo`` and ``train/map`` (every second photo each, so that training is unpaired) and
``test/photo`` and ``test/map`` (all photos, as pairs with equal names), as PNG files.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from cyclegan_cli.data.folder import list_images

SMOOTHINGS, FILTER = 3, 5
# Class: color. 0 bright, 1 blue, 2 light green, 3 green, 6 reddish, 7 dark.
PALETTE = np.array(
    [[242, 239, 233], [170, 211, 223], [200, 215, 171], [173, 209, 158],
     [247, 250, 191], [224, 223, 223], [255, 163, 105], [130, 130, 150]], np.float32
)  # fmt: skip
OUTLINE = 0.7  # Factor for the pixels on the border of two classes.


def draw_map(photo: Image.Image) -> Image.Image:
    """Return the map of an RGB photo, of the same size."""
    for _ in range(SMOOTHINGS):
        photo = photo.filter(ImageFilter.MedianFilter(FILTER))
    red, green, blue = np.moveaxis(np.asarray(photo, np.float32), -1, 0)
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    blueness, greenness = blue - (red + green) / 2, green - (red + blue) / 2
    kind = np.select([luminance < 60, luminance < 120, luminance < 180], [7, 3, 2], 0)
    kind[blueness > 18] = 1
    kind[(greenness > 8) & (blueness <= 18)] = 3
    kind[(greenness < -8) & (blueness <= 0)] = 6
    border = np.zeros(kind.shape, bool)
    border[:, 1:] |= kind[:, 1:] != kind[:, :-1]
    border[1:] |= kind[1:] != kind[:-1]
    pixels = PALETTE[kind]
    pixels[border] *= OUTLINE
    return Image.fromarray(pixels.astype(np.uint8))


def main() -> None:
    """Parse arguments and write the data set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    for part, folder in (("train", arguments.train), ("test", arguments.test)):
        for kind in ("photo", "map"):
            (arguments.output / part / kind).mkdir(parents=True, exist_ok=True)
        for index, path in enumerate(list_images(folder)):
            with Image.open(path) as image:
                photo = image.convert("RGB")
            written = {"photo": photo, "map": draw_map(photo)}
            if part == "train":
                del written["map" if index % 2 else "photo"]
            for kind, one in written.items():
                one.save(arguments.output / part / kind / f"{path.stem}.png")


if __name__ == "__main__":
    main()
