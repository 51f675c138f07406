import io

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from bands import GEO_CODES, GEO_TAGS, nodata_tag
from cyclegan_cli.config import BAND_TYPES, BandFormat
from cyclegan_cli.data.bands import (
    BandImage,
    BandProbe,
    bands_content,
    can_hold,
    from_unit,
    missing_values,
    nodata_value,
    probe_bands,
    read_bands,
    select,
    to_unit,
)
from cyclegan_cli.data.decode import decode
from cyclegan_cli.errors import DataError

UINT16 = BandFormat(2, "uint16", (100.0,), (1100.0,), nodata=0.0)


def values_of(dtype: str, channels: int) -> np.ndarray:
    """``[H, W, C]`` over the whole range of an integer type, or with fractions."""
    random = np.random.default_rng(0)
    shape = (20, 30, channels)
    if dtype.startswith("float"):
        return random.normal(0, 1e3, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("dtype", BAND_TYPES)
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_arrays_and_tiffs_are_read_as_they_are_stored(dtype, channels, tmp_path):
    values = values_of(dtype, channels)
    shown = values[..., 0] if channels == 1 else values
    np.save(tmp_path / "x.npy", shown)
    assert np.array_equal(read_bands(tmp_path / "x.npy", "x").values, values)
    for planar in ("contig", "separate")[: 1 if channels == 1 else 2]:
        tifffile.imwrite(
            tmp_path / "x.tif",
            np.ascontiguousarray(np.moveaxis(shown, 2, 0)) if planar == "separate" else shown,
            photometric="minisblack",
            planarconfig=planar if channels > 1 else None,
            compression="zlib",
            tile=(16, 16),
            metadata=None,
        )
        image = read_bands(tmp_path / "x.tif", "x")
        assert image.values.dtype == dtype
        assert np.array_equal(image.values, values)
        assert (image.probe.channels, image.probe.dtype) == (channels, dtype)
        written = read_bands(io.BytesIO(bands_content(image, "TIFF")), "x")
        assert np.array_equal(written.values, values)
        assert written.layout == image.layout


@pytest.mark.parametrize("channels", [1, 3])
def test_png_of_16_bits_is_read_in_full_depth(channels, tmp_path):
    values = values_of("uint16", channels)
    (tmp_path / "x.png").write_bytes(imagecodecs.png_encode(values.squeeze()))
    image = read_bands(tmp_path / "x.png", "x")
    assert np.array_equal(image.values, values)
    assert probe_bands(tmp_path / "x.png", "x") == image.probe
    assert image.probe.is_color == (channels == 3)
    content = bands_content(image, "PNG")
    assert np.array_equal(read_bands(io.BytesIO(content), "x").values, values)


def test_order_of_a_fortran_array_is_kept():
    values = values_of("int16", 2)
    stream = io.BytesIO()
    np.save(stream, np.asfortranarray(values))
    stream.seek(0)
    assert np.array_equal(read_bands(stream, "x").values, values)


def big_endian() -> bytes:
    stream = io.BytesIO()
    np.save(stream, values_of("float32", 2).astype(">f4"))
    return stream.getvalue()


def test_big_endian_array_is_converted():
    image = read_bands(io.BytesIO(big_endian()), "x")
    assert np.array_equal(image.values, values_of("float32", 2))
    assert image.values.dtype == np.dtype("float32")


def saved(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def tiff(array: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **{"photometric": "minisblack", "metadata": None} | options)
    return stream.getvalue()


REFUSED = {
    "an object array": (saved(np.array([[{}]], dtype=object)), "not an image"),
    "a vector": (saved(np.zeros(5)), "not an image"),
    "complex values": (saved(np.zeros((4, 4), np.complex64)), "type complex64"),
    "int64": (saved(np.zeros((4, 4), np.int64)), "type int64"),
    "no pixels": (saved(np.zeros((0, 4))), "no pixels"),
    "too many channels": (saved(np.zeros((1, 1, 257), np.uint8)), "257 channels, more than 256"),
    "a truncated array": (big_endian()[:-1], "truncated"),
    "a truncated head": (big_endian()[:12], "cannot read x"),
    "a newer array": (b"\x93NUMPY\x09\0", "version 9.0"),
    "a damaged TIFF": (b"II*\0aaaa", "damaged"),
    "pages": (tiff(np.zeros((3, 8, 8), np.float32)), "several images"),
    "a palette": (
        tiff(
            np.zeros((8, 8), np.uint8),
            photometric="palette",
            colormap=np.zeros((3, 256), np.uint16),
        ),
        "palette",
    ),
    "an empty file": (b"", "empty"),
    "a text": (b"hello", "not an image"),
    "a byte": (b"x", "not an image"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_refused(kind):
    content, message = REFUSED[kind]
    with pytest.raises(DataError, match=message):
        read_bands(io.BytesIO(content), "x")


def test_claimed_pixels_are_limited_before_memory_is_allocated():
    head = big_endian()[:128].replace(b"(20, 30, 2)", b"(2000000000, 2)")
    with pytest.raises(DataError, match="megapixels"):
        read_bands(io.BytesIO(head), "x")


def test_bands_are_selected_in_order():
    image = read_bands(io.BytesIO(saved(values_of("uint16", 5))), "x")
    chosen = BandFormat(3, "uint16", (0.0,), (1.0,), bands=(4, 3, 2))
    assert np.array_equal(select(image, chosen, "x"), image.values[..., [3, 2, 1]])
    with pytest.raises(DataError, match="x has 5 bands, not band 6"):
        select(image, BandFormat(1, "uint16", (0.0,), (1.0,), bands=(6,)), "x")
    with pytest.raises(DataError, match="x has 5 channels, and its domain 4"):
        select(image, BandFormat(4, "uint16", (0.0,), (1.0,)), "x")


def test_color_becomes_gray_and_gray_color_by_an_explicit_choice(tmp_path):
    color = np.full((4, 4, 3), (100, 200, 50), np.uint8)
    Image.fromarray(color).save(tmp_path / "x.png")
    gray = select(read_bands(tmp_path / "x.png", "x"), BandFormat(1, "uint8", (0.0,), (255.0,)), "")
    assert gray.dtype == np.uint8
    assert gray.shape == (4, 4, 1)
    assert gray[0, 0, 0] == round(0.299 * 100 + 0.587 * 200 + 0.114 * 50)
    Image.fromarray(gray[..., 0]).save(tmp_path / "g.png")
    image = read_bands(tmp_path / "g.png", "g")
    repeated = select(image, BandFormat(3, "uint8", (0.0,), (255.0,)), "g")
    assert np.array_equal(repeated, np.repeat(gray, 3, axis=2))


def test_values_are_mapped_clipped_and_masked():
    values = np.array([[[0, 100], [600, 1100], [5000, 50]]], np.uint16)
    unit = to_unit(values, UINT16)
    assert unit.dtype == np.float32
    assert np.isnan(unit[0, 0, 0])
    assert np.array_equal(unit[0, 1:].ravel(), [0, 1, 1, -1])
    back = from_unit(unit[:, 1:], UINT16)
    assert np.array_equal(back, [[[600, 1100], [1100, 100]]])


def test_ranges_per_channel():
    chosen = BandFormat(2, "float64", (0.0, 10.0), (1.0, 30.0))
    unit = to_unit(np.array([[[0.5, 20.0], [1.0, 10.0]]]), chosen)
    assert np.array_equal(unit, [[[0, 0], [1, -1]]])
    assert np.array_equal(from_unit(unit, chosen), [[[0.5, 20], [1, 10]]])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_every_value_of_an_integer_type_survives(dtype):
    limits = np.iinfo(dtype)
    chosen = BandFormat(1, dtype, (float(limits.min),), (float(limits.max),))
    values = np.arange(limits.min, limits.max + 1).astype(dtype)[None, :, None]
    assert np.array_equal(from_unit(to_unit(values, chosen), chosen), values)


def test_no_value_is_written_as_no_data():
    chosen = BandFormat(1, "int16", (-9.0,), (9.0,), nodata=-9.0)
    assert from_unit(np.full((1, 1, 1), -1.0), chosen).item() == -8
    largest = BandFormat(1, "uint8", (0.0,), (255.0,), nodata=255.0)
    assert from_unit(np.ones((1, 1, 1)), largest).item() == 254


def test_missing_values():
    values = np.array([1.0, np.nan, np.inf, np.float32(-3.4e38), 0.1], np.float32)
    assert missing_values(values, -3.4e38, 0.1).tolist() == [False, True, True, True, True]
    assert missing_values(np.array([0, 7], np.uint8), 7.0, None).tolist() == [False, True]


@pytest.mark.parametrize(
    ("chosen", "source", "expected"),
    [
        (UINT16, 5.0, 0.0),
        (BandFormat(1, "int16", (0.0,), (1.0,)), -9999.0, -9999.0),
        (BandFormat(1, "uint8", (0.0,), (1.0,)), -9999.0, 0.0),
        (BandFormat(1, "int16", (0.0,), (1.0,)), None, -32768.0),
    ],
)
def test_value_of_pixels_without_data_in_outputs(chosen, source, expected):
    assert nodata_value(chosen, source) == expected


def test_float_outputs_have_nan_without_data():
    assert np.isnan(nodata_value(BandFormat(1, "float32", (0.0,), (1.0,)), 5.0))


def test_what_formats_hold():
    assert [can_hold(name, UINT16) for name in ("TIFF", "NPY", "PNG", "JPEG", None)] == [
        True, True, False, False, False,
    ]  # fmt: skip
    assert can_hold("PNG", BandFormat(1, "uint16", (0.0,), (1.0,)))
    assert not can_hold("PNG", BandFormat(1, "int16", (0.0,), (1.0,)))


def test_geographic_tags_are_read_and_written():
    metadata = '<GDALMetadata><Item name="DATE">2024</Item><Item name="B" sample="1">red</Item></>'
    tags = [*GEO_TAGS, nodata_tag("-9999"), (42112, 2, len(metadata) + 1, metadata, True)]
    image = read_bands(io.BytesIO(tiff(values_of("int16", 1)[..., 0], extratags=tags)), "x")
    assert image.probe.nodata == -9999
    out = BandImage(
        values_of("float32", 2),
        BandProbe("TIFF", 30, 20, 2, "float32", is_color=False, nodata=float("nan")),
        image.tags,
    )
    with tifffile.TiffFile(io.BytesIO(bands_content(out, "TIFF"))) as file:
        [page] = file.pages
        written = {tag.code: tag.value for tag in page.tags}
    assert [written[code] for code in GEO_CODES] == [tag[3] for tag in GEO_TAGS]
    assert written[42113] == "nan"
    # What describes one band does not describe those of the output.
    assert written[42112] == '<GDALMetadata><Item name="DATE">2024</Item></>'


def test_metadata_of_bands_is_left_out_in_linear_time():
    endless = "<Item sample=x>" * 300_000
    tags = [(42112, 2, len(endless) + 1, endless, True)]
    image = read_bands(io.BytesIO(tiff(np.zeros((4, 4), np.uint8), extratags=tags)), "x")
    assert image.tags == ((42112, 2, len(endless) + 1, endless),)


def test_color_arrays_are_decoded_like_images(tmp_path):
    color = values_of("uint8", 3)
    np.save(tmp_path / "x.npy", color)
    assert np.array_equal(decode(tmp_path / "x.npy").frames[0], color)
    np.save(tmp_path / "x.npy", values_of("uint16", 5))
    with pytest.raises(DataError, match="5 channels of uint16, and RGB images are needed"):
        decode(tmp_path / "x.npy")


def test_a_band_format_checks_itself():
    for changed in (
        {"channels": 0}, {"dtype": "int64"}, {"low": (1.0,), "high": (1.0,)},
        {"low": (0.0, 0.0, 0.0)}, {"bands": (1,)}, {"bands": (0, 1)}, {"nodata": float("nan")},
        {"high": (float("inf"),)},
    ):  # fmt: skip
        with pytest.raises(ValueError):
            BandFormat(**vars(UINT16) | changed)
