"""Options of ``cyclegan translate`` for pixels and formats."""

from pathlib import Path

import pytest
from PIL import Image

from cyclegan_cli.data.decode import decode
from cyclegan_cli.translation.translator import Translator
from images import deep_noise, display_p3_profile, encoded, noise, tiff_of, written

pytestmark = pytest.mark.cpu_features


@pytest.fixture
def here(tmp_path, monkeypatch, checkpoint, draw):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CYCLEGAN_CHECKPOINT", str(checkpoint))
    draw(Path("photos/a.png"))
    draw(Path("photos/sub/b.jpg"))
    return tmp_path


@pytest.mark.parametrize(("name", "kind"), [("webp", "WEBP"), ("TIFF", "TIFF"), (".jpg", "JPEG")])
def test_format_of_outputs_in_folder(cyclegan, here, name, kind):
    answer = cyclegan("translate", "photos", "-o", "out", "--format", name)
    extension = "." + name.lower().removeprefix(".")
    assert answer.code == 0
    for place in ("a", "sub/b"):
        with Image.open(f"out/{place}{extension}") as image:
            assert image.format == kind


def test_format_of_output_beside_input(cyclegan, here):
    assert cyclegan("translate", "photos/a.png", "--format", "jpg").code == 0
    assert Path("photos/a_night.jpg").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "doc"], "--format doc is not a format that can be written"),
        (["--format", "psd"], "--format psd is not a format that can be written"),
        (["--format", "jpg", "--bit-depth", "16"], "--bit-depth 16: JPEG has 8 bits per channel"),
        (["--format", "png", "--quality", "80"], "--quality 80: PNG has no quality setting"),
        (
            ["-o", "x.jpg", "--format", "png"],
            "-o x.jpg does not have the extension of --format png",
        ),
        (["-o", "x.jpg", "--bit-depth", "16"], "--bit-depth 16: JPEG has 8 bits per channel"),
        (["--name-template", "{stem}.png", "--format", "jpg"], "has its own extension"),
    ],
)
def test_contradicting_options_are_refused_before_loading(
    cyclegan, here, monkeypatch, arguments, message
):
    monkeypatch.setattr(Translator, "load", lambda *_, **__: pytest.fail("it was loaded"))
    answer = cyclegan("translate", "photos/a.png", *arguments)
    assert answer.code == 2
    assert message in answer.errors[0]


@pytest.mark.parametrize(
    "arguments", [["--quality", "0"], ["--quality", "101"], ["--bit-depth", "12"]]
)
def test_values_out_of_range_are_refused(cyclegan, here, arguments):
    assert cyclegan("translate", "photos/a.png", *arguments).code == 2


def test_quality_determines_file_size(cyclegan, here):
    written(here / "noise.jpg", encoded(noise(64, 64), "JPEG", quality=90))
    for quality in (10, 95):
        options = ["--quality", quality, "-o", f"{quality}.jpg"]
        assert cyclegan("translate", "noise.jpg", *options).code == 0
    assert Path("10.jpg").stat().st_size < Path("95.jpg").stat().st_size


@pytest.mark.parametrize(
    ("source", "options", "depth"),
    [
        ("deep.tif", [], 16),
        ("deep.tif", ["--bit-depth", "8"], 8),
        ("deep.tif", ["--format", "png"], 16),
        ("photos/a.png", [], 8),
        ("photos/a.png", ["--bit-depth", "16"], 16),
    ],
)
def test_bit_depth_of_input_or_option(cyclegan, here, source, options, depth):
    written(here / "deep.tif", tiff_of(deep_noise(16, 24, 3), photometric="rgb"))
    answer = cyclegan("translate", source, "-o", "out/", *options, "--json")
    output = Path(answer.documents[0]["output"])
    assert answer.documents[0]["warnings"] == []
    found = decode(output)
    assert found.bit_depth == depth
    if depth == 16:
        assert (found.frames[0] % 257 != 0).any(), "the lower bits are the network's own"


def test_reduced_bit_depth_is_warned_about(cyclegan, here):
    written(here / "deep.tif", tiff_of(deep_noise(16, 24, 3), photometric="rgb"))
    answer = cyclegan("translate", "deep.tif", "--format", "jpg")
    assert answer.code == 0
    assert "warning: deep.tif: JPEG supports 8 bits per channel: reduced from 16" in answer.err
    asked = cyclegan("translate", "deep.tif", "--format", "jpg", "--bit-depth", "8", "--overwrite")
    assert "warning" not in asked.err


def test_keep_profile_and_keep_mode(cyclegan, here):
    written(here / "p3.png", encoded(noise(), "PNG", icc_profile=display_p3_profile()))
    written(here / "grey.png", encoded(noise().convert("L"), "PNG"))
    assert cyclegan("translate", "p3.png", "grey.png", "-o", "plain/").code == 0
    options = ["--keep-profile", "--keep-mode"]
    assert cyclegan("translate", "p3.png", "grey.png", "-o", "kept/", *options).code == 0
    with Image.open("plain/p3.png") as plain, Image.open("kept/p3.png") as kept:
        assert kept.info["icc_profile"] == display_p3_profile() != plain.info["icc_profile"]
    with Image.open("plain/grey.png") as plain, Image.open("kept/grey.png") as kept:
        assert (plain.mode, kept.mode) == ("RGB", "L")


def test_format_on_standard_output(start_python, here):
    with Path("out.tif").open("wb") as out:
        arguments = ("translate", "photos/a.png", "-o", "-", "--format", "tiff")
        process = start_python("-m", "cyclegan_cli", *arguments, stdout=out)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert (decode(Path("out.tif")).format, decode(Path("out.tif")).size) == ("TIFF", (13, 10))
