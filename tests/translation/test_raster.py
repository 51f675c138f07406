"""Rasters that are translated some rows at a time: the same files as from memory."""

from __future__ import annotations

import copy
import shutil
import tempfile
import tracemalloc
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
from cyclegan_cli.data import icc
from cyclegan_cli.files import is_temporary
from cyclegan_cli.translation import file_stages, pixel_rows, raster
from cyclegan_cli.translation.file_stages import FileStages
from cyclegan_cli.translation.outputs import TranslationJob
from cyclegan_cli.translation.pipeline import Outcome, Pipeline
from cyclegan_cli.translation.progress import TranslationObserver
from cyclegan_cli.translation.strips import StripPlan
from cyclegan_cli.translation.translator import Translator, TranslatorOptions
from generators import generator

RANGES = {
    "uint8": (0.0, 255.0), "uint16": (0.0, 9000.0), "int16": (-3000.0, 3000.0),
    "float32": (-2.0, 2.0), "float64": (-2.0, 2.0),
}  # fmt: skip
HEIGHT, WIDTH = 139, 101


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


@pytest.mark.parametrize(("nodata", "dtype"), [(255, "uint8"), (0, "uint8"), (3, "int16")])
def test_only_pixels_without_data_have_its_value(nodata, dtype, both_ways, tmp_path):
    values = draw("uint8", 1)
    values[values == nodata] = 100
    values[40:90, 20:70] = nodata
    source = save(tmp_path / "x.tif", values, tags=[nodata_tag(str(nodata))])
    # A narrow range, so that the network's output has each of its values.
    ends = (nodata, nodata + 2) if nodata < 255 else (nodata - 2, nodata)
    target = BandFormat(1, dtype, (float(ends[0]),), (float(ends[1]),))
    for output in both_ways(translator_of(format_of("uint8", 1), target), source):
        with rasterio.open(output) as file:
            assert file.nodata == nodata
            mask = file.dataset_mask() == 0
            assert (np.ptp(file.read()[0][~mask]) > 0, mask.sum()) == (True, 50 * 50)
            assert mask[40:90, 20:70].all()


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


def test_outputs_are_placed_and_have_the_colors_of_their_domain(both_ways, tmp_path):
    values = draw("uint16", 5)
    values[:9] = 3
    source = save(tmp_path / "x.tif", values, tile=(32, 32), tags=[nodata_tag("3")])
    colors = {
        None: ("red", "green", "blue", "alpha"),
        format_of("uint8", 3, is_color=True): ("red", "green", "blue"),
        format_of("uint16", 3, is_color=True): ("red", "green", "blue"),
        format_of("uint8", 3): ("gray", "undefined", "undefined"),
        format_of("float32", 1): ("gray",),
        format_of("int16", 2): ("gray", "undefined"),
    }
    with rasterio.open(source) as before:
        for target, names in colors.items():
            for path in both_ways(translator_of(format_of("uint16", 5), target), source):
                with rasterio.open(path) as after:
                    assert after.crs == before.crs
                    assert after.crs.to_epsg() == 32633
                    assert after.bounds == before.bounds
                    assert after.transform == before.transform
                    assert tuple(color.name for color in after.colorinterp) == names
                    assert set(after.dtypes) == {target.dtype if target else "uint8"}
                    stored = after.read()
                shown = tifffile.imread(path)
                shown = shown[..., None] if shown.ndim == 2 else shown
                assert np.array_equal(np.moveaxis(stored, 0, 2), shown, equal_nan=len(names) < 2)


# Memory and disk


class Recorder(TranslationObserver):
    """What the observer of an image is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.done: list[float] = []

    def on_message(self, message: str) -> None:
        self.messages.append(message)

    def on_progress(self, width: int, height: int, done: float) -> None:
        self.done.append(done)


COUNTS = format_of("uint16", 3)


@pytest.fixture
def source(tmp_path):
    return save(tmp_path / "x.tif", draw("uint16", 3), tile=(32, 32), compression="zlib")


def test_large_images_are_translated_in_windows(source, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(file_stages, "translate_raster", lambda *_: calls.append("windows"))
    for output, budget, expected in (
        ("y.tif", 1e9, []),
        ("y.tif", 1.5e6, ["windows"]),
        ("y.npy", 1.5e6, []),  # Only TIFFs are written in windows.
    ):
        calls.clear()
        translator = translator_of(COUNTS, COUNTS)
        monkeypatch.setattr(translator, "budget", lambda budget=budget: budget)
        assert translate(translator, source, tmp_path / output).status == "ok"
        assert calls == expected
    monkeypatch.setattr(translator, "budget", lambda: 1e5)
    outcome = translate(translator, source, tmp_path / "z.npy")
    assert "x.tif needs 0.00025 GB of memory for its pixels, found 0.0001 GB" in str(outcome.error)


def test_memory_does_not_grow_with_the_height(tmp_path, monkeypatch):
    monkeypatch.setattr(file_stages, "WHOLE_BYTES", 0)
    monkeypatch.setattr(pixel_rows, "VALUES_AT_ONCE", 10_000)
    peaks = []
    for height in (400, 1600):
        values = np.zeros((height, 96, 3), np.uint16)
        values[::3] = 5000
        tags = [nodata_tag("0")]
        path = save(tmp_path / "x.tif", values, tile=(32, 32), compression="zlib", tags=tags)
        translator = translator_of(COUNTS, format_of("float64", 3))
        monkeypatch.setattr(translator, "plan", lambda *_: StripPlan(4))
        tracemalloc.start()
        assert translate(translator, path, tmp_path / "y.tif").status == "ok"
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert tifffile.imread(tmp_path / "y.tif").shape == (height, 96, 3)
    # The larger output has 3.7 MB; tables of tiles grow.
    assert peaks[1] < 1.5 * peaks[0] < 2.5e6


def on_disk(translator: Translator) -> None:
    """Leave too little memory for the feature maps, and enough for strips."""
    translator.budget = lambda: 2.4e5  # type: ignore[method-assign]


def test_feature_maps_on_disk_are_announced(source, tmp_path, monkeypatch):
    translator = translator_of(COUNTS, COUNTS)
    on_disk(translator)
    monkeypatch.setattr(raster, "_window_bytes", lambda *_: 1e5)
    translator.observer = recorder = Recorder()
    outcome = translate(translator, source, tmp_path / "y.tif")
    assert outcome.status == "ok", outcome.error
    size = 4 * 140 * 104 * 4 / 2
    assert recorder.messages == [
        f"104x140 pixels: {size / 1e9:.3g} GB of feature maps are stored in a temporary file in "
        f"{tempfile.gettempdir()}"
    ]
    assert recorder.done == sorted(recorder.done)
    assert recorder.done[-1] == pytest.approx(1)
    with_memory = translator_of(COUNTS, COUNTS)
    monkeypatch.setattr(with_memory, "plan", lambda *_: StripPlan(8))
    translate(with_memory, source, tmp_path / "z.tif")
    found, expected = (tifffile.imread(tmp_path / name).astype(int) for name in ("y.tif", "z.tif"))
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("is_same_disk", [True, False])
def test_disks_without_room_are_refused_before_the_network_runs(
    source, tmp_path, monkeypatch, is_same_disk
):
    translator = translator_of(COUNTS, COUNTS)
    on_disk(translator)
    monkeypatch.setattr(raster, "_window_bytes", lambda *_: 1e5)
    monkeypatch.setattr(raster, "_same_disk", lambda *_: is_same_disk)
    usage = shutil.disk_usage(tmp_path)
    output = HEIGHT * WIDTH * 3 * 2 / 2
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=int(output + 1)))
    translator.observer = recorder = Recorder()
    outcome = translate(translator, source, tmp_path / "y.tif")
    assert outcome.status == "failed"
    expected = (
        "the output needs about 4.21e-05 GB, the feature maps in"
        if is_same_disk
        else ("the feature maps need 0.000116 GB in")
    )
    assert expected in str(outcome.error)
    assert recorder.done == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.tif"]


def test_strips_that_do_not_fit_into_memory_are_refused(tmp_path, monkeypatch):
    source = save(tmp_path / "x.tif", draw("uint16", 3), rowsperstrip=HEIGHT, compression="zlib")
    translator = translator_of(COUNTS, COUNTS)
    monkeypatch.setattr(translator, "budget", lambda: 1.5e5)
    outcome = translate(translator, source, tmp_path / "y.tif")
    assert "x.tif is stored in tiles or strips of 139 rows, which need" in str(outcome.error)


# Interruptions and damage


def test_damaged_tile_is_one_sentence_and_leaves_nothing(source, tmp_path, monkeypatch):
    monkeypatch.setattr(file_stages, "WHOLE_BYTES", 0)
    content = bytearray(source.read_bytes())
    with tifffile.TiffFile(source) as file:
        offset = file.pages[0].dataoffsets[-1]
    content[offset : offset + 30] = bytes(30)
    source.write_bytes(content)
    outcome = translate(translator_of(COUNTS, COUNTS), source, tmp_path / "y.tif")
    assert outcome.status == "failed"
    assert str(outcome.error).startswith(f"cannot read {source}: ")
    assert [path.name for path in tmp_path.iterdir()] == ["x.tif"]


def test_interrupted_translation_has_no_output(source, tmp_path, monkeypatch):
    monkeypatch.setattr(file_stages, "WHOLE_BYTES", 0)
    during: list[list[str]] = []

    class Interrupt(Recorder):
        def on_progress(self, width: int, height: int, done: float) -> None:
            during.append([path.name for path in (tmp_path / "out").glob("*")])
            if done > 0.99:
                raise KeyboardInterrupt

    translator = translator_of(COUNTS, COUNTS)
    translator.observer = Interrupt()
    with pytest.raises(KeyboardInterrupt):
        translate(translator, source, tmp_path / "out" / "y.tif")
    # A process that is killed leaves at most a hidden temporary file.
    assert {name for names in during for name in names if not is_temporary(name)} == set()
    assert any(during)
    assert list((tmp_path / "out").iterdir()) == []
    # The next image is not blocked.
    translator.observer = Recorder()
    assert translate(translator, source, tmp_path / "out" / "y.tif").status == "ok"


# RGB images


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_colors_equal_those_from_memory(dtype, both_ways, tmp_path):
    values = draw(dtype, 3)
    tags = [nodata_tag("3"), (33432, 2, 3, "me", True)]
    layout = {"photometric": "rgb", "compression": "zlib", "tile": (32, 32)}
    source = save(tmp_path / "x.tif", values, tags=tags, **layout)
    network = translator_of(COUNTS, COUNTS).generator
    for target in (None, format_of("float32", 3)):
        info = ModelInfo("model", network.config, "a", "b", {}, {}, ("a2b",), (None, target))
        options = TranslatorOptions("cpu", "fp32")
        translator = Translator(copy.deepcopy(network), info, "a2b", torch.device("cpu"), options)
        whole, windows = both_ways(translator, source)
        with rasterio.open(whole) as one, rasterio.open(windows) as other:
            assert np.array_equal(one.read(), other.read())
            assert one.dtypes == other.dtypes == ((target.dtype if target else dtype),) * 3
            assert one.colorinterp == other.colorinterp
            assert other.crs.to_epsg() == 32633
            assert other.block_shapes == [(32, 32)] * 3
            assert one.crs == other.crs
            assert one.transform == other.transform
            if target is None:
                assert one.nodata == other.nodata == 3
                assert one.tags()["TIFFTAG_COPYRIGHT"] == other.tags()["TIFFTAG_COPYRIGHT"] == "me"


def test_colors_that_need_conversion_are_read_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(file_stages, "WHOLE_BYTES", 0)
    monkeypatch.setattr(file_stages, "translate_raster", lambda *_: pytest.fail("in windows"))
    translator = translator_of(COUNTS, COUNTS)
    translator.source_format = translator.target_format = None
    values = draw("uint8", 3)
    for name, options in {
        "profile": {"iccprofile": icc.srgb()},
        "upside down": {"tags": [(274, 3, 1, 3, True)]},
        "EXIF": {"tags": [(700, 1, 2, b"<>", True)]},
    }.items():
        source = save(tmp_path / f"{name}.tif", values, photometric="rgb", **options)
        outcome = translate(translator, source, tmp_path / "y.tif")
        assert outcome.status == "ok", outcome.error
