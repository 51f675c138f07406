"""``cyclegan translate`` with videos: options, reports and exit codes."""

import os
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from cyclegan_cli.cli import video_display
from images import files
from videos import frames_of, moving_square, write_video

pytestmark = pytest.mark.cpu_features


@pytest.fixture
def video(here):
    return write_video("photos/drive.mp4", moving_square(6), audio=True)


def test_folder_of_images_and_videos(video, cyclegan):
    write_video("photos/sub/other.avi", moving_square(2), codec="mpeg4")
    done = cyclegan("translate", "photos", "-o", "out", "--json", "--json-frames", "--ordered")
    assert done.code == 0, done.err
    assert files("out") == ["a.png", "b.jpg", "drive.mp4", "sub/c.png", "sub/other.mp4"]
    frames = [one for one in done.documents if one.get("input") == "photos/drive.mp4"]
    assert [one["frame"] for one in frames if "frame" in one] == list(range(6))
    assert [one["time"] for one in frames if "frame" in one] == [i / 25 for i in range(6)]
    assert [one["cut"] for one in frames if "frame" in one] == [True] + 5 * [False]
    [outcome] = [one for one in frames if "status" in one]
    assert (outcome["status"], outcome["frames"], outcome["width"]) == ("ok", 6, 48)
    assert done.documents[-1]["summary"]["ok"] == 5


def test_name_beside_input_and_second_run(video, cyclegan, monkeypatch):
    monkeypatch.setattr(video_display, "SECONDS_PER_LINE", 0.0)
    done = cyclegan("translate", "photos/drive.mp4")
    assert done.code == 0
    for number in range(1, 7):
        assert re.search(rf"drive.mp4: {number} of 6 frames, 0:00:\d\d left", done.err)
    assert len(frames_of("photos/drive_night.mp4")) == 6
    done = cyclegan("translate", "photos/drive.mp4")
    assert (done.code, "(exists, skipped)" in done.err) == (0, True)


def test_format_selects_container_of_videos_only(video, cyclegan):
    done = cyclegan("translate", "photos", "-o", "out", "--format", "mkv", "--codec", "ffv1")
    assert done.code == 0, done.err
    assert files("out") == ["a.png", "b.jpg", "drive.mkv", "sub/c.png"]
    assert cyclegan("translate", "photos", "-o", "png", "--format", "png").code == 0
    assert files("png") == ["a.png", "b.png", "drive.mp4", "sub/c.png"]


def test_options_for_a_part(video, cyclegan):
    done = cyclegan(
        "translate", "photos/drive.mp4", "-o", "night.mp4",
        "--start", "0:00:00.08", "--end", "0.2", "--every", "2", "--smooth", "shot",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert len(frames_of("night.mp4")) == 2


def test_damaged_video_is_translated_as_far_as_possible(here, cyclegan):
    path = write_video("drive.mkv", moving_square(100), options={"g": "1"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    done = cyclegan("translate", "drive.mkv", "photos", "-o", "out")
    assert done.code == 6
    assert "drive.mkv is damaged: the last" in done.err
    assert f"out/drive.mkv has the other {len(frames_of('out/drive.mkv'))} frames" in done.err
    assert files("out") == ["a.png", "b.jpg", "drive.mkv", "sub/c.png"]


def test_missing_package_is_named(video, cyclegan, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    done = cyclegan("translate", "photos", "-o", "out")
    assert done.code == 6
    assert (
        "photos/drive.mp4 is a video, which needs the package av: pip install 'cyclegan-cli[video]'"
        in done.err
    )
    assert files("out") == ["a.png", "b.jpg", "sub/c.png"]


def test_animation_is_translated_with_smoothing(here, cyclegan):
    frames = [Image.fromarray(frame) for frame in moving_square(6)]
    durations = [40, 80, 40, 120, 40, 60]
    frames[0].save("in.png", save_all=True, append_images=frames[1:], duration=durations)
    outputs = {}
    for smooth in ("0", "0.9", "shot"):
        assert cyclegan("translate", "in.png", "-o", f"{smooth}.png", "--smooth", smooth).code == 0
        with Image.open(f"{smooth}.png") as image:
            image.seek(4)
            outputs[smooth] = image.tobytes()
    assert len(set(outputs.values())) == 3
    options = ("--start", "0.04", "--end", "0.3", "--every", "2")
    assert cyclegan("translate", "in.png", "-o", "part.png", *options).code == 0
    with Image.open("part.png") as image:
        assert image.n_frames == 2
        assert [_duration(image, index) for index in range(2)] == [120, 160]


def _duration(image, index):
    image.seek(index)
    return image.info["duration"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["photos/a.png", "-o", "a.mp4"], "photos/a.png is a single image, which cannot be"),
        (["photos/drive.mp4", "-o", "a.jpg"], "a.jpg cannot hold a video"),
        (["photos/drive.mp4", "-o", "a.mp4", "--min-structure", "0"], "is a video, and --min-str"),
        (["photos/drive.mp4", "-o", "a.mp4", "--mask", "alpha"], "drive.mp4 has no alpha channel"),
    ],
)
def test_impossible_outputs(video, cyclegan, arguments, sentence):
    done = cyclegan("translate", *arguments)
    assert done.code == 6
    assert sentence in done.err


def test_mask_video(video, cyclegan):
    write_video("mask.mkv", moving_square(5), codec="ffv1", pixel_format="bgr0")
    done = cyclegan("translate", "photos", "-o", "out", "--mask", "mask.mkv")
    assert (done.code, files("out")) == (6, [])
    assert "the mask mask.mkv has 5 frames, and photos/drive.mp4 has 6" in done.err
    assert "the mask mask.mkv is a video, and photos/a.png is translated as an image" in done.err
    write_video("mask.mkv", moving_square(6), codec="ffv1", pixel_format="bgr0")
    command = ("translate", "photos/drive.mp4", "-o", "a.mp4", "--mask", "mask.mkv", "--if-newer")
    assert cyclegan(*command).code == 0
    assert "skipped" in cyclegan(*command).err
    later = Path("a.mp4").stat().st_mtime + 5
    os.utime("mask.mkv", (later, later))
    assert "skipped" not in cyclegan(*command).err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["photos", "-o", "a.mp4"], "-o a.mp4 names a file, but these inputs need a folder"),
        (["photos/drive.mp4", "-o", "-"], "a video is neither read from standard input nor"),
        (["photos/drive.mp4", "-o", "a.mp4", "--quality", "9"], "--quality is for images, and"),
        (["photos", "-o", "out", "--smooth", "1.5"], "--smooth '1.5' is neither shot nor a number"),
        (["photos", "-o", "out", "--start", "1m"], "--start '1m' is not a time"),
        (["photos", "-o", "out", "--start", "2", "--end", "1"], "--end 1 is not behind --start"),
        (["photos", "-o", "out", "--json-frames"], "--json-frames needs --json"),
        (["photos/drive.mp4", "-o", "a.mp4", "--codec", "ffv1"], "--codec ffv1: .mp4 files are"),
        (["photos/drive.mp4", "-o", "a.mp4", "--crf", "60"], "--crf 60: h264 ends at 51"),
    ],
)
def test_contradictory_options(video, cyclegan, arguments, sentence):
    done = cyclegan("translate", *arguments)
    assert (done.code, Path("out").exists()) == (2, False)
    assert sentence in done.err
