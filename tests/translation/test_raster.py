"""Rasters that are translated some rows at a time: the same files as from memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
import torch

from bands import GEO_TAGS, nodata_tag, smooth
from cyclegan_cli.checkpoints.header import ModelInfo
from cyclegan_cli.config import BandFormat
from cyclegan_cli.translation import file_stages, pixel_rows
from cyclegan_cli.translation.file_stages import FileStages
from cyclegan_cli.translation.outputs import TranslationJob
from cyclegan_cli.translation.pipeline import Outcome, Pipeline
from cyclegan_cli.translation.strips import StripPlan
from cyclegan_cli.translation.translator import Translator, TranslatorOptions
from generators import generator

RANGES = {
    "uint8": (0.0, 255.0), "uint16": (0.0, 9000.0), "int16": (-3000.0, 3000.0),
    "float32": (-2.0, 2.0), "float64": (-2.0, 2.0),
}  # fmt: skip
HEIGHT, WIDTH = 203, 149


def format_of(dtype: str, channels: int, **others: Any) -> BandFormat:
    low, high = RANGES[dtype]
    return BandFormat(channels, dtype, (low,), (high,), **others)


def translator_of(
    source: BandFormat, target: BandFormat | None, max_memory: int | None = None
) -> Translator:
    outputs = target.channels if target else 3
    network = generator(4, 1, input_channels=source.channels, output_channels=outputs)
    info = ModelInfo("model", network.config, "a", "b", {}, {}, ("a2b",), (source, target))
    options = TranslatorOptions("cpu", "fp32", max_memory)
    return Translator(network, info, "a2b", torch.device("cpu"), options)


def draw(dtype: str, channels: int) -> Any:
    """Smooth values: ``[H, W, C]``."""
    low, high = RANGES[dtype]
    values = smooth(np.random.default_rng(0), channels, HEIGHT, WIDTH) / 4 + 0.5
    return (values * (high - low) + low).astype(dtype)


def save(path: Path, values: Any, planar: str = "contig", **options: Any) -> Path:
    """Write ``[H, W, C]`` as a GeoTIFF."""
    channels = values.shape[2]
    shown = values[..., 0] if channels == 1 else values
    is_separate = planar == "separate" and channels > 1
    settings: dict[str, Any] = {"photometric": "minisblack", "metadata": None}
    tifffile.imwrite(
        path,
        np.ascontiguousarray(np.moveaxis(shown, 2, 0)) if is_separate else shown,
        planarconfig=planar if channels > 1 else None,
        extratags=[*GEO_TAGS, *options.pop("tags", [])],
        **settings | options,
    )
    return path


def translate(translator: Translator, source: Path, output: Path) -> Outcome:
    job = TranslationJob(str(source), str(output))
    [outcome] = Pipeline([job], FileStages(translator, "overwrite")).outcomes()
    return outcome


@pytest.fixture
def both_ways(tmp_path, monkeypatch):
    """Translate a file from memory and in windows: the paths of both outputs."""

    def run(translator: Translator, source: Path) -> tuple[Path, Path]:
        # The same strips, whose statistics differ in the last bits from those of others.
        monkeypatch.setattr(translator, "plan", lambda *_: StripPlan(7))
        outputs = tmp_path / "whole.tif", tmp_path / "windows.tif"
        for output, limit in zip(outputs, (1e9, 0), strict=True):
            monkeypatch.setattr(file_stages, "WHOLE_BYTES", limit)
            outcome = translate(translator, source, output)
            assert outcome.status == "ok", outcome.error
        return outputs

    return run


STORAGE = {
    "tiles": {"tile": (64, 32), "compression": "zlib", "predictor": True},
    "strips": {"rowsperstrip": 9, "compression": "lzw", "predictor": True},
    "one strip": {},
    "tiles without compression": {"tile": (32, 64)},
    "zstd": {"tile": (48, 48), "compression": "zstd"},
    "planes": {"planar": "separate", "tile": (32, 32), "compression": "zlib", "predictor": True},
    "planes in one piece": {"planar": "separate", "byteorder": ">"},
    "big-endian": {"byteorder": ">", "tile": (32, 32), "compression": "lzw", "predictor": True},
    "BigTIFF": {"bigtiff": True, "rowsperstrip": 40, "compression": "zlib"},
}
TARGETS = {
    "uint8": format_of("float32", 1),
    "uint16": format_of("uint16", 3, nodata=0.0),
    "int16": format_of("int16", 2),
    "float32": format_of("uint8", 3, is_color=True),
    "float64": format_of("float64", 1),
}


@pytest.mark.parametrize("storage", STORAGE)
def test_files_equal_those_from_memory(storage, both_ways, tmp_path):
    for index, (dtype, target) in enumerate(TARGETS.items()):
        channels = (3, 1)[index % 2]
        source = save(tmp_path / "x.tif", draw(dtype, channels), **STORAGE[storage])
        translator = translator_of(format_of(dtype, channels), target)
        whole, windows = both_ways(translator, source)
        with tifffile.TiffFile(whole) as one, tifffile.TiffFile(windows) as other:
            assert np.array_equal(one.asarray(), other.asarray())
            pages = [file.pages[0] for file in (one, other)]
            assert pages[0].compression == pages[1].compression
            assert pages[0].predictor == pages[1].predictor
            tags = [{tag.code: tag.value for tag in page.tags} for page in pages]
            for own in tags if not pages[0].is_tiled and pages[0].compression == 1 else ():
                # Without compression, the height of strips is free.
                own |= dict.fromkeys((273, 278, 279))
        assert tags[0] == tags[1]


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_pixels_without_data_equal_those_from_memory(dtype, both_ways, tmp_path, monkeypatch):
    monkeypatch.setattr(pixel_rows, "VALUES_AT_ONCE", 5000)
    nodata = 2.5 if dtype == "float32" else 7
    values = draw(dtype, 2)
    values[values == nodata] += 1
    values[40:90, 20:70, 1] = nodata
    if dtype == "float32":
        values[0] = np.nan
    tags = [nodata_tag(str(nodata))]
    source = save(tmp_path / "x.tif", values, tags=tags, tile=(32, 32), compression="zlib")
    for target in (format_of("float32", 1), format_of("int16", 1, nodata=-5.0), None):
        whole, windows = both_ways(translator_of(format_of(dtype, 2), target), source)
        with rasterio.open(whole) as one, rasterio.open(windows) as other:
            assert np.array_equal(one.read(), other.read(), equal_nan=target is not None)
            assert str(one.nodata) == str(other.nodata)
            masks = one.dataset_mask(), other.dataset_mask()
            assert np.array_equal(*masks)
            assert (masks[0][40:90, 20:70] == 0).all()
            assert (masks[0][0] == 0).all() == (dtype == "float32")
            assert masks[0][91:].all()
