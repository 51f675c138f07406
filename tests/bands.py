"""Folders of images that are not 8-bit RGB: thermal, satellite, CT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

# WGS 84 / UTM zone 33N, pixels of 10 m.
GEO_TAGS: list[Any] = [
    (33550, 12, 3, (10.0, 10.0, 0.0), True),
    (33922, 12, 6, (0.0, 0.0, 0.0, 500000.0, 4649776.0, 0.0), True),
    (34735, 3, 16, (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633), True),
]
GEO_CODES = [tag[0] for tag in GEO_TAGS]


def smooth(random: np.random.Generator, channels: int, height: int = 48, width: int = 56) -> Any:
    """``[H, W, C]`` of smooth values in [-2, 2]."""
    y, x = np.mgrid[:height, :width] / height
    return np.stack(
        [
            np.sin(6 * x * random.random() + 6 * random.random())
            + np.cos(6 * y * random.random() + 6 * random.random())
            for _ in range(channels)
        ],
        axis=2,
    )


def nodata_tag(text: str) -> Any:
    return (42113, 2, len(text) + 1, text, True)


def draw_domains(folder: Path, count: int = 5) -> Path:
    """Write ``thermal``, ``rgb``, ``satellite``, ``height``, ``ct`` and ``mr`` below a folder."""
    random = np.random.default_rng(0)
    for name in ("thermal", "rgb", "satellite", "height", "ct", "mr"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        thermal = (smooth(random, 1)[..., 0] * 3000 + 20000).astype(np.uint16)
        Image.fromarray(thermal).save(folder / "thermal" / f"{i}.png")
        color = ((smooth(random, 3) + 2) * 60).astype(np.uint8)
        Image.fromarray(color).save(folder / "rgb" / f"{i}.png")
        satellite = (smooth(random, 5) * 800 + 3000).astype(np.uint16)
        satellite[:6] = 0
        is_planar = bool(i % 2)
        tifffile.imwrite(
            folder / "satellite" / f"{i}.tif",
            np.ascontiguousarray(np.moveaxis(satellite, 2, 0)) if is_planar else satellite,
            photometric="minisblack",
            planarconfig="separate" if is_planar else "contig",
            compression="lzw",
            predictor=True,
            tile=(16, 16),
            extratags=[*GEO_TAGS, nodata_tag("0")],
            metadata=None,
        )
        height = (smooth(random, 1)[..., 0] * 5).astype(np.float32)
        height[:, :5] = np.nan
        tifffile.imwrite(
            folder / "height" / f"{i}.tif",
            height,
            photometric="minisblack",
            extratags=[*GEO_TAGS, nodata_tag("nan")],
            metadata=None,
        )
        np.save(folder / "ct" / f"{i}.npy", (smooth(random, 1)[..., 0] * 700 - 200).astype("<i2"))
        np.save(folder / "mr" / f"{i}.npy", (smooth(random, 1)[..., 0] * 300 + 400).astype("<i2"))
    return folder
