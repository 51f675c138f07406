"""Files to images. Every file here is made by the test that reads it."""

import io
import os
import random
import struct
import sys
from typing import Any

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, features

from cyclegan_cli.data.decode import decode, from_pillow, pixel_bytes
from cyclegan_cli.data.encode import encode
from cyclegan_cli.data.open_image import Probe, open_image, probe
from cyclegan_cli.errors import DataError, DeviceError
from damaged_files import deep_png
from images import (
    SIXTEEN_BITS,
    UPRIGHT,
    encoded,
    flat,
    noise,
    palette,
    quality_of,
    saved,
    tiff_of,
    with_orientation,
    written,
)


@pytest.mark.parametrize(
    ("image", "kind", "options", "rgb", "alpha"),
    [
        (flat("RGB", (10, 20, 30)), "PNG", {}, (10, 20, 30), None),
        (flat("RGB", (10, 20, 30)), "PNG", {"transparency": (10, 20, 30)}, (10, 20, 30), 0),
        (flat("L", 77), "PNG", {}, (77, 77, 77), None),
        (flat("L", 77), "PNG", {"transparency": 77}, (77, 77, 77), 0),
        (flat("LA", (77, 128)), "PNG", {}, (77, 77, 77), 128),
        (flat("RGBA", (10, 20, 30, 40)), "PNG", {}, (10, 20, 30), 40),
        (flat("RGBA", (10, 20, 30, 0)), "TIFF", {}, (10, 20, 30), 0),
        (palette(10, 20, 30), "PNG", {}, (10, 20, 30), None),
        (palette(10, 20, 30), "PNG", {"transparency": 1}, (10, 20, 30), 0),
        (palette(10, 20, 30), "PNG", {"transparency": 0}, (10, 20, 30), 255),
        (palette(10, 20, 30), "GIF", {}, (10, 20, 30), None),
        (flat("1", 1), "PNG", {}, (255, 255, 255), None),
        (flat("1", 0), "TIFF", {}, (0, 0, 0), None),
        (flat("RGB", (10, 20, 30)), "BMP", {}, (10, 20, 30), None),
        (flat("CMYK", (255, 0, 255, 0)), "TIFF", {}, (0, 255, 0), None),
    ],
)
def test_every_pixel_format_becomes_rgb_with_its_alpha_apart(
    tmp_path, image, kind, options, rgb, alpha
):
    found = decode(written(tmp_path / "x", encoded(image, kind, **options)))
    assert found.frames[0].dtype == np.uint8
    assert np.array_equal(found.frames[0], np.full((8, 16, 3), rgb))
    assert found.format == kind
    if alpha is None:
        assert found.alphas == ()
    else:
        assert np.array_equal(found.alphas[0], np.full((8, 16), alpha))


@pytest.mark.parametrize(
    ("image", "rgb"),
    [
        (flat("CMYK", (0, 255, 255, 0)), (255, 0, 0)),
        (flat("CMYK", (0, 0, 0, 255)), (0, 0, 0)),
        (flat("CMYK", (0, 0, 0, 0)), (255, 255, 255)),
        (flat("RGB", (200, 30, 60)).convert("YCbCr"), (200, 30, 60)),
        (flat("RGB", (200, 30, 60)), (200, 30, 60)),
        (flat("L", 99), (99, 99, 99)),
    ],
)
def test_every_colour_space_of_jpeg_becomes_rgb(tmp_path, image, rgb):
    found = decode(saved(tmp_path / "x.jpg", image, quality=95))
    assert np.abs(np.subtract(found.frames[0][4, 8], rgb)).max() <= 3


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("x.png", Image.fromarray(SIXTEEN_BITS)),
        ("x.tif", Image.fromarray(SIXTEEN_BITS)),
        ("x.pgm", Image.fromarray(SIXTEEN_BITS)),
        ("big-endian.tif", Image.fromarray(SIXTEEN_BITS.astype(">u2"))),
        ("32-bit.tif", Image.fromarray(SIXTEEN_BITS.astype(np.int32))),
    ],
)
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path, name, image):
    found = decode(saved(tmp_path / name, image))
    assert (found.bit_depth, found.frames[0].dtype) == (16, np.uint16)
    assert found.frames[0].shape == (1, 6, 3)
    assert found.frames[0][0].T.tolist() == [SIXTEEN_BITS[0].tolist()] * 3


@pytest.mark.parametrize(
    ("name", "content", "bytes_of_a_pixel"),
    [
        ("x.png", encoded(noise(), "PNG"), 3),
        ("x.jpg", encoded(noise(), "JPEG"), 3),
        ("x.png", encoded(flat("RGBA", (1, 2, 3, 4)), "PNG"), 4),
        ("x.png", encoded(Image.fromarray(SIXTEEN_BITS), "PNG"), 6),
        ("x.png", deep_png(np.zeros((16, 24, 3), dtype=np.uint16)), 6),
        ("x.tif", tiff_of(np.zeros((16, 24, 3), dtype=np.uint16), photometric="rgb"), 6),
    ],
)
def test_pixel_bytes_from_header(tmp_path, name, content, bytes_of_a_pixel):
    path = written(tmp_path / name, content)
    found = decode(path)
    arrays = [*found.frames, *(alpha for alpha in found.alphas if alpha is not None)]
    assert pixel_bytes(path) == sum(array.nbytes for array in arrays)
    assert pixel_bytes(path) == found.width * found.height * bytes_of_a_pixel


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(Image.fromarray(np.ones((2, 2), dtype=np.float32)), id="float"),
        pytest.param(Image.fromarray(np.full((2, 2), 65536, dtype=np.int32)), id="above 16 bits"),
        pytest.param(Image.fromarray(np.full((2, 2), -1, dtype=np.int32)), id="negative"),
    ],
)
def test_pixels_of_unknown_range_are_refused(tmp_path, image):
    with pytest.raises(DataError, match=r"x\.tif: pixels are"):
        decode(saved(tmp_path / "x.tif", image))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 100, "subsampling": 0}),
        ("PNG", {}),
        ("TIFF", {}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_every_exif_orientation_is_turned_upright(tmp_path, kind, options, orientation):
    stored = noise(12, 8)
    content = encoded(stored, kind, exif=with_orientation(orientation), **options)
    found = decode(written(tmp_path / "x", content)).frames[0].astype(int)
    expected = UPRIGHT[orientation](np.asarray(stored).astype(int))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= (6 if kind == "JPEG" else 0)


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_invalid_orientation_is_ignored(tmp_path, orientation):
    path = saved(tmp_path / "x.png", noise(12, 8), exif=with_orientation(orientation))
    assert decode(path).frames[0].tobytes() == noise(12, 8).tobytes()


def exif_with_an_odd_entry(tag: int, kind: int) -> bytes:
    """Two entries: orientation 6, and one whose type does not suit its tag."""
    entries = sorted([(tag, struct.pack(">HHI4s", tag, kind, 1, b"\1\0\0\0")),
                      (0x0112, struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0))])  # fmt: skip
    directory = struct.pack(">H", 2) + b"".join(entry for _, entry in entries) + bytes(4)
    return b"Exif\0\0MM\0*" + struct.pack(">I", 8) + directory


@pytest.mark.parametrize(
    ("tag", "kind"),
    [
        pytest.param(0x0110, 11, id="model as a float"),
        pytest.param(0x011A, 2, id="resolution as text"),
        pytest.param(0x0128, 7, id="unit of resolution as bytes"),
    ],
)
def test_invalid_exif_entry_does_not_prevent_orientation(tmp_path, tag, kind):
    path = saved(tmp_path / "x.jpg", noise(16, 8), exif=exif_with_an_odd_entry(tag, kind))
    assert decode(path).size == (8, 16)


def tiff_with_pixels_at_a_fractional_place() -> bytes:
    content = bytearray(encoded(noise(), "TIFF"))
    entry = content.index(struct.pack("<HHI", 273, 4, 1))  # StripOffsets, one whole number
    struct.pack_into("<HHIf", content, entry, 273, 11, 1, 8.5)
    return bytes(content)


def tiff_with_an_empty_second_page() -> bytes:
    content = bytearray(encoded(noise(), "TIFF"))
    (directory,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, directory)
    struct.pack_into("<I", content, directory + 2 + 12 * entries, len(content))
    return bytes(content) + struct.pack("<HHHIII", 1, 257, 3, 1, 1, 0)  # only a height


def avif_with_other_pixels() -> bytes:
    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    content = encoded(noise(), "AVIF")
    pixels = content.index(b"mdat") + 4
    return content[:pixels] + b"\xff" * (len(content) - pixels)


def dds_of_an_unknown_kind() -> bytes:
    return encoded(noise(), "DDS")[:76].ljust(128, b"\0")


def jpeg_with_its_table_renumbered() -> bytes:
    """Grey, with quantisation table 1 instead of 0: unusual, and allowed (ITU T.81, B.2.2)."""
    content = bytearray(encoded(noise().convert("L"), "JPEG"))
    content[content.index(b"\xff\xdb") + 4] = 1  # DQT: the table's number
    content[content.index(b"\xff\xc0") + 12] = 1  # SOF: the table of the one component
    return bytes(content)


@pytest.mark.parametrize(
    "make",
    [
        tiff_with_pixels_at_a_fractional_place,
        tiff_with_an_empty_second_page,
        avif_with_other_pixels,
        dds_of_an_unknown_kind,
    ],
)
def test_decoder_exceptions_become_data_errors(tmp_path, make):
    with pytest.raises(DataError, match=r"broken\.jpg"):
        decode(written(tmp_path / "broken.jpg", make()))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.png", "no such file"),
        ("folder.png", "folder"),
        ("file/below.png", "not a directory|no such file"),
        pytest.param("n" * 300 + ".png", "name too long|no such file", id="name too long"),
    ],
)
@pytest.mark.parametrize("read", [decode, probe])
def test_missing_file_or_folder_error_message(tmp_path, read, name, reason):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=f"(?i){name}: .*({reason})"):
        read(tmp_path / name)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files there")
@pytest.mark.timeout(120)
def test_named_pipe_is_refused_without_blocking(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png"):
        decode(tmp_path / "pipe.png")


def test_jpeg_with_arbitrary_table_ids(tmp_path):
    path = written(tmp_path / "x.jpg", jpeg_with_its_table_renumbered())
    assert decode(path).size == noise().size


@pytest.fixture
def photo_with_preview(tmp_path):
    """As many cameras and drones write it: a JPEG, and a small one behind it (MPO)."""
    preview = noise(8, 4)
    options = {"save_all": True, "append_images": [preview], "quality": 30, "subsampling": 2}
    content = encoded(noise(64, 32), "MPO", exif=with_orientation(6).tobytes(), **options)
    return written(tmp_path / "DJI_0001.JPG", content)


def test_mpo_is_read_as_jpeg(photo_with_preview):
    found = decode(photo_with_preview)
    assert (found.format, found.size) == ("JPEG", (32, 64))
    assert probe(photo_with_preview) == Probe("JPEG", "RGB", 64, 32, 1)


def test_mpo_keeps_jpeg_quality(photo_with_preview, tmp_path):
    encode(decode(photo_with_preview), tmp_path / "out.jpg", "JPEG")
    assert quality_of(tmp_path / "out.jpg") == quality_of(photo_with_preview)


def test_decompression_bomb_is_refused(tmp_path, monkeypatch):
    path = saved(tmp_path / "bomb.png", flat("RGB", 0))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16 * 8 // 2 - 1)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("pixels were made"))
    with pytest.raises(DataError, match=r"bomb\.png claims more than 0\.000126 megapixels"):
        decode(path)


@pytest.mark.skipif(sys.platform == "win32", reason="the trap is a shell script")
def test_postscript_is_never_executed(tmp_path, monkeypatch):
    trap, witness = tmp_path / "bin" / "gs", tmp_path / "witness"
    trap.parent.mkdir()
    trap.write_text(f"#!/bin/sh\necho ran >> '{witness}'\n")
    trap.chmod(0o755)
    monkeypatch.setenv("PATH", str(trap.parent), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    evil = written(tmp_path / "evil.jpg", encoded(noise(), "EPS"))

    with pytest.raises(DataError, match=r"evil\.jpg"):
        decode(evil)
    assert not witness.exists()

    with Image.open(evil) as image, pytest.raises(OSError):
        image.load()  # An unguarded reader triggers the trap.
    assert witness.exists()


def test_probe_reads_only_the_header(tmp_path):
    truncated = encoded(noise().convert("RGBA"), "PNG")[:-100]
    assert probe(written(tmp_path / "x.png", truncated)) == Probe("PNG", "RGBA", 24, 16, 1)


def test_probe_counts_frames(tmp_path):
    content = encoded(noise(), "GIF", save_all=True, append_images=[noise(seed=1)])
    assert probe(written(tmp_path / "x.gif", content)).frames == 2


def damaged(content: bytes, seed: int) -> bytes:
    """Cut somewhere, or with a few bytes changed, or both; headers more often than pixels."""
    draw = random.Random(seed)
    damaged = bytearray(content)
    if draw.random() < 0.3:
        damaged = damaged[: draw.randrange(len(content))]
    for _ in range(draw.choice([0, 1, 1, 2, 4, 8])):
        reach = min(len(damaged), draw.choice([64, 256, len(content)]))
        if reach:
            damaged[draw.randrange(reach)] = draw.choice([0, 1, 0xFF, draw.randrange(256)])
    return bytes(damaged)


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_file_that_could_be_mapped_into_memory_comes_upright(tmp_path, mode, orientation):
    image = noise(13, 7).convert(mode)
    path = saved(tmp_path / "bare.tiff", image, exif=with_orientation(orientation))
    upright = UPRIGHT[orientation](np.asarray(image.convert("RGBA").convert("RGB")))
    with Image.open(path) as open_image:
        colours = from_pillow(open_image)[0]
        assert open_image.filename == str(path)
    for found in (decode(path).frames[0], colours):
        assert np.abs(np.subtract(found, upright, dtype=int)).max() <= (mode == "CMYK")


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "fuzzed"


# --- at a reduced scale ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "shrink_to", "decoded"),
    [
        ((640, 480), 480, (640, 480)),
        ((640, 480), 240, (320, 240)),
        ((640, 480), 100, (160, 120)),
        ((641, 479), 100, (161, 120)),
        ((640, 480), 1, (80, 60)),
        ((640, 480), None, (640, 480)),
        ((480, 640), 100, (120, 160)),
    ],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_jpeg_at_reduced_scale_reports_full_size(tmp_path, size, shrink_to, decoded, orientation):
    path = saved(tmp_path / "x.jpg", noise(*size), exif=with_orientation(orientation))
    found = decode(path, shrink_to)
    if orientation == 6 and size == (641, 479):
        # What would reach beyond the image would be at its beginning.
        decoded = size
    turned = slice(None, None, -1 if orientation == 6 else 1)
    assert found.size == size[turned]
    assert found.frames[0].shape == (*decoded[turned][::-1], 3)
    full = np.zeros((found.height, found.width, 3), np.uint8)
    assert found.with_frames([full]).size == found.size
    if decoded != size:
        with pytest.raises(ValueError, match="frames of"):
            found.with_frames(found.frames)


def test_other_formats_are_decoded_at_their_full_scale(tmp_path):
    found = decode(saved(tmp_path / "x.png", noise(64, 48)), shrink_to=8)
    assert (found.full_size, found.frames[0].shape) == (None, (48, 64, 3))


# --- streams ---------------------------------------------------------------------------------


class Pipe(io.RawIOBase):
    """Bytes that come once, as from a pipe."""

    def __init__(self, content: bytes) -> None:
        self.content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self.content.readinto(buffer)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "GIF"])
def test_image_is_decoded_from_pipe(kind):
    found = decode(io.BufferedReader(Pipe(encoded(noise(), kind))))
    assert (found.format, found.size) == (kind, (24, 16))


@pytest.mark.parametrize("content", [b"", b"words", encoded(noise(), "PNG")[:-100]])
def test_a_stream_that_cannot_be_read_is_named(content):
    with pytest.raises(DataError, match="standard input"):
        decode(io.BytesIO(content))
    with pytest.raises(DataError, match="the letter"):
        decode(io.BytesIO(content), name="the letter")


@pytest.mark.parametrize("error", [DeviceError("no memory"), NameError("x")])
def test_errors_not_caused_by_the_file_are_not_converted(tmp_path, error):
    flat("L", 9).save(tmp_path / "x.png")
    with pytest.raises(type(error)) as caught, open_image(tmp_path / "x.png", "x.png"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("error", [ValueError("no"), struct.error("short"), OSError("truncated")])
def test_unexpected_decoder_exceptions_become_data_errors(tmp_path, error):
    flat("L", 9).save(tmp_path / "x.png")
    with (
        pytest.raises(DataError, match=f"cannot read x.png: {error}"),
        open_image(tmp_path / "x.png", "x.png"),
    ):
        raise error
