"""What of an image each format holds: modes, depths, profiles, transparency."""

import io
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from cyclegan_cli.data import icc
from cyclegan_cli.data.decode import decode
from cyclegan_cli.data.encode import encode, refuse_unwritable
from cyclegan_cli.data.image import DecodedImage, EncodeOptions
from cyclegan_cli.errors import OutputError
from images import (
    deep_noise,
    display_p3_profile,
    encoded,
    grey_profile,
    image_of,
    noise,
    open_image,
    round_trip,
    tiff_of,
)

KEEP_MODE, KEEP_PROFILE = EncodeOptions(keep_mode=True), EncodeOptions(keep_profile=True)


def smooth(mode: str = "RGB") -> Image.Image:
    ramp = Image.linear_gradient("L").resize((24, 16))
    return Image.merge("RGB", [ramp, ramp.rotate(180), ramp]).convert(mode)


def written_as(content: bytes, kind: str, options: EncodeOptions) -> tuple[Image.Image, Any]:
    *_, output, remarks = round_trip(content, kind, options)
    return open_image(output), remarks


# Modes


@pytest.mark.parametrize(
    ("mode", "kind", "kept"),
    [
        ("L", "PNG", "L"), ("LA", "PNG", "LA"), ("P", "PNG", "P"), ("1", "PNG", "1"),
        ("L", "JPEG", "L"), ("CMYK", "JPEG", "CMYK"), ("L", "TIFF", "L"), ("1", "TIFF", "1"),
        ("CMYK", "TIFF", "CMYK"), ("P", "TIFF", "P"), ("RGB", "PNG", "RGB"), ("L", "BMP", "L"),
        ("P", "BMP", "P"), ("L", "JPEG2000", "L"), ("L", "PPM", "L"), ("1", "PPM", "1"),
    ],
)  # fmt: skip
def test_the_mode_is_kept_on_request_and_else_rgb(mode, kind, kept):
    source = "JPEG2000" if kind == "JPEG2000" else kind
    content = encoded(smooth(mode), source)
    image, remarks = written_as(content, kind, KEEP_MODE)
    assert (image.mode, remarks) == (kept, ())
    plain, remarks = written_as(content, kind, EncodeOptions())
    assert (plain.mode, remarks) == ("RGBA" if mode == "LA" else "RGB", ())


@pytest.mark.parametrize(
    ("mode", "kind", "written", "remark"),
    [
        ("CMYK", "PNG", "RGB", "PNG does not support CMYK images: written as RGB"),
        ("L", "WEBP", "RGB", "WEBP does not support grey images: written as RGB"),
        ("P", "JPEG", "RGB", "JPEG does not support palette images: written as RGB"),
        ("1", "JPEG", "L", "JPEG does not support black-and-white images: written as grey"),
    ],
)
def test_unsupported_mode_gives_warning(mode, kind, written, remark):
    image, remarks = written_as(encoded(smooth(mode), "TIFF"), kind, KEEP_MODE)
    assert (image.mode, remarks) == (written, (remark,))


def test_grey_is_as_light_as_the_colours_were():
    image = image_of(noise(), mode="L")
    stream = io.BytesIO()
    encode(image, stream, "PNG", KEEP_MODE)
    assert np.array_equal(open_image(stream.getvalue()), noise().convert("L"))
    deep = np.asarray(noise()).astype(np.uint16) * np.uint16(257)
    stream = io.BytesIO()
    encode(image.with_frames([deep]), stream, "PNG", KEEP_MODE)
    difference = np.asarray(open_image(stream.getvalue())) / 257 - np.asarray(noise().convert("L"))
    assert np.abs(difference).max() <= 0.51


# Transparency


@pytest.mark.parametrize("kind", ["JPEG", "BMP", "PPM"])
def test_transparency_is_composited_on_white(kind):
    image = Image.new("RGBA", (24, 16), (200, 0, 100, 64))
    result, remarks = written_as(encoded(image, "PNG"), kind, EncodeOptions())
    assert remarks == (f"{kind} does not support transparency: composited on white",)
    assert np.abs(np.subtract(result.getpixel((3, 3)), (241, 191, 216))).max() <= 2


def test_opaque_alpha_is_dropped_without_warning():
    opaque = encoded(noise().convert("RGBA"), "PNG")
    assert written_as(opaque, "JPEG", EncodeOptions())[1] == ()


def test_partial_transparency_in_gif_and_palette_png():
    half = noise().convert("RGBA")
    half.putalpha(Image.linear_gradient("L").resize((24, 16)))
    gif, remarks = written_as(encoded(half, "PNG"), "GIF", EncodeOptions())
    assert remarks == ("GIF does not support partial transparency: rounded",)
    alpha = np.asarray(gif.convert("RGBA").getchannel("A"))
    assert np.array_equal(alpha == 255, np.asarray(half.getchannel("A")) >= 128)
    content = encoded(half.quantize(method=Image.Quantize.FASTOCTREE), "PNG")
    png, remarks = written_as(content, "PNG", KEEP_MODE)
    assert (png.mode, remarks) == (
        "RGBA",
        ("palettes do not support partial transparency: written as RGB",),
    )


# Depth


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "BMP"])
def test_16_bits_are_reduced_to_8_with_a_warning(kind):
    content = tiff_of(deep_noise(16, 24, 3), photometric="rgb")
    assert written_as(content, kind, EncodeOptions())[1] == (
        f"{kind} supports 8 bits per channel: reduced from 16",
    )
    assert written_as(content, kind, EncodeOptions(bit_depth=8))[1] == ()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_8_bit_image_written_at_16_bits(kind):
    read, again, *_ = round_trip(encoded(noise(), "PNG"), kind, EncodeOptions(bit_depth=16))
    assert again.bit_depth == 16
    assert np.array_equal(again.frames[0], read.frames[0].astype(np.uint16) * np.uint16(257))


@pytest.mark.parametrize("kind", ["JPEG2000", "AVIF", "PPM"])
def test_unread_bit_depth_gives_warning(kind):
    levels = deep_noise(16, 24, 3)
    content, bits = {
        "JPEG2000": lambda: (imagecodecs.jpeg2k_encode(levels), 16),
        "AVIF": lambda: (imagecodecs.avif_encode(levels >> 6, bitspersample=10), 10),
        "PPM": lambda: (b"P6\n24 16\n65535\n" + levels.astype(">u2").tobytes(), 16),
    }[kind]()
    read = decode(io.BytesIO(content))
    assert read.remarks == (f"only 8 of its {bits} bits per channel were read",)
    assert read.bit_depth == 8


# Profiles


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_outputs_are_tagged_as_srgb_where_the_input_had_a_profile(kind):
    options = {"icc_profile": display_p3_profile()}
    image, _ = written_as(encoded(smooth(), "PNG", **options), kind, EncodeOptions())
    assert image.info["icc_profile"] == icc.srgb()
    image, _ = written_as(encoded(smooth(), "PNG"), kind, EncodeOptions())
    assert "icc_profile" not in image.info


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_keep_profile_restores_input_colours(kind, deep):
    colours = np.asarray(smooth())
    # Saturated colours of one space may lie outside of the other.
    colours = (colours // 3 + 80).astype(np.uint8)
    if deep:
        colours = colours.astype(np.uint16) * np.uint16(257) + np.uint16(5)
    content = tiff_of(colours, photometric="rgb", iccprofile=display_p3_profile())
    read, again, output, remarks = round_trip(content, kind, KEEP_PROFILE)
    assert remarks == read.remarks == ()
    assert open_image(output).info["icc_profile"] == display_p3_profile()
    one_level = 257 if deep else 1
    assert np.abs(np.subtract(read.frames[0], colours, dtype=int)).max() > 10 * one_level
    raw = imagecodecs.png_decode(output) if kind == "PNG" else tifffile.imread(io.BytesIO(output))
    assert np.abs(np.subtract(raw, colours, dtype=int)).max() <= 2 * one_level
    assert np.abs(np.subtract(again.frames[0], read.frames[0], dtype=int)).max() <= 2 * one_level


def test_grey_profile_is_applied_and_kept_with_keep_mode():
    grey = Image.linear_gradient("L").resize((24, 16))
    content = encoded(grey, "TIFF", icc_profile=grey_profile(1.0))
    read, _, output, remarks = round_trip(content, "TIFF", KEEP_MODE)
    assert remarks == ()
    assert open_image(output).info["icc_profile"] == grey_profile(1.0)
    assert np.abs(np.subtract(open_image(output), grey, dtype=int)).max() <= 4
    # Linear light looks lighter than the same numbers in sRGB.
    assert read.frames[0][8, 12, 0] > np.asarray(grey)[8, 12] + 30
    plain, remarks = written_as(content, "TIFF", KEEP_PROFILE)
    assert plain.mode == "RGB"
    assert remarks == ("its colour profile is for grey: written in sRGB (--keep-mode keeps both)",)


def test_a_profile_for_rgb_suits_grey_images_too():
    content = encoded(smooth("L"), "PNG", icc_profile=display_p3_profile())
    read, *_ = round_trip(content, "PNG")
    assert read.remarks == ()
    assert np.abs(np.subtract(read.frames[0][..., 0], smooth("L"), dtype=int)).max() <= 1


def test_format_without_profiles_gives_warning():
    content = encoded(smooth(), "PNG", icc_profile=display_p3_profile())
    assert written_as(content, "BMP", KEEP_PROFILE)[1] == (
        "BMP does not support colour profiles: written in sRGB",
    )


def test_srgb_profile_is_reproducible():
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc.srgb()))
    assert profile.profile.xcolor_space.strip() == "RGB"
    assert profile.profile.creation_date is not None
    assert profile.profile.creation_date.year == 2000
    assert icc.is_srgb(icc.srgb())
    assert not icc.is_srgb(display_p3_profile())


# HEIC


def test_heic_is_read_and_written_with_the_extra(tmp_path):
    pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    encode(image_of(smooth().resize((64, 64))), stream, "HEIF", EncodeOptions(quality=95))
    read, again, output, remarks = round_trip(stream.getvalue(), "HEIF")
    assert (read.format, read.size, remarks) == ("HEIF", (64, 64), ())
    assert output[4:8] == b"ftyp"
    difference = np.subtract(again.frames[0], smooth().resize((64, 64)), dtype=int)
    assert np.abs(difference).mean() < 6


# Size


@pytest.mark.parametrize(("kind", "side"), [("WEBP", 16383), ("JPEG", 65500), ("GIF", 65535)])
def test_image_too_large_for_format_is_refused(kind, side):
    fits = DecodedImage((np.zeros((1, side, 3), np.uint8),))
    refuse_unwritable(fits, kind, EncodeOptions(), "x")
    encode(fits, io.BytesIO(), kind)
    too_large = DecodedImage((np.zeros((side + 1, 1, 3), np.uint8),))
    with pytest.raises(
        OutputError, match=f"{kind} supports at most {side} pixels per side, and .* 1x"
    ):
        refuse_unwritable(too_large, kind, EncodeOptions(), "x")
    refuse_unwritable(too_large, "PNG", EncodeOptions(), "x")


# Depth and transparency together


@pytest.mark.parametrize("kind", ["JPEG", "BMP", "PPM"])
def test_deep_transparency_is_laid_on_white_at_8_bits(kind):
    """The network's image has 8 bits where --bit-depth 8 asks for them, its opacity still 16."""
    levels = np.full((16, 24), 100, np.uint8)
    alpha = np.linspace(0, 65535, 16 * 24).astype(np.uint16).reshape(16, 24)
    image = image_of(Image.fromarray(levels), alpha)
    share = alpha / 65535
    expected = 100 * share + 255 * (1 - share)
    assert abs(image.on_white(0)[..., 0] - expected).max() <= 1
    stream = io.BytesIO()
    encode(image, stream, kind, EncodeOptions(bit_depth=8))
    assert abs(np.asarray(open_image(stream.getvalue()))[..., 0] - expected).mean() < 3


def test_shallow_transparency_is_laid_on_white_at_16_bits():
    colours = deep_noise(16, 24, 3)
    image = DecodedImage((colours,), (np.full((16, 24), 255, np.uint8),))
    assert np.array_equal(image.on_white(0), colours)


@pytest.mark.parametrize(("kind", "transparent"), [("TIFF", True), ("TGA", True), ("BMP", False)])
def test_palette_with_transparency_only_in_png_and_gif(kind, transparent):
    image = noise().quantize(8)
    output, remarks = written_as(encoded(image, "PNG", transparency=3), kind, KEEP_MODE)
    assert remarks[0] == f"{kind} does not support palettes with transparency: written as RGB"
    assert output.has_transparency_data == transparent
    if transparent:
        opaque = np.asarray(image) != 3
        assert np.array_equal(np.asarray(output.getchannel("A")) == 255, opaque)


def test_grey_with_transparency_becomes_rgb_in_sgi():
    image = Image.merge("LA", [noise().getchannel(0), noise().getchannel(1)])
    output, _ = written_as(encoded(image, "PNG"), "SGI", KEEP_MODE)
    assert output.mode == "RGBA"


def test_grey_jpeg_keeps_quality():
    content = encoded(noise().convert("L"), "JPEG", quality=40)
    output, _ = written_as(content, "JPEG", KEEP_MODE)
    assert output.mode == "L"
    assert output.quantization == open_image(content).quantization


def test_uncompressed_tiff_stays_uncompressed():
    content = tiff_of(np.asarray(noise().convert("L")))
    assert written_as(content, "TIFF", KEEP_MODE)[0].info["compression"] == "raw"


def test_keep_mode_of_an_animation_is_reported():
    frames = [noise(seed=seed).convert("L") for seed in (1, 2)]
    content = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=50)
    assert "an animation is written as RGB" in written_as(content, "PNG", KEEP_MODE)[1]


def test_16_bit_sgi_gives_warning():
    content = encoded(noise(), "SGI", bpc=2)
    assert decode(io.BytesIO(content)).remarks == ("only 8 of its 16 bits per channel were read",)
