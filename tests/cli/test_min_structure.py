"""``--min-structure`` and ``--cycle-error``: measures of single translations."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclegan_cli import Translator
from cyclegan_cli.metrics.structure import structure_score
from images import files


def pixels_of(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def two(here, draw):
    """``photos`` has a.png and b.png, whose scores differ."""
    for name in ("photos/b.jpg", "photos/sub"):
        shutil.rmtree(name) if Path(name).is_dir() else Path(name).unlink()
    draw(Path("photos/a.png"), (64, 48))
    stripes = (np.indices((48, 64)).sum(axis=0) // 5 % 2 * 255).astype(np.uint8)
    Image.fromarray(stripes).save("photos/b.png")
    return here


def test_scores_are_reported_and_low_ones_are_not_written(two, cyclegan):
    command = ["translate", "photos", "--json", "--ordered"]
    done = cyclegan(*command, "-o", "all")
    scores = [document["structure"] for document in done.documents[:-1]]
    for name, score in zip(("a", "b"), scores, strict=True):
        image, output = pixels_of(f"photos/{name}.png"), pixels_of(f"all/{name}.png")
        assert score == pytest.approx(structure_score(image, output), abs=1e-4)
    low, high = sorted(scores)
    assert high - low > 0.01
    limit = (low + high) / 2
    Path("labels").mkdir()
    for name in ("a", "b"):
        Path(f"labels/{name}.txt").touch()
    done = cyclegan(*command, "-o", "out", "--min-structure", limit, "--copy-labels", "labels")
    assert done.code == 0
    statuses = ["ok" if score > limit else "rejected" for score in scores]
    assert [document["status"] for document in done.documents[:-1]] == statuses
    assert [document["structure"] for document in done.documents[:-1]] == scores
    kept = "ab"[statuses.index("ok")]
    assert files("out") == [f"{kept}.png", f"labels/{kept}.txt"]
    summary = done.documents[-1]["summary"]
    assert (summary["ok"], summary["rejected"], summary["failed"]) == (1, 1, 0)
    done = cyclegan("translate", "photos", "-o", "out", "--min-structure", limit, "--overwrite")
    text = " ".join(done.err.split())
    assert f"(rejected: its structure score is {low})" in text
    assert "1 translated, 0 skipped, 1 rejected, 0 failed" in text


def test_score_of_the_masked_part_alone(two, cyclegan):
    mask = np.zeros((48, 64), dtype=bool)
    mask[:, 40:] = True
    Image.fromarray(mask).save("mask.png")
    command = ["translate", "photos/b.png", "--json"]
    whole = cyclegan(*command, "-o", "whole.png").documents[0]["structure"]
    part = cyclegan(*command, "-o", "part.png", "--mask", "mask.png").documents[0]["structure"]
    assert part != whole
    # The written image has the input's edges elsewhere, which do not raise the score.
    written = structure_score(pixels_of("photos/b.png"), pixels_of("part.png"))
    assert abs(part - whole) < abs(written - whole)


def test_cycle_error_is_that_of_the_other_generator(two, cyclegan, run_folder):
    done = cyclegan("translate", "photos/a.png", "-o", "a.png", "--json", "--cycle-error")
    assert done.code == 0, done.err
    translator = Translator.load(run_folder, "a2b", "cpu")
    back = translator.to("day")(translator(pixels_of("photos/a.png")))
    expected = np.abs(back / 255.0 - pixels_of("photos/a.png") / 255.0).mean()
    assert done.documents[0]["cycle_error"] == pytest.approx(expected, abs=1e-3)
    assert cyclegan("translate", "photos/a.png", "--cycle-error").code == 2


def test_cycle_error_needs_both_generators(two, cyclegan):
    done = cyclegan("export", "runs/day2night", "--format", "safetensors", "--to", "night",
                    "-o", "one.safetensors")  # fmt: skip
    assert done.code == 0, done.err
    done = cyclegan("translate", "photos/a.png", "--checkpoint", "one.safetensors", "--json",
                    "--cycle-error")  # fmt: skip
    assert done.code == 2
    assert "--cycle-error needs the generators of both directions" in done.err
