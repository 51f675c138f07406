"""Compare ways of training with masks on emoji pasted on photos, where the truth is known.

    python benchmarks/masked_training.py EMOJI PHOTOS_A PHOTOS_B

EMOJI has train/noto, train/fluent, test/noto and test/fluent, images on white; the test images of
both styles are pairs. Domain A is noto on photos of PHOTOS_A, domain B is fluent on photos of
PHOTOS_B. A perfect model changes the style of the emoji and nothing else. Prints for each way, on
test images: mean absolute differences in 8-bit pixel values.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from cyclegan_cli import Translator
from cyclegan_cli.config import TrainConfig
from cyclegan_cli.models.cyclegan import RealImages
from cyclegan_cli.training.trainer import train

SIZE, SIDES = 64, (28, 44)
WHITE_TOLERANCE = 24
# Pixels across a background before it is enlarged: small networks learn to copy smooth images in
# few steps, so that a change of the background is not hidden by errors of reconstruction.
GROUND_DETAIL = 6
# Weights of the losses outside of the masks; None trains without masks.
WAYS: dict[str, float | None] = {
    "no masks": None,
    "hidden, weight 1": 1.0,
    "hidden, weight 10": 10.0,
    "hidden, weight 3": 3.0,
    "composited, weight 3": 3.0,
}


def cut_out(path: Path) -> Image.Image:
    """Return an emoji whose white surroundings are transparent."""
    image = Image.open(path).convert("RGB")
    framed = Image.new("RGB", (image.width + 2, image.height + 2), "white")
    framed.paste(image, (1, 1))
    marker = (255, 0, 254)
    ImageDraw.floodfill(framed, (0, 0), marker, thresh=WHITE_TOLERANCE)
    inside = (np.asarray(framed)[1:-1, 1:-1] != marker).any(axis=2)
    image.putalpha(Image.fromarray(inside.astype(np.uint8) * 255))
    return image


def pasted(emoji: Image.Image, photo: Path, seed: str) -> tuple[Image.Image, Image.Image]:
    """Return an emoji on a crop of a photo, and its mask; place and crop depend on the seed."""
    chance = random.Random(seed)
    ground = Image.open(photo).convert("RGB")
    side = chance.randint(min(ground.size) // 3, min(ground.size))
    left = chance.randint(0, ground.width - side)
    top = chance.randint(0, ground.height - side)
    image = ground.crop((left, top, left + side, top + side))
    image = image.resize((GROUND_DETAIL, GROUND_DETAIL), Image.Resampling.BOX)
    image = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    width = chance.randint(*SIDES)
    small = emoji.resize((width, width), Image.Resampling.BOX)
    place = chance.randint(0, SIZE - width), chance.randint(0, SIZE - width)
    mask = Image.new("L", (SIZE, SIZE))
    mask.paste(small.getchannel("A").point(lambda v: 255 if v > 127 else 0), place)
    layer = Image.new("RGB", (SIZE, SIZE))
    layer.paste(small.convert("RGB"), place)
    image.paste(layer, (0, 0), mask)
    return image, mask


def draw_domain(folder: Path, name: str, emoji: list[Path], photos: list[Path]) -> None:
    """Write images and masks of a domain."""
    for kind in ("images", "masks"):
        (folder / kind / name).mkdir(parents=True)
    for index, path in enumerate(emoji):
        photo = photos[index % len(photos)]
        image, mask = pasted(cut_out(path), photo, f"{name}/{index}")
        image.save(folder / "images" / name / f"{path.stem}.png")
        mask.save(folder / "masks" / name / f"{path.stem}.png")


def files(folder: Path) -> list[Path]:
    """Return the files of a folder, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_file())


def trained(folder: Path, way: str, seed: int, options: argparse.Namespace) -> Translator:
    """Train one way, and return the translator from A to B."""
    weight = WAYS[way]
    masks: dict[str, Any] = {} if weight is None else {
        "mask_a": folder / "masks/a", "mask_b": folder / "masks/b", "mask_weight": weight,
    }  # fmt: skip
    config = TrainConfig(
        domain_a=folder / "images/a", domain_b=folder / "images/b", load_size=SIZE,
        crop_size=SIZE, base_channels=options.channels, discriminator_channels=options.channels,
        residual_blocks=2, steps=options.steps, decay_steps=options.steps // 3, ema=0.98,
        learning_rate=options.learning_rate, seed=seed, device="cpu", precision="fp32",
        val_fraction=0.0, workers=1, cache="ram",
        run_dir=folder / f"{way.replace(' ', '_')}-{seed}", **masks,
    )  # fmt: skip
    hide = RealImages.hide_outside
    if way.startswith("composited"):
        # The alternative: generated images are pasted over the input, real images stay whole.
        def over_input(self: RealImages, images: torch.Tensor) -> torch.Tensor:
            if self.mask is None or images is self.pixels:
                return images
            return torch.where(self.mask, images, self.pixels.to(images.dtype))

        RealImages.hide_outside = over_input  # type: ignore[method-assign]
    try:
        return Translator.load(train(config).parent, "a2b", "cpu")
    finally:
        RealImages.hide_outside = hide  # type: ignore[method-assign]


def measure(translator: Translator, emoji: Path, photos: list[Path], count: int) -> list[float]:
    """Return the background's change, the emoji's change, and its distance to the truth."""
    totals = np.zeros(4)
    for index, path in enumerate(files(emoji / "test/noto")[:count]):
        photo, seed = photos[index % len(photos)], f"test/{index}"
        image, mask = pasted(cut_out(path), photo, seed)
        truth, other = pasted(cut_out(emoji / "test/fluent" / path.name), photo, seed)
        source, goal = np.asarray(image), np.asarray(truth).astype(float)
        output = translator(source).astype(float)
        inside = np.asarray(mask) > 0
        both = inside & (np.asarray(other) > 0)
        totals += [
            np.abs(output - source)[~inside].mean(), np.abs(output - source)[inside].mean(),
            np.abs(output - goal)[both].mean(), np.abs(source - goal)[both].mean(),
        ]  # fmt: skip
    return list(totals / count)


def main() -> None:
    """Train each way and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("emoji", type=Path)
    parser.add_argument("photos_a", type=Path)
    parser.add_argument("photos_b", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--test-images", type=int, default=100)
    parser.add_argument("--way", action="append", choices=WAYS, help="Default: all.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    photos_a, photos_b = files(options.photos_a), files(options.photos_b)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_domain(folder, "a", files(options.emoji / "train/noto"), photos_a)
        draw_domain(folder, "b", files(options.emoji / "train/fluent"), photos_b)
        print(
            "| training | background | emoji, change | emoji, to the truth | input to the truth |"
        )
        print("|---|---|---|---|---|")
        for way in options.way or WAYS:
            for seed in range(options.seeds):
                translator = trained(folder, way, seed, options)
                found = measure(translator, options.emoji, photos_a, options.test_images)
                print(f"| {way} | " + " | ".join(f"{v:.1f}" for v in found) + " |", flush=True)


if __name__ == "__main__":
    main()
