"""Colours said otherwise than by an ICC profile: CICP, nclx, PNG's chunks, EXIF's Adobe RGB.

What is expected is computed in floating point from the equations of ITU-T H.273 and Bradford's
adaptation of white, and lies within 2 levels of what zimg (ffmpeg's zscale) makes of the same
pixels, except for BT.709 and its kin, of which zimg undoes the screen rather than the camera.
"""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from cyclegan_cli.config import TrainConfig
from cyclegan_cli.data import icc
from cyclegan_cli.data.dataset import load_training_image
from cyclegan_cli.data.decode import decode, decode_opaque, from_pillow
from cyclegan_cli.data.image import EncodeOptions
from cyclegan_cli.errors import DataError
from damaged_files import png_chunk
from images import display_p3_profile, encoded, open_image, round_trip, srgb_profile, written

PIXELS = np.array(
    [[[200, 100, 50], [30, 160, 90], [90, 60, 220], [255, 40, 40], [10, 12, 14]]], np.uint8
)
IN_SRGB = {
    (12, 13): [
        (214.9, 92.6, 31.0), (0, 162.9, 82.0), (95.3, 58.3, 228.6),
        (255, 0, 6.6), (9.5, 12.1, 14.2),
    ],
    (9, 13): [
        (241.3, 75.9, 29.1), (0, 168.8, 79.3), (85.1, 50.5, 230.4),
        (255, 0, 11.3), (8.4, 12.2, 14.3),
    ],
    (9, 14): [
        (245.8, 94.1, 50.4), (0, 178.3, 95.2), (102.7, 67.6, 233.9),
        (255, 0, 40.7), (20.9, 26.5, 29.2),
    ],
    (1, 1): [
        (205.7, 113.6, 65.7), (45.8, 169.4, 104.2), (104.2, 75.4, 223.7),
        (255, 55.8, 55.8), (23.3, 26.2, 28.9),
    ],
    (5, 13): [
        (203.0, 100.0, 50.9), (0, 160.0, 91.2), (91.1, 60.0, 218.9),
        (255, 40.0, 40.0), (9.9, 12.0, 14.0),
    ],
    (6, 6): [
        (201.5, 115.6, 64.8), (61.2, 167.3, 103.8), (105.2, 81.5, 224.3),
        (248.4, 67.1, 54.6), (23.5, 26.2, 28.9),
    ],
    (7, 7): [
        (202.1, 117.1, 67.0), (63.1, 168.2, 105.6), (106.8, 83.4, 224.6),
        (248.4, 69.0, 57.0), (25.4, 28.2, 31.1),
    ],
    (1, 4): [
        (201.3, 100.0, 46.4), (23.8, 161.5, 89.5), (89.5, 57.4, 220.9),
        (255, 35.2, 35.2), (2.7, 4.0, 5.6),
    ],
    (1, 5): [
        (188.6, 76.2, 26.2), (8.2, 142.2, 65.8), (65.8, 35.7, 212.4),
        (255, 17.0, 17.0), (0.4, 0.6, 1.0),
    ],
    (1, 8): [
        (229.1, 168.1, 122.4), (96.3, 207.5, 160.3), (160.3, 133.2, 238.9),
        (255, 110.3, 110.3), (55.8, 61.3, 66.3),
    ],
    (10, 8): [
        (255, 0, 121.1), (0, 255, 144.0), (149.8, 105.7, 251.0),
        (255, 0, 126.5), (37.1, 66.4, 66.7),
    ],
    (22, 13): [
        (201.7, 102.1, 49.1), (13.2, 156.9, 89.9), (91.0, 73.8, 220.3),
        (255, 56.5, 38.1), (9.9, 12.0, 14.0),
    ],
    (8, 13): [
        (222.5, 92.4, 31.7), (0, 164.2, 84.1), (96.1, 48.3, 227.3),
        (255, 0, 0), (9.3, 12.1, 14.2),
    ],
    (4, 4): [
        (233.3, 92.8, 22.3), (0, 159.5, 85.7), (76.8, 83.9, 227.2),
        (255, 0, 0), (1.9, 4.1, 5.7),
    ],
}  # fmt: skip
# As LittleCMS has them by way of another program's Adobe RGB profile.
FROM_ADOBE_RGB = [[227, 100, 42], [0, 161, 85], [99, 57, 225], [255, 35, 35], [2, 4, 6]]
IS_SRGB = b"\0"
P3_PRIMARIES = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
SRGB_PRIMARIES = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)


def png(levels: Any = PIXELS, **chunks: bytes) -> bytes:
    """A PNG with chunks before its pixels, in the order they are given."""
    high, wide = levels.shape[:2]
    depth, colour_type = 8 * levels.dtype.itemsize, 2 if levels.ndim == 3 else 0
    rows = b"".join(b"\0" + row.astype(levels.dtype.newbyteorder(">")).tobytes() for row in levels)
    head = struct.pack(">IIBBBBB", wide, high, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        png_chunk(kind, content)
        for kind, content in (
            (b"IHDR", head),
            *((kind.encode(), content) for kind, content in chunks.items()),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        )
    )


def iccp(profile: bytes) -> bytes:
    return b"a\0\0" + zlib.compress(profile)


def gamma(hundred_thousandths: int) -> bytes:
    return struct.pack(">I", hundred_thousandths)


def colors(content: bytes) -> Any:
    return decode(io.BytesIO(content)).frames[0]


@pytest.mark.parametrize("numbers", IN_SRGB)
def test_png_cicp_conversion(numbers):
    expected = np.array([IN_SRGB[numbers]])
    content = png(cICP=bytes([*numbers, 0, 1]))
    image = decode(io.BytesIO(content))
    assert image.remarks == ()
    assert np.abs(image.frames[0] - expected).max() <= 1
    assert np.array_equal(from_pillow(open_image(content))[0], image.frames[0])
    deep = colors(png(PIXELS.astype(np.uint16) * np.uint16(257), cICP=bytes([*numbers, 0, 1])))
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - expected).max() < 0.25


def test_converted_output_is_tagged_srgb_or_keeps_profile():
    content = png(cICP=bytes([12, 13, 0, 1]))
    _, again, output, _ = round_trip(content, "PNG")
    assert open_image(output).info["icc_profile"] == icc.srgb()
    assert np.array_equal(again.frames[0], colors(content))
    _, _, output, _ = round_trip(content, "PNG", EncodeOptions(keep_profile=True))
    kept = open_image(output)
    # Colours beyond sRGB have been clipped on the way.
    assert np.abs(np.asarray(kept).astype(int)[0, [0, 2, 4]] - PIXELS[0, [0, 2, 4]]).max() <= 1
    assert icc.space_of(kept.info["icc_profile"]) == "RGB"
    _, _, output, _ = round_trip(png(cICP=bytes([1, 13, 0, 1])), "PNG")
    assert "icc_profile" not in open_image(output).info


@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_is_refused_in_one_sentence(transfer, tmp_path):
    name = {16: "PQ", 18: "HLG"}[transfer]
    path = written(tmp_path / "hdr.png", png(cICP=bytes([9, transfer, 0, 1])))
    for read in (decode, lambda path: decode_opaque(path, 8),
                 lambda path: load_training_image(path, TrainConfig())):  # fmt: skip
        with pytest.raises(DataError, match=rf"hdr.png: .*HDR .*\({name}\).* tone-map it to SDR"):
            read(path)
    with Image.open(path) as image, pytest.raises(ValueError, match="HDR"):
        from_pillow(image)


def test_icc_profile_with_hdr_cicp_tag_is_refused():
    profile = bytearray(srgb_profile())
    count = int.from_bytes(profile[128:132])
    place = 132 + 12 * (count - 1)  # The last tag gives its place to it.
    struct.pack_into(">4sII", profile, place, b"cicp", len(profile), 12)
    profile += b"cicp" + bytes(4) + bytes([9, 16, 0, 1])
    with pytest.raises(DataError, match="HDR"):
        colors(png(iCCP=iccp(bytes(profile))))


LINEAR, P3 = IN_SRGB[1, 8], IN_SRGB[12, 13]
PLAIN = PIXELS[0].tolist()


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ({"gAMA": gamma(100_000)}, LINEAR),
        ({"gAMA": gamma(45455)}, PLAIN),
        ({"gAMA": gamma(45455), "cHRM": SRGB_PRIMARIES}, PLAIN),
        ({"cHRM": P3_PRIMARIES}, P3),
        ({"sRGB": IS_SRGB, "gAMA": gamma(100_000), "cHRM": P3_PRIMARIES}, PLAIN),
        ({"gAMA": gamma(100_000), "sRGB": IS_SRGB}, PLAIN),
        ({"iCCP": iccp(display_p3_profile()), "gAMA": gamma(100_000)}, P3),
        ({"iCCP": iccp(display_p3_profile()), "sRGB": IS_SRGB}, P3),
        ({"cICP": bytes([1, 13, 0, 1]), "iCCP": iccp(display_p3_profile())}, PLAIN),
        ({"iCCP": iccp(display_p3_profile()), "cICP": bytes([1, 8, 0, 1])}, LINEAR),
        ({"cICP": bytes([2, 2, 0, 1]), "gAMA": gamma(100_000)}, LINEAR),
        ({"cICP": bytes([12, 2, 0, 1])}, P3),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_png_chunks_count_by_the_specifications_precedence(chunks, expected):
    image = decode(io.BytesIO(png(**chunks)))
    assert np.abs(image.frames[0] - np.array([expected])).max() <= 1
    assert image.remarks == ()


@pytest.mark.parametrize(
    ("chunks", "remark"),
    [
        ({"cICP": bytes([3, 13, 0, 1])}, "CICP 3/13"),
        ({"cICP": bytes([12, 99, 0, 1])}, "CICP 12/99"),
        ({"cICP": bytes([11, 17, 0, 1])}, "CICP 11/17"),
        ({"cICP": bytes([12, 13, 1, 1])}, "cICP"),
        ({"cICP": b"\x0c"}, "cICP"),
        ({"gAMA": gamma(0)}, "gAMA"),
        ({"cHRM": bytes(32)}, "cHRM"),
        ({"cHRM": struct.pack(">8I", *[33333] * 8)}, "cHRM"),
    ],
)
def test_invalid_colour_chunks_are_ignored_with_warning(chunks, remark):
    image = decode(io.BytesIO(png(**chunks)))
    assert np.array_equal(image.frames[0], PIXELS)
    assert len(image.remarks) == 1
    assert remark in image.remarks[0]
    assert "ignored" in image.remarks[0]


def test_damaged_icc_profile_falls_back_to_gamma_chunk():
    image = decode(io.BytesIO(png(iCCP=iccp(b"junk" * 40), gAMA=gamma(100_000))))
    assert np.abs(image.frames[0] - np.array([LINEAR])).max() <= 1
    assert "profile is damaged" in image.remarks[0]


def test_limited_range_is_expanded():
    levels = np.array([[[16, 126, 235], [0, 255, 17]]], np.uint8)
    content = png(levels, cICP=bytes([1, 13, 0, 0]))
    assert colors(content).tolist() == [[[0, 128, 255], [0, 255, 1]]]
    deep = colors(png(levels.astype(np.uint16) * np.uint16(256), cICP=bytes([1, 13, 0, 0])))
    assert deep[0, 0].tolist() == [0, 32917, 65535]


def test_gamma_chunk_of_a_gray_image():
    assert colors(png(PIXELS[..., 1], gAMA=gamma(100_000)))[0, 0].tolist() == [168, 168, 168]


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_nclx_conversion():
    big = np.repeat(np.repeat(PIXELS, 16, 0), 16, 1)
    plain = encoded(Image.fromarray(big), "AVIF", quality=100, subsampling="4:4:4")
    place = plain.index(b"colrnclx") + 8
    assert plain[place : place + 4] == bytes([0, 1, 0, 13])

    def said(primaries, transfer):
        return plain[:place] + struct.pack(">HH", primaries, transfer) + plain[place + 4 :]

    middle = np.array([IN_SRGB[12, 13]])
    image = decode(io.BytesIO(said(12, 13)))
    assert np.abs(image.frames[0][8:9, 8::16] - middle).max() <= 3
    _, _, output, _ = round_trip(said(12, 13), "AVIF")
    assert open_image(output).info["icc_profile"] == icc.srgb()
    assert np.abs(colors(said(2, 2))[8:9, 8::16].astype(int) - PIXELS).max() <= 2
    for transfer in (16, 18):
        with pytest.raises(DataError, match="HDR"):
            decode(io.BytesIO(said(9, transfer)))
    with_profile = encoded(Image.fromarray(big), "AVIF", icc_profile=display_p3_profile())
    assert decode(io.BytesIO(with_profile)).profile == display_p3_profile()


def test_heic_nclx_conversion():
    pytest.importorskip("pillow_heif")
    decode(io.BytesIO(png()))  # Registers HEIC.
    big = Image.fromarray(np.repeat(np.repeat(PIXELS, 16, 0), 16, 1))

    def said(primaries, transfer):
        return encoded(big, "HEIF", quality=-1, chroma=444, color_primaries=primaries,
                       transfer_characteristics=transfer, matrix_coefficients=6,
                       full_range_flag=1)  # fmt: skip

    assert np.abs(colors(said(12, 13))[8:9, 8::16] - np.array([IN_SRGB[12, 13]])).max() <= 3
    with pytest.raises(DataError, match=r"HDR .*\(PQ\)"):
        decode(io.BytesIO(said(9, 16)))


def test_jpeg_2000_color_boxes():
    if not features.check("jpg_2000"):
        pytest.skip("this Pillow has no JPEG 2000")
    plain = encoded(Image.fromarray(PIXELS), "JPEG2000")
    header = plain.index(b"jp2h") - 4
    color = plain.index(b"colr") - 4
    length = int.from_bytes(plain[color : color + 4])
    for method, content in ((2, display_p3_profile()), (5, struct.pack(">HHHB", 12, 13, 0, 128))):
        box = struct.pack(">I4sBBB", 11 + len(content), b"colr", method, 0, 0) + content
        said = plain[:color] + box + plain[color + length :]
        size = int.from_bytes(plain[header : header + 4]) + len(box) - length
        said = said[:header] + struct.pack(">I", size) + said[header + 4 :]
        assert np.abs(colors(said) - np.array([IN_SRGB[12, 13]])).max() <= 1


# Adobe RGB


def adobe_rgb(space: int = 65535, index: str = "R03") -> Image.Exif:
    exif = Image.Exif()
    exif[0x8769] = {0xA001: space, 0xA005: {1: index}}
    return exif


def colour_entries(content: bytes) -> tuple[Any, Any]:
    exif = open_image(content).getexif()
    return exif.get_ifd(0x8769)[0xA001], exif.get_ifd(0xA005)[1]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_adobe_rgb_by_exif_without_profile(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(Image.fromarray(PIXELS), kind, exif=adobe_rgb(), **options)
    assert np.abs(colors(content) - np.array([FROM_ADOBE_RGB])).max() <= 1
    assert np.array_equal(from_pillow(open_image(content))[0], colors(content))
    _, _, output, _ = round_trip(content, kind)
    assert colour_entries(output) == (1, "R98")
    assert open_image(output).info["icc_profile"] == icc.srgb()
    _, again, output, _ = round_trip(content, kind, EncodeOptions(keep_profile=True))
    assert colour_entries(output) == (65535, "R03")
    assert again.profile == decode(io.BytesIO(content)).profile


def test_adobe_rgb_photos_in_training_and_translation(tmp_path):
    big = Image.fromarray(np.full((64, 64, 3), (200, 100, 50), np.uint8))
    content = encoded(big, "JPEG", quality=100, subsampling=0, exif=adobe_rgb())
    path = written(tmp_path / "a.jpg", content)
    for levels in (decode(path).frames[0], decode_opaque(path, 64)[0]):
        assert np.abs(levels[32, 32].astype(int) - FROM_ADOBE_RGB[0]).max() <= 2


@pytest.mark.parametrize(
    ("space", "index", "is_adobe"),
    [(65535, "R03", True), (2, "R98", True), (1, "R03", False), (65535, "R98", False)],
)
def test_is_adobe_rgb(space, index, is_adobe):
    content = encoded(Image.fromarray(PIXELS), "PNG", exif=adobe_rgb(space, index))
    assert (not np.array_equal(colors(content), PIXELS)) == is_adobe


def test_icc_profile_overrides_exif_color_space():
    exif = adobe_rgb()
    tagged = encoded(Image.fromarray(PIXELS), "PNG", exif=exif, icc_profile=srgb_profile())
    assert np.array_equal(colors(tagged), PIXELS)
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    assert np.array_equal(colors(png(sRGB=IS_SRGB, eXIf=block)), PIXELS)


def test_xmp_colour_space_is_set_to_srgb():
    xmp = b'<x exif:ColorSpace="65535" photoshop:ICCProfile="Adobe RGB (1998)" a="b"/>'
    content = encoded(Image.fromarray(PIXELS), "WEBP", xmp=xmp, icc_profile=display_p3_profile())
    _, _, output, _ = round_trip(content, "WEBP")
    said = open_image(output).info["xmp"]
    assert b'exif:ColorSpace="1" photoshop:ICCProfile="sRGB IEC61966-2.1" a="b"' in said
    _, _, output, _ = round_trip(content, "WEBP", EncodeOptions(keep_profile=True))
    assert open_image(output).info["xmp"] == xmp


def test_the_primaries_of_a_tiff_without_a_profile():
    import tifffile

    def tiff(*primaries):
        stream = io.BytesIO()
        numbers = [number for value in primaries for number in (value, 1000)]
        tags = [(318, 5, 2, (3127, 10000, 3290, 10000), True), (319, 5, 6, numbers, True)]
        tifffile.imwrite(stream, PIXELS, photometric="rgb", metadata=None, extratags=tags)
        return stream.getvalue()

    assert np.abs(colors(tiff(680, 320, 265, 690, 150, 60)) - np.array([P3])).max() <= 1
    assert np.array_equal(colors(tiff(640, 330, 300, 600, 150, 60)), PIXELS)
