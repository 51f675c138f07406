"""Sample grids, cut into images for the report."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cyclegan_cli.training.callbacks.samples import GAP, GRID_COLUMNS

GRID_NAME = re.compile(r"step_(\d+)\.jpg")
MAX_FRAMES = 40
MAX_ROWS = 6
MAX_SIDE = 256
JPEG_QUALITY = 80
# JPEG artifacts make the same image differ between two grids, in pixel values of 255.
SAME_IMAGE = 8.0

Grid = tuple[int, int, Path]  # Step, time of writing and file.


@dataclass(frozen=True)
class Frame:
    """The images of one grid.

    Attributes:
        real: Thumbnails of the real images, for comparison: ``[rows, 2, 16, 16, 3]`` in [0, 255].
        images: JPEG files in base64 from top to bottom, by column of the grid.
    """

    real: NDArray[np.float32]
    images: Mapping[str, Sequence[str]]

    def has_same_images(self, other: Frame) -> bool:
        """Return whether the real images are the same."""
        if self.real.shape != other.real.shape:
            return False
        differences = np.abs(self.real - other.real).mean(axis=(2, 3, 4))
        return bool(differences.max() < SAME_IMAGE)


class Frames:
    """Evenly spaced grids of a run, including the first and the last, within a size limit.

    Encoded grids are cached: an update encodes one new grid.

    Args:
        folder: Folder of the grids.
        max_characters: Size limit of all images as JSON.
    """

    def __init__(self, folder: Path, max_characters: int) -> None:
        self.folder = folder
        self.max_characters = max_characters
        self.stride = 1
        self.cache: dict[Grid, Frame | None] = {}

    def select(self, last_step: int) -> dict[int, Frame]:
        """Return the frames to show up to ``last_step``, by step."""
        grids = _grids(self.folder, last_step)
        while True:
            wanted = dict.fromkeys([*grids[:: self.stride], *grids[-1:]])
            if len(wanted) <= MAX_FRAMES:
                self.cache = {
                    grid: self.cache[grid] if grid in self.cache else read_frame(grid[2])
                    for grid in wanted
                }
                found = {step: frame for (step, *_), frame in self.cache.items() if frame}
                if len(found) <= 2 or len(json.dumps(document(found))) <= self.max_characters:
                    return found
            # Twice the distance reuses half of the cache.
            self.stride *= 2


def read_frame(path: Path) -> Frame | None:
    """Cut a grid into its images; return None if the file is not a grid."""
    try:
        with Image.open(path) as image:
            grid = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    side = (grid.width - GAP) // len(GRID_COLUMNS) - GAP
    rows = min((grid.height - GAP) // (side + GAP), MAX_ROWS) if side > 0 else 0
    if rows < 1:
        return None
    cells = {
        name: [_cell(grid, row, column, side) for row in range(rows)]
        for column, name in enumerate(GRID_COLUMNS)
    }
    small = [[_small(a), _small(b)] for a, b in zip(cells["real_a"], cells["real_b"], strict=True)]
    images = {name: [_jpeg(cell) for cell in column] for name, column in cells.items()}
    return Frame(np.array(small, dtype=np.float32), images)


def document(frames: Mapping[int, Frame]) -> dict[str, Any]:
    """Return the data for the script: steps, translations, and each set of real images once.

    A run that was resumed with other folders has several sets.
    """
    before: Frame | None = None
    real: list[dict[str, Sequence[str]]] = []
    shown = []
    for step, frame in frames.items():
        images = dict(frame.images)
        originals = {name: images.pop(name) for name in ("real_a", "real_b")}
        if before is None or not before.has_same_images(frame):
            before = frame
            real.append(originals)
        shown.append({"step": step, "real": len(real) - 1, **images})
    return {"real": real, "frames": shown}


def _grids(folder: Path, last_step: int) -> list[Grid]:
    """Return the grids up to ``last_step``; a resumed run writes later ones again."""
    found: list[Grid] = []
    for path in folder.glob("step_*.jpg"):
        match = GRID_NAME.fullmatch(path.name)
        if match and int(match[1]) <= last_step:
            with suppress(FileNotFoundError):  # It was deleted meanwhile.
                found.append((int(match[1]), path.stat().st_mtime_ns, path))
    return sorted(found)


def _cell(grid: Image.Image, row: int, column: int, side: int) -> Image.Image:
    left, top = GAP + column * (side + GAP), GAP + row * (side + GAP)
    cell = grid.crop((left, top, left + side, top + side))
    cell.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    return cell


def _small(image: Image.Image) -> NDArray[np.float32]:
    return np.asarray(image.resize((16, 16), Image.Resampling.BOX), dtype=np.float32)


def _jpeg(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=JPEG_QUALITY)
    return base64.b64encode(content.getvalue()).decode()
