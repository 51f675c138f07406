"""Frames of videos: order, times, orientation, colors, and what is refused."""

from fractions import Fraction

import av
import numpy as np
import pytest

from cyclegan_cli.errors import DataError
from cyclegan_cli.translation.selection import ALL_FRAMES, Selection
from cyclegan_cli.translation.video import reader as video_reader
from cyclegan_cli.translation.video.color import (
    LUMA_WEIGHTS,
    ColorTags,
    frame_to_rgb,
    rgb_to_frame,
    upright,
)
from cyclegan_cli.translation.video.reader import VideoReader
from videos import moving_square, write_video

UNEVEN = [0, 40, 95, 100, 300, 310, 420, 421]


def times(reader, selection=ALL_FRAMES, after=None):
    return [frame.pts for frame in reader.frames(selection, after)]


def test_times_of_uneven_frames(tmp_path):
    path = write_video(tmp_path / "a.mkv", moving_square(8), times=UNEVEN)
    reader = VideoReader(str(path))
    assert times(reader) == UNEVEN
    assert reader.info.time_base == Fraction(1, 1000)
    assert times(reader, Selection(0.095, 0.42)) == [95, 100, 300, 310]
    assert times(reader, Selection(every=3)) == [0, 100, 420]
    assert times(reader, Selection(0.04, None, 2)) == [40, 100, 310, 421]
    assert times(reader, Selection(0.04, None, 2), after=100) == [310, 421]
    assert reader.damage == []


def test_transparency_and_floating_point_numbers(tmp_path, monkeypatch):
    path = tmp_path / "a.webm"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libvpx-vp9", rate=25, width=48, height=32, pix_fmt="yuv420p")
        stream.metadata["alpha_mode"] = "1"
        frame = av.VideoFrame.from_ndarray(moving_square(1)[0], format="rgb24")
        output.mux([*stream.encode(frame), *stream.encode(None)])
    assert "its transparency is lost" in VideoReader(str(path)).info.remarks[0]
    with monkeypatch.context() as patch, pytest.raises(DataError, match="pixels of 32 bits"):
        patch.setattr(video_reader, "bits_of", lambda frame: 32)
        VideoReader(str(path))
    packed = av.VideoFrame(48, 32, "y210le")  # One plane.
    assert frame_to_rgb(packed, ColorTags()).shape == (32, 48, 3)


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_frames_are_upright(tmp_path, degrees):
    frames = moving_square(2)
    path = write_video(
        tmp_path / "a.mov", frames, codec="png", pixel_format="rgb24", rotation=degrees
    )
    reader = VideoReader(str(path))
    expected = np.rot90(frames[0], degrees // 90)
    assert np.array_equal(next(reader.frames(Selection())).pixels, expected)
    assert (reader.info.width, reader.info.height) == expected.shape[1::-1]


@pytest.mark.parametrize(
    ("display", "change"),
    [
        ((1, 0, 0, 1), lambda a: a),
        ((-1, 0, 0, 1), lambda a: a[:, ::-1]),
        ((1, 0, 0, -1), lambda a: a[::-1]),
        ((0, 1, 1, 0), lambda a: a.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda a: a[::-1, ::-1].swapaxes(0, 1)),
    ],
)
def test_mirrored_frames(display, change):
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert np.array_equal(upright(pixels, display), change(pixels))


def planar(values, pixel_format, tags):
    """A frame with the planes ``[H, W, 3]``."""
    height, width, _ = values.shape
    frame = av.VideoFrame(width, height, pixel_format)
    dtype = np.uint16 if "10le" in pixel_format else np.uint8
    for index, plane in enumerate(frame.planes):
        padded = np.zeros((height, plane.line_size // dtype().itemsize), dtype)
        padded[:, :width] = values[..., index]
        plane.update(padded.tobytes())
    frame.colorspace, frame.color_range = tags.matrix, tags.range
    return frame


@pytest.mark.parametrize(("pixel_format", "bits"), [("yuv444p", 8), ("yuv444p10le", 10)])
@pytest.mark.parametrize("matrix", [1, 6, 9])
@pytest.mark.parametrize("color_range", [1, 2])
def test_colors_follow_tags(pixel_format, bits, matrix, color_range):
    random = np.random.default_rng(0)
    unit = 2 ** (bits - 8)
    luma = random.integers(80 * unit, 180 * unit, (8, 16))
    chroma = random.integers(108 * unit, 148 * unit, (8, 16, 2))
    tags = ColorTags(matrix, color_range)
    frame = planar(np.dstack([luma, chroma]), pixel_format, tags)
    # ITU-T H.273, equations 21 to 30, in floating point.
    if color_range == 1:
        y, cb, cr = (luma / unit - 16) / 219, *((chroma / unit - 128) / 224).transpose(2, 0, 1)
    else:
        highest = 2**bits - 1
        y, cb, cr = luma / highest, *((chroma - 128 * unit) / highest).transpose(2, 0, 1)
    red, blue = LUMA_WEIGHTS[matrix]
    r, b = y + 2 * (1 - red) * cr, y + 2 * (1 - blue) * cb
    expected = np.dstack([r, (y - red * r - blue * b) / (1 - red - blue), b])
    pixels = frame_to_rgb(frame, tags)
    highest = np.iinfo(pixels.dtype).max
    assert pixels.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert np.abs(pixels - expected * highest).max() < (0.6 if bits == 8 else 2)
    back = rgb_to_frame(pixels, pixel_format, tags)
    assert (back.colorspace, back.color_range) == (matrix, color_range)
    luma_back = np.frombuffer(back.planes[0], np.uint8 if bits == 8 else np.uint16)
    assert np.abs(luma_back.reshape(8, -1)[:, :16].astype(int) - luma).max() <= 1


def test_missing_matrix_follows_from_height(tmp_path):
    small = write_video(tmp_path / "a.mkv", moving_square(1))
    assert VideoReader(str(small)).info.tags.matrix == 6
    large = write_video(tmp_path / "b.mkv", [np.zeros((720, 16, 3), np.uint8)])
    assert VideoReader(str(large)).info.tags.matrix == 1


@pytest.mark.parametrize(
    ("tags", "options", "sentence"),
    [
        ({"color_trc": 16}, {}, r"a.mkv is an HDR video \(PQ\)"),
        ({"color_trc": 18}, {}, r"a.mkv is an HDR video \(HLG\)"),
        ({}, {"x264-params": "tff=1"}, "a.mkv is interlaced"),
    ],
)
def test_refused_kinds(tmp_path, tags, options, sentence):
    path = write_video(tmp_path / "a.mkv", moving_square(2), tags=tags, options=options)
    with pytest.raises(DataError, match=sentence + ".* first, "):
        VideoReader(str(path))


def test_no_video(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(DataError, match="it is damaged, or no video"):
        VideoReader(str(tmp_path / "a.mp4"))
    with pytest.raises(DataError, match="no such file"):
        VideoReader(str(tmp_path / "b.mp4"))


def test_playlists_are_refused(tmp_path):
    write_video(tmp_path / "a.ts", moving_square(4))
    (tmp_path / "b.mp4").write_text("#EXTM3U\n#EXTINF:1,\na.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(DataError, match="b.mp4"):
        VideoReader(str(tmp_path / "b.mp4"))


def test_names_that_look_like_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video("plain.mkv", moving_square(1)).rename("http:a.mkv")
    assert times(VideoReader("http:a.mkv")) == [0]


def test_damaged_packets_are_named_and_others_read(tmp_path):
    path = write_video(tmp_path / "a.nut", moving_square(10), codec="png", pixel_format="rgb24")
    content = bytearray(path.read_bytes())
    starts = [i for i in range(len(content)) if content[i : i + 4] == b"IHDR"]
    content[starts[4] : starts[4] + 8] = bytes(8)
    path.write_bytes(content)
    reader = VideoReader(str(path))
    read = [round(1000 * pts * reader.info.time_base) for pts in times(reader)]
    assert read == [40 * i for i in range(10) if i != 4]
    assert reader.damage == ["1 frame cannot be decoded (at 0:00:00.16)"]


def test_missing_end_is_named(tmp_path):
    path = write_video(tmp_path / "a.mkv", moving_square(100), options={"g": "1"})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    reader = VideoReader(str(path))
    read = times(reader)
    assert 40 < len(read) < 60
    assert any("seconds are missing" in sentence for sentence in reader.damage)
