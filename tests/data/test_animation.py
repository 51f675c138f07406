"""Animations and pages."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cyclegan_cli.data.decode import decode
from cyclegan_cli.data.encode import encode
from cyclegan_cli.data.image import Animation, DecodedImage, EncodeOptions
from cyclegan_cli.errors import DataError, OutputError
from images import deep_noise, encoded, noise, open_image, round_trip, tiff_of, written

DURATIONS = [50, 100, 150, 200]


def sprites() -> list[Image.Image]:
    """A red square that wanders over nothing."""
    frames = []
    for place in range(4):
        frame = Image.new("RGBA", (24, 16), (0, 0, 0, 0))
        frame.paste((200, 10, 30, 255), (4 * place, 2, 4 * place + 8, 10))
        frames.append(frame)
    return frames


def animated(kind: str, frames: list[Image.Image] | None = None, **options: Any) -> bytes:
    first, *rest = frames or [noise(seed=seed) for seed in range(4)]
    options = {"lossless": True} | options if kind == "WEBP" else options
    content = bytearray(
        encoded(first, kind, save_all=True, append_images=rest, **{"duration": DURATIONS} | options)
    )
    if kind == "WEBP" and first.mode == "RGBA":
        content[20] |= 0x10  # There is transparency; of frames cut to what is opaque, too.
    return bytes(content)


@pytest.mark.parametrize("target", ["GIF", "WEBP", "PNG"])
@pytest.mark.parametrize("source", ["GIF", "WEBP", "PNG"])
@pytest.mark.parametrize("loop", [0, 3])
def test_frames_times_and_repetitions_are_kept(source, target, loop):
    read, again, _, remarks = round_trip(animated(source, loop=loop), target)
    assert remarks == ()
    assert len(again.frames) == len(read.frames) == 4
    assert read.animation.durations == tuple(DURATIONS)
    assert read.animation.plays == (loop + 1 if source == "GIF" and loop else loop)
    assert again.animation == read.animation
    for before, after in zip(read.frames, again.frames, strict=True):
        tolerance = {"PNG": 0, "GIF": 8, "WEBP": 60}[target]
        assert np.abs(np.subtract(before, after, dtype=int)).mean() <= tolerance


@pytest.mark.parametrize(
    ("asked", "written"),
    [(0.0, 0.0), (70_001.0, 70_001.0), (1e9, 65_535_000.0), (1 / 3, 1 / 3), (41.708, 41.708)],
)
def test_apng_durations_are_rounded_to_storable_fractions(asked, written):
    image = decode(io.BytesIO(animated("PNG")))
    times = replace(image.animation, durations=(asked, 50.0, 50.0, 50.0))
    stream = io.BytesIO()
    assert encode(replace(image, animation=times), stream, "PNG") == ()
    again = decode(io.BytesIO(stream.getvalue())).animation
    assert again.durations[0] == pytest.approx(written, rel=1e-5)


STILLS = [
    noise(seed=1).convert("RGBA"),
    Image.new("RGBA", (24, 16), (9, 9, 9, 128)),
    Image.new("RGBA", (24, 16), (0, 0, 0, 0)),
]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("has_default_image", [False, True])
@given(order=st.lists(st.integers(0, 2), min_size=2, max_size=6))
def test_an_animated_png_keeps_equal_frames(mode, has_default_image, order):
    images = [STILLS[number].convert(mode) for number in order]
    animated = DecodedImage(
        frames=tuple(np.asarray(image.convert("RGB")) for image in images),
        alphas=tuple(np.asarray(image.getchannel("A")) for image in images if mode == "RGBA"),
        animation=Animation(tuple(range(100, 100 + len(images))), 0, has_default_image),
    )
    stream = io.BytesIO()
    assert encode(animated, stream, "PNG") == ()
    again = decode(io.BytesIO(stream.getvalue()))
    assert len(again.frames) == len(animated.frames)
    for index, frame in enumerate(animated.frames):
        assert np.array_equal(again.frames[index], frame)
        alpha = animated.alpha(index)
        assert alpha is None or np.array_equal(again.alpha(index), alpha)
    assert again.animation.has_default_image == has_default_image
    assert (
        again.animation.durations[has_default_image:]
        == animated.animation.durations[has_default_image:]
    )


def test_gif_without_loop_stays_without():
    read, again, output, _ = round_trip(animated("GIF"), "GIF")
    assert read.animation.plays == 1
    assert again.animation == read.animation
    assert "loop" not in open_image(output).info


@pytest.mark.parametrize("target", ["GIF", "WEBP", "PNG"])
@pytest.mark.parametrize("source", ["GIF", "WEBP", "PNG"])
def test_frames_are_composited_independently(source, target):
    content = animated(source, sprites(), **({"disposal": 2} if source == "GIF" else {}))
    read, again, _, remarks = round_trip(content, target)
    assert remarks == ()
    for index, sprite in enumerate(sprites()):
        alpha = np.asarray(sprite.getchannel("A"))
        assert np.array_equal(read.alpha(index), alpha)
        assert np.array_equal(again.alpha(index), alpha)


def test_apng_default_image_is_kept():
    content = encoded(
        noise(seed=9), "PNG", save_all=True, default_image=True,
        append_images=[noise(seed=seed) for seed in range(2)], duration=70,
    )  # fmt: skip
    read, again, _, _ = round_trip(content, "PNG")
    assert read.animation.has_default_image
    assert [frame.tobytes() for frame in again.frames] == [f.tobytes() for f in read.frames]
    assert len(round_trip(content, "GIF")[1].frames) == 2


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "BMP"])
def test_an_animation_is_not_written_as_a_still_image(tmp_path, kind):
    read = decode(io.BytesIO(animated("GIF")))
    with pytest.raises(
        OutputError, match=f"{kind} does not support animation, and this image has 4 frames"
    ):
        encode(read, tmp_path / "x", kind)
    assert list(tmp_path.iterdir()) == []


def test_an_animation_is_not_written_at_16_bits():
    read = decode(io.BytesIO(animated("PNG")))
    with pytest.raises(OutputError, match="an animation supports 8 bits"):
        encode(read, io.BytesIO(), "PNG", EncodeOptions(bit_depth=16))


def test_animation_of_one_frame_is_an_image():
    assert round_trip(encoded(noise(), "GIF", save_all=True), "JPEG")[1].size == (24, 16)


# Pages


@pytest.mark.parametrize("depth", [8, 16])
def test_tiff_pages_keep_their_sizes(depth):
    pages = [deep_noise(16 + page, 24 - page, 3, seed=page) for page in range(3)]
    stream = io.BytesIO()
    import tifffile

    with tifffile.TiffWriter(stream) as file:
        for page in pages:
            levels = page if depth == 16 else (page >> 8).astype(np.uint8)
            file.write(levels, photometric="rgb", metadata=None)
    read, again, _, remarks = round_trip(stream.getvalue(), "TIFF")
    assert (read.animation, remarks) == (None, ())
    assert read.bit_depth == again.bit_depth == depth
    assert [frame.shape for frame in read.frames] == [page.shape for page in pages]
    assert all(np.array_equal(a, b) for a, b in zip(read.frames, again.frames, strict=True))
    assert read.frames[2].tobytes() == levels.tobytes()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF"])
def test_pages_are_not_written_as_one_image_or_animation(kind):
    read = decode(io.BytesIO(encoded(noise(), "TIFF", save_all=True, append_images=[noise()])))
    with pytest.raises(OutputError, match=f"{kind} supports one page, and this image has 2"):
        encode(read, io.BytesIO(), kind)


def test_tiff_preview_is_not_a_page():
    import tifffile

    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        file.write(np.asarray(noise()), photometric="rgb", metadata=None)
        file.write(np.asarray(noise(6, 4)), photometric="rgb", metadata=None, subfiletype=1)
    assert [frame.shape for frame in decode(io.BytesIO(stream.getvalue())).frames] == [(16, 24, 3)]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(animated("GIF"), id="frames"),
        pytest.param(tiff_of(np.zeros((4, 16, 24, 3), np.uint16), photometric="rgb"), id="pages"),
    ],
)
def test_decompression_bomb_of_many_frames_is_refused(tmp_path, monkeypatch, content):
    path = written(tmp_path / "bomb", content)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16 * 24)
    with pytest.raises(DataError, match=r"bomb claims more than 0\.000768 megapixels"):
        decode(path)
