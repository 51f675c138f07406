"""One harness for all readers: each file is decoded right or refused in one sentence."""

import io
import random
import re
import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

import damaged_files
import hostile_files
from cyclegan_cli.data.decode import decode, decode_opaque
from cyclegan_cli.data.encode import encode
from cyclegan_cli.data.image import DecodedImage, EncodeOptions, to_depth
from cyclegan_cli.errors import DataError
from images import UPRIGHT, deep_noise, encoded, noise, round_trip, with_orientation, written

FILES = damaged_files.all_of_them() | {
    f"hostile-{name}": content for name, content in hostile_files.files().items()
}
# Truncated files are refused unless they lack only a preview or a trailer.
REFUSED = re.compile(
    r"^(F-(PPM|TIFF)|damaged by"
    r"|cut-at-(?!0\.(7|9|97)-mpo|0\.97-palette)|huge|no-pixels|short-deep|long-deep"
    r"|pixels-elsewhere|text-bomb|nan|negative|sixty-four|thirty-two|five-channels|nothing|zeros"
    r"|words|page\.|program|heic-head)"
)


@pytest.fixture(autouse=True)
def ignore_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def translated(content: bytes) -> tuple[DecodedImage, DecodedImage] | str:
    """Return the image and its decoded output, or the error message."""
    try:
        read = decode(io.BytesIO(content), name="the image")
    except DataError as error:
        return error.message
    stream = io.BytesIO()
    encode(read.with_frames(read.frames), stream, "TIFF" if not read.animation else "PNG")
    return read, decode(io.BytesIO(stream.getvalue()))


@pytest.mark.parametrize("name", FILES)
def test_damaged_file_is_decoded_or_refused(name, tmp_path):
    result = translated(FILES[name])
    if isinstance(result, str):
        assert REFUSED.match(name), result
        assert result.startswith(("the image ", "cannot read the image: "))
        assert "\n" not in result
        if not name.startswith("cut-at") and "frames" not in name:  # The first frame may be whole.
            path = written(tmp_path / "image", FILES[name])
            with pytest.raises(DataError):
                decode_opaque(path, 10)
        return
    assert not REFUSED.match(name)
    read, again = result
    first, size = decode_opaque(written(tmp_path / "image", FILES[name]), 10**6)
    assert size == read.size
    assert np.array_equal(first, to_depth(read.on_white(0), 8))
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
def test_16_bit_round_trip_is_lossless(width, height, seed, orientation, channels, kind, keep_mode):
    levels = deep_noise(height, width, channels, seed=seed)
    content = damaged_files.deep_png(levels[..., 0] if channels == 1 else levels)
    exif = with_orientation(orientation).tobytes().removeprefix(b"Exif\0\0")
    content = content[:33] + damaged_files.png_chunk(b"eXIf", exif) + content[33:]
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
def test_round_trip_is_upright_with_equal_size(
    width, height, seed, orientation, mode, source, target, keep_mode
):
    image = noise(width, height, seed).convert(mode)
    if "A" in mode:
        opacity = deep_noise(height, width, seed=seed).astype(np.uint8)
        opacity[0, 0] = 7  # WEBP drops an opaque alpha channel.
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


@pytest.mark.parametrize("name", damaged_files.whole())
@settings(max_examples=40, deadline=None)
@example(seed=1328)  # An animated PNG's last frame becomes equal to the one before it.
@given(seed=st.integers(0, 2**32 - 1))
@pytest.mark.slow
def test_random_damage_is_decoded_or_refused(name, seed):
    content, draw = bytearray(damaged_files.whole()[name]), random.Random(seed)
    for _ in range(draw.choice([1, 1, 2, 4, 8])):
        reach = min(len(content), draw.choice([64, 256, len(content)]))
        content[draw.randrange(reach)] = draw.choice([0, 1, 0xFF, draw.randrange(256)])
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)  # Changed sizes can be large ones.
        result = translated(bytes(content))
    if not isinstance(result, str):
        assert [frame.shape for frame in result[0].frames] == [f.shape for f in result[1].frames]
