"""The sample grids of a run, cut into images that a page can carry."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cyclegan_cli.training.report import GAP, GRID_COLUMNS

GRID_NAME = re.compile(r"step_(\d+)\.jpg")
MOST_STEPS = 40
MOST_ROWS = 6
LARGEST_SIDE = 256
JPEG_QUALITY = 80
# The same image out of two grids differs by what JPEG makes of its edges, in levels of 255.
SAME_IMAGE = 8.0


@dataclass(frozen=True)
class Frame:
    """The images of one grid.

    Attributes:
        real: Small versions of the real ones, ``[rows, 2, 16, 16, 3]``, to compare by.
        images: JPEG files in base64, from top to bottom, by the grid's column.
    """

    real: NDArray[np.float32]
    images: Mapping[str, Sequence[str]]

    @property
    def made(self) -> dict[str, Sequence[str]]:
        """What the networks made: the translations and reconstructions."""
        return {k: v for k, v in self.images.items() if not k.startswith("real")}

    @property
    def originals(self) -> dict[str, Sequence[str]]:
        """The real images."""
        return {k: v for k, v in self.images.items() if k.startswith("real")}

    def shows_the_same(self, other: Frame) -> bool:
        """Whether the real images are the same ones."""
        if self.real.shape != other.real.shape:
            return False
        differences = np.abs(self.real - other.real).mean(axis=(2, 3, 4))
        return bool(differences.max() < SAME_IMAGE)


class Frames:
    """Evenly spaced grids of a run within a limit of space, the first and the last among them.

    What was encoded once is kept: a new sample costs one grid.

    Args:
        folder: Where the grids are.
        most_characters: What all images together may take.
    """

    def __init__(self, folder: Path, most_characters: int) -> None:
        self.folder = folder
        self.most_characters = most_characters
        self.stride = 1
        self.known: dict[tuple[int, int], Frame | None] = {}

    def chosen(self, last_step: int) -> dict[int, Frame]:
        """The frames to show, by step, up to ``last_step``."""
        grids = _grids(self.folder, last_step)
        while True:
            wanted = _every(grids, self.stride)
            if len(wanted) <= MOST_STEPS:
                self.known = {grid.key: self._frame(grid) for grid in wanted}
                found = {grid.step: frame for grid in wanted if (frame := self.known[grid.key])}
                if len(found) <= 2 or _size(found) <= self.most_characters:
                    return found
            # Twice as far apart: half of what is encoded stays.
            self.stride *= 2

    def _frame(self, grid: _Grid) -> Frame | None:
        if grid.key not in self.known:
            self.known[grid.key] = read_frame(grid.path)
        return self.known[grid.key]


def read_frame(path: Path) -> Frame | None:
    """Cut a grid into its images; None if the file is no grid (any more)."""
    try:
        with Image.open(path) as image:
            grid = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    side = (grid.width - GAP) // len(GRID_COLUMNS) - GAP
    rows = min((grid.height - GAP) // (side + GAP), MOST_ROWS) if side > 0 else 0
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
    """What the page's script reads: steps, their translations, and each set of real images once.

    A run whose images changed, by a resume with other folders, has several sets.
    """
    sets: list[Frame] = []
    shown = []
    for step, frame in frames.items():
        if not sets or not sets[-1].shows_the_same(frame):
            sets.append(frame)
        shown.append({"step": step, "real": len(sets) - 1, **frame.made})
    return {"real": [frame.originals for frame in sets], "frames": shown}


@dataclass(frozen=True)
class _Grid:
    path: Path
    step: int
    written: int

    @property
    def key(self) -> tuple[int, int]:
        return self.step, self.written


def _grids(folder: Path, last_step: int) -> list[_Grid]:
    """The grids of the run's past; a resumed run will write those of its future again."""
    if not folder.is_dir():
        return []
    found = []
    for path in folder.iterdir():
        match = GRID_NAME.fullmatch(path.name)
        if match and int(match[1]) <= last_step:
            with suppress(FileNotFoundError):  # Somebody tidies up meanwhile.
                found.append(_Grid(path, int(match[1]), path.stat().st_mtime_ns))
    return sorted(found, key=lambda grid: grid.step)


def _every(grids: Sequence[_Grid], stride: int) -> list[_Grid]:
    chosen = list(grids[::stride])
    if grids and chosen[-1] is not grids[-1]:
        chosen.append(grids[-1])
    return chosen


def _size(frames: Mapping[int, Frame]) -> int:
    """Characters of all images on the page."""
    shown = document(frames)
    columns = (
        column
        for images in (*shown["real"], *shown["frames"])
        for column in images.values()
        if not isinstance(column, int)
    )
    return sum(len(text) for column in columns for text in column)


def _cell(grid: Image.Image, row: int, column: int, side: int) -> Image.Image:
    left, top = GAP + column * (side + GAP), GAP + row * (side + GAP)
    cell = grid.crop((left, top, left + side, top + side))
    cell.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    return cell


def _small(image: Image.Image) -> NDArray[np.float32]:
    return np.asarray(image.resize((16, 16), Image.Resampling.BOX), dtype=np.float32)


def _jpeg(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=JPEG_QUALITY)
    return base64.b64encode(content.getvalue()).decode()
