"""TIFFs of which a preview or a part would be shown: raw photos, many bands, stacks."""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cyclegan_cli.data import tiff as tiff_module
from cyclegan_cli.data.decode import decode, decode_opaque, from_pillow, pixel_bytes
from cyclegan_cli.data.open_image import probe
from cyclegan_cli.errors import DataError
from images import open_image, round_trip, written

PREVIEW = np.full((12, 16, 3), 90, np.uint8)
FULL = np.full((48, 64, 3), 200, np.uint8)
SENSOR = np.full((48, 64), 1000, np.uint16)
STACK = (np.arange(5 * 4 * 6, dtype=np.uint8) * np.uint8(2)).reshape(5, 4, 6)


def tiff(*pages: tuple[Any, dict[str, Any]], **options: Any) -> bytes:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, **options) as file:
        for levels, how in pages:
            file.write(levels, metadata=None, **how)
    return stream.getvalue()


def imwritten(levels: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, levels, **options)
    return stream.getvalue()


def raw(**preview: Any) -> bytes:
    return tiff(
        (PREVIEW, {"photometric": "rgb", "subifds": 1, **preview}), (SENSOR, {"photometric": "cfa"})
    )


# Raw photos


@pytest.mark.parametrize("byte_order", "<>")
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("preview", [{}, {"subfiletype": 1}])
@pytest.mark.parametrize(
    "sensor",
    [(SENSOR, {"photometric": "cfa"}), (np.dstack([SENSOR] * 3), {"photometric": 34892})],
    ids=["mosaic", "linear"],
)
def test_sensor_data_beside_a_preview_is_a_raw_photo(byte_order, big, preview, sensor):
    content = tiff(
        (PREVIEW, {"photometric": "rgb", "subifds": 1, **preview}),
        sensor,
        byteorder=byte_order,
        bigtiff=big,
    )
    with pytest.raises(DataError, match="is a raw photo") as caught:
        decode(io.BytesIO(content))
    assert "Develop it first" in caught.value.hint


@pytest.mark.parametrize("name", ["a.dng", "b.NEF", "c.cr2", "d.arw", "e.tif", "f.tiff", "g.jpg"])
def test_raw_photos_are_refused_by_name(tmp_path, name):
    path = written(tmp_path / name, raw(subfiletype=1))
    kind = name[2:].upper() if name[0] in "abcd" else "TIFF"
    readers: tuple[Callable[[Path], Any], ...] = (
        decode, lambda path: decode_opaque(path, 8), probe, pixel_bytes,
    )  # fmt: skip
    for read in readers:
        with pytest.raises(DataError, match=rf"{name} is a raw photo \({kind}\)"):
            read(path)


def test_a_raw_photos_extension_is_enough_for_a_tiff_but_not_for_a_jpeg(tmp_path):
    path = written(tmp_path / "a.nef", tiff((FULL, {"photometric": "rgb"})))
    with pytest.raises(DataError, match=r"raw photo \(NEF\)"):
        decode(path)
    from PIL import Image

    Image.fromarray(FULL).save(tmp_path / "b.nef", "JPEG")
    assert decode(tmp_path / "b.nef").size == (64, 48)


def test_dng_is_refused_as_raw_photo():
    version = {"extratags": [(50706, "B", 4, (1, 4, 0, 0), True)]}
    with pytest.raises(DataError, match=r"raw photo \(DNG\)"):
        decode(io.BytesIO(tiff((FULL, {"photometric": "rgb", **version}))))


@pytest.mark.parametrize(
    ("head", "kind"),
    [(b"FUJIFILMCCD-RAW 0201", "RAF"), (b"IIRO\x08\0\0\0", "ORF"), (b"IIU\0\x08\0\0\0", "RW2"),
     (b"\0\0\0\x18ftypcrx \0\0\0\1", "CR3"), (b"II\x1a\0\0\0HEAPCCDR", "CRW"),
     (b"FOVb\0\0\3\0", "X3F"), (b"\0MRM\0\0", "MRW"), (b"II*\0\x10\0\0\0CR\2\0", "CR2")],
)  # fmt: skip
def test_raw_photos_are_recognized_by_magic_number(head, kind):
    with pytest.raises(DataError, match=rf"raw photo \({kind}\)"):
        decode(io.BytesIO(head + bytes(100)))


def test_raw_magic_number_inside_pixel_data_is_ignored():
    levels = np.frombuffer(b"CR\2\0" * 12, np.uint8).reshape(4, 4, 3)
    rows = levels.tobytes()
    entries = [(256, 3, 4), (257, 3, 4), (258, 3, 8), (259, 3, 1), (262, 3, 2), (273, 4, 8),
               (277, 3, 3), (278, 3, 4), (279, 4, len(rows))]  # fmt: skip
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries
    )
    content = b"II*\0" + struct.pack("<I", 8 + len(rows)) + rows + directory + bytes(4)
    assert probe_of(content) == (4, 4)


def probe_of(content: bytes) -> tuple[int, int]:
    return decode(io.BytesIO(content)).size


# Reduced versions


@pytest.mark.parametrize("full", [FULL, FULL.astype(np.uint16) * 257], ids=["8", "16"])
def test_the_first_page_that_is_not_reduced_is_the_image(tmp_path, full):
    content = tiff(
        (PREVIEW, {"photometric": "rgb", "subfiletype": 1}), (full, {"photometric": "rgb"})
    )
    image = decode(io.BytesIO(content))
    assert [frame.shape for frame in image.frames] == [(48, 64, 3)]
    assert np.array_equal(image.frames[0], full)
    path = written(tmp_path / "a.tif", content)
    assert decode(path, first_only=True).size == decode_opaque(path, 8)[1] == (64, 48)
    assert (probe(path).width, probe(path).height) == (64, 48)


def test_icc_profile_of_a_preview_is_ignored():
    from images import display_p3_profile

    preview = {"photometric": "rgb", "subfiletype": 1, "iccprofile": display_p3_profile()}
    image = decode(io.BytesIO(tiff((PREVIEW, preview), (FULL, {"photometric": "rgb"}))))
    assert image.profile is None


@pytest.mark.parametrize(
    "pages",
    [
        [(PREVIEW, {"subifds": 1, "subfiletype": 1}), (FULL, {})],
        [(PREVIEW, {"subifds": 1}), (FULL, {})],
        [(PREVIEW, {"subfiletype": 1})],
    ],
)
def test_tiff_preview_is_not_read_as_image(pages):
    content = tiff(*((levels, {"photometric": "rgb", **how}) for levels, how in pages))
    with pytest.raises(DataError, match="contains a preview of its image, 16x12"):
        decode(io.BytesIO(content))


def test_from_pillow_refuses_tiff_preview():
    content = tiff((PREVIEW, {"photometric": "rgb", "subfiletype": 1}))
    with open_image(content) as image, pytest.raises(ValueError, match="reduced"):
        from_pillow(image)


def test_tiff_pyramid_is_read_at_full_size():
    pyramid = tiff(
        (FULL, {"photometric": "rgb", "subifds": 1}),
        (PREVIEW, {"photometric": "rgb", "subfiletype": 1}),
    )
    assert probe_of(pyramid) == (64, 48)


# Bands


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("bands", "how"),
    [
        (4, {"photometric": "rgb", "extrasamples": (0,)}),
        (5, {"photometric": "rgb", "extrasamples": (2, 0)}),
        (5, {"photometric": "rgb", "extrasamples": (0, 2)}),
        (2, {"photometric": "minisblack", "extrasamples": (0,), "planarconfig": "contig"}),
        (4, {"photometric": "minisblack", "planarconfig": "contig"}),
        (5, {"photometric": "separated", "extrasamples": (0,)}),
    ],
)
def test_tiff_with_extra_bands_is_refused(bands, how, dtype):
    levels = np.zeros((7, 9, bands), dtype)
    with pytest.raises(DataError, match=f"has {bands} bands"):
        decode(io.BytesIO(tiff((levels, how))))
    plain = (np.zeros((7, 9, 3), dtype), {"photometric": "rgb"})
    with pytest.raises(DataError, match=f"has {bands} bands"):
        decode(io.BytesIO(tiff(plain, (levels, how))))


def test_alpha_channel_is_not_an_extra_band():
    alpha = tiff((np.zeros((7, 9, 4), np.uint8), {"photometric": "rgb", "extrasamples": (2,)}))
    assert decode(io.BytesIO(alpha)).alphas
    assert probe_of(tiff((np.zeros((7, 9, 4), np.uint8), {"photometric": "separated"}))) == (9, 7)


# Stacks


@pytest.mark.parametrize(
    "how",
    [
        {"imagej": True, "truncate": True},
        {"photometric": "minisblack", "truncate": True},
        {"imagej": True},
        {"photometric": "minisblack", "volumetric": True, "tile": (16, 16, 16)},
    ],
    ids=["ImageJ", "tifffile", "a directory each", "volume"],
)
@pytest.mark.parametrize("wide", [False, True])
def test_all_planes_of_a_stack_are_read(how, wide, tmp_path):
    stack = STACK.astype(np.uint16) * np.uint16(257) if wide else STACK
    content = imwritten(stack, **how)
    read, again, output, remarks = round_trip(content, "TIFF")
    assert remarks == ()
    assert [frame[..., 0].tolist() for frame in read.frames] == stack.tolist()
    assert all(np.array_equal(a, b) for a, b in zip(read.frames, again.frames, strict=True))
    path = written(tmp_path / "a.tif", content)
    assert probe(path).frames == 5
    assert len(decode(path, first_only=True).frames) == 1
    with tifffile.TiffFile(io.BytesIO(output)) as file:
        assert [page.description for page in file.pages] == [""] * 5


def test_hyperstacks_in_colour_and_of_channels():
    colour = np.stack([STACK, STACK + 1, STACK + 2], axis=-1)
    read = decode(io.BytesIO(imwritten(colour, imagej=True, truncate=True)))
    assert [frame.tolist() for frame in read.frames] == colour.tolist()
    hyper = STACK[:4].reshape(2, 2, 4, 6)
    how = {"imagej": True, "truncate": True, "metadata": {"axes": "ZCYX"}}
    read = decode(io.BytesIO(imwritten(hyper, **how)))
    assert [frame[..., 0].tolist() for frame in read.frames] == STACK[:4].tolist()


def test_tiff_stack_with_too_many_pixels_is_refused(monkeypatch):
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 40)  # More than three planes.
    with pytest.raises(DataError, match="megapixels"):
        decode(io.BytesIO(imwritten(STACK, imagej=True, truncate=True)))


def test_missing_tiff_planes_give_warning():
    content = imwritten(STACK, imagej=True, truncate=True)
    image = decode(io.BytesIO(content[: -STACK[0].size]))
    assert len(image.frames) == 1
    assert any("4 more planes" in remark for remark in image.remarks)


def test_stack_of_float_pixels_is_refused():
    with pytest.raises(DataError, match="planes of a stack"):
        decode(io.BytesIO(imwritten(STACK.astype(np.float32), imagej=True, truncate=True)))


@pytest.mark.parametrize(
    ("how", "name"), [({"imagej": True}, "ImageJ"), ({"ome": True}, "OME"), ({}, "")]
)
def test_layout_descriptions_are_dropped(how, name):
    read, _, output, _ = round_trip(imwritten(STACK, photometric="minisblack", **how), "TIFF")
    assert [name in remark for remark in read.remarks] == [True] * bool(name)
    assert b"ImageJ=" not in output
    assert b"<OME" not in output
    assert b"shape" not in output


def test_image_description_is_kept():
    how = {"photometric": "rgb", "description": "A house", "software": "x"}
    output = round_trip(tiff((FULL, how)), "TIFF")[2]
    assert b"A house" in output


# Directories made to keep a reader busy


def crafted(kind: str) -> bytes:
    """Directories of many entries that point to each other."""
    count = 2000
    tags = b"".join(struct.pack("<HHII", 330, 4, 500, 8) for _ in range(count))
    if kind == "itself":
        return b"II*\0" + struct.pack("<IH", 8, count) + tags + struct.pack("<I", 8)
    body = b"".join(struct.pack("<HHIII", 1, 254, 4, 1, 0)[:18] for _ in range(count))
    return b"II*\0" + struct.pack("<I", 8) + body + struct.pack("<H", 60000) + tags


@pytest.mark.parametrize("kind", ["itself", "overlapping"])
def test_tiff_sub_directories_are_read_once(kind, monkeypatch):
    read: list[int] = []
    original = tiff_module._directory

    def counted(file, start, *rest):
        read.append(start)
        return original(file, start, *rest)

    monkeypatch.setattr(tiff_module, "_directory", counted)
    content = crafted(kind)
    tiff_module.refuse_unreadable_tiff(io.BytesIO(content), content[:32], "a.tif")
    assert len(read) <= 2 + tiff_module.MAX_SUB_DIRECTORIES
