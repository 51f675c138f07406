"""Facts about images that are read as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cyclegan_cli.data.bands import BandImage, Tag, missing_values, probe_bands, read_bands
from cyclegan_cli.data.raster import open_raster
from cyclegan_cli.data.volumes import is_array_file, open_volume, part_of

# A TIFF with more bytes of values is not read as a whole but in samples.
WHOLE_BYTES = 2**28
SAMPLED_VALUES = 2**24
MEASURED_SLICES = 16


def sampled_bands(path: Path) -> tuple[BandImage, float]:
    """Return an image; of a large TIFF evenly spaced tiles, and of a volume some slices.

    Args:
        path: The file.

    Returns:
        The image, and the fraction of its pixels.

    Raises:
        DataError: It cannot be read.
    """
    volume = None if part_of(path) or not is_array_file(path) else open_volume(path, str(path))
    if volume is not None and volume.probe.frames > 1:
        count = min(volume.probe.frames, MEASURED_SLICES)
        slices = [volume.read(index * volume.probe.frames // count) for index in range(count)]
        stacked = BandImage(np.concatenate([one.values for one in slices]), volume.probe)
        return stacked, count / volume.probe.frames
    found = probe_bands(path, str(path), any_size=True)
    if found.format != "TIFF" or found.nbytes <= WHOLE_BYTES:
        return read_bands(path, str(path)), 1.0
    with open_raster(path, any_size=True) as raster:
        values = raster.sample(max(SAMPLED_VALUES // found.channels, 1))
        fraction = values.shape[1] / (found.width * found.height)
        return BandImage(values, found, raster.tags, raster.layout), fraction


GEO_KEYS, MODEL_KEYS = 34735, (3072, 2048)  # Projected and geographic systems.
USER_DEFINED = 32767


def _crs(tags: tuple[Tag, ...]) -> str | None:
    """Return the coordinate reference system as an EPSG code, if it is one (GeoTIFF 1.1, 7.1)."""
    keys = next((value for code, _, _, value in tags if code == GEO_KEYS), ())
    entries = {keys[i]: keys[i + 3] for i in range(4, len(keys) - 3, 4) if keys[i + 1] == 0}
    codes = [entries[key] for key in MODEL_KEYS if entries.get(key, USER_DEFINED) != USER_DEFINED]
    return f"EPSG:{codes[0]}" if codes else None


def describe_bands(path: Path) -> dict[str, Any]:
    """Return facts about the values of an image, fit for JSON.

    Raises:
        DataError: It cannot be read.
    """
    image, fraction = sampled_bands(path)
    valid = ~missing_values(image.values, image.probe.nodata)
    channels = []
    for index in range(image.values.shape[2]):
        values = image.values[..., index][valid[..., index]].astype(np.float64)
        ends = np.percentile(values, (0, 0.5, 99.5, 100)) if values.size else np.zeros(4)
        names = ("smallest", "percentile_0.5", "percentile_99.5", "largest")
        channels.append({name: float(f"{end:.6g}") for name, end in zip(names, ends, strict=True)})
    return {
        "kind": image.probe.kind,
        "nodata": image.probe.nodata,
        "crs": _crs(image.tags),
        **dict(image.probe.details),
        "sampled": fraction,
        "without_data": float(1 - valid.mean()),
        "channels": channels,
    }
