"""Files of several images: each is what it is, and nothing of one is said of another."""

import io
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from cyclegan_cli.data import icc
from cyclegan_cli.data.decode import decode
from cyclegan_cli.data.image import EncodeOptions
from images import deep_noise, display_p3_profile, open_image, round_trip

KEEP_MODE = EncodeOptions(keep_mode=True)
COLOURS = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
Page = tuple[np.ndarray[Any, np.dtype[Any]], dict[str, Any]]


def tiff_of_pages(*pages: Page) -> bytes:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        for levels, options in pages:
            file.write(levels, metadata=None, **options)
    return stream.getvalue()


def test_opaque_page_beside_a_16_bit_page():
    deep = (deep_noise(16, 24, 4), {"photometric": "rgb", "extrasamples": ["unassalpha"]})
    content = tiff_of_pages(deep, (COLOURS, {"photometric": "rgb"}))
    output = round_trip(content, "TIFF")[2]
    pages = [page.asarray() for page in tifffile.TiffFile(io.BytesIO(output)).pages]
    assert np.array_equal(pages[0], deep[0])
    assert (pages[1][..., 3] == 65535).all()
    assert np.array_equal(pages[1][..., :3], COLOURS.astype(np.uint16) * 257)


def test_each_page_is_in_its_own_profile():
    p3 = {"photometric": "rgb", "iccprofile": display_p3_profile()}
    tagged = decode(io.BytesIO(tiff_of_pages((COLOURS, p3)))).frames[0]
    assert not np.array_equal(tagged, COLOURS)
    for pages in ([(COLOURS, {"photometric": "rgb"}), (COLOURS, p3)],
                  [(COLOURS, p3), (COLOURS, {"photometric": "rgb"})]):  # fmt: skip
        image = decode(io.BytesIO(tiff_of_pages(*pages)))
        for (_, options), frame in zip(pages, image.frames, strict=True):
            assert np.array_equal(frame, tagged if "iccprofile" in options else COLOURS)
        assert image.profile == icc.srgb()


def test_resolution_of_the_first_page_is_used():
    plain = {"photometric": "rgb"}
    fine = {"photometric": "rgb", "resolution": (300, 300), "resolutionunit": 2}
    image = decode(io.BytesIO(tiff_of_pages((COLOURS, plain), (COLOURS, fine))))
    assert image.metadata.dpi in (None, (1.0, 1.0))
    image = decode(io.BytesIO(tiff_of_pages((COLOURS, fine), (COLOURS, plain))))
    assert image.metadata.dpi == (300, 300)


def test_pages_of_several_modes_are_written_in_colour():
    black_and_white = (COLOURS[..., 0] > 128, {"photometric": "minisblack"})
    content = tiff_of_pages(black_and_white, (COLOURS, {"photometric": "rgb"}))
    output = open_image(round_trip(content, "TIFF", KEEP_MODE)[2])
    output.seek(1)
    assert output.mode == "RGB"
    assert np.array_equal(np.asarray(output), COLOURS)


def test_heic_of_several_images_reads_main_image_with_warning():
    heif = pytest.importorskip("pillow_heif")
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    images = [Image.new("RGB", (64, 64), colour) for colour in colours]
    stream = io.BytesIO()
    heif.register_heif_opener()
    images[0].save(
        stream, "HEIF", save_all=True, append_images=images[1:], primary_index=1, quality=95
    )
    read, *_ = round_trip(stream.getvalue(), "PNG")
    assert read.remarks == ("it holds 3 images, of which the main one was translated",)
    assert np.abs(read.frames[0].astype(int) - colours[1]).max() < 8
    with io.BytesIO(stream.getvalue()) as again:
        first = decode(again, first_only=True)
    assert np.array_equal(first.frames[0], read.frames[0])
