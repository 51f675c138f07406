"""Checksums: damaged pixels are refused, damaged ancillary data is dropped."""

import io
import os
import subprocess
import sys
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from cyclegan_cli.data.decode import BAD_PROFILE, decode, from_pillow
from cyclegan_cli.errors import DataError
from damaged_files import DAMAGES, png_chunk, with_checksums
from images import display_p3_profile, encoded, noise, tiff_of, written

WITH_CHECKSUMS = with_checksums()


@pytest.mark.parametrize("damage", ["zeros", "a bit"])
@pytest.mark.parametrize("name", ["rgb.png", "grey.png", "palette.png", "bits.png"])
def test_from_pillow_refuses_damaged_png(name, damage):
    content = DAMAGES[damage](WITH_CHECKSUMS[name], len(WITH_CHECKSUMS[name]) // 2)
    with Image.open(io.BytesIO(content)) as image, pytest.raises(ValueError, match="checksum"):
        from_pillow(image)


def with_chunk(png: bytes, kind: bytes, data: bytes, damaged: bool = True) -> bytes:
    """One more behind the header, its checksum wrong."""
    chunk = bytearray(png_chunk(kind, data))
    chunk[-1] ^= damaged
    return png[:33] + bytes(chunk) + png[33:]


PROFILE = b"name\0\0" + zlib.compress(display_p3_profile())


@pytest.mark.parametrize(
    ("kind", "data"), [(b"iCCP", PROFILE), (b"tEXt", b"Title\0text"), (b"pHYs", bytes(9))]
)
@pytest.mark.parametrize("pixels", ["rgb.png", "deep.png"])
def test_damaged_ancillary_chunk_is_dropped(kind, data, pixels):
    whole = WITH_CHECKSUMS[pixels]
    read = decode(io.BytesIO(with_chunk(whole, kind, data)))
    assert np.array_equal(read.frames[0], decode(io.BytesIO(whole)).frames[0])
    assert read.remarks == (f"its chunk {kind.decode()} is damaged and was left out",)


def test_damaged_ancillary_chunk_after_pixels_is_dropped():
    whole = WITH_CHECKSUMS["rgb.png"]
    damaged = png_chunk(b"tEXt", b"Title\0text")[:-1] + b"\0"
    read = decode(io.BytesIO(whole[:-12] + damaged + whole[-12:]))
    assert read.remarks == ("its chunk tEXt is damaged and was left out",)
    assert read.metadata == decode(io.BytesIO(whole)).metadata


@pytest.mark.parametrize("kind", [b"PLTE", b"acTL", b"fcTL"])
def test_damaged_critical_chunk_is_refused(kind):
    content = with_chunk(WITH_CHECKSUMS["rgb.png"], kind, bytes(3))
    with pytest.raises(DataError, match=f"checksum of a chunk {kind.decode()} is wrong"):
        decode(io.BytesIO(content))


@pytest.mark.parametrize("pixels", ["rgb.png", "deep.png"])
@pytest.mark.parametrize("profile", [PROFILE[:-40], PROFILE[:-40] + bytes(40)])
def test_truncated_icc_profile_in_png_is_dropped(pixels, profile):
    content = with_chunk(WITH_CHECKSUMS[pixels], b"iCCP", profile, damaged=False)
    read = decode(io.BytesIO(content))
    assert read.remarks == ("its chunk iCCP is damaged and was left out",)
    assert read.profile is None


def test_incomplete_icc_profile_in_jpeg_is_dropped():
    content = bytearray(encoded(noise(), "JPEG", icc_profile=display_p3_profile()))
    content[content.index(b"ICC_PROFILE\0") + 13] = 2  # Claims to be the first of two parts.
    assert decode(io.BytesIO(bytes(content))).remarks == (BAD_PROFILE,)


@pytest.mark.parametrize("samples", [np.asarray(noise()), np.asarray(noise().convert("L"))])
def test_lossless_jpeg(samples):
    read = decode(io.BytesIO(imagecodecs.jpeg8_encode(samples, lossless=True)))
    expected = samples if samples.ndim == 3 else np.repeat(samples[..., None], 3, axis=2)
    assert np.array_equal(read.frames[0], expected)


def psd_of_16_bits() -> bytes:
    head = b"8BPS\0\1" + bytes(6) + b"\0\3" + bytes(3) + b"\4" + bytes(3) + b"\5\0\x10\0\3"
    return head + bytes(14 + 2 * 3 * 20)


RGB = np.asarray(noise())
CMYK_ALPHA = np.dstack([RGB, RGB[..., :2]])
REASONS = {
    "cmyk and alpha.tif": (tiff_of(CMYK_ALPHA, photometric="separated", extrasamples=[2]),
                           "TIFF is not supported: 5 channels of 8-bit unsigned integers"),
    "float.tif": (tiff_of(RGB.astype(np.float32), photometric="rgb"),
                  "TIFF is not supported: 3 channels of 32-bit floating-point numbers"),
    "16.psd": (psd_of_16_bits(), "this kind of PSD is not supported: 3 channels of 16 bits"),
    "cut.gif": (b"GIF89a\1", "its GIF header is damaged or truncated"),
    "lzw.tif": (DAMAGES["zeros"](encoded(noise(200, 150), "TIFF", compression="tiff_lzw"), 20_000),
                "it is damaged, or its compression is not supported (tiff_lzw)"),
    "empty.png": (b"", "is empty"),
    "page.jpg": (b"<!DOCTYPE html><title>404</title>", "is an HTML page"),
    "film.png": (b"\0\0\0\x20ftypisom" + bytes(20), "is a video"),
    "xl.jpg": (b"\xff\x0a" + bytes(20), "is a JPEG XL image, which is not supported"),
    "words.tif": (b"These are words", "is not an image in a supported format"),
}  # fmt: skip


@pytest.mark.parametrize("name", REASONS)
def test_error_message_names_kind_of_file(tmp_path, name):
    content, reason = REASONS[name]
    with pytest.raises(DataError) as caught:
        decode(written(tmp_path / name, content))
    assert name in caught.value.message
    assert reason in caught.value.message


@pytest.mark.filterwarnings("ignore::UserWarning")  # As outside of tests: Pillow's.
def test_big_endian_bigtiff_error_message():
    stream = io.BytesIO()
    tifffile.imwrite(stream, RGB, bigtiff=True, byteorder=">", photometric="rgb", metadata=None)
    with pytest.raises(DataError, match="big-endian BigTIFF"):
        decode(io.BytesIO(stream.getvalue()))


def test_decoders_write_nothing_to_stderr(tmp_path):
    """libtiff and libpng do, past Python, unless they are kept from it."""
    broken = encoded(noise(200, 150), "TIFF", compression="tiff_adobe_deflate")
    written(tmp_path / "a.tif", DAMAGES["zeros"](broken, 20_000))
    written(tmp_path / "b.tif", REASONS["lzw.tif"][0])
    written(tmp_path / "c.png", with_chunk(WITH_CHECKSUMS["deep.png"], b"iCCP", b"n\0\0x"))
    sound = with_chunk(WITH_CHECKSUMS["deep.png"], b"gAMA", bytes(3), damaged=False)
    written(tmp_path / "d.png", sound)
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from cyclegan_cli.data.decode import decode\n"
        "from cyclegan_cli.errors import DataError\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try:\n        decode(path)\n    except DataError:\n        pass\n"
    )
    command = [sys.executable, "-c", program, os.fspath(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
