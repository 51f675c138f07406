"""Reading, translating and writing image files, and their errors."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from cyclegan_cli.data.decode import decode
from cyclegan_cli.errors import OutputError
from cyclegan_cli.translation.file_stages import FileStages
from cyclegan_cli.translation.outputs import TranslationJob
from cyclegan_cli.translation.pipeline import Outcome, Pipeline
from cyclegan_cli.translation.translator import Translator

pytestmark = pytest.mark.cpu_features


@pytest.fixture(scope="module")
def translator(checkpoint):
    return Translator.load(checkpoint, "a2b", "cpu")


def job_of(source: Path, output: Path) -> TranslationJob:
    return TranslationJob(str(source), str(output))


def translate(
    translator: Translator, jobs: list[TranslationJob], existing: Any = "skip", **options: Any
) -> list[Outcome]:
    return [*Pipeline(jobs, FileStages(translator, existing), ordered=True, **options).outcomes()]


def visible_files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def three_jobs(tmp_path, draw):
    return [
        job_of(draw(tmp_path / "in" / name), tmp_path / "out" / name)
        for name in ("a.png", "b.png", "c.png")
    ]


def test_output_equals_translation_of_input(translator, three_jobs):
    job = three_jobs[0]
    [outcome] = translate(translator, [job])
    with Image.open(job.input) as image, Image.open(job.output) as output:
        assert np.array_equal(np.asarray(output), np.asarray(translator(image)))
    assert outcome.to_document() == {
        "input": str(job.input), "output": str(job.output), "status": "ok", "error": None,
        "width": 13, "height": 10, "seconds": outcome.seconds, "warnings": [],
    }  # fmt: skip
    assert 0 < outcome.seconds < 60


def test_unreadable_image_fails_alone(translator, three_jobs):
    content = Path(three_jobs[1].input).read_bytes()
    Path(three_jobs[1].input).write_bytes(content[: len(content) // 2])
    outcomes = translate(translator, three_jobs)
    assert [outcome.status for outcome in outcomes] == ["ok", "failed", "ok"]
    assert str(three_jobs[1].input) in str(outcomes[1].error)
    assert [Path(job.output).exists() for job in three_jobs] == [True, False, True]


def test_unwritable_output_fails_alone(translator, three_jobs, tmp_path):
    (tmp_path / "file").touch()
    blocked = job_of(Path(three_jobs[0].input), tmp_path / "file" / "a.png")
    outcomes = translate(translator, [blocked, *three_jobs[1:]])
    assert [outcome.status for outcome in outcomes] == ["failed", "ok", "ok"]
    assert "cannot write" in str(outcomes[0].error)


def test_existing_outputs_are_skipped(translator, three_jobs):
    Path(three_jobs[1].output).parent.mkdir()
    Path(three_jobs[1].output).write_text("precious")
    outcomes = translate(translator, three_jobs)
    assert [outcome.status for outcome in outcomes] == ["ok", "skipped", "ok"]
    assert Path(three_jobs[1].output).read_text() == "precious"


def test_overwrite_replaces_existing_outputs(translator, three_jobs):
    Path(three_jobs[1].output).parent.mkdir()
    Path(three_jobs[1].output).write_text("old")
    outcomes = translate(translator, three_jobs, "overwrite")
    assert [outcome.status for outcome in outcomes] == ["ok", "ok", "ok"]
    assert decode(Path(three_jobs[1].output)).size == (13, 10)


def test_output_that_is_a_folder_fails(translator, three_jobs):
    Path(three_jobs[0].output).mkdir(parents=True)
    [outcome] = translate(translator, three_jobs[:1])
    assert outcome.status == "failed"


def test_no_other_files_are_left(translator, three_jobs, tmp_path):
    Path(three_jobs[1].input).write_bytes(b"no image")
    translate(translator, three_jobs)
    assert visible_files(tmp_path / "out") == ["a.png", "c.png"]


def test_full_disk_stops_and_keeps_earlier_outputs(translator, three_jobs, tmp_path, monkeypatch):
    flush, flushed = os.fsync, []

    def no_space_for_more(descriptor):
        flushed.append(descriptor)
        if len(flushed) > 2:  # The first image and its folder.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", no_space_for_more)
    with pytest.raises(OutputError, match=r"cannot write .*b\.png: no space left on device"):
        translate(translator, three_jobs)
    assert visible_files(tmp_path / "out") == ["a.png"]
    assert decode(Path(three_jobs[0].output)).size == (13, 10)


def test_if_newer_replaces_outdated_outputs(translator, three_jobs):
    translate(translator, three_jobs)
    moment = Path(three_jobs[1].output).stat().st_mtime
    for job, later in zip(three_jobs, (-5, 0, 5), strict=True):
        os.utime(job.output, (moment, moment))
        os.utime(job.input, (moment + later, moment + later))
    outcomes = translate(translator, three_jobs, "if-newer")
    assert [outcome.status for outcome in outcomes] == ["skipped", "skipped", "ok"]


@pytest.mark.parametrize("stage", ["decode", "encode"])
def test_memory_error_fails_alone(translator, three_jobs, monkeypatch, stage):
    attempt = getattr(FileStages, stage)

    def too_large(work, job, *image):
        if job is three_jobs[1]:
            raise MemoryError
        return attempt(work, job, *image)

    monkeypatch.setattr(FileStages, stage, too_large)
    outcomes = translate(translator, three_jobs)
    assert [outcome.status for outcome in outcomes] == ["ok", "failed", "ok"]
    assert outcomes[1].error == f"{three_jobs[1].input}: not enough memory"


def test_torch_out_of_memory_fails_alone(translator, three_jobs, monkeypatch):
    calls = []

    def out_of_memory(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ...")
        return attempt(*arguments, **options)

    attempt = translator.strips.translate
    monkeypatch.setattr(translator.strips, "translate", out_of_memory)
    outcomes = translate(translator, three_jobs)
    assert [outcome.status for outcome in outcomes] == ["ok", "failed", "ok"]
    assert "not enough memory" in str(outcomes[1].error)


@pytest.mark.parametrize("name", ["[x].png", "a*.png", "нічний.png", "two\nlines.png", "x" * 240])
def test_unusual_file_names(translator, tmp_path, draw, name):
    draw(tmp_path / name, format="PNG")
    output = tmp_path / "out" / name
    [outcome] = translate(translator, [job_of(tmp_path / name, output)])
    assert outcome.status == "ok"
    assert output.is_file()


def test_too_long_output_name_fails(translator, tmp_path, draw):
    inputs = [draw(tmp_path / f"{'x' * 250}.png"), draw(tmp_path / "y.png")]
    jobs = [job_of(path, path.with_name(f"{path.stem}_night.png")) for path in inputs]
    assert [outcome.status for outcome in translate(translator, jobs)] == ["failed", "ok"]


# What images are like


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("grey.png", "L"), ("grey.jpg", "L"), ("two.png", "1"), ("deep.png", "I;16"),
        ("deep.tif", "I;16"), ("palette.png", "P"), ("palette.gif", "P"), ("print.jpg", "CMYK"),
        ("print.tif", "CMYK"), ("colour.bmp", "RGB"), ("colour.webp", "RGB"), ("colour.ppm", "RGB"),
    ],
)  # fmt: skip
def test_every_mode_and_format_becomes_rgb_of_same_size(translator, tmp_path, draw, name, mode):
    source = draw(tmp_path / name, (21, 9), mode)
    job = job_of(source, tmp_path / "out" / name)
    [outcome] = translate(translator, [job])
    assert (outcome.status, outcome.width, outcome.height) == ("ok", 21, 9)
    with Image.open(job.input) as before, Image.open(job.output) as after:
        assert before.mode == mode
        assert (after.size, after.format) == ((21, 9), before.format)
        assert after.mode == ("P" if name.endswith("gif") else "RGB")


@pytest.mark.parametrize("mode", ["L", "I;16", "1"])
def test_grey_images_reach_network_as_displayed(translator, tmp_path, draw, mode):
    source = draw(tmp_path / "in.png", (16, 12), mode)
    translate(translator, [job_of(source, tmp_path / "out.png")])
    with Image.open(source) as image:
        grey = np.asarray(image) * np.uint8(255) if mode == "1" else np.asarray(image)
    expected = translator.translate_array(np.repeat(grey[..., None], 3, axis=2))
    assert np.array_equal(decode(tmp_path / "out.png").frames[0], expected)


@pytest.mark.parametrize("name", ["x.png", "x.webp", "x.tif"])
def test_transparency_is_kept(translator, tmp_path, draw, name):
    source = draw(tmp_path / name, (16, 12), "RGBA")
    translate(translator, [job_of(source, tmp_path / "out" / name)])
    with Image.open(source) as before, Image.open(tmp_path / "out" / name) as after:
        assert after.mode == "RGBA"
        assert after.getchannel("A").tobytes() == before.getchannel("A").tobytes()


def test_transparency_is_dropped_if_format_has_none(translator, tmp_path, draw):
    source = draw(tmp_path / "in.png", mode="RGBA")
    [outcome] = translate(translator, [job_of(source, tmp_path / "out.jpg")])
    assert outcome.status == "ok"
    assert decode(tmp_path / "out.jpg").alphas == ()


@pytest.mark.parametrize("quality", [20, 75, 95])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_jpeg_quality_is_kept(translator, tmp_path, draw, quality, subsampling):
    source = draw(tmp_path / "in.jpg", (32, 24), quality=quality, subsampling=subsampling)
    translate(translator, [job_of(source, tmp_path / "out.jpg")])
    with Image.open(source) as before, Image.open(tmp_path / "out.jpg") as after:
        assert after.quantization == before.quantization
        sampling = JpegImagePlugin.get_sampling
        assert sampling(after) == sampling(before)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_outputs_are_upright_for_every_orientation(translator, tmp_path, draw, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = draw(tmp_path / f"in{suffix}", (16, 12), exif=exif)
    [outcome] = translate(translator, [job_of(source, tmp_path / "out.png")])
    assert (outcome.width, outcome.height) == ((16, 12) if orientation < 5 else (12, 16))
    with Image.open(source) as stored, Image.open(tmp_path / "out.png") as output:
        turned = stored if orientation == 1 else upright(stored, orientation)
        expected = translator(np.asarray(turned))
        assert np.array_equal(np.asarray(output), np.asarray(expected))
        assert output.getexif().get(0x0112, 1) == 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Apply an orientation as the EXIF standard defines it."""
    rotations = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270,
                 8: Image.Transpose.ROTATE_90, 2: Image.Transpose.FLIP_LEFT_RIGHT,
                 4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
                 7: Image.Transpose.TRANSVERSE}  # fmt: skip
    return image.transpose(rotations[orientation])


@pytest.mark.parametrize(
    "name",
    [
        "x.png", "x.jpg", "x.webp", "x.bmp", "x.tif", "x.gif", "x.ppm", "x.tga", "x.jp2",
    ],
)  # fmt: skip
def test_output_has_exact_size_in_every_format(translator, tmp_path, draw, name):
    [outcome] = translate(
        translator, [job_of(draw(tmp_path / "in.png", (53, 37)), tmp_path / name)]
    )
    assert outcome.status == "ok"
    with Image.open(tmp_path / name) as output:
        assert output.size == (53, 37)


def test_mpo_preview_is_ignored(translator, tmp_path, draw):
    with Image.open(draw(tmp_path / "preview.png", (8, 6))) as preview:
        source = draw(
            tmp_path / "photo.jpg", (32, 24), format="MPO", save_all=True, append_images=[preview]
        )
    [outcome] = translate(translator, [job_of(source, tmp_path / "out.jpg")])
    assert (outcome.status, outcome.width) == ("ok", 32)


@pytest.mark.parametrize(("extension", "frames"), [("gif", 2), ("png", 2), ("jpg", None)])
def test_animation_frames_are_translated_or_refused(translator, tmp_path, draw, extension, frames):
    with Image.open(draw(tmp_path / "frame.png", mode="L")) as frame:
        source = draw(
            tmp_path / "moving.gif", save_all=True, append_images=[frame], mode="RGB", loop=0
        )
    output = tmp_path / f"out.{extension}"
    [outcome] = translate(translator, [job_of(source, output)])
    assert json.dumps(outcome.to_document())
    if frames is None:
        assert outcome.status == "failed"
        assert "JPEG does not support animation, and this image has 2 frames" in str(outcome.error)
        return
    assert (outcome.status, outcome.width) == ("ok", 13)
    expected = [translator.translate_array(level) for level in decode(source).frames]
    difference = np.subtract(decode(output).frames, expected, dtype=np.int16)
    assert np.abs(difference).mean() < (0.01 if extension == "png" else 4)
