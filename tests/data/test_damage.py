"""Damaged images are refused, whatever was asked of them first; what can be spared is spared."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from awful import deep_png, png_chunk
from cyclegan_cli.data.decode import BAD_PROFILE, decode, decode_opaque, from_pillow
from cyclegan_cli.errors import DataError
from images import deep_noise, display_p3_profile, encoded, noise, tiff_of, written

Array = np.ndarray[Any, np.dtype[Any]]


def frames_of(*seeds: int) -> list[Image.Image]:
    return [noise(100, 80, seed) for seed in seeds]


WITH_CHECKSUMS = {
    "rgb.png": encoded(noise(100, 80), "PNG"),
    "grey.png": encoded(noise(100, 80).convert("L"), "PNG"),
    "palette.png": encoded(noise(100, 80).quantize(), "PNG"),
    "bits.png": encoded(noise(300, 200).convert("1"), "PNG"),
    "deep.png": deep_png(deep_noise(40, 50, 3)),
    "frames.png": encoded(noise(100, 80), "PNG", save_all=True, append_images=frames_of(1, 2)),
    "deflate.tif": encoded(noise(100, 80), "TIFF", compression="tiff_adobe_deflate"),
    "deep.tif": tiff_of(deep_noise(40, 50, 3), photometric="rgb", compression="zlib"),
}
DAMAGES = {
    "zeros": lambda content, at: content[:at] + bytes(64) + content[at + 64 :],
    "a bit": lambda content, at: content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :],
    "a hole": lambda content, at: content[:at] + content[at + 64 :],
    "cut off": lambda content, at: content[:at],
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", WITH_CHECKSUMS)
def test_a_image_damaged_in_its_middle_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    content = WITH_CHECKSUMS[name]
    path = written(tmp_path / name, DAMAGES[damage](content, len(content) // 2))
    with pytest.raises(DataError, match="cannot read"):
        decode(path)
    if name == "frames.png":
        return  # Its first frame may be whole.
    with pytest.raises(DataError, match="cannot read"):
        decode_opaque(path, 10)


@pytest.mark.parametrize("damage", ["zeros", "a bit"])
@pytest.mark.parametrize("name", ["rgb.png", "grey.png", "palette.png", "bits.png"])
def test_a_damaged_image_that_a_program_has_opened_is_refused(name: str, damage: str) -> None:
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
def test_a_damaged_chunk_that_is_not_needed_is_left_out_with_a_warning(
    kind: bytes, data: bytes, pixels: str
) -> None:
    whole = WITH_CHECKSUMS[pixels]
    read = decode(io.BytesIO(with_chunk(whole, kind, data)))
    assert np.array_equal(read.frames[0], decode(io.BytesIO(whole)).frames[0])
    assert read.remarks == (f"its chunk {kind.decode()} is damaged and was left out",)


def test_a_damaged_chunk_behind_the_pixels_is_left_out_with_a_warning() -> None:
    whole = WITH_CHECKSUMS["rgb.png"]
    damaged = png_chunk(b"tEXt", b"Title\0text")[:-1] + b"\0"
    read = decode(io.BytesIO(whole[:-12] + damaged + whole[-12:]))
    assert read.remarks == ("its chunk tEXt is damaged and was left out",)
    assert read.metadata == decode(io.BytesIO(whole)).metadata


@pytest.mark.parametrize("kind", [b"PLTE", b"acTL", b"fcTL"])
def test_a_damaged_chunk_that_is_needed_is_an_error(kind: bytes) -> None:
    content = with_chunk(WITH_CHECKSUMS["rgb.png"], kind, bytes(3))
    with pytest.raises(DataError, match=f"checksum of a chunk {kind.decode()} is wrong"):
        decode(io.BytesIO(content))


@pytest.mark.parametrize("pixels", ["rgb.png", "deep.png"])
@pytest.mark.parametrize("profile", [PROFILE[:-40], PROFILE[:-40] + bytes(40)])
def test_a_profile_that_ends_too_early_is_left_out_with_a_warning(
    pixels: str, profile: bytes
) -> None:
    content = with_chunk(WITH_CHECKSUMS[pixels], b"iCCP", profile, damaged=False)
    read = decode(io.BytesIO(content))
    assert read.remarks == ("its chunk iCCP is damaged and was left out",)
    assert read.profile is None


def test_a_profile_of_which_a_jpeg_has_a_part_is_left_out_with_a_warning() -> None:
    content = bytearray(encoded(noise(), "JPEG", icc_profile=display_p3_profile()))
    content[content.index(b"ICC_PROFILE\0") + 13] = 2  # It says: the first of two parts.
    assert decode(io.BytesIO(bytes(content))).remarks == (BAD_PROFILE,)


@pytest.mark.parametrize("samples", [np.asarray(noise()), np.asarray(noise().convert("L"))])
def test_a_lossless_jpeg_is_read_exactly(samples: Array) -> None:
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
def test_a_file_that_cannot_be_read_is_told_for_what_it_is(tmp_path: Path, name: str) -> None:
    content, reason = REASONS[name]
    with pytest.raises(DataError) as caught:
        decode(written(tmp_path / name, content))
    assert name in caught.value.message
    assert reason in caught.value.message


@pytest.mark.filterwarnings("ignore::UserWarning")  # As outside of tests: Pillow's.
def test_a_big_endian_bigtiff_is_told_for_what_it_is() -> None:
    stream = io.BytesIO()
    tifffile.imwrite(stream, RGB, bigtiff=True, byteorder=">", photometric="rgb", metadata=None)
    with pytest.raises(DataError, match="big-endian BigTIFF"):
        decode(io.BytesIO(stream.getvalue()))


def test_no_library_writes_to_the_terminal(tmp_path: Path) -> None:
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
