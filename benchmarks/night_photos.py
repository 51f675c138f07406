"""The night photos that the pretrained model was trained on.

    python benchmarks/night_photos.py train/night -o nights/

Copies the photos whose names are in ``night_photos.txt`` (those without stripes of sensor noise,
and fewer near duplicates) as PNG files. Photos with a mean luminance above 40 are exposed less: in
linear light, so that the luminance becomes ``40 * (luminance / 40) ** 0.2``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cyclegan_cli.data.image import LUMA
from cyclegan_cli.data.masks import from_linear, to_linear

NAMES = Path(__file__).with_suffix(".txt")
BRIGHTEST, REST = 40.0, 0.2
HALVINGS = 30  # Of the interval that contains the factor of the exposure.


def luminance(values: NDArray[np.float64]) -> float:
    """Mean luminance in 8-bit pixel values of sRGB values ``[H, W, 3]`` in [0, 1]."""
    return float((values @ np.array(LUMA)).mean() * 255)


def expose(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sRGB values ``[H, W, 3]`` in [0, 1], exposed less if they are bright."""
    before = luminance(values)
    if before <= BRIGHTEST:
        return values
    wanted = BRIGHTEST * (before / BRIGHTEST) ** REST
    light, low, high = to_linear(values), 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        too_bright = luminance(from_linear(light * middle)) > wanted
        low, high = (low, middle) if too_bright else (middle, high)
    return from_linear(light * low)


def main() -> None:
    """Parse arguments and write the photos."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in NAMES.read_text().split():
        with Image.open(arguments.photos / name) as photo:
            values = np.asarray(photo.convert("RGB"), np.float64) / 255
        pixels = (expose(values) * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(arguments.output / f"{Path(name).stem}.png")


if __name__ == "__main__":
    main()
