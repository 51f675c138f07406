"""Videos from file to file: what is kept, and what happens when they end early."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from cyclegan_cli.translation.file_stages import FileStages
from cyclegan_cli.translation.masks import Masks
from cyclegan_cli.translation.mixed_stages import MixedStages
from cyclegan_cli.translation.outputs import TranslationJob
from cyclegan_cli.translation.pipeline import Pipeline
from cyclegan_cli.translation.selection import Selection
from cyclegan_cli.translation.translator import Translator
from cyclegan_cli.translation.video import translation
from cyclegan_cli.translation.video.color import tags_of
from cyclegan_cli.translation.video.frame_masks import FrameMasks
from cyclegan_cli.translation.video.reader import VideoReader
from cyclegan_cli.translation.video.segments import WorkFolder
from cyclegan_cli.translation.video.settings import VideoSettings
from cyclegan_cli.translation.video.stages import VideoStages
from videos import frames_of, moving_square, packets_of, pixels_of, times_of, write_video

DEFAULTS = VideoSettings()
UNEVEN = [0, 40, 95, 100, 300, 310, 420, 421, 480, 560, 600, 680]


@pytest.fixture(scope="module")
def translator(checkpoint):
    return Translator.load(checkpoint, "a2b", "cpu")


class Events:
    """Records events; ends the process, or asks it to stop, before a frame."""

    def __init__(self, kill_at=None, stop_at=None):
        self.frames, self.messages = [], []
        self.kill_at, self.stop_at = kill_at, stop_at

    def on_video(self, name, done, frames):
        self.done, self.expected = done, frames

    def on_frame(self, name, index, seconds, is_cut):
        if index == self.kill_at:
            raise KeyboardInterrupt
        self.frames.append((index, round(seconds, 3), is_cut))

    def on_video_end(self):
        pass

    def on_message(self, sentence):
        self.messages.append(sentence)

    def stop_requested(self):
        is_due = self.stop_at is not None and len(self.frames) >= self.stop_at
        return 2 if is_due else None


def translate(translator, source, output, settings=DEFAULTS, events=None, masks=None):
    """Outcomes of a pipeline of one video."""
    events = events or Events()
    videos = VideoStages(translator, settings, events, events.stop_requested, masks=masks)
    jobs = [TranslationJob(str(source), str(output))]
    pipeline = Pipeline(
        jobs,
        MixedStages(FileStages(translator), lambda: videos),
        stop_requested=events.stop_requested,
        images=1,
    )
    return list(pipeline.outcomes())


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    folder = tmp_path_factory.mktemp("video")
    return write_video(folder / "drive.mp4", moving_square(12), times=UNEVEN, audio=True)


def test_times_sound_and_metadata_are_kept(translator, video, tmp_path):
    [outcome] = translate(translator, video, tmp_path / "night.mp4")
    assert (outcome.status, outcome.width, outcome.height, outcome.frames) == ("ok", 48, 32, 12)
    assert outcome.warnings == ()
    assert times_of(tmp_path / "night.mp4") == [Fraction(time, 1000) for time in UNEVEN]
    assert packets_of(tmp_path / "night.mp4", "audio") == packets_of(video, "audio")
    with av.open(str(tmp_path / "night.mp4")) as container:
        assert container.metadata["title"] == "a square"
        stream = container.streams.video[0]
        assert stream.duration * stream.time_base == Fraction(680 + 40, 1000)
    assert [path.name for path in tmp_path.iterdir()] == ["night.mp4"]


def test_lossless_frames_equal_translated_images(translator, video, tmp_path):
    settings = VideoSettings(codec="ffv1", smoothing=0.0)
    [outcome] = translate(translator, video, tmp_path / "night.mkv", settings)
    assert outcome.status == "ok"
    expected = [translator(frame) for frame in pixels_of_source(video)]
    assert np.array_equal(pixels_of(tmp_path / "night.mkv"), expected)


def pixels_of_source(path):
    return [frame.pixels for frame in VideoReader(str(path)).frames(Selection())]


@pytest.mark.parametrize(
    ("codec", "name", "pixel_format"),
    [
        ("h264", "a.mp4", "yuv420p10le"),
        ("hevc", "a.mp4", "yuv420p10le"),
        ("av1", "a.webm", "yuv420p10le"),
        ("prores", "a.mov", "yuv422p10le"),
        ("ffv1", "a.mkv", "gbrp10le"),
    ],
)
def test_ten_bits_and_tags_are_kept(translator, tmp_path, codec, name, pixel_format):
    tags = {"colorspace": 9, "color_primaries": 9, "color_trc": 14, "color_range": 1}
    source = write_video(
        tmp_path / "in.mkv", moving_square(2, (96, 64)), pixel_format="yuv420p10le", tags=tags
    )
    settings = VideoSettings(codec=codec)
    [outcome] = translate(translator, source, tmp_path / name, settings)
    assert outcome.status == "ok", outcome.error
    first, *_ = found = frames_of(tmp_path / name)
    assert (len(found), first.format.name) == (2, pixel_format)
    expected = [0, 2, 9, 14] if codec == "ffv1" else [9, 1, 9, 14]
    assert [*vars(tags_of(first)).values()] == expected


def test_full_range_and_rotation(translator, tmp_path):
    source = write_video(
        tmp_path / "in.mp4", moving_square(2), rotation=90, pixel_format="yuvj420p",
        tags={"colorspace": 1, "color_range": 2},
    )  # fmt: skip
    [outcome] = translate(translator, source, tmp_path / "out.mp4")
    assert (outcome.width, outcome.height) == (32, 48)
    first = frames_of(tmp_path / "out.mp4")[0]
    assert (first.width, first.height, first.rotation) == (32, 48, 0)
    assert (first.colorspace, first.color_range) == (1, 2)


def test_pixel_aspect_is_kept(translator, tmp_path):
    source = write_video(
        tmp_path / "in.mp4", moving_square(2), tags={"sample_aspect_ratio": Fraction(4, 3)}
    )
    translate(translator, source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


def test_part_of_a_video(translator, video, tmp_path):
    settings = VideoSettings(selection=Selection(0.095, 0.5, 2))
    [outcome] = translate(translator, video, tmp_path / "part.mp4", settings)
    assert outcome.frames == 4
    expected = [Fraction(time - 95, 1000) for time in (95, 300, 420, 480)]
    assert times_of(tmp_path / "part.mp4") == expected
    source = {content for time, content in packets_of(video, "audio") if 0.095 <= time < 0.5}
    assert {content for _, content in packets_of(tmp_path / "part.mp4", "audio")} == source


def test_streams_that_the_container_does_not_hold(translator, video, tmp_path):
    [outcome] = translate(translator, video, tmp_path / "night.webm")
    assert outcome.warnings == ("the output does not hold these streams: audio (aac)",)


@pytest.mark.parametrize("smoothing", [0.0, 0.7, "shot"])
def test_killed_translation_continues_with_same_packets(
    translator, video, tmp_path, monkeypatch, smoothing
):
    monkeypatch.setattr(translation, "segment_frames", lambda info: 5)
    # x264's result for frames as small as these varies.
    settings = VideoSettings(codec="ffv1", smoothing=smoothing)
    translate(translator, video, tmp_path / "whole.mkv", settings)
    with pytest.raises(KeyboardInterrupt):
        translate(translator, video, tmp_path / "night.mkv", settings, Events(kill_at=8))
    assert not (tmp_path / "night.mkv").exists()
    events = Events()
    [outcome] = translate(translator, video, tmp_path / "night.mkv", settings, events)
    assert (outcome.status, outcome.frames, events.done) == ("ok", 12, 5)
    assert [index for index, *_ in events.frames] == [*range(5, 12)]
    for kind in ("video", "audio"):
        expected = packets_of(tmp_path / "whole.mkv", kind)
        assert packets_of(tmp_path / "night.mkv", kind) == expected


def test_other_settings_begin_anew(translator, video, tmp_path, monkeypatch):
    monkeypatch.setattr(translation, "segment_frames", lambda info: 5)
    with pytest.raises(KeyboardInterrupt):
        translate(translator, video, tmp_path / "night.mp4", events=Events(kill_at=8))
    events = Events()
    translate(translator, video, tmp_path / "night.mp4", VideoSettings(crf=30), events)
    assert (events.done, len(events.frames)) == (0, 12)


def test_stopped_translation_is_playable_and_continues(translator, video, tmp_path):
    events = Events(stop_at=7)
    assert translate(translator, video, tmp_path / "night.mp4", events=events) == []
    assert events.messages == [
        f"{video}: stopped after 7 frames, which are in {tmp_path / 'night.partial.mp4'}; the "
        "same command continues"
    ]
    assert times_of(tmp_path / "night.partial.mp4") == times_of(video)[:7]
    sound = [one for one in packets_of(video, "audio") if one[0] < Fraction(421, 1000)]
    assert packets_of(tmp_path / "night.partial.mp4", "audio") == sound
    assert not (tmp_path / "night.mp4").exists()
    [outcome] = translate(translator, video, tmp_path / "night.mp4")
    assert outcome.status == "ok"
    assert times_of(tmp_path / "night.mp4") == times_of(video)
    assert [path.name for path in tmp_path.iterdir()] == ["night.mp4"]


def test_partial_files_of_others_are_kept(translator, video, tmp_path):
    source = tmp_path / "clip.partial.mp4"
    source.write_bytes(content := video.read_bytes())
    events = Events(stop_at=3)
    assert translate(translator, source, tmp_path / "clip.mp4", events=events) == []
    assert f"{source} is not replaced" in events.messages[0]
    [outcome] = translate(translator, source, tmp_path / "clip.mp4")
    assert outcome.status == "ok"
    assert source.read_bytes() == content


def test_two_processes_do_not_write_the_same_video(translator, video, tmp_path, start_python):
    work = WorkFolder.path_for(str(tmp_path / "night.mp4"))
    work.mkdir()
    script = (
        "import sys, fcntl, time; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); "
        "print(flush=True); time.sleep(600)"
    )
    process = start_python("-c", script, work / "lock")
    process.stdout.readline()
    [outcome] = translate(translator, video, tmp_path / "night.mp4")
    assert outcome.error == f"another process is translating to {work}"
    process.kill()
    process.communicate()
    [outcome] = translate(translator, video, tmp_path / "night.mp4")
    assert outcome.status == "ok"


@pytest.mark.parametrize("smoothing", [0.9, "shot"])
def test_damage_before_a_stop_is_named_at_the_end(translator, tmp_path, smoothing):
    path = write_video(tmp_path / "a.nut", moving_square(12), codec="png", pixel_format="rgb24")
    content = bytearray(path.read_bytes())
    starts = [i for i in range(len(content)) if content[i : i + 4] == b"IHDR"]
    for index in (2, 10):
        content[starts[index] : starts[index] + 8] = bytes(8)
    path.write_bytes(content)
    settings = VideoSettings(smoothing=smoothing)
    assert translate(translator, path, tmp_path / "o.mp4", settings, Events(stop_at=6)) == []
    [outcome] = translate(translator, path, tmp_path / "o.mp4", settings)
    assert outcome.error == (
        f"{path} is damaged: 2 frames cannot be decoded (at 0:00:00.08, 0:00:00.40); "
        f"{tmp_path / 'o.mp4'} has the other 10 frames"
    )
    assert len(frames_of(tmp_path / "o.mp4")) == 10


def test_scene_cuts_begin_new_statistics(translator, tmp_path):
    bright = [255 - frame for frame in moving_square(4)]
    source = write_video(tmp_path / "in.mp4", [*moving_square(4), *bright])
    for smoothing in (0.9, "shot"):
        events = Events()
        output = tmp_path / f"{smoothing}.mp4"
        translate(translator, source, output, VideoSettings(smoothing=smoothing), events)
        assert [index for index, _, is_cut in events.frames if is_cut] == [0, 4]


def test_image_sequence(translator, video, tmp_path):
    pattern = tmp_path / "100%" / "%03d.png"
    events = Events(stop_at=5)
    settings = VideoSettings(smoothing=0.0)
    assert translate(translator, video, pattern, settings, events) == []
    assert sorted(path.name for path in pattern.parent.glob("*.png")) == [
        f"{number:03d}.png" for number in range(1, 6)
    ]
    [outcome] = translate(translator, video, pattern, settings)
    assert (outcome.status, outcome.frames) == ("ok", 12)
    written = [np.asarray(Image.open(path)) for path in sorted(pattern.parent.glob("*.png"))]
    assert np.array_equal(written, [translator(frame) for frame in pixels_of_source(video)])
    [outcome] = translate(translator, video, pattern, settings)
    assert outcome.status == "skipped"


def test_a_percent_sign_in_the_name_of_a_video(translator, video, tmp_path):
    [outcome] = translate(translator, video, tmp_path / "50%discount.mp4")
    assert outcome.status == "ok"
    assert len(frames_of(tmp_path / "50%discount.mp4")) == 12


def test_animations_and_videos_convert(translator, video, tmp_path):
    [outcome] = translate(translator, video, tmp_path / "night.gif")
    assert outcome.status == "ok"
    with Image.open(tmp_path / "night.gif") as gif:
        assert (gif.n_frames, gif.size) == (12, (48, 32))
    frames = [Image.fromarray(frame) for frame in moving_square(4)]
    frames[0].save(
        tmp_path / "in.gif", save_all=True, append_images=frames[1:], duration=[50, 100, 70, 40]
    )
    [outcome] = translate(translator, tmp_path / "in.gif", tmp_path / "out.mp4")
    assert outcome.frames == 4
    assert times_of(tmp_path / "out.mp4") == [Fraction(time, 100) for time in (0, 5, 15, 22)]


def test_record_names_what_frames_depend_on(translator, video, tmp_path, monkeypatch):
    monkeypatch.setattr(translation, "segment_frames", lambda info: 5)
    with pytest.raises(KeyboardInterrupt):
        translate(translator, video, tmp_path / "night.mp4", events=Events(kill_at=8))
    record = json.loads((tmp_path / ".night.mp4.segments" / "record.json").read_text())
    assert record["input"][0] == str(Path(video).resolve())
    assert len(record["checkpoint"]) == 64
    assert record["smoothing"] == VideoSettings().smoothing


def test_size_limit(translator, video, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    monkeypatch.setattr(VideoReader, "_decoded", pytest.fail)  # No frame is decoded before.
    [outcome] = translate(translator, video, tmp_path / "night.mp4")
    assert "48x32 pixels, more than --max-megapixels" in outcome.error


def test_bands_are_refused(translator, video, tmp_path, monkeypatch):
    monkeypatch.setattr(translator, "target_format", object())
    [outcome] = translate(translator, video, tmp_path / "night.mp4")
    assert "the model is not between RGB domains" in outcome.error


def test_mask_keeps_pixels_of_every_frame(translator, video, tmp_path):
    mask = np.zeros((32, 48), np.uint8)
    mask[8:, 10:30] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    settings = VideoSettings(codec="ffv1", smoothing=0.0)
    masks = Masks(str(tmp_path / "mask.png"))
    [outcome] = translate(translator, video, tmp_path / "night.mkv", settings, masks=masks)
    assert outcome.mask_share == 24 * 20 / (32 * 48)
    pairs = zip(pixels_of(tmp_path / "night.mkv"), pixels_of_source(video), strict=True)
    for written, frame in pairs:
        assert np.array_equal(written[mask == 0], frame[mask == 0])
        assert np.array_equal(written[mask == 255], translator(frame)[mask == 255])


def moving_masks(count, size=(48, 32)):
    """Masks ``[N, H, W]`` uint8 of a rectangle that moves; the fifth is black."""
    masks = np.zeros((count, size[1], size[0]), np.uint8)
    for index in range(count):
        if index != 4:
            masks[index, 8:24, 2 * index : 2 * index + 16] = 255
    return masks


def write_masks(path, masks, **options):
    return write_video(path, [mask[..., None].repeat(3, 2) for mask in masks], **options)


LOSSLESS = {"codec": "ffv1", "pixel_format": "bgr0"}


@pytest.mark.parametrize("kind", ["ffv1", "h264", "gif", "folder"])
@pytest.mark.parametrize("selection", [Selection(), Selection(0.095, 0.5, 2)])
def test_mask_video_has_a_mask_per_frame(translator, video, tmp_path, kind, selection):
    expected = moving_masks(12)
    if kind == "gif":
        first, *others = map(Image.fromarray, expected)
        path = tmp_path / "mask.gif"
        first.save(path, save_all=True, append_images=others)
    elif kind == "h264":
        # Compressed little, so that values are near black and white, and rounded exactly.
        path = write_masks(tmp_path / "mask.mp4", expected, options={"crf": "10"})
    else:
        folder = tmp_path / "masks"
        path = write_masks(folder / "drive.mkv", expected, **LOSSLESS)
    masks = Masks(str(folder if kind == "folder" else path), invert=kind == "folder")
    if masks.invert:
        expected = 255 - expected
    settings = VideoSettings(codec="ffv1", smoothing=0.0, selection=selection)
    output = tmp_path / "night.mkv"
    [outcome] = translate(translator, video, output, settings, masks=masks)
    assert outcome.status == "ok", outcome.error
    indices = [*range(12)] if selection == Selection() else [2, 4, 6, 8]
    frames, found = pixels_of_source(video), pixels_of(output)
    assert len(found) == len(indices)
    assert outcome.mask_share == (expected[indices] > 0).mean()
    for written, index in zip(found, indices, strict=True):
        before, inside = frames[index], expected[index] > 0
        assert np.array_equal(written[~inside], before[~inside])
        assert np.array_equal(written[inside], translator(before)[inside])
        assert not np.array_equal(written[inside], before[inside]) or not inside.any()


def test_killed_translation_continues_with_the_masks_of_its_frames(
    translator, video, tmp_path, monkeypatch
):
    monkeypatch.setattr(translation, "segment_frames", lambda info: 5)
    masks = Masks(str(write_masks(tmp_path / "mask.mp4", moving_masks(12))), feather=2)
    settings = VideoSettings(codec="ffv1", selection=Selection(0.04))
    whole, output = tmp_path / "whole.mkv", tmp_path / "night.mkv"
    [expected] = translate(translator, video, whole, settings, masks=masks)
    with pytest.raises(KeyboardInterrupt):
        translate(translator, video, output, settings, Events(kill_at=8), masks)
    events = Events()
    [outcome] = translate(translator, video, output, settings, events, masks)
    assert (outcome.frames, events.done) == (11, 5)
    assert outcome.mask_share == expected.mask_share
    assert packets_of(output, "video") == packets_of(whole, "video")


@pytest.mark.parametrize(
    ("count", "size", "sentence"),
    [
        (11, (48, 32), "has 11 frames, and {} has 12"),
        (13, (48, 32), "has 13 frames, and {} has 12"),
        (12, (32, 48), "has 32x48 pixels, and {} has 48x32; a mask belongs to the upright image"),
    ],
)
def test_mask_video_that_does_not_fit(translator, video, tmp_path, count, size, sentence):
    path = write_masks(tmp_path / "mask.mkv", moving_masks(count, size), **LOSSLESS)
    masks = Masks(str(path))
    [outcome] = translate(translator, video, tmp_path / "night.mkv", masks=masks)
    assert outcome.error == f"the mask {path} {sentence.format(video)}"
    assert [entry.name for entry in tmp_path.iterdir()] == ["mask.mkv"]


def test_stop_while_masks_are_counted(translator, video, tmp_path):
    masks = Masks(str(write_masks(tmp_path / "mask.mkv", moving_masks(11), **LOSSLESS)))
    job = TranslationJob(str(video), str(tmp_path / "night.mkv"))
    assert not FrameMasks(masks, job, VideoReader(str(video))).match(lambda: 2)


def test_codec_must_fit_container():
    with pytest.raises(Exception, match="--codec ffv1: .mp4 files are not written with it"):
        VideoSettings(codec="ffv1").codec_for("a.mp4")
    with pytest.raises(Exception, match="--crf 10: prores has no such setting"):
        replace(VideoSettings(crf=10), codec="prores").codec_for("a.mov")
    assert VideoSettings().codec_for("a.webm") == "av1"
