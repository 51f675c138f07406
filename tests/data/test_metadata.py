"""Metadata, from any format to any other."""

import io
from typing import Any

import pytest
from PIL import Image, PngImagePlugin, features

from cyclegan_cli.data.metadata import XMP_KEYWORD
from images import camera_exif, encoded, noise, open_image, round_trip

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="r"><rdf:Description a="b" '
    b'tiff:Orientation="6"><xmp:Thumbnails><rdf:Alt>/9j/4AAQ</rdf:Alt></xmp:Thumbnails>'
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)
KINDS = [
    kind for kind in ("JPEG", "PNG", "TIFF", "WEBP", "AVIF")
    if kind != "AVIF" or features.check("avif")
]  # fmt: skip


def photo(kind: str, exif: Any = None, xmp: bytes = XMP, **options: Any) -> bytes:
    if kind == "PNG":
        notes = PngImagePlugin.PngInfo()
        notes.add_itxt(XMP_KEYWORD, xmp.decode())
        options["pnginfo"] = notes
    elif kind == "TIFF":
        exif = Image.Exif() if exif is None else exif
        exif[700] = xmp
    else:
        options["xmp"] = xmp
    return encoded(noise(), kind, exif=exif, **options)


def xmp_of(image: Image.Image) -> bytes:
    xmp = image.info.get("xmp") or b""
    return xmp.encode() if isinstance(xmp, str) else bytes(xmp)


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_exif_and_xmp_are_kept_from_any_format_to_any_other(source, target):
    content = photo(source, camera_exif(6))
    read, _, output, remarks = round_trip(content, target)
    assert read.remarks == remarks == ()
    image, exif = open_image(output), open_image(output).getexif()
    assert image.size == (16, 24)
    assert exif.get(0x0112, 1) == 1
    assert exif[0x010F] == "Maker"
    if source != "TIFF":  # Pillow's writer has left them out of the source.
        assert exif.get_ifd(0x8769) == camera_exif(1, 16, 24).get_ifd(0x8769)
        assert exif.get_ifd(0x8825) == camera_exif().get_ifd(0x8825)
    assert b'tiff:Orientation="1"' in xmp_of(image)
    assert b"Thumbnails" not in xmp_of(image)
    assert b'a="b"' in xmp_of(image)


def test_tiff_exif_survives_two_translations():
    first = round_trip(photo("JPEG", camera_exif(3)), "TIFF")[2]
    second = round_trip(first, "TIFF")[2]
    exif = open_image(round_trip(second, "JPEG")[2]).getexif()
    assert exif.get_ifd(0x8769) == camera_exif(1).get_ifd(0x8769)
    assert exif.get_ifd(0x8825) == camera_exif().get_ifd(0x8825)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "JPEG2000"])
def test_unsupported_metadata_gives_warning(kind):
    *_, remarks = round_trip(photo("JPEG", camera_exif()), kind)
    assert remarks == (f"{kind} does not support EXIF and XMP: left out",)


@pytest.mark.parametrize(("source", "target"), [("JPEG", "PNG"), ("PNG", "TIFF"), ("TIFF", "JPEG")])
def test_resolution_is_kept(source, target):
    output = round_trip(encoded(noise(), source, dpi=(300, 150)), target)[2]
    assert open_image(output).info["dpi"] == pytest.approx((300, 150), abs=0.02)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # as outside of tests
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_is_left_out_and_the_image_translated(kind):
    content = encoded(noise(), kind, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    read, again, output, _ = round_trip(content, kind)
    assert read.remarks == ("its EXIF data is damaged and was left out",)
    assert again.size == (24, 16)
    assert not open_image(output).getexif()


def test_oversized_exif_is_dropped_with_warning():
    exif = camera_exif()
    exif[0x010E] = "x" * 70_000
    *_, output, remarks = round_trip(encoded(noise(), "PNG", exif=exif), "JPEG")
    assert remarks == ("its EXIF data does not fit into a JPEG file and was left out",)
    assert not open_image(output).getexif()


def test_oversized_xmp_is_dropped_alone():
    content = photo("PNG", camera_exif(1), XMP + b" " * 70_000)
    *_, output, remarks = round_trip(content, "JPEG")
    assert remarks == ("its XMP data does not fit into a JPEG file and was left out",)
    assert open_image(output).getexif()[0x010F] == "Maker"
    assert not xmp_of(open_image(output))


@pytest.mark.parametrize("target", ["JPEG", "TIFF"])
def test_resolutions_are_swapped_with_orientation(target):
    exif = camera_exif(6)
    exif[0x011A], exif[0x011B] = 300.0, 150.0
    content = encoded(noise(), "JPEG", exif=exif, dpi=(300, 150))
    output = open_image(round_trip(content, target)[2])
    assert output.info["dpi"] == pytest.approx((150, 300), abs=0.02)
    assert (output.getexif()[0x011A], output.getexif()[0x011B]) == (150, 300)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # as outside of tests
def test_exif_without_next_directory_is_kept():
    orientation = b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"
    short = b"II*\0\x08\0\0\0\x01\0" + orientation  # Without the offset of the next directory.
    read, *_, remarks = round_trip(encoded(noise(), "JPEG", exif=b"Exif\0\0" + short), "JPEG")
    assert remarks == ()
    assert read.remarks == ()
    assert read.metadata.exif == short.replace(b"\x06", b"\x01")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b'tiff:ImageWidth="24" tiff:ImageLength="16"',
         b'tiff:ImageWidth="16" tiff:ImageLength="24"'),
        (b'tiff:ImageLength="16" a="1" tiff:ImageWidth="2400"',
         b'tiff:ImageLength="2400" a="1" tiff:ImageWidth="16"'),
        (b"<exif:PixelXDimension>24</exif:PixelXDimension><exif:PixelYDimension>6<",
         b"<exif:PixelXDimension>6</exif:PixelXDimension><exif:PixelYDimension>24<"),
        (b'tiff:XResolution="300/1" tiff:YResolution="72/1"',
         b'tiff:XResolution="72/1" tiff:YResolution="300/1"'),
        (b'tiff:ImageWidth="24"', b'tiff:ImageWidth="24"'),
    ],
)  # fmt: skip
def test_xmp_width_and_height_are_swapped(said, expected):
    xmp = b'<x tiff:Orientation="6" ' + said + b"/>"
    turned = round_trip(photo("JPEG", camera_exif(6), xmp), "JPEG")[2]
    assert expected in xmp_of(open_image(turned))
    upright = round_trip(photo("JPEG", camera_exif(3), xmp), "JPEG")[2]
    assert said in xmp_of(open_image(upright))


def test_unapplied_xmp_orientation_is_kept():
    """Pillow understands it in double quotes alone."""
    said = b"<x tiff:Orientation='6'/>"
    read = round_trip(photo("JPEG", camera_exif(1), said), "JPEG")[0]
    assert read.metadata.xmp == said
    assert read.size == noise().size


def test_exif_that_image_magick_writes_as_text_is_kept():
    block = camera_exif(6).tobytes()
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n")
    stream = io.BytesIO()
    noise().save(stream, "PNG", pnginfo=notes)
    read, _, output, _ = round_trip(stream.getvalue(), "PNG")
    assert read.size == (16, 24)
    assert open_image(output).getexif()[0x010F] == "Maker"
