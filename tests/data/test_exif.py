"""EXIF blocks, byte by byte."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cyclegan_cli.data.exif import Block, from_tiff, into_tiff, normalize_orientation
from images import camera_exif, encoded, noise, tiff_of

MAKER_NOTE, EXIF_DIRECTORY, GPS = 0x927C, 0x8769, 0x8825


def block_of(exif: Image.Exif, order: str = "<") -> bytes:
    exif.endian = order
    return exif.tobytes().removeprefix(b"Exif\0\0")


def read(block: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(block)
    return exif


def with_thumbnail(block: bytes, thumbnail: bytes) -> bytes:
    """Little-endian: a second directory with a JPEG behind all else."""
    (start,) = struct.unpack_from("<I", block, 4)
    (count,) = struct.unpack_from("<H", block, start)
    place = len(block)
    head = bytearray(block)
    struct.pack_into("<I", head, start + 2 + 12 * count, place)
    directory = struct.pack("<H", 2)
    directory += struct.pack("<HHII", 0x0201, 4, 1, place + 30)
    directory += struct.pack("<HHII", 0x0202, 4, 1, len(thumbnail)) + bytes(4)
    return bytes(head) + directory + thumbnail


def test_exif_changes_only_orientation_and_sides():
    block = block_of(camera_exif(6, 24, 16))
    upright = normalize_orientation(b"Exif\0\0" + block, swaps_sides=True)
    found = read(upright)
    assert found[0x0112] == 1
    assert (found.get_ifd(EXIF_DIRECTORY)[0xA002], found.get_ifd(EXIF_DIRECTORY)[0xA003]) == (
        16,
        24,
    )
    assert found.get_ifd(GPS) == camera_exif().get_ifd(GPS)
    assert len(upright) == len(block)
    assert sum(a != b for a, b in zip(upright, block, strict=True)) == 3  # one byte each


def test_maker_note_keeps_its_offset():
    exif = camera_exif(8)
    exif.get_ifd(EXIF_DIRECTORY)[MAKER_NOTE] = b"offsets from the block's beginning"
    block = block_of(exif)
    upright = normalize_orientation(block, swaps_sides=True)
    assert upright.index(b"offsets from") == block.index(b"offsets from")


def test_exif_thumbnail_is_removed():
    thumbnail = encoded(noise(), "JPEG")
    block = with_thumbnail(block_of(camera_exif()), thumbnail)
    assert Block(block).thumbnail() == (slice(len(block) - len(thumbnail), len(block)),)
    upright = normalize_orientation(block, swaps_sides=False)
    assert thumbnail[:40] not in upright
    assert len(upright) == len(block) - len(thumbnail)
    assert Block(upright).thumbnail() == ()
    assert read(upright)[0x010F] == "Maker"


def test_exif_thumbnail_in_strips_is_removed():
    """EXIF 2.32, 4.6.3: not compressed, with the tags of a TIFF."""
    block = bytearray(block_of(camera_exif()))
    (start,) = struct.unpack_from("<I", block, 4)
    (count,) = struct.unpack_from("<H", block, start)
    place = len(block)
    struct.pack_into("<I", block, start + 2 + 12 * count, place)
    strips = [b"first strip of pixels", b"and the second"]
    at = place + 2 + 2 * 12 + 4
    block += struct.pack("<H", 2)
    block += struct.pack("<HHII", 0x0111, 4, 2, at)
    block += struct.pack("<HHIHH", 0x0117, 3, 2, *map(len, strips)) + bytes(4)
    block += struct.pack("<II", at + 8, at + 8 + len(strips[0])) + b"".join(strips)
    upright = normalize_orientation(bytes(block), swaps_sides=False)
    assert b"strip of" not in upright
    assert b"the second" not in upright
    assert Block(upright).thumbnail() == ()
    assert read(upright)[0x010F] == "Maker"


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_is_written_into_tiff(order):
    block = block_of(camera_exif(1), order)
    assert Block(block).order == order
    plain = tiff_of(np.asarray(noise()), photometric="rgb", byteorder=order)
    tagged = into_tiff(plain, block)
    with Image.open(io.BytesIO(tagged)) as image:
        assert image.getexif()[0x010F] == "Maker"
        assert image.getexif().get_ifd(GPS) == camera_exif().get_ifd(GPS)
        assert np.array_equal(image, noise())
    again = read(from_tiff(tagged) or b"")
    assert again[0x010F] == "Maker"
    assert again.get_ifd(EXIF_DIRECTORY) == camera_exif(1).get_ifd(EXIF_DIRECTORY)
    assert 0x0100 not in again, "layout tags are not EXIF"


def test_exif_in_multipage_tiff_keeps_all_pages():
    pages = np.stack([np.asarray(noise(seed=seed)) for seed in range(3)])
    tagged = into_tiff(tiff_of(pages, photometric="rgb"), block_of(camera_exif()))
    with Image.open(io.BytesIO(tagged)) as image:
        assert getattr(image, "n_frames", 0) == 3
        image.seek(2)
        assert np.array_equal(image, pages[2])


@pytest.mark.parametrize(
    "block",
    [
        b"", b"II", b"XX*\0" + bytes(20), b"II*\0" + struct.pack("<I", 4_000_000_000),
        b"II*\0" + struct.pack("<IH", 8, 65535), b"MM\0*" + struct.pack(">I", 12) + bytes(3),
    ],
)  # fmt: skip
def test_damaged_exif_block_is_refused(block):
    with pytest.raises(ValueError, match="EXIF block"):
        normalize_orientation(block, swaps_sides=True)


def test_recursive_exif_directory():
    entry = struct.pack("<HHII", EXIF_DIRECTORY, 4, 1, 8)
    block = b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    assert normalize_orientation(block, swaps_sides=True) == block
    chained = b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 8)
    assert len(normalize_orientation(chained, swaps_sides=True)) == len(block)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_exif_fuzzing(data):
    block = bytearray(with_thumbnail(block_of(camera_exif()), b"\xff\xd8 thumbnail \xff\xd9"))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(block) - 1))
        block[place] = data.draw(st.integers(0, 255))
    try:
        upright = normalize_orientation(bytes(block), swaps_sides=True)
    except ValueError:
        return
    assert len(upright) <= len(block)
    Block(upright)
