"""Decoding hostile files takes work proportional to their size."""

import io
import os
from typing import Any

import numpy as np
import pytest
from PIL import Image

import hostile_files
from cyclegan_cli.data import metadata
from cyclegan_cli.data import open_image as open_module
from cyclegan_cli.data.containers import whole_file
from cyclegan_cli.data.decode import decode
from cyclegan_cli.data.encode import encode
from cyclegan_cli.data.exif import Block, normalize_orientation
from cyclegan_cli.errors import DataError
from images import encoded, noise

FILES = hostile_files.files()


class Work:
    """Counts numbers read from EXIF blocks, and bytes of values taken out of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.numbers = self.bytes = 0
        number, entry = Block._integer, Block._entry

        def count_integer(block: Block, kind: str, at: int) -> int:
            self.numbers += 1
            return number(block, kind, at)

        def count_entry(block: Block, place: int, depth: int) -> Any:
            found = entry(block, place, depth)
            self.bytes += len(found.value) if found and isinstance(found.value, bytes) else 0
            return found

        monkeypatch.setattr(Block, "_integer", count_integer)
        monkeypatch.setattr(Block, "_entry", count_entry)


@pytest.mark.parametrize(
    "block",
    [
        lambda size: hostile_files.exif_that_points_back(size // 12),
        lambda size: hostile_files.exif_of_overlapping_directories(size // 12),
        lambda size: hostile_files.exif_of_one_large_value(size // 24, size // 2),
        lambda size: hostile_files.exif_of_one_large_value_below(size // 24, size // 2),
        lambda size: hostile_files.exif_of_thumbnail_strips(size // 16, size // 2),
    ],
    ids=hostile_files.exif_blocks(),
)
@pytest.mark.parametrize("size", [3000, 12_000])
def test_exif_parsing_work_is_linear(block, size, monkeypatch):
    content, work = block(size), Work(monkeypatch)
    try:
        normalize_orientation(content, swaps_sides=True)
    except ValueError as error:
        assert "EXIF block" in str(error)
    assert work.numbers < 8 * len(content)
    assert work.bytes <= len(content)


@pytest.mark.filterwarnings("ignore::UserWarning")  # As outside of tests: Pillow's.
@pytest.mark.parametrize("name", FILES)
def test_hostile_image_is_decoded_with_bounded_work(name, monkeypatch):
    work = Work(monkeypatch)
    read = decode(io.BytesIO(FILES[name]))
    if name.endswith((".png", "s.jpg")):
        kind = "PNG" if name.endswith(".png") else "JPEG"
        with Image.open(io.BytesIO(encoded(noise(), kind))) as image:
            assert np.array_equal(read.frames[0], np.asarray(image))
    for kind in ("TIFF", "JPEG"):
        if len(read.frames) == 1:
            encode(read.with_frames(read.frames), io.BytesIO(), kind)
    assert work.numbers < 20 * len(FILES[name])
    assert work.bytes < 5 * len(FILES[name])


def test_xmp_thumbnails_are_found_in_one_pass(monkeypatch):
    class Tags:
        """Counts what is looked at, which is a pass over the packet however many begin there."""

        def __init__(self):
            self.passes = 0

        def finditer(self, packet):
            self.passes += 1
            return found.finditer(packet)

    found, tags = metadata.XMP_THUMBNAILS, Tags()
    monkeypatch.setattr(metadata, "XMP_THUMBNAILS", tags)
    packet = hostile_files.xmp_of_thumbnails_without_end(1000)
    assert metadata._without_thumbnails(packet) == packet
    assert tags.passes == 1


@pytest.mark.parametrize(
    ("packet", "left"),
    [
        (b"a<xmp:Thumbnails><b/></xmp:Thumbnails>c", b"ac"),
        (b"a<p:Thumbnails><q:Thumbnails>x</p:Thumbnails>c", b"ac"),
        (b"<p:Thumbnails>1</p:Thumbnails>b<p:Thumbnails>2</p:Thumbnails>", b"b"),
        (b"a<p:Thumbnails/>c</q:Thumbnails>", b"a<p:Thumbnails/>c</q:Thumbnails>"),
        (b"a<p:Thumbnails rdf:x='1'>", b"a<p:Thumbnails rdf:x='1'>"),
    ],
)
def test_xmp_thumbnails_are_removed(packet, left):
    assert metadata._without_thumbnails(packet) == left


def test_tiff_with_too_many_pages_is_refused(monkeypatch):
    monkeypatch.setattr(open_module, "MAX_PAGES", 299)
    with pytest.raises(DataError, match="more than 299 pages"):
        decode(io.BytesIO(FILES["pages.tif"]))
    monkeypatch.setattr(open_module, "MAX_PAGES", 300)
    assert len(decode(io.BytesIO(FILES["pages.tif"])).frames) == 300


def test_file_truncated_while_reading_does_not_kill_process(tmp_path):
    """A mapped one would: reading beyond the end of the file behind it is a SIGBUS."""
    path = tmp_path / "a.tif"
    path.write_bytes(bytes(100_000))
    with path.open("rb") as stream:
        image = type("Image", (), {"fp": stream})
        content = whole_file(image)
        os.truncate(path, 10)
        assert len(bytes(content)) == 100_000


@pytest.mark.parametrize(("segments", "is_read"), [(64, True), (65, False)])
def test_jpeg_with_too_many_exif_segments_is_refused(segments, is_read):
    content = io.BytesIO(hostile_files.jpeg_of_many_exif_segments(segments))
    if is_read:
        assert decode(content).remarks == ("its EXIF data is damaged and was left out",)
        return
    with pytest.raises(DataError, match="more than 64 segments of EXIF data"):
        decode(content)
