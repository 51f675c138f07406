"""TIFFs of which some rows are read at a time."""

import io
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from bands import GEO_TAGS, nodata_tag
from cyclegan_cli.config import BAND_TYPES, BandFormat
from cyclegan_cli.data import band_facts, open_image
from cyclegan_cli.data.band_facts import describe_bands, sampled_bands
from cyclegan_cli.data.bands import (
    BandImage,
    BandLayout,
    BandProbe,
    bands_content,
    probe_bands,
    read_bands,
)
from cyclegan_cli.data.raster import open_raster, write_raster
from cyclegan_cli.errors import DataError
from hostile_files import TIFF_HEAD, directory

GDAL = Path(__file__).parent / "gdal"
SHORT, LONG = 3, 4


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(BAND_TYPES),
    channels=st.sampled_from([1, 3]),
    compression=st.sampled_from([None, "zlib", "lzw", "zstd", "packbits"]),
    predictor=st.booleans(),
    tile=st.sampled_from([None, (32, 16), (16, 48)]),
    rows_per_strip=st.sampled_from([None, 1, 7]),
    is_separate=st.booleans(),
    byteorder=st.sampled_from("<>"),
    window=st.integers(1, 50),
)
def test_windows_equal_the_image(
    tmp_path_factory, dtype, channels, compression, predictor, tile, rows_per_strip, is_separate,
    byteorder, window,
):  # fmt: skip
    path = tmp_path_factory.mktemp("raster") / "x.tif"
    values = (np.random.default_rng(0).random((61, 77, channels)) * 99).astype(dtype)
    shown = values[..., 0] if channels == 1 else values
    tifffile.imwrite(
        path,
        np.moveaxis(shown, 2, 0).copy() if is_separate and channels > 1 else shown,
        photometric="minisblack",
        planarconfig=("separate" if is_separate else "contig") if channels > 1 else None,
        compression=compression,
        predictor=predictor and compression in ("zlib", "lzw", "zstd"),
        tile=tile,
        rowsperstrip=None if tile else rows_per_strip,
        byteorder=byteorder,
        metadata=None,
    )
    with open_raster(path) as raster:
        found = [raster[top : top + window] for top in range(0, 61, window)]
        assert raster.shape == (61, 77, channels)
        assert {part.dtype for part in found} == {np.dtype(dtype)}
        assert np.array_equal(np.concatenate(found), values)
        assert np.array_equal(raster[58:61], values[58:])
        assert raster[5:5].shape == (0, 77, channels)
        sample = raster.sample(10_000)[0]
    assert {tuple(pixel) for pixel in sample} <= {
        tuple(pixel) for pixel in values.reshape(-1, channels)
    }


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "zstd"])
@pytest.mark.parametrize("tile", [None, (32, 16)])
def test_written_rows_are_the_file_of_the_whole_image(compression, tile, tmp_path):
    for dtype, channels, step in (("uint16", 3, 9), ("float32", 1, 64), ("int16", 2, 150)):
        values = (np.random.default_rng(0).random((101, 77, channels)) * 99).astype(dtype)
        probe = BandProbe("TIFF", 77, 101, channels, dtype, is_color=channels == 3, nodata=7.0)
        layout = BandLayout(compression, predictor=True, tile=tile)
        tags = tuple(tag[:4] for tag in GEO_TAGS)
        empty = BandImage(values[:0], probe, tags, layout)
        rows = (values[top : top + step] for top in range(0, 101, step))
        write_raster(tmp_path / "x.tif", empty, 101, 77, rows)
        content = bands_content(BandImage(values, probe, tags, layout), "TIFF")
        assert (tmp_path / "x.tif").read_bytes() == content
        assert np.array_equal(read_bands(tmp_path / "x.tif", "x").values, values)


def test_files_beyond_4_gigabytes_are_big(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(tifffile, "imwrite", lambda *_, **options: seen.update(options))
    for height in (70_000, 60_000):
        probe = BandProbe("TIFF", 70_000, height, 1, "uint8", is_color=False)
        empty = BandImage(np.empty((0, 70_000, 1), np.uint8), probe)
        write_raster(tmp_path / "x.tif", empty, height, 70_000, [])
        assert seen["bigtiff"] == (height == 70_000)


@pytest.mark.parametrize("name", ["deflate", "sparse", "big-endian"])
def test_files_of_gdal_are_read_as_rasterio_reads_them(name, tmp_path):
    path = GDAL / f"{name}.tif"
    with rasterio.open(path) as oracle, open_raster(path) as raster:
        expected = np.moveaxis(oracle.read(), 0, 2)
        assert np.array_equal(read_bands(path, name).values, expected)
        found = np.concatenate([raster[top : top + 11] for top in range(0, 70, 11)])
        assert np.array_equal(found, expected)
        assert raster.probe.nodata == oracle.nodata == 0
        image = BandImage(found, raster.probe, raster.tags, raster.layout)
        (tmp_path / "x.tif").write_bytes(bands_content(image, "TIFF"))
        with rasterio.open(tmp_path / "x.tif") as copy:
            for fact in ("crs", "bounds", "transform", "nodata", "dtypes", "colorinterp"):
                assert getattr(copy, fact) == getattr(oracle, fact), fact
            assert copy.crs.to_epsg() == 32633
            assert np.array_equal(copy.read(), oracle.read())
    with open_raster(path, BandFormat(2, "uint16", (0.0,), (1.0,), bands=(3, 1))) as raster:
        assert np.array_equal(raster[30:50], expected[30:50, :, [2, 0]])


# Hostile and damaged files


def tiff_of(width: int, height: int, *entries: tuple[int, int, int, int], size: int = 100) -> bytes:
    """A TIFF of one byte per pixel, whose other tags are given."""
    tags = [(256, LONG, 1, width), (257, LONG, 1, height), (258, SHORT, 1, 8), (262, SHORT, 1, 1)]
    return TIFF_HEAD + directory(*sorted([*tags, (277, SHORT, 1, 1), *entries])) + bytes(size)


def tiles_at(count: int, offset: int, side: int, compression: int) -> bytes:
    """Tiles that all are in one place."""
    at = 8 + 2 + 12 * 10 + 4
    entries = (
        (259, SHORT, 1, compression), (322, LONG, 1, side), (323, LONG, 1, side),
        (324, LONG, count, at), (325, LONG, count, at + 4 * count),
    )  # fmt: skip
    lists = struct.pack("<I", offset) * count + struct.pack("<I", 20) * count
    width = side * count
    head = tiff_of(width, side, *entries, size=0)
    assert len(head) == at
    return head + lists + bytes(100)


HOSTILE = {
    "a strip beyond the end": tiff_of(
        1000, 1000, (259, SHORT, 1, 1), (273, LONG, 1, 8), (278, LONG, 1, 1000),
        (279, LONG, 1, 1_000_000),
    ),
    "a million square in 100 bytes": tiff_of(
        10**6, 10**6, (259, SHORT, 1, 8), (273, LONG, 1, 8), (278, LONG, 1, 10**6),
        (279, LONG, 1, 100),
    ),
    "tiles of 100,000": tiles_at(1, 8, 100_000, 8),
    "overlapping tiles": tiles_at(2000, 8, 1024, 8),
    "missing tiles": tiff_of(
        10**6, 10**6, (259, SHORT, 1, 8), (322, LONG, 1, 256), (323, LONG, 1, 256),
        (324, LONG, 1, 8), (325, LONG, 1, 20),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_claims_that_a_file_cannot_hold_are_refused_without_memory(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(open_image.Image, "MAX_IMAGE_PIXELS", 10**13)
    path = tmp_path / "x.tif"
    path.write_bytes(HOSTILE[kind])
    for read in (lambda: read_bands(path, "x"), lambda: open_raster(path).__enter__()):
        tracemalloc.start()
        with pytest.raises(DataError, match=r"truncated|cannot hold|damaged"):
            read()
        assert tracemalloc.get_traced_memory()[1] < 5e6
        tracemalloc.stop()


def test_empty_tiles_have_the_value_without_data(tmp_path):
    with open_raster(GDAL / "sparse.tif") as raster:
        assert 0 in raster._page.databytecounts
        assert (raster[0:16][:, :32] == 0).all()


@pytest.mark.parametrize(("bits", "compression"), [(8, None), (12, None), (16, "zlib")])
def test_gray_values_whose_white_is_zero_are_inverted(bits, compression, tmp_path):
    path, dtype = tmp_path / "x.tif", "uint8" if bits == 8 else "uint16"
    values = np.arange(2**bits, dtype="u4").reshape(-1, 16)[:64].astype(dtype)
    options = {"compression": compression, "bitspersample": bits, "metadata": None}
    tags = [nodata_tag("0")]
    tifffile.imwrite(path, values, photometric="miniswhite", extratags=tags, **options)
    image = read_bands(path, "x")
    assert (image.probe.kind, image.probe.nodata) == (f"1 channel of {dtype}", 2**bits - 1)
    assert np.array_equal(image.values[..., 0], 2**bits - 1 - values)
    with open_raster(path) as raster:
        assert np.array_equal(raster[0:64], image.values)
    written = bands_content(image, "TIFF")
    assert np.array_equal(read_bands(io.BytesIO(written), "x").values, image.values)


def test_damaged_tile_is_reported_when_its_rows_are_read(tmp_path):
    stream = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 9, (64, 64), np.uint16)
    options = {"photometric": "minisblack", "tile": (16, 16), "compression": "zlib"}
    tifffile.imwrite(stream, values, metadata=None, **options)
    content = bytearray(stream.getvalue())
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        offset = file.pages[0].dataoffsets[-1]
    content[offset : offset + 20] = bytes(20)
    (tmp_path / "x.tif").write_bytes(content)
    with open_raster(tmp_path / "x.tif") as raster:
        assert np.array_equal(raster[0:48][..., 0], values[:48])
        with pytest.raises(DataError, match=r"^cannot read .*x\.tif: "):
            raster[0:64]


# Samples


def test_large_files_are_described_by_samples(tmp_path, monkeypatch):
    y, x = np.mgrid[:160, :240]
    values = (x + 1000 * (y >= 80)).astype(np.uint16)
    values[:16] = 9
    tifffile.imwrite(
        tmp_path / "x.tif", values, photometric="minisblack", tile=(16, 16), compression="zlib",
        extratags=[*GEO_TAGS, nodata_tag("9")], metadata=None,
    )  # fmt: skip
    whole = describe_bands(tmp_path / "x.tif")
    assert whole["sampled"] == 1
    monkeypatch.setattr(band_facts, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(band_facts, "SAMPLED_VALUES", 4000)
    # Of any size: only tiles are read.
    monkeypatch.setattr(open_image.Image, "MAX_IMAGE_PIXELS", 100)
    sampled = describe_bands(tmp_path / "x.tif")
    assert 0.05 < sampled["sampled"] < 0.15
    assert sampled["crs"] == whole["crs"] == "EPSG:32633"
    assert sampled["without_data"] == pytest.approx(whole["without_data"], abs=0.05)
    [one], [other] = whole["channels"], sampled["channels"]
    for name in one:
        assert other[name] == pytest.approx(one[name], abs=40), name
    with pytest.raises(DataError, match="megapixels"):
        probe_bands(tmp_path / "x.tif", "x")
    colors = np.zeros((160, 240, 3), np.uint16)
    options = {"photometric": "minisblack", "planarconfig": "contig", "metadata": None}
    tifffile.imwrite(tmp_path / "y.tif", colors, **options)
    assert open_image.probe(tmp_path / "y.tif", any_size=True).mode == "3 channels of uint16"
    with pytest.raises(DataError, match="megapixels"):
        open_image.probe(tmp_path / "y.tif")
    with pytest.raises(DataError, match="megapixels"):
        open_raster(tmp_path / "x.tif").__enter__()
    assert sampled_bands(tmp_path / "x.tif")[0].values.shape[1] < 5000
