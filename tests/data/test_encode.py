"""Images to files."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from cyclegan_cli.data.decode import decode
from cyclegan_cli.data.encode import encode
from cyclegan_cli.data.formats import writable_format
from cyclegan_cli.data.image import EncodeOptions
from cyclegan_cli.errors import OutputError
from images import encoded, image_of, noise, quality_of, saved, segments, written


@pytest.mark.parametrize("quality", [5, 60, 98])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_keeps_quality(tmp_path, quality, subsampling, progressive):
    options = {"quality": quality, "subsampling": subsampling, "progressive": progressive}
    read = decode(saved(tmp_path / "in.jpg", noise(64, 48), **options))
    assert read.format == "JPEG"
    encode(read, tmp_path / "out.jpg", "JPEG")
    again = decode(tmp_path / "out.jpg")
    assert again.encoding == read.encoding
    assert quality_of(tmp_path / "out.jpg") == quality_of(tmp_path / "in.jpg")


def test_jpeg_tables_in_any_order(tmp_path):
    content = encoded(noise(), "JPEG", quality=30)
    luminance, chrominance = segments(content, b"\xff\xdb")
    assert luminance + chrominance in content
    swapped = content.replace(luminance + chrominance, chrominance + luminance)
    encode(decode(written(tmp_path / "in.jpg", swapped)), tmp_path / "out.jpg", "JPEG")
    saved(tmp_path / "reference.jpg", noise(), quality=30)
    assert quality_of(tmp_path / "out.jpg") == quality_of(tmp_path / "reference.jpg")


@pytest.mark.parametrize("quality", [5, 60, 98])
def test_grey_jpeg_written_as_colour_keeps_quality(tmp_path, quality):
    grey = decode(saved(tmp_path / "in.jpg", noise().convert("L"), quality=quality))
    encode(image_of(noise(), format="JPEG", encoding=grey.encoding), tmp_path / "out.jpg", "JPEG")
    tables = quality_of(tmp_path / "out.jpg")[0]
    assert tables[0] == tables[1] == quality_of(tmp_path / "in.jpg")[0][0]


def test_a_jpeg_from_another_format_has_quality_92(tmp_path):
    encode(decode(saved(tmp_path / "in.png", noise())), tmp_path / "out.jpg", "JPEG")
    saved(tmp_path / "reference.jpg", noise(), quality=92)
    assert quality_of(tmp_path / "out.jpg") == quality_of(tmp_path / "reference.jpg")


def test_jpeg_quality_is_not_applied_to_other_formats(tmp_path):
    encode(decode(saved(tmp_path / "in.jpg", noise(), quality=5)), tmp_path / "out.png", "PNG")
    assert decode(tmp_path / "out.png").size == noise().size


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_kept_where_the_format_has_it(tmp_path, kind):
    alpha = np.asarray(Image.linear_gradient("L").resize((24, 16)))
    image = image_of(noise(), alpha)
    encode(image, tmp_path / "x", kind)
    found = decode(tmp_path / "x").alpha(0)
    assert np.array_equal(found, alpha)
    assert image.frames[0].shape == (16, 24, 3), "the caller's image was changed"


def test_alpha_is_dropped_where_the_format_has_none(tmp_path):
    encode(image_of(noise(), np.full((16, 24), 100, np.uint8)), tmp_path / "x.jpg", "JPEG")
    assert decode(tmp_path / "x.jpg").alphas == ()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "JPEG2000"])
def test_lossless_formats_keep_every_pixel(tmp_path, kind):
    encode(image_of(noise()), tmp_path / "x", kind)
    assert decode(tmp_path / "x").frames[0].tobytes() == noise().tobytes()


@pytest.mark.parametrize(
    ("suffix", "beginning"),
    [(".jp2", b"\0\0\0\x0cjP  "), (".j2k", b"\xff\x4f\xff\x51"), (".J2C", b"\xff\x4f\xff\x51")],
)
def test_jpeg_2000_container_follows_extension(tmp_path, suffix, beginning):
    """ISO/IEC 15444-1: a container begins with its signature, a codestream with its size."""
    if writable_format(suffix) is None:
        pytest.skip("this Pillow cannot write JPEG 2000")
    path = tmp_path / f"x{suffix}"
    encode(image_of(noise()), path, "JPEG2000")
    assert path.read_bytes().startswith(beginning)
    assert decode(path).frames[0].tobytes() == noise().tobytes()


@pytest.mark.parametrize(
    "suffix",
    [".png", ".jpg", ".JPEG", ".webp", ".tif", ".bmp", ".gif", ".avif", ".jp2", ".tga", ".ppm"],
)
def test_encoded_image_keeps_the_size(tmp_path, suffix):
    kind = writable_format(suffix)
    if kind is None and suffix in (".avif", ".jp2"):
        pytest.skip(f"this Pillow cannot write {suffix}")
    assert kind is not None
    encode(image_of(noise(300, 40)), tmp_path / f"x{suffix}", kind)
    assert decode(tmp_path / f"x{suffix}").size == (300, 40)


@pytest.mark.parametrize(
    "suffix", [".eps", ".pdf", ".wmf", ".txt", ".psd", ".ico", ".icns", ".xbm", ""]
)
def test_writable_format_rejects_unsupported_extensions(suffix):
    assert writable_format(suffix) is None


@pytest.mark.parametrize(
    ("size", "kind"),
    [
        pytest.param((16384, 1), "WEBP", id="too large for the format"),
        pytest.param((65536, 1), "JPEG", id="much too large"),
        pytest.param((4, 4), "XBM", id="no colours in the format"),
    ],
)
def test_failed_encoding_keeps_old_file(tmp_path, size, kind):
    target = written(tmp_path / "target", b"old")
    with pytest.raises(OutputError, match="cannot write .*target"):
        encode(image_of(Image.new("RGB", size)), target, kind)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


class Recorder(io.BytesIO):
    """Counts what is written to it."""

    writes = 0

    def write(self, content: Any) -> int:
        self.writes += 1
        return super().write(content)


def test_image_is_encoded_to_stream_in_one_write():
    stream = Recorder()
    encode(image_of(noise()), stream, "PNG")
    assert stream.writes == 1
    assert decode(io.BytesIO(stream.getvalue())).frames[0].tobytes() == noise().tobytes()


def test_failed_encoding_writes_nothing_to_stream():
    stream = Recorder()
    with pytest.raises(OutputError, match="cannot write standard output as XBM"):
        encode(image_of(Image.new("RGB", (4, 4))), stream, "XBM")
    assert stream.getvalue() == b""


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF"])
def test_encode_quality_determines_file_size(kind):
    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    own = decode(io.BytesIO(encoded(noise(64, 64), "JPEG", quality=70)))
    sizes = []
    for quality in (10, 50, 90):
        stream = io.BytesIO()
        encode(own, stream, kind, EncodeOptions(quality=quality))
        sizes.append(len(stream.getvalue()))
    assert sizes[0] < sizes[1] < sizes[2]
