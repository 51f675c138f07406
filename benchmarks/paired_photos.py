r"""Data sets with exact ground truth: photos, and the same photos changed in a known way.

    python benchmarks/paired_photos.py photos/train photos/test --change map -o maps/

Both changes keep shapes:

``map``
    Removes texture, as from aerial images to maps: a median filter, eight classes by brightness and
    by the excess of blue and green, a color per class, and dark outlines. The other direction has
    to invent texture.
``dusk``
    Changes light and color, as from day to dusk, in linear light: 2.6 stops less exposure, less
    saturation, a blue cast, and a warm glow of bright areas that are rather red than blue.

Writes ``train/photo`` and ``train/map`` (every second photo each, so that training is unpaired) and
``test/photo`` and ``test/map`` (all photos, as pairs with equal names), as PNG files; with
``--size``, photos are first resized to that short side.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
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

GAMMA = 2.2
LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)  # Of linear light, ITU-R BT.709.
EXPOSURE, SATURATION = 0.16, 0.35
CAST = np.array([0.35, 0.55, 1.0], np.float32)
GLOW, GLOW_RADIUS = np.array([0.9, 0.6, 0.25], np.float32), 2


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


def draw_dusk(photo: Image.Image) -> Image.Image:
    """Return an RGB photo at dusk, of the same size."""
    light = (np.asarray(photo, np.float32) / 255) ** GAMMA
    luminance = (light @ LUMINANCE)[..., None]
    lit = np.clip(3 * (light[..., 0] - light[..., 2]), 0, 1)
    lit *= np.clip(4 * (luminance[..., 0] - 0.15), 0, 1)
    blurred = Image.fromarray((lit * 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(GLOW_RADIUS)
    )
    dusk = EXPOSURE * CAST * (SATURATION * light + (1 - SATURATION) * luminance)
    dusk += GLOW * (np.asarray(blurred, np.float32)[..., None] / 255)
    pixels = np.clip(dusk, 0, 1) ** (1 / GAMMA) * 255
    return Image.fromarray(pixels.round().astype(np.uint8))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {"map": draw_map, "dusk": draw_dusk}


def resize(photo: Image.Image, size: int) -> Image.Image:
    """Resize a photo to a short side of ``size`` pixels; 0 keeps its size."""
    if not size:
        return photo
    scale = size / min(photo.size)
    return photo.resize(
        (round(photo.width * scale), round(photo.height * scale)), Image.Resampling.LANCZOS
    )


def main() -> None:
    """Parse arguments and write the data set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--change", choices=CHANGES, default="map")
    parser.add_argument("--size", type=int, default=0, help="short side, in pixels")
    arguments = parser.parse_args()
    changed = arguments.change
    for part, folder in (("train", arguments.train), ("test", arguments.test)):
        for kind in ("photo", changed):
            (arguments.output / part / kind).mkdir(parents=True, exist_ok=True)
        for index, path in enumerate(list_images(folder)):
            with Image.open(path) as image:
                photo = resize(image.convert("RGB"), arguments.size)
            written = {"photo": photo, changed: CHANGES[changed](photo)}
            if part == "train":
                del written[changed if index % 2 else "photo"]
            for kind, one in written.items():
                one.save(arguments.output / part / kind / f"{path.stem}.png")


if __name__ == "__main__":
    main()
