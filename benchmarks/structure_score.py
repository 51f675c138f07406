"""Measure what the structure score sees: known shifts, rotations, blurs and color changes.

    python benchmarks/structure_score.py FOLDER

Prints the table of docs/labels.md: mean, smallest and largest score over the images of a folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from cyclegan_cli import Translator
from cyclegan_cli.metrics.structure import structure_score

SHORT_SIDE, MARGIN = 296, 20  # 256 pixels remain of the short side.
Change = Callable[[Image.Image], Image.Image]


def cropped(image: Image.Image, right: float = 0, down: float = 0) -> Image.Image:
    """Cut the margin off, moved by a number of pixels."""
    width, height = image.width - 2 * MARGIN, image.height - 2 * MARGIN
    corner = (MARGIN + right, MARGIN + down)
    return image.transform(
        (width, height), Image.Transform.AFFINE, (1, 0, corner[0], 0, 1, corner[1]),
        Image.Resampling.BICUBIC,
    )  # fmt: skip


def mapped(image: Image.Image, change: Callable[[np.ndarray], np.ndarray]) -> Image.Image:
    """Apply a function to the values in [0, 1]."""
    values = change(np.asarray(image) / 255).clip(0, 1)
    return Image.fromarray((values * 255).round().astype(np.uint8))


def scaled(image: Image.Image, factor: float) -> Image.Image:
    """Scale the image about its center."""
    width, height = image.size
    return image.transform(
        image.size, Image.Transform.AFFINE,
        (1 / factor, 0, width / 2 * (1 - 1 / factor), 0, 1 / factor, height / 2 * (1 - 1 / factor)),
        Image.Resampling.BICUBIC,
    )  # fmt: skip


def moved_part(image: Image.Image, share: float) -> Image.Image:
    """Copy the square in the middle, with a share of the area, 12 pixels to the right."""
    side = round((image.width * image.height * share) ** 0.5)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    result = image.copy()
    result.paste(image.crop((left, top, left + side, top + side)), (left + 12, top))
    return result


def noisy(image: Image.Image, sigma: float) -> Image.Image:
    """Add Gaussian noise."""
    noise = np.random.default_rng(0).normal(0, sigma / 255, (image.height, image.width, 3))
    return mapped(image, lambda values: values + noise)


CHANGES: dict[str, Change] = {
    "none": lambda image: image,
    "gamma 0.5": lambda image: mapped(image, lambda v: v**0.5),
    "gamma 2.5": lambda image: mapped(image, lambda v: v**2.5),
    "contrast times 0.3": lambda image: mapped(image, lambda v: 0.35 + 0.3 * (v - 0.5)),
    "negative": ImageOps.invert,
    "channels exchanged": lambda image: mapped(image, lambda v: v[..., [1, 2, 0]]),
    "noise, sigma 10 of 255": lambda image: noisy(image, 10),
    "noise, sigma 30 of 255": lambda image: noisy(image, 30),
    "blur, sigma 1": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "blur, sigma 2": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    "blur, sigma 4": lambda image: image.filter(ImageFilter.GaussianBlur(4)),
    "rotation by 0.5 degrees": lambda image: image.rotate(0.5, Image.Resampling.BICUBIC),
    "rotation by 1 degree": lambda image: image.rotate(1, Image.Resampling.BICUBIC),
    "rotation by 2 degrees": lambda image: image.rotate(2, Image.Resampling.BICUBIC),
    "rotation by 5 degrees": lambda image: image.rotate(5, Image.Resampling.BICUBIC),
    "scale 1.01": lambda image: scaled(image, 1.01),
    "scale 1.03": lambda image: scaled(image, 1.03),
    "scale 1.1": lambda image: scaled(image, 1.1),
    "a part of 1 % moved by 12 pixels": lambda image: moved_part(image, 0.01),
    "a part of 5 % moved by 12 pixels": lambda image: moved_part(image, 0.05),
    "a part of 25 % moved by 12 pixels": lambda image: moved_part(image, 0.25),
    "mirrored": ImageOps.mirror,
}
SHIFTS = (0.5, 1, 2, 4, 8, 16)


def scores_by_change(
    photos: list[Image.Image], translator: Translator
) -> Iterator[tuple[str, list[float]]]:
    """Yield the scores of all photos for each change."""
    for name, change in CHANGES.items():
        yield name, [score(photo, cropped(change(photo))) for photo in photos]
    for shift in SHIFTS:
        yield (
            f"shift by {shift:g} of 256 pixels",
            [score(photo, cropped(photo, shift)) for photo in photos],
        )
    others = photos[len(photos) // 2 :] + photos[: len(photos) // 2]
    pairs = zip(photos, others, strict=True)
    yield "another photo", [score(one, cropped(other.resize(one.size))) for one, other in pairs]
    translated = [translator(photo) for photo in photos]
    target = translator.target
    for shift in (0, 2, 4, 8):
        moved = [cropped(image, shift) for image in translated]
        pairs = zip(photos, moved, strict=True)
        name = f"translated to {target}" + (f", shift by {shift}" if shift else "")
        yield name, [score(photo, image) for photo, image in pairs]


def score(photo: Image.Image, other: Image.Image) -> float:
    """Return the score of a changed and cropped photo."""
    return structure_score(np.asarray(cropped(photo)), np.asarray(other))


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoint", default="day2night")
    parser.add_argument("--images", type=int, default=20)
    options = parser.parse_args()
    files = sorted(path for path in options.folder.iterdir() if path.is_file())
    photos = []
    for file in files[:: max(len(files) // options.images, 1)][: options.images]:
        image = Image.open(file).convert("RGB")
        scale = SHORT_SIDE / min(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        photos.append(image.resize(size, Image.Resampling.BOX))
    print("| change | mean | smallest | largest |\n|---|---|---|---|")
    for name, scores in scores_by_change(photos, Translator.load(options.checkpoint)):
        print(f"| {name} | {np.mean(scores):.2f} | {min(scores):.2f} | {max(scores):.2f} |")


if __name__ == "__main__":
    main()
