"""Reading, translating and writing image files, and their errors."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cyclegan_cli.data.bands import BandImage, BandProbe
from cyclegan_cli.data.decode import decode
from cyclegan_cli.translation.file_stages import FileStages, masked_bands
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


# What images are like


@pytest.mark.parametrize("name", ["x.png"])
def test_transparency_is_kept(translator, tmp_path, draw, name):
    source = draw(tmp_path / name, (16, 12), "RGBA")
    translate(translator, [job_of(source, tmp_path / "out" / name)])
    with Image.open(source) as before, Image.open(tmp_path / "out" / name) as after:
        assert after.mode == "RGBA"
        assert after.getchannel("A").tobytes() == before.getchannel("A").tobytes()


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


def test_pixels_without_data_stay_so_inside_and_outside_of_a_mask():
    values = np.array([[[5], [7], [9], [-1], [20], [-1]]], np.int16)
    probe = BandProbe("NPY", 6, 1, 1, "int16", is_color=False)
    weights = np.array([[0, 65535, 65535, 0, 32768, 65535]], np.uint16)
    missing = np.array([[False, False, False, True, False, True]])
    translated = np.array([[[1], [-1], [3], [-1], [-22], [-1]]], np.int16)
    image = BandImage(values, probe, weights=weights)
    found = masked_bands(image, translated, missing, replace(probe, nodata=-1))
    # A mixed value of -1 would be taken for no data; one outside has none.
    assert found.values.ravel().tolist() == [5, 0, 3, -1, 0, -1]
    assert found.probe.nodata == -1
    assert found.missing is missing
