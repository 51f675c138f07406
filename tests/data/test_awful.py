"""Each awful image is translated right, or refused with one sentence. Nothing third."""

from __future__ import annotations

import io
import random
import re
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

import awful
from cyclegan_cli.data.decode import decode
from cyclegan_cli.data.encode import encode
from cyclegan_cli.data.image import DecodedImage, EncodeOptions
from cyclegan_cli.errors import DataError
from images import UPRIGHT, deep_noise, encoded, noise, round_trip, with_orientation

AWFUL = awful.all_of_them()
# Cut ones are refused, but for those that have lost a preview or a trailer alone.
REFUSED = re.compile(
    r"^(F-(PPM|TIFF)|cut-at-(?!0\.(7|9|97)-mpo|0\.97-palette)|huge|no-pixels|short-deep|long-deep"
    r"|pixels-elsewhere|text-bomb|nan|negative|sixty-four|thirty-two|five-channels|nothing|zeros"
    r"|words|page\.|program|heic-head)"
)


@pytest.fixture(autouse=True)
def as_outside_of_tests() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def translated(content: bytes) -> tuple[DecodedImage, DecodedImage] | str:
    """What was read and what its output reads as; or the refusal."""
    try:
        read = decode(io.BytesIO(content), name="the image")
    except DataError as error:
        return error.message
    stream = io.BytesIO()
    encode(read.with_frames(read.frames), stream, "TIFF" if not read.animation else "PNG")
    return read, decode(io.BytesIO(stream.getvalue()))


@pytest.mark.parametrize("name", AWFUL)
def test_an_awful_image_is_translated_or_refused(name: str) -> None:
    result = translated(AWFUL[name])
    if isinstance(result, str):
        assert REFUSED.match(name), result
        assert result.startswith(("the image ", "cannot read the image: "))
        assert "\n" not in result
        return
    assert not REFUSED.match(name)
    read, again = result
    assert len(read.frames) == len(again.frames)
    for index, frame in enumerate(read.frames):
        assert frame.ndim == 3
        assert np.array_equal(frame, again.frames[index])
        alpha = read.alpha(index)
        assert alpha is None or np.array_equal(alpha, again.alpha(index))


# Where an image goes through a translator that changes nothing, nothing changes.

SIZES = st.integers(1, 40)
SEEDS = st.integers(0, 1000)


@settings(deadline=None, max_examples=60)
@example(
    width=1, height=5, seed=0, orientation=2, channels=3, kind="PNG", keep_mode=False
)  # fmt: skip
@given(
    width=SIZES, height=SIZES, seed=SEEDS, orientation=st.integers(1, 8),
    channels=st.sampled_from([1, 2, 3, 4]), kind=st.sampled_from(["PNG", "TIFF"]),
    keep_mode=st.booleans(),
)  # fmt: skip
def test_all_levels_of_16_bits_come_through(
    width: int, height: int, seed: int, orientation: int, channels: int, kind: str, keep_mode: bool
) -> None:
    levels = deep_noise(height, width, channels, seed=seed)
    content = awful.deep_png(levels[..., 0] if channels == 1 else levels)
    exif = with_orientation(orientation).tobytes().removeprefix(b"Exif\0\0")
    content = content[:33] + awful.png_chunk(b"eXIf", exif) + content[33:]
    read, again, _, remarks = round_trip(content, kind, EncodeOptions(keep_mode=keep_mode))
    assert remarks == ()
    assert read.size == ((width, height) if orientation < 5 else (height, width))
    colours = levels[..., :3] if channels > 2 else np.repeat(levels[..., :1], 3, axis=2)
    assert np.array_equal(read.frames[0], UPRIGHT[orientation](colours))
    assert again.bit_depth == 16
    assert np.array_equal(again.frames[0], read.frames[0])
    if channels in (2, 4):
        assert np.array_equal(read.alpha(0), UPRIGHT[orientation](levels[..., -1]))
        assert np.array_equal(again.alpha(0), read.alpha(0))
    else:
        assert read.alphas == again.alphas == ()


@settings(deadline=None, max_examples=60)
@given(
    width=SIZES, height=SIZES, seed=SEEDS, orientation=st.integers(1, 8),
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"]),
    source=st.sampled_from(["PNG", "TIFF", "WEBP"]), target=st.sampled_from(["PNG", "TIFF"]),
    keep_mode=st.booleans(),
)  # fmt: skip
def test_every_image_comes_through_upright_and_of_its_size(
    width: int, height: int, seed: int, orientation: int, mode: str, source: str, target: str,
    keep_mode: bool,
) -> None:  # fmt: skip
    image = noise(width, height, seed).convert(mode)
    if "A" in mode:
        opacity = deep_noise(height, width, seed=seed).astype(np.uint8)
        opacity[0, 0] = 7  # WEBP files do not say that an image is wholly opaque.
        image.putalpha(Image.fromarray(opacity))
    options = {"lossless": True, "exact": True} if source == "WEBP" else {}
    try:
        content = encoded(image, source, exif=with_orientation(orientation), **options)
    except OSError:
        return  # The format has no such mode.
    read, again, _, _ = round_trip(content, target, EncodeOptions(keep_mode=keep_mode))
    colours = np.asarray(image.convert("RGBA").convert("RGB"))
    tolerance = 1 if mode == "CMYK" else 0  # Pillow rounds otherwise.
    difference = np.subtract(read.frames[0], UPRIGHT[orientation](colours), dtype=int)
    assert np.abs(difference).max() <= tolerance
    assert np.array_equal(again.frames[0], read.frames[0])
    if "A" in mode:
        alpha = np.asarray(image.getchannel("A"))
        assert np.array_equal(read.alpha(0), UPRIGHT[orientation](alpha))
        assert np.array_equal(again.alpha(0), read.alpha(0))


@pytest.mark.parametrize("name", awful.whole())
@settings(max_examples=40, deadline=None)
@example(seed=1328)  # An animated PNG's last frame becomes equal to the one before it.
@given(seed=st.integers(0, 2**32 - 1))
@pytest.mark.slow
def test_a_damaged_image_is_translated_or_refused(name: str, seed: int) -> None:
    content, draw = bytearray(awful.whole()[name]), random.Random(seed)
    for _ in range(draw.choice([1, 1, 2, 4, 8])):
        reach = min(len(content), draw.choice([64, 256, len(content)]))
        content[draw.randrange(reach)] = draw.choice([0, 1, 0xFF, draw.randrange(256)])
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)  # Changed sizes can be large ones.
        result = translated(bytes(content))
    if not isinstance(result, str):
        assert [frame.shape for frame in result[0].frames] == [f.shape for f in result[1].frames]
