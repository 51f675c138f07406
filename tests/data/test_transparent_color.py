"""PNG's single transparent colour (tRNS) at every depth: rows by hand, as ImageMagick has them."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cyclegan_cli.data.decode import decode, from_pillow
from damaged_files import png_chunk
from images import open_image


def grey_png(depth: int, transparent: int) -> bytes:
    """A row of all levels of a depth, or of 16 of them."""
    levels = (
        [step * (2**depth - 1) // 15 for step in range(16)] if depth > 4 else [*range(2**depth)]
    )
    bits = "".join(f"{level:0{depth}b}" for level in levels)
    row = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8))
    head = struct.pack(">IIBBBBB", len(levels), 1, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        png_chunk(kind, content)
        for kind, content in ((b"IHDR", head), (b"tRNS", struct.pack(">H", transparent)),
                              (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b""))
    )  # fmt: skip


def opacity_of(content: bytes) -> Any:
    image = decode(io.BytesIO(content))
    assert image.remarks == ()
    colours, alpha = from_pillow(open_image(content))
    assert np.array_equal(colours, image.frames[0])
    assert (alpha is not None) == bool(image.alphas)
    if alpha is None:
        return np.full(colours.shape[1], 255)
    assert np.array_equal(alpha, image.alphas[0])
    return np.asarray(alpha)[0] // (257 if alpha.dtype == np.uint16 else 1)


@pytest.mark.parametrize(
    ("depth", "transparent", "place"),
    [(1, 0, 0), (1, 1, 1), (2, 0, 0), (2, 1, 1), (2, 3, 3), (4, 5, 5), (4, 0, 0), (4, 15, 15),
     (8, 85, 5), (16, 4369 * 5, 5)],
)  # fmt: skip
def test_the_transparent_grey_of_every_depth(depth, transparent, place):
    opacity = opacity_of(grey_png(depth, transparent))
    assert opacity.tolist() == [0 if index == place else 255 for index in range(len(opacity))]


def test_transparent_color_is_masked_to_the_bit_depth():
    # PNG specification, third edition, 11.3.1.1: "decoders must mask the other bits".
    assert np.argmin(opacity_of(grey_png(4, 16 + 5))) == 5
    assert np.argmin(opacity_of(grey_png(8, 256 + 85))) == 5


@pytest.mark.parametrize("colour", [(1, 2, 3), (257, 258, 259)])
def test_the_transparent_colour(colour):
    head = struct.pack(">IIBBBBB", 2, 1, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        png_chunk(kind, data)
        for kind, data in ((b"IHDR", head), (b"tRNS", struct.pack(">3H", *colour)),
                           (b"IDAT", zlib.compress(bytes([0, 9, 9, 9, 1, 2, 3]))), (b"IEND", b""))
    )  # fmt: skip
    assert opacity_of(content).tolist() == [255, 0]


def test_xbm_set_bits_are_black():
    # The X window system's bitmap format: bits from the lowest on, 1 is the foreground, black.
    content = b"#define a_width 8\n#define a_height 1\nstatic char a_bits[] = {\n0x03};\n"
    expected = [0, 0] + [255] * 6
    assert decode(io.BytesIO(content)).frames[0][0, :, 0].tolist() == expected
    with open_image(content) as image:
        assert isinstance(image, Image.Image)
        assert from_pillow(image)[0][0, :, 0].tolist() == expected
