"""Pictures on disk to pixels, and back. Every picture here is made by the test that reads it."""

from __future__ import annotations

import io
import os
import random
import struct
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image, ImageCms, JpegImagePlugin, features

from cyclegan_cli.data import images
from cyclegan_cli.data.images import (
    Picture,
    array_to_tensor,
    decode,
    encode,
    list_pictures,
    picture_to_array,
    probe,
    tensor_to_picture,
    to_levels,
    to_unit_range,
)
from cyclegan_cli.errors import DataError, OutputError

Array = np.ndarray[Any, np.dtype[Any]]


def noise(width: int = 24, height: int = 16, seed: int = 0) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def saved(path: Path, picture: Image.Image, **options: Any) -> Path:
    picture.save(path, **options)
    return path


# --- listing ---------------------------------------------------------------------------------


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def listed(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in list_pictures(folder)]


def test_pictures_of_all_subfolders_are_listed_by_relative_path(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.png", "b/1.webp", "a.JPG", "c.tiff", "a/b/c/d.jpeg")
    assert listed(tmp_path) == ["a.JPG", "a/b/c/d.jpeg", "b/1.webp", "b/2.png", "c.tiff"]


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "seen.png", ".hidden.png", "._seen.png", ".cache/1.png", "a/.b/2.png")
    assert listed(tmp_path) == ["seen.png"]


@pytest.mark.parametrize("name", ["notes.txt", "clip.mp4", "png", "x.png.part", "x.eps", "x.pdf"])
def test_files_that_are_not_named_like_pictures_are_left_out(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "seen.png", name)
    assert listed(tmp_path) == ["seen.png"]


def test_a_folder_named_like_a_picture_is_not_listed_as_one(tmp_path: Path) -> None:
    touch(tmp_path, "album.png/1.png")
    assert listed(tmp_path) == ["album.png/1.png"]


def test_an_empty_folder_has_no_pictures(tmp_path: Path) -> None:
    assert list_pictures(tmp_path) == []


@pytest.mark.parametrize(("name", "found"), [("file.png", "a file"), ("missing", "nothing")])
def test_what_is_not_a_folder_cannot_be_listed(tmp_path: Path, name: str, found: str) -> None:
    touch(tmp_path, "file.png")
    with pytest.raises(DataError, match=f"{name} is not a folder: found {found}"):
        list_pictures(tmp_path / name)


def test_a_folder_whose_name_is_too_long_cannot_be_listed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nnn"):
        list_pictures(tmp_path / ("n" * 300))


def test_a_folder_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> Iterator[os.DirEntry[str]]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=f"{tmp_path.name}: Permission denied"):
        list_pictures(tmp_path)


# --- pixel formats ---------------------------------------------------------------------------


def flat(mode: str, colour: Any) -> Image.Image:
    return Image.new(mode, (16, 8), colour)


def palette(*colours: int) -> Image.Image:
    picture = flat("P", 1)
    picture.putpalette([0, 0, 0, *colours])
    return picture


@pytest.mark.parametrize(
    ("picture", "kind", "options", "rgb", "alpha"),
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
    tmp_path: Path, picture: Image.Image, kind: str, options: Any, rgb: Any, alpha: int | None
) -> None:
    found = decode(written(tmp_path / "x", encoded(picture, kind, **options)))
    assert (found.rgb.mode, found.rgb.size) == ("RGB", (16, 8))
    assert found.rgb.getcolors() == [(16 * 8, rgb)]
    assert found.format == kind
    if alpha is None:
        assert found.alpha is None
    else:
        assert found.alpha is not None
        assert (found.alpha.mode, found.alpha.getcolors()) == ("L", [(16 * 8, alpha)])


@pytest.mark.parametrize(
    ("picture", "rgb"),
    [
        (flat("CMYK", (0, 255, 255, 0)), (255, 0, 0)),
        (flat("CMYK", (0, 0, 0, 255)), (0, 0, 0)),
        (flat("CMYK", (0, 0, 0, 0)), (255, 255, 255)),
        (flat("RGB", (200, 30, 60)).convert("YCbCr"), (200, 30, 60)),
        (flat("RGB", (200, 30, 60)), (200, 30, 60)),
        (flat("L", 99), (99, 99, 99)),
    ],
)
def test_every_colour_space_of_jpeg_becomes_rgb(
    tmp_path: Path, picture: Image.Image, rgb: tuple[int, ...]
) -> None:
    found = decode(saved(tmp_path / "x.jpg", picture, quality=95))
    assert np.abs(np.subtract(found.rgb.getpixel((8, 4)), rgb)).max() <= 3


SIXTEEN_BITS = np.array([[0, 256, 257, 32768, 65535, 65406]], dtype=np.uint16)
SCALED_TO_8_BITS = [0, 1, 1, 128, 255, 254]


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("x.png", Image.fromarray(SIXTEEN_BITS)),
        ("x.tif", Image.fromarray(SIXTEEN_BITS)),
        ("x.pgm", Image.fromarray(SIXTEEN_BITS)),
        ("big-endian.tif", Image.fromarray(SIXTEEN_BITS.astype(">u2"))),
        ("32-bit.tif", Image.fromarray(SIXTEEN_BITS.astype(np.int32))),
    ],
)
def test_16_bit_grey_is_scaled_and_not_clipped(
    tmp_path: Path, name: str, picture: Image.Image
) -> None:
    found = np.asarray(decode(saved(tmp_path / name, picture)).rgb)
    assert found.shape == (1, 6, 3)
    assert found[0].T.tolist() == [SCALED_TO_8_BITS] * 3


def png_of_16_bit_rgb(levels: Array) -> bytes:
    """Pillow cannot write one: signature, IHDR, IDAT, IEND."""
    height, width, _ = levels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )


def test_16_bit_rgb_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    levels = np.array([[[0, 32768, 65535], [65535, 0, 32768]]])
    found = decode(written(tmp_path / "x.png", png_of_16_bit_rgb(levels)))
    assert np.asarray(found.rgb).tolist() == [[[0, 128, 255], [255, 0, 128]]]


@pytest.mark.parametrize(
    "picture",
    [
        pytest.param(Image.fromarray(np.ones((2, 2), dtype=np.float32)), id="float"),
        pytest.param(Image.fromarray(np.full((2, 2), 65536, dtype=np.int32)), id="above 16 bits"),
        pytest.param(Image.fromarray(np.full((2, 2), -1, dtype=np.int32)), id="negative"),
    ],
)
def test_pixels_of_unknown_range_are_refused(tmp_path: Path, picture: Image.Image) -> None:
    with pytest.raises(DataError, match=r"x\.tif: pixels are"):
        decode(saved(tmp_path / "x.tif", picture))


# --- orientation -----------------------------------------------------------------------------

# What a viewer does with the stored rows and columns (EXIF 2.3, tag 0x0112).
UPRIGHT: dict[int, Callable[[Array], Array]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),  # clockwise
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}


def with_orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


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
def test_every_exif_orientation_is_turned_upright(
    tmp_path: Path, kind: str, options: Any, orientation: int
) -> None:
    stored = noise(12, 8)
    content = encoded(stored, kind, exif=with_orientation(orientation), **options)
    found = np.asarray(decode(written(tmp_path / "x", content)).rgb).astype(int)
    expected = UPRIGHT[orientation](np.asarray(stored).astype(int))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= (6 if kind == "JPEG" else 0)


def test_alpha_is_turned_upright_like_the_colours(tmp_path: Path) -> None:
    picture = noise(3, 2)
    picture.putalpha(Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3)))
    found = decode(saved(tmp_path / "x.png", picture, exif=with_orientation(6)))
    assert np.asarray(found.alpha).tolist() == [[3, 0], [4, 1], [5, 2]]


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_unknown_orientation_leaves_the_picture_as_it_is(
    tmp_path: Path, orientation: int
) -> None:
    path = saved(tmp_path / "x.png", noise(12, 8), exif=with_orientation(orientation))
    assert decode(path).rgb.tobytes() == noise(12, 8).tobytes()


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
def test_an_odd_exif_entry_elsewhere_does_not_keep_a_photo_from_being_turned(
    tmp_path: Path, tag: int, kind: int
) -> None:
    path = saved(tmp_path / "x.jpg", noise(16, 8), exif=exif_with_an_odd_entry(tag, kind))
    assert decode(path).rgb.size == (8, 16)


# --- colour profiles -------------------------------------------------------------------------


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def display_p3_profile() -> bytes:
    """The sRGB profile with the primaries of Display P3 (XYZ, adapted to D50) in its place."""
    primaries = {
        b"rXYZ": (0.51512, 0.24120, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.15710, 0.06657, 0.78407),
    }
    profile = bytearray(srgb_profile())
    for index in range(int.from_bytes(profile[128:132])):
        name, offset, _ = struct.unpack_from(">4sII", profile, 132 + 12 * index)
        if name in primaries:
            fixed_point = (round(value * 65536) for value in primaries[name])
            struct.pack_into(">3i", profile, offset + 8, *fixed_point)
    return bytes(profile)


def display_p3_to_srgb(levels: tuple[int, ...]) -> Array:
    """By hand, from the matrices of both spaces (CSS Color 4, section 18)."""
    encoded = np.array(levels) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    matrix = [
        [1.2249401, -0.2249404, 0.0],
        [-0.0420569, 1.0420571, 0.0],
        [-0.0196376, -0.0786361, 1.0982735],
    ]
    linear = np.clip(np.array(matrix) @ linear, 0, 1)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return encoded * 255


P3_COLOUR = (200, 90, 110)


@pytest.mark.parametrize(
    ("kind", "picture"),
    [
        ("PNG", flat("RGB", P3_COLOUR)),
        ("JPEG", flat("RGB", P3_COLOUR)),
        ("TIFF", flat("RGB", P3_COLOUR)),
        ("WEBP", flat("RGB", P3_COLOUR)),
        ("PNG", flat("RGBA", (*P3_COLOUR, 50))),
        ("PNG", palette(*P3_COLOUR)),
    ],
)
def test_colours_of_another_profile_are_converted_to_srgb(
    tmp_path: Path, kind: str, picture: Image.Image
) -> None:
    content = encoded(picture, kind, icc_profile=display_p3_profile())
    found = decode(written(tmp_path / "x", content)).rgb.getpixel((8, 4))
    expected = display_p3_to_srgb(P3_COLOUR)
    assert np.abs(np.subtract(expected, P3_COLOUR)).max() > 10, "the test would show nothing"
    # JPEG and lossy WEBP are off by a little themselves.
    assert np.abs(np.subtract(found, expected)).max() <= 4


@pytest.mark.parametrize(
    "profile",
    [
        pytest.param(srgb_profile(), id="sRGB"),
        pytest.param(b"no profile at all", id="text"),
        pytest.param(display_p3_profile()[:200], id="truncated"),
        pytest.param(b"\0" * 600, id="zeros"),
        pytest.param(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(), id="LAB"),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_a_useless_colour_profile_leaves_the_colours_as_they_are(
    tmp_path: Path, mode: str, profile: bytes
) -> None:
    picture = noise().convert(mode)
    found = decode(saved(tmp_path / "x.png", picture, icc_profile=profile)).rgb
    difference = np.subtract(found, picture.convert("RGB"), dtype=np.int16)
    assert np.abs(difference).max() <= 1


# --- what cannot be read ---------------------------------------------------------------------


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
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"These are words.\n" * 10, id="text"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", id="svg"),
        pytest.param(encoded(noise(), "JPEG")[:-100], id="truncated JPEG"),
        pytest.param(encoded(noise(), "PNG")[:-100], id="truncated PNG"),
        pytest.param(encoded(noise(), "JPEG")[:20], id="head of a JPEG"),
        pytest.param(encoded(noise(), "PNG")[:20], id="head of a PNG"),
        pytest.param(encoded(noise(), "GIF")[:100], id="truncated GIF"),
        pytest.param(encoded(noise(), "WEBP")[:100], id="truncated WEBP"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path / "broken.jpg", content)
    with pytest.raises(DataError) as refusal:
        decode(path)
    assert str(path) in refusal.value.message
    assert "\n" not in refusal.value.message


@pytest.mark.parametrize(
    "make",
    [
        tiff_with_pixels_at_a_fractional_place,
        tiff_with_an_empty_second_page,
        avif_with_other_pixels,
        dds_of_an_unknown_kind,
    ],
)
def test_whatever_a_decoder_raises_becomes_a_sentence(
    tmp_path: Path, make: Callable[[], bytes]
) -> None:
    with pytest.raises(DataError, match=r"broken\.jpg"):
        decode(written(tmp_path / "broken.jpg", make()))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.png", "no such file"),
        ("folder.png", "folder"),
        ("file/below.png", "not a directory|no such file"),
        pytest.param(
            "n" * 300 + ".png",
            "name too long|no such file",
            id="name too long",
        ),
    ],
)
@pytest.mark.parametrize("read", [decode, probe])
def test_what_is_not_there_or_a_folder_is_named(
    tmp_path: Path, read: Callable[[Path], Any], name: str, reason: str
) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=f"(?i){name}: .*({reason})"):
        read(tmp_path / name)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files there")
@pytest.mark.timeout(20)
def test_a_pipe_is_refused_without_waiting_for_what_it_says(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png"):
        decode(tmp_path / "pipe.png")


def test_a_jpeg_may_number_its_tables_as_it_likes(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jpg", jpeg_with_its_table_renumbered())
    assert decode(path).rgb.size == noise().size


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_a_picture_with_three_frames_is_refused_and_says_so(tmp_path: Path, kind: str) -> None:
    frames = [noise(seed=seed) for seed in range(3)]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r"moving.* has 3 frames"):
        decode(written(tmp_path / "moving", content))


@pytest.fixture
def photo_with_preview(tmp_path: Path) -> Path:
    """As many cameras and drones write it: a JPEG, and a small one behind it (MPO)."""
    preview = noise(8, 4)
    options = {"save_all": True, "append_images": [preview], "quality": 30, "subsampling": 2}
    content = encoded(noise(64, 32), "MPO", exif=with_orientation(6).tobytes(), **options)
    return written(tmp_path / "DJI_0001.JPG", content)


def test_a_photo_with_a_preview_is_an_upright_jpeg(photo_with_preview: Path) -> None:
    found = decode(photo_with_preview)
    assert (found.format, found.rgb.size) == ("JPEG", (32, 64))
    assert probe(photo_with_preview) == images.Probe("JPEG", "RGB", 64, 32, 1)


def test_a_photo_with_a_preview_is_written_as_finely_as_it_was_read(
    photo_with_preview: Path, tmp_path: Path
) -> None:
    encode(decode(photo_with_preview), tmp_path / "out.jpg", "JPEG")
    assert quality_of(tmp_path / "out.jpg") == quality_of(photo_with_preview)


def test_a_decompression_bomb_is_refused_before_its_pixels_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "bomb.png", flat("RGB", 0))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16 * 8 // 2 - 1)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("pixels were made"))
    with pytest.raises(DataError, match=r"bomb\.png claims too many pixels"):
        decode(path)


@pytest.mark.skipif(sys.platform == "win32", reason="the trap is a shell script")
def test_a_program_in_postscript_is_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        image.load()  # What an unguarded reader does, so that the trap is known to work.
    assert witness.exists()


def test_a_probe_reads_the_header_and_not_the_pixels(tmp_path: Path) -> None:
    truncated = encoded(noise().convert("RGBA"), "PNG")[:-100]
    assert probe(written(tmp_path / "x.png", truncated)) == images.Probe("PNG", "RGBA", 24, 16, 1)


def test_a_probe_counts_frames(tmp_path: Path) -> None:
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


VALID = {
    "JPEG": encoded(noise(9, 7), "JPEG", exif=with_orientation(6)),
    "progressive JPEG": encoded(noise(9, 7), "JPEG", progressive=True, icc_profile=srgb_profile()),
    "CMYK JPEG": encoded(noise(9, 7).convert("CMYK"), "JPEG"),
    "PNG": encoded(noise(9, 7), "PNG", exif=with_orientation(6)),
    "palette PNG": encoded(noise(9, 7).quantize(8), "PNG", transparency=0),
    "16-bit PNG": encoded(Image.fromarray(SIXTEEN_BITS), "PNG", icc_profile=srgb_profile()),
    "GIF": encoded(noise(9, 7), "GIF"),
    "TIFF": encoded(noise(9, 7), "TIFF", exif=with_orientation(6)),
    "packed TIFF": encoded(noise(9, 7), "TIFF", compression="packbits"),
    "WEBP": encoded(noise(9, 7).convert("RGBA"), "WEBP", exif=with_orientation(6)),
    "BMP": encoded(noise(9, 7), "BMP"),
}


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "fuzzed"


@pytest.mark.parametrize("kind", VALID)
@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_damaged_picture_is_decoded_or_refused_and_nothing_else(
    fuzzed: Path, kind: str, seed: int
) -> None:
    path = written(fuzzed, damaged(VALID[kind], seed))
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # Pillow also warns of damage.
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)  # Changed sizes can be large ones.
        try:
            found = decode(path)
        except DataError:
            return
    assert found.rgb.mode == "RGB"
    assert found.alpha is None or found.alpha.size == found.rgb.size


# --- writing ---------------------------------------------------------------------------------


def quality_of(path: Path) -> tuple[Any, int]:
    """What a JPEG loses: its quantisation tables, and what share of its colours it samples."""
    with Image.open(path) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        return image.quantization, JpegImagePlugin.get_sampling(image)


@pytest.mark.parametrize("quality", [5, 60, 98])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_is_written_as_finely_as_it_was_read(
    tmp_path: Path, quality: int, subsampling: int, progressive: bool
) -> None:
    options = {"quality": quality, "subsampling": subsampling, "progressive": progressive}
    read = decode(saved(tmp_path / "in.jpg", noise(64, 48), **options))
    assert read.format == "JPEG"
    encode(read, tmp_path / "out.jpg", "JPEG")
    again = decode(tmp_path / "out.jpg")
    assert again.encoding == read.encoding
    assert quality_of(tmp_path / "out.jpg") == quality_of(tmp_path / "in.jpg")


def segments(jpeg: bytes, marker: bytes) -> list[bytes]:
    """The segments of a JPEG that begin with a marker, e.g. DQT ``ff db``."""
    found, at = [], 2
    while jpeg[at : at + 2] != b"\xff\xda":  # the scan
        length = 2 + int.from_bytes(jpeg[at + 2 : at + 4])
        if jpeg[at : at + 2] == marker:
            found.append(jpeg[at : at + length])
        at += length
    return found


def test_the_tables_of_a_jpeg_may_come_in_any_order(tmp_path: Path) -> None:
    content = encoded(noise(), "JPEG", quality=30)
    luminance, chrominance = segments(content, b"\xff\xdb")
    assert luminance + chrominance in content
    swapped = content.replace(luminance + chrominance, chrominance + luminance)
    encode(decode(written(tmp_path / "in.jpg", swapped)), tmp_path / "out.jpg", "JPEG")
    saved(tmp_path / "reference.jpg", noise(), quality=30)
    assert quality_of(tmp_path / "out.jpg") == quality_of(tmp_path / "reference.jpg")


@pytest.mark.parametrize("quality", [5, 60, 98])
def test_a_grey_jpeg_becomes_a_colour_one_of_the_same_fineness(
    tmp_path: Path, quality: int
) -> None:
    grey = decode(saved(tmp_path / "in.jpg", noise().convert("L"), quality=quality))
    encode(Picture(noise(), format="JPEG", encoding=grey.encoding), tmp_path / "out.jpg", "JPEG")
    tables = quality_of(tmp_path / "out.jpg")[0]
    assert tables[0] == tables[1] == quality_of(tmp_path / "in.jpg")[0][0]


def test_a_jpeg_from_another_format_has_quality_92(tmp_path: Path) -> None:
    encode(decode(saved(tmp_path / "in.png", noise())), tmp_path / "out.jpg", "JPEG")
    saved(tmp_path / "reference.jpg", noise(), quality=92)
    assert quality_of(tmp_path / "out.jpg") == quality_of(tmp_path / "reference.jpg")


def test_the_fineness_of_a_jpeg_does_not_reach_other_formats(tmp_path: Path) -> None:
    encode(decode(saved(tmp_path / "in.jpg", noise(), quality=5)), tmp_path / "out.png", "PNG")
    assert decode(tmp_path / "out.png").rgb.size == noise().size


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_kept_where_the_format_has_it(tmp_path: Path, kind: str) -> None:
    picture = Picture(noise(), Image.linear_gradient("L").resize((24, 16)))
    encode(picture, tmp_path / "x", kind)
    found = decode(tmp_path / "x").alpha
    assert found is not None
    assert found.tobytes() == picture.alpha.tobytes()
    assert picture.rgb.mode == "RGB", "the caller's picture was changed"


def test_alpha_is_dropped_where_the_format_has_none(tmp_path: Path) -> None:
    encode(Picture(noise(), Image.new("L", (24, 16), 100)), tmp_path / "x.jpg", "JPEG")
    assert decode(tmp_path / "x.jpg").alpha is None


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "JPEG2000"])
def test_lossless_formats_keep_every_pixel(tmp_path: Path, kind: str) -> None:
    encode(Picture(noise()), tmp_path / "x", kind)
    assert decode(tmp_path / "x").rgb.tobytes() == noise().tobytes()


@pytest.mark.parametrize(
    "suffix",
    [".png", ".jpg", ".JPEG", ".webp", ".tif", ".bmp", ".gif", ".avif", ".jp2", ".tga", ".ppm"],
)
def test_a_written_picture_has_the_size_of_what_was_given(tmp_path: Path, suffix: str) -> None:
    kind = images.writable_format(suffix)
    if kind is None and suffix in (".avif", ".jp2"):
        pytest.skip(f"this Pillow cannot write {suffix}")
    assert kind is not None
    encode(Picture(noise(300, 40)), tmp_path / f"x{suffix}", kind)
    assert decode(tmp_path / f"x{suffix}").rgb.size == (300, 40)


@pytest.mark.parametrize(
    "suffix", [".eps", ".pdf", ".wmf", ".txt", ".psd", ".ico", ".icns", ".xbm", ""]
)
def test_what_must_not_or_cannot_be_written_has_no_format(suffix: str) -> None:
    assert images.writable_format(suffix) is None


@pytest.mark.parametrize(
    ("size", "kind"),
    [
        pytest.param((16384, 1), "WEBP", id="too large for the format"),
        pytest.param((65536, 1), "JPEG", id="much too large"),
        pytest.param((4, 4), "XBM", id="no colours in the format"),
    ],
)
def test_an_encoder_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, size: tuple[int, int], kind: str
) -> None:
    target = written(tmp_path / "target", b"old")
    with pytest.raises(OutputError, match="cannot write .*target"):
        encode(Picture(Image.new("RGB", size)), target, kind)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_disk_that_fills_up_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_up(self: Image.Image, stream: io.BufferedWriter, **options: Any) -> None:
        stream.write(b"half a picture")
        raise OSError(28, "No space left on device")

    target = written(tmp_path / "target.png", b"old")
    monkeypatch.setattr(Image.Image, "save", fill_up)
    with pytest.raises(OutputError, match=r"target\.png: no space left on device"):
        encode(Picture(noise()), target, "PNG")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_written_picture_takes_the_place_of_an_old_one(tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "x.png"
    encode(Picture(noise()), target, "PNG")
    encode(Picture(noise(5, 5)), target, "PNG")
    assert decode(target).rgb.size == (5, 5)
    assert list(target.parent.iterdir()) == [target]


# --- tensors ---------------------------------------------------------------------------------

ALL_LEVELS = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 3, 16, 16)


def test_every_level_survives_the_way_to_the_unit_range_and_back() -> None:
    pictures = to_unit_range(ALL_LEVELS)
    assert pictures.dtype == torch.float32
    assert (pictures.min(), pictures.max()) == (-1, 1)
    assert torch.equal(to_levels(pictures), ALL_LEVELS)


def test_levels_are_rounded_to_the_nearest_and_held_within_their_range() -> None:
    near = torch.tensor([-1.5, -1.0, -1 + 0.4 / 127.5, -1 + 0.6 / 127.5, 0.999, 1.0, 7.0])
    assert to_levels(near).tolist() == [0, 0, 0, 1, 255, 255, 255]


@pytest.mark.parametrize(
    ("convert", "dtype"), [(to_unit_range, torch.uint8), (to_levels, torch.float32)]
)
def test_conversions_leave_their_input_as_it_was(
    convert: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype
) -> None:
    pictures = torch.ones(1, 3, 2, 2, dtype=dtype)
    convert(pictures)
    assert torch.equal(pictures, torch.ones(1, 3, 2, 2, dtype=dtype))


@settings(deadline=None)
@given(width=st.integers(1, 40), height=st.integers(1, 40), seed=st.integers(0, 100))
def test_a_picture_survives_the_way_to_a_tensor_and_back(
    width: int, height: int, seed: int
) -> None:
    picture = noise(width, height, seed)
    tensor = array_to_tensor(picture_to_array(picture))
    assert (tensor.shape, tensor.dtype) == ((1, 3, height, width), torch.float32)
    assert tensor_to_picture(tensor).tobytes() == picture.tobytes()


def test_rows_columns_and_channels_of_a_picture_are_those_of_its_tensor() -> None:
    picture = Image.new("RGB", (3, 2))
    picture.putpixel((2, 0), (255, 0, 0))
    tensor = array_to_tensor(picture_to_array(picture))
    assert (tensor == 1).nonzero().tolist() == [[0, 0, 0, 2]]
