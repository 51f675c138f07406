"""WebP chunks: lossless compression and alpha."""

import io

import numpy as np
import pytest
from PIL import Image

from cyclegan_cli.data.containers import is_lossless_webp, with_alpha_flag
from cyclegan_cli.data.decode import decode
from images import encoded, noise, round_trip, srgb_profile

ANIMATED = {"save_all": True, "append_images": [noise(seed=1)], "duration": 50}


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"icc_profile": srgb_profile()}, ANIMATED], ids=["bare", "profile", "frames"]
)
def test_lossless_webp_stays_lossless(lossless, options):
    content = encoded(noise(), "WEBP", lossless=lossless, **options)
    assert is_lossless_webp(content) == lossless
    read, written, output, _ = round_trip(content, "WEBP")
    assert is_lossless_webp(output) == lossless
    if lossless:
        for before, after in zip(read.frames, written.frames, strict=True):
            assert np.array_equal(before, after)


@pytest.mark.parametrize("content", [b"", b"RIFF\0\0\0\0WEBP", b"RIFF\0\0\0\0WEBPVP8X\xff\xff"])
def test_truncated_file_is_not_lossless(content):
    assert not is_lossless_webp(content)


def test_webp_animation_of_equal_frames_is_a_still_image():
    """libwebp makes one frame of them, in a file without the header that has the flags."""
    clear = Image.new("P", (24, 16), 1)
    clear.putpalette([255, 0, 0, 0, 0, 255])
    stream = io.BytesIO()
    clear.save(stream, "GIF", save_all=True, append_images=[clear.copy()], duration=[50, 60],
               transparency=0, disposal=2)  # fmt: skip
    content = encoded(noise(), "WEBP")
    assert with_alpha_flag(content) == content
    image = decode(io.BytesIO(stream.getvalue()))
    output = round_trip(stream.getvalue(), "WEBP")[1]
    assert output.size == image.size
