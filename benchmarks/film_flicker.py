"""Measure the flicker of translated videos for each ``--smooth``, on videos of known motion.

A camera pans and zooms over photos, so for each pixel of a frame its position in the next one is
known. Noise, a passing object and a drifting exposure change the statistics of frames as in real
videos. Every row of the table is one setting, over all videos:

- ``luminance``, ``color``: change of the mean luminance, and of the mean of each channel relative
  to it, from frame to frame, divided by that of the input. At most 1.2 is the target.
- ``aligned``: the same change of luminance after the motion is undone, in 1/255: flicker that no
  content explains.
- ``warping``: mean difference of a pixel to the same point of the scene in the next frame, in
  1/255, divided by that of the input.
- ``SWD``: distance of single frames to photos of the target domain, relative to frame by frame.

    python benchmarks/film_flicker.py DAY_PHOTOS NIGHT_PHOTOS
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from cyclegan_cli.checkpoints.locate import default_checkpoint
from cyclegan_cli.config import Smoothing
from cyclegan_cli.data.image import LUMA, PixelArray
from cyclegan_cli.metrics.distances import SlicedWasserstein
from cyclegan_cli.metrics.loading import center_square, load_squares
from cyclegan_cli.translation.animations import FrameSmoother
from cyclegan_cli.translation.translator import Translator, TranslatorOptions

WIDTH, HEIGHT = 320, 180
MARGIN = 16  # Pixels at the borders that are not compared.
SETTINGS: tuple[Smoothing, ...] = (0.0, 0.5, 0.8, 0.9, 0.95, "shot")


@dataclass(frozen=True)
class Film:
    """A video of known motion.

    Attributes:
        name: Its motion.
        frames: ``[H, W, 3]`` uint8 each.
        centers: Position of the middle of each frame in the photo, in pixels.
        scales: Pixels of the photo per pixel of each frame.
        changes: Pixels of each frame, ``[H, W]``, that do not belong to the photo.
    """

    name: str
    frames: list[PixelArray]
    centers: list[tuple[float, float]]
    scales: list[float]
    changes: list[PixelArray]

    def to_previous(self, index: int) -> Tensor:
        """Return for each pixel of a frame its position in the frame before: ``[1, H, W, 2]``."""
        x, y = _in_photo(self.centers[index], self.scales[index])
        (cx, cy), scale = self.centers[index - 1], self.scales[index - 1]
        return _grid((x - cx) / scale, (y - cy) / scale, WIDTH, HEIGHT)


def _in_photo(center: tuple[float, float], scale: float) -> tuple[Tensor, Tensor]:
    y, x = torch.meshgrid(
        torch.arange(HEIGHT) - (HEIGHT - 1) / 2, torch.arange(WIDTH) - (WIDTH - 1) / 2,
        indexing="ij",
    )  # fmt: skip
    return center[0] + scale * x, center[1] + scale * y


def _grid(x: Tensor, y: Tensor, width: int, height: int) -> Tensor:
    """Return positions relative to the middle in the coordinates of ``grid_sample``."""
    return torch.stack((2 * x / width, 2 * y / height), dim=-1)[None].float()


def make_film(name: str, photo: PixelArray, count: int, random: np.random.Generator) -> Film:
    """Return a video of ``count`` frames over a photo.

    Args:
        name: ``pan``, ``zoom``, ``object`` or ``exposure``.
        photo: ``[H, W, 3]`` uint8.
        count: Number of frames.
        random: For noise.
    """
    source = torch.from_numpy(photo).permute(2, 0, 1)[None].float()
    height, width = photo.shape[:2]
    share = np.linspace(-1, 1, count)
    room_x, room_y = (width - WIDTH) / 2 - 2, (height - HEIGHT) / 2 - 2
    moves = {"pan": 1.0, "zoom": 0.0, "object": 0.1, "exposure": 0.3}[name]
    centers = [(moves * room_x * s, moves * room_y * np.sin(2 * s)) for s in share]
    scales = [1.0 - 0.2 * (s + 1) if name == "zoom" else 1.0 for s in share]
    frames, changes = [], []
    for index, (center, scale) in enumerate(zip(centers, scales, strict=True)):
        x, y = _in_photo(center, scale)
        sampled = F.grid_sample(source, _grid(x, y, width, height), "bicubic", "border", False)
        frame = sampled[0].permute(1, 2, 0).numpy()
        mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
        if name == "object":
            left = int(-80 + (WIDTH + 80) * index / count)
            mask[60:140, max(left, 0) : max(left + 80, 0)] = True
            frame[mask] = (250, 240, 220)
        if name == "exposure":
            frame = frame * (1 + 0.1 * np.sin(index / 3))
        noisy = frame + random.normal(0, 1.5, frame.shape)
        frames.append(np.rint(noisy.clip(0, 255)).astype(np.uint8))
        changes.append(mask)
    return Film(name, frames, centers, scales, changes)


@dataclass(frozen=True)
class Flicker:
    """Changes between neighboring frames: one row per pair.

    Attributes:
        luminance: Absolute change of the mean luminance.
        color: Mean absolute change of the channels relative to the luminance.
        aligned: Absolute change of the mean luminance after the motion is undone.
        warping: Mean absolute difference of pixels after the motion is undone.
    """

    luminance: float
    color: float
    aligned: float
    warping: float


def changes_of(film: Film, frames: list[PixelArray]) -> Iterator[Flicker]:
    """Yield the changes from frame to frame.

    Args:
        film: The video whose motion these frames have.
        frames: ``[H, W, 3]`` uint8 each: its own, or their translations.
    """
    weights = np.array(LUMA)
    for index in range(1, len(frames)):
        before, after = (frames[i].astype(np.float32) for i in (index - 1, index))
        step = after.mean(axis=(0, 1)) - before.mean(axis=(0, 1))
        luminance = float(step @ weights)
        grid = film.to_previous(index)
        stacked = torch.from_numpy(np.dstack([before, film.changes[index - 1] * 255.0]))
        warped = F.grid_sample(
            stacked.permute(2, 0, 1)[None].float(), grid, "bilinear", "zeros", False
        )[0].permute(1, 2, 0)
        inside = (grid[0].abs() < 1 - 2 * MARGIN / HEIGHT).all(dim=-1).numpy()
        valid = inside & (warped[..., 3].numpy() == 0) & ~film.changes[index]
        difference = (after - warped[..., :3].numpy())[valid]
        yield Flicker(
            abs(luminance),
            float(np.abs(step - luminance).mean()),
            abs(float(difference.mean(axis=0) @ weights)),
            float(np.abs(difference).mean()),
        )


def mean_of(flickers: list[Flicker]) -> Flicker:
    """Return the means over pairs of frames."""
    names = ("luminance", "color", "aligned", "warping")
    return Flicker(*(float(np.mean([getattr(one, name) for one in flickers])) for name in names))


def films_of(folder: Path, photos: int, count: int) -> list[Film]:
    """Return one video per photo, with the motions in turn."""
    random = np.random.default_rng(0)
    files = sorted(folder.iterdir())
    chosen = files[:: max(len(files) // photos, 1)][:photos]
    motions = itertools.cycle(("pan", "zoom", "object", "exposure"))
    return [
        make_film(next(motions), np.array(Image.open(file).convert("RGB")), count, random)
        for file in chosen
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", type=Path, help="folder of photos of the source domain")
    parser.add_argument("target", type=Path, help="folder of photos of the target domain")
    parser.add_argument("--checkpoint", type=Path, default=default_checkpoint())
    parser.add_argument("--films", type=int, default=8)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()

    films = films_of(arguments.photos, arguments.films, arguments.frames)
    options = TranslatorOptions(arguments.device)
    translator = Translator.load(arguments.checkpoint, options=options)
    target = load_squares(sorted(arguments.target.iterdir()), HEIGHT)
    own = mean_of([one for film in films for one in changes_of(film, film.frames)])
    print(f"input: {own}")
    print("| `--smooth` | luminance | color | aligned | warping | SWD |")
    print("|---|---|---|---|---|---|")
    base = 0.0
    for smoothing in SETTINGS:
        smoother = FrameSmoother(translator.generator, smoothing)
        flickers: list[Flicker] = []
        squares: list[Tensor] = []
        for film in films:
            frames = smoother.apply(translator.translate_array, film.frames, is_animated=True)
            flickers += changes_of(film, frames)
            squares += [center_square(frame, HEIGHT) for frame in frames[::4]]
        found = mean_of(flickers)
        swd = float(np.mean(SlicedWasserstein(torch.stack(squares), target).levels()))
        base = base or swd
        print(
            f"| {smoothing} | {found.luminance / own.luminance:.2f} | "
            f"{found.color / own.color:.2f} | {found.aligned:.3f} | "
            f"{found.warping / own.warping:.2f} | {100 * (swd / base - 1):+.1f} % |",
            flush=True,
        )


if __name__ == "__main__":
    main()
