"""Many files through one translator: which goes where, and what becomes of each."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from cyclegan_cli.data.decoding import decode
from cyclegan_cli.errors import CycleGANError, DataError, OutputError, UsageError
from cyclegan_cli.translation.batch import Job, Outcome, plan_jobs, translate_files
from cyclegan_cli.translation.translator import Translator

Draw = Callable[..., Path]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with files that are pictures by their names."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "day.jpg", "DAY2.JPG", "a.b.jpg", "scan.psd", "icon.ico", "noending", "notes.txt",
        "photos/a.jpg", "photos/c.gif", "photos/scan.psd", "photos/sub/b.png",
        "photos/.hidden.png", "photos/.cache/thumb.png", "photos/notes.txt",
        "more/a.jpg", "more/d.jpg",
    ):  # fmt: skip
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    for folder in ("existing", "existing.png", "empty"):
        Path(folder).mkdir()
    return tmp_path


def planned(inputs: list[str], output: str | None) -> dict[str, str]:
    """Outputs by input; every input once."""
    jobs = plan_jobs(inputs, output, "night")
    assert len({job.input for job in jobs}) == len(jobs)
    return {str(job.input): str(job.output) for job in jobs}


# Where outputs go


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        pytest.param(["day.jpg"], {"day.jpg": "day_night.jpg"}, id="a file"),
        pytest.param(["DAY2.JPG"], {"DAY2.JPG": "DAY2_night.JPG"}, id="upper case"),
        pytest.param(["a.b.jpg"], {"a.b.jpg": "a.b_night.jpg"}, id="two dots"),
        pytest.param(["scan.psd"], {"scan.psd": "scan_night.png"}, id="a read-only format"),
        pytest.param(["noending"], {"noending": "noending_night.png"}, id="no ending"),
        pytest.param(["icon.ico"], {"icon.ico": "icon_night.png"}, id="a format of fixed sizes"),
        pytest.param(
            ["photos/a.jpg", "day.jpg"],
            {"photos/a.jpg": "photos/a_night.jpg", "day.jpg": "day_night.jpg"},
            id="several, each beside its input",
        ),
        pytest.param(
            ["*/*.jpg"],
            {
                "more/a.jpg": "more/a_night.jpg",
                "more/d.jpg": "more/d_night.jpg",
                "photos/a.jpg": "photos/a_night.jpg",
            },
            id="a glob",
        ),
        pytest.param(
            ["photos/**/*.[pj]*g"],
            {"photos/a.jpg": "photos/a_night.jpg", "photos/sub/b.png": "photos/sub/b_night.png"},
            id="a deep glob",
        ),
    ],
)
def test_without_an_output_translations_go_beside_their_inputs(
    here: Path, inputs: list[str], expected: dict[str, str]
) -> None:
    assert planned(inputs, None) == expected


@pytest.mark.parametrize(
    "output", ["existing", "existing/", "existing.png", "new", "new/", "new.png/"]
)
@pytest.mark.parametrize(
    ("inputs", "places"),
    [
        pytest.param(["day.jpg"], {"day.jpg": "day.jpg"}, id="a file"),
        pytest.param(["photos/a.jpg"], {"photos/a.jpg": "a.jpg"}, id="a file in a folder"),
        pytest.param(["scan.psd"], {"scan.psd": "scan.png"}, id="a read-only format"),
        pytest.param(
            ["photos"],
            {
                "photos/a.jpg": "a.jpg",
                "photos/c.gif": "c.gif",
                "photos/scan.psd": "scan.png",
                "photos/sub/b.png": "sub/b.png",
            },
            id="a folder",
        ),
        pytest.param(
            ["photos/sub", "more"],
            {"photos/sub/b.png": "b.png", "more/a.jpg": "a.jpg", "more/d.jpg": "d.jpg"},
            id="two folders",
        ),
        pytest.param(
            ["day.jpg", "photos/c.gif"],
            {"day.jpg": "day.jpg", "photos/c.gif": "c.gif"},
            id="several files",
        ),
        pytest.param(
            ["day.jpg", "photos/sub"],
            {"day.jpg": "day.jpg", "photos/sub/b.png": "b.png"},
            id="a file and a folder",
        ),
        pytest.param(["photos/*.jpg"], {"photos/a.jpg": "a.jpg"}, id="a glob of one"),
        pytest.param(
            ["mor*/*"], {"more/a.jpg": "a.jpg", "more/d.jpg": "d.jpg"}, id="a glob of many"
        ),
    ],
)  # fmt: skip
def test_an_output_folder_keeps_names_and_structure(
    here: Path, inputs: list[str], places: dict[str, str], output: str
) -> None:
    assert planned(inputs, output) == {i: str(Path(output, place)) for i, place in places.items()}


@pytest.mark.parametrize("inputs", [["photos"], ["day.jpg", "photos/c.gif"]])
def test_an_unknown_ending_names_a_folder_where_only_a_folder_will_do(
    here: Path, inputs: list[str]
) -> None:
    assert all(output.startswith("v1.2/") for output in planned(inputs, "v1.2").values())


@pytest.mark.parametrize("text", ["day.jpg", "da*.jpg"])
@pytest.mark.parametrize("output", ["new.png", "new/night.webp", "photos/a.jpg"])
def test_one_picture_can_go_to_one_file(here: Path, text: str, output: str) -> None:
    assert planned([text], output) == {"day.jpg": output}


@pytest.mark.parametrize(
    "repeated",
    [
        [],
        pytest.param(
            ["photos/c.gif"],
        ),
    ],
)
def test_jobs_come_in_the_order_of_the_inputs(here: Path, repeated: list[str]) -> None:
    jobs = plan_jobs(["photos/c.gif", "more", "day.jpg", *repeated], "new", "night")
    assert [str(job.input) for job in jobs] == [
        "photos/c.gif", "more/a.jpg", "more/d.jpg", "day.jpg",
    ]  # fmt: skip


# What is refused


@pytest.mark.parametrize(
    ("inputs", "output", "error", "message"),
    [
        pytest.param(["photos"], None, UsageError, "needs -o DIR", id="a folder, nowhere to go"),
        pytest.param(["photos"], "new.png", UsageError, "names a file", id="a folder to a file"),
        pytest.param(["photos"], "noending", UsageError, "names a file", id="... that exists"),
        pytest.param(["day.jpg", "photos/c.gif"], "new.png", UsageError, "names a file",
                     id="several to a file"),
        pytest.param(["mor*/*"], "new.png", UsageError, "names a file", id="a glob to a file"),
        pytest.param(["day.jpg"], "new.docx", UsageError, "'.docx'", id="an unknown format"),
        pytest.param(["day.jpg"], "new.psd", UsageError, "'.psd'", id="a read-only format"),
        pytest.param(["day.jpg"], "new.ico", UsageError, "'.ico'", id="a format of fixed sizes"),
        pytest.param(["day.jpg"], "new.pdf", UsageError, "'.pdf'", id="a format with programs"),
        pytest.param(["nothing.jpg"], None, DataError, "no file or folder nothing.jpg",
                     id="a missing file"),
        pytest.param(["day.jpg", "nothing/"], "new", DataError, "nothing", id="a missing folder"),
        pytest.param(["*.tiff"], None, DataError, "nothing matches", id="an empty glob"),
        pytest.param(["e*"], None, DataError, "nothing matches", id="a glob of folders only"),
        pytest.param(["empty"], "new", DataError, "no pictures", id="an empty folder"),
        pytest.param(["photos/a.jpg", "more"], "new", UsageError,
                     "photos/a.jpg and more/a.jpg would both be written to new/a.jpg",
                     id="two of the same name"),
        pytest.param(["day.jpg"], "day.jpg", UsageError, "is an input", id="onto itself"),
        pytest.param(["day.jpg"], "photos/../day.jpg", UsageError, "is an input",
                     id="onto itself, in other words"),
        pytest.param(["day.jpg"], ".", UsageError, "is an input", id="into its own folder"),
        pytest.param(["photos"], "photos", UsageError, "is an input", id="a folder onto itself"),
        pytest.param(["photos/sub", "photos/a.jpg"], "photos/sub/..", UsageError, "is an input",
                     id="onto another input"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(
    here: Path, inputs: list[str], output: str | None, error: type[CycleGANError], message: str
) -> None:
    with pytest.raises(error) as caught:
        plan_jobs(inputs, output, "night")
    assert type(caught.value) is error
    assert message in caught.value.message


def test_a_fallback_format_may_not_overwrite_a_sibling(here: Path) -> None:
    Path("photos/scan.png").touch()
    with pytest.raises(UsageError, match=r"would both be written to new/scan\.png"):
        plan_jobs(["photos"], "new", "night")


@pytest.mark.parametrize(
    ("inputs", "output"),
    [(["link.jpg"], "day.jpg"), (["day.jpg"], "link.jpg"), (["photos"], "linked/")],
)
def test_an_input_is_not_overwritten_through_a_link(
    here: Path, inputs: list[str], output: str
) -> None:
    Path("link.jpg").symlink_to("day.jpg")
    Path("linked").symlink_to("photos")
    with pytest.raises(UsageError, match="is an input"):
        plan_jobs(inputs, output, "night")


@pytest.mark.parametrize("output", ["photos/out", "photos/out/", "linked", "photos/sub/../out"])
def test_translations_inside_the_input_folder_are_not_translated_again(
    here: Path, output: str
) -> None:
    before = plan_jobs(["photos"], "photos/out", "night")
    Path("linked").symlink_to("photos/out")
    for job in before:
        job.output.parent.mkdir(parents=True, exist_ok=True)
        job.output.touch()
    assert [job.input for job in plan_jobs(["photos"], output, "night")] == [
        job.input for job in before
    ]


@pytest.mark.parametrize(
    "inputs",
    [
        ["day.jpg", "day.jpg"],
        ["day.jpg", "./day.jpg"],
        ["day.jpg", "da?.jpg"],
        ["day.jpg", "photos/../day.jpg"],
        ["photos/../day.jpg", "day.jpg", "day.jpg"],
    ],
)
def test_a_picture_named_twice_is_translated_once(here: Path, inputs: list[str]) -> None:
    [job] = plan_jobs(inputs, "new", "night")
    assert (str(job.input), str(job.output)) == (inputs[0], "new/day.jpg")


def test_a_link_to_a_picture_is_a_picture_of_its_own_place(here: Path) -> None:
    Path("linked.jpg").symlink_to("day.jpg")
    assert planned(["day.jpg", "linked.jpg"], "new") == {
        "day.jpg": "new/day.jpg",
        "linked.jpg": "new/linked.jpg",
    }


def test_a_folder_and_a_picture_in_it_translate_that_picture_once(here: Path) -> None:
    assert len(planned(["more", "more/a.jpg"], "new")) == 2


@pytest.mark.parametrize(
    "name", ["[x].jpg", "a*.jpg", "what?.jpg", "нічний.jpg", "two\nlines.jpg", " .jpg", "-o.jpg"]
)
def test_a_file_that_exists_is_meant_literally(here: Path, name: str) -> None:
    Path("ax.jpg").touch()  # What "a*.jpg" would match besides itself.
    Path(name).touch()
    assert planned([name], "new") == {name: f"new/{name}"}
    assert planned([name], None) == {name: f"{name[:-4]}_night.jpg"}


# Translating


@pytest.fixture(scope="module")
def translator(checkpoint: Path) -> Translator:
    return Translator.load(checkpoint, "a2b", "cpu")


def translate(translator: Translator, jobs: list[Job], overwrite: bool = False) -> list[Outcome]:
    return list(translate_files(jobs, translator, overwrite))


def visible_files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def three_jobs(tmp_path: Path, draw: Draw) -> list[Job]:
    return [
        Job(draw(tmp_path / "in" / name), tmp_path / "out" / name)
        for name in ("a.png", "b.png", "c.png")
    ]


def test_an_output_is_the_translation_of_its_input(
    translator: Translator, three_jobs: list[Job]
) -> None:
    job = three_jobs[0]
    [outcome] = translate(translator, [job])
    with Image.open(job.input) as image, Image.open(job.output) as output:
        assert np.array_equal(np.asarray(output), np.asarray(translator(image)))
    assert outcome.to_document() == {
        "input": str(job.input), "output": str(job.output), "status": "ok", "error": None,
        "width": 13, "height": 10, "seconds": outcome.seconds, "warnings": [],
    }  # fmt: skip
    assert 0 < outcome.seconds < 60


def test_an_unreadable_picture_does_not_stop_the_rest(
    translator: Translator, three_jobs: list[Job]
) -> None:
    content = three_jobs[1].input.read_bytes()
    three_jobs[1].input.write_bytes(content[: len(content) // 2])
    outcomes = translate(translator, three_jobs)
    assert [outcome.status for outcome in outcomes] == ["ok", "failed", "ok"]
    assert str(three_jobs[1].input) in str(outcomes[1].error)
    assert [job.output.exists() for job in three_jobs] == [True, False, True]


def test_an_unwritable_output_does_not_stop_the_rest(
    translator: Translator, three_jobs: list[Job], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    blocked = Job(three_jobs[0].input, tmp_path / "file" / "a.png")
    outcomes = translate(translator, [blocked, *three_jobs[1:]])
    assert [outcome.status for outcome in outcomes] == ["failed", "ok", "ok"]
    assert "cannot write" in str(outcomes[0].error)


def test_existing_outputs_are_skipped_and_left_as_they_are(
    translator: Translator, three_jobs: list[Job]
) -> None:
    three_jobs[1].output.parent.mkdir()
    three_jobs[1].output.write_text("precious")
    outcomes = translate(translator, three_jobs)
    assert [outcome.status for outcome in outcomes] == ["ok", "skipped", "ok"]
    assert three_jobs[1].output.read_text() == "precious"


def test_existing_outputs_are_replaced_on_demand(
    translator: Translator, three_jobs: list[Job]
) -> None:
    three_jobs[1].output.parent.mkdir()
    three_jobs[1].output.write_text("old")
    outcomes = translate(translator, three_jobs, overwrite=True)
    assert [outcome.status for outcome in outcomes] == ["ok", "ok", "ok"]
    assert decode(three_jobs[1].output).size == (13, 10)


def test_a_folder_in_the_place_of_an_output_is_a_failure(
    translator: Translator, three_jobs: list[Job]
) -> None:
    three_jobs[0].output.mkdir(parents=True)
    [outcome] = translate(translator, three_jobs[:1])
    assert outcome.status == "failed"


def test_nothing_but_the_outputs_is_left(
    translator: Translator, three_jobs: list[Job], tmp_path: Path
) -> None:
    three_jobs[1].input.write_bytes(b"no picture")
    translate(translator, three_jobs)
    assert visible_files(tmp_path / "out") == ["a.png", "c.png"]


def test_a_full_disk_ends_it_and_leaves_the_earlier_ones_whole(
    translator: Translator, three_jobs: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    outcomes = translate_files(three_jobs, translator, overwrite=False)
    assert next(outcomes).status == "ok"
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OutputError, match=r"cannot write .*b\.png: no space left on device"):
        next(outcomes)
    assert visible_files(tmp_path / "out") == ["a.png"]
    assert decode(three_jobs[0].output).size == (13, 10)


def test_a_request_to_stop_is_answered_after_the_current_picture(
    translator: Translator, three_jobs: list[Job]
) -> None:
    signals: list[int] = []
    statuses = []
    for outcome in translate_files(
        three_jobs, translator, False, lambda: signals[0] if signals else None
    ):
        statuses.append(outcome.status)
        if len(statuses) == 2:
            signals.append(15)
    assert statuses == ["ok", "ok"]
    assert [job.output.exists() for job in three_jobs] == [True, True, False]


def test_pictures_are_translated_one_by_one_as_outcomes_are_asked_for(
    translator: Translator, three_jobs: list[Job]
) -> None:
    outcomes = translate_files(three_jobs, translator, overwrite=False)
    next(outcomes)
    assert [job.output.exists() for job in three_jobs] == [True, False, False]


@pytest.mark.parametrize("name", ["[x].png", "a*.png", "нічний.png", "two\nlines.png", "x" * 240])
def test_a_name_with_odd_characters_is_read_and_written(
    translator: Translator, tmp_path: Path, draw: Draw, name: str
) -> None:
    draw(tmp_path / name, format="PNG")
    [outcome] = translate(translator, plan_jobs([str(tmp_path / name)], None, "night"))
    assert outcome.status == "ok"
    assert outcome.output.is_file()


def test_a_name_too_long_for_its_translation_fails_like_any_unwritable_one(
    translator: Translator, tmp_path: Path, draw: Draw
) -> None:
    inputs = [draw(tmp_path / f"{'x' * 250}.png"), draw(tmp_path / "y.png")]
    jobs = plan_jobs([str(path) for path in inputs], None, "night")
    assert [outcome.status for outcome in translate(translator, jobs)] == ["failed", "ok"]


# What pictures are like


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("grey.png", "L"), ("grey.jpg", "L"), ("two.png", "1"), ("deep.png", "I;16"),
        ("deep.tif", "I;16"), ("palette.png", "P"), ("palette.gif", "P"), ("print.jpg", "CMYK"),
        ("print.tif", "CMYK"), ("colour.bmp", "RGB"), ("colour.webp", "RGB"), ("colour.ppm", "RGB"),
    ],
)  # fmt: skip
def test_every_kind_of_picture_becomes_an_rgb_picture_of_its_size_and_format(
    translator: Translator, tmp_path: Path, draw: Draw, name: str, mode: str
) -> None:
    source = draw(tmp_path / name, (21, 9), mode)
    job = Job(source, tmp_path / "out" / name)
    [outcome] = translate(translator, [job])
    assert (outcome.status, outcome.width, outcome.height) == ("ok", 21, 9)
    with Image.open(job.input) as before, Image.open(job.output) as after:
        assert before.mode == mode
        assert (after.size, after.format) == ((21, 9), before.format)
        assert after.mode == ("P" if name.endswith("gif") else "RGB")


@pytest.mark.parametrize("mode", ["L", "I;16", "1"])
def test_grey_levels_reach_the_network_as_they_look(
    translator: Translator, tmp_path: Path, draw: Draw, mode: str
) -> None:
    source = draw(tmp_path / "in.png", (16, 12), mode)
    translate(translator, [Job(source, tmp_path / "out.png")])
    with Image.open(source) as image:
        grey = np.asarray(image) * np.uint8(255) if mode == "1" else np.asarray(image)
    expected = translator.translate_levels(np.repeat(grey[..., None], 3, axis=2))
    assert np.array_equal(decode(tmp_path / "out.png").frames[0], expected)


@pytest.mark.parametrize("name", ["x.png", "x.webp", "x.tif"])
def test_transparency_is_kept_as_it_was(
    translator: Translator, tmp_path: Path, draw: Draw, name: str
) -> None:
    source = draw(tmp_path / name, (16, 12), "RGBA")
    translate(translator, [Job(source, tmp_path / "out" / name)])
    with Image.open(source) as before, Image.open(tmp_path / "out" / name) as after:
        assert after.mode == "RGBA"
        assert after.getchannel("A").tobytes() == before.getchannel("A").tobytes()


def test_transparency_is_left_out_where_the_format_has_none(
    translator: Translator, tmp_path: Path, draw: Draw
) -> None:
    source = draw(tmp_path / "in.png", mode="RGBA")
    [outcome] = translate(translator, [Job(source, tmp_path / "out.jpg")])
    assert outcome.status == "ok"
    assert decode(tmp_path / "out.jpg").alphas == ()


@pytest.mark.parametrize("quality", [20, 75, 95])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_a_jpeg_comes_out_as_finely_compressed_as_it_came_in(
    translator: Translator, tmp_path: Path, draw: Draw, quality: int, subsampling: str
) -> None:
    source = draw(tmp_path / "in.jpg", (32, 24), quality=quality, subsampling=subsampling)
    translate(translator, [Job(source, tmp_path / "out.jpg")])
    with Image.open(source) as before, Image.open(tmp_path / "out.jpg") as after:
        assert after.quantization == before.quantization
        sampling = JpegImagePlugin.get_sampling
        assert sampling(after) == sampling(before)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_outputs_are_upright_whatever_the_orientation_tag_says(
    translator: Translator, tmp_path: Path, draw: Draw, orientation: int, suffix: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = draw(tmp_path / f"in{suffix}", (16, 12), exif=exif)
    [outcome] = translate(translator, [Job(source, tmp_path / "out.png")])
    assert (outcome.width, outcome.height) == ((16, 12) if orientation < 5 else (12, 16))
    with Image.open(source) as stored, Image.open(tmp_path / "out.png") as output:
        expected = translator(stored if orientation == 1 else upright(stored, orientation))
        assert np.array_equal(np.asarray(output), np.asarray(expected))
        assert output.getexif().get(0x0112, 1) == 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """What the EXIF standard says of the eight orientations."""
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
def test_the_output_has_the_inputs_exact_size_in_every_format(
    translator: Translator, tmp_path: Path, draw: Draw, name: str
) -> None:
    [outcome] = translate(translator, [Job(draw(tmp_path / "in.png", (53, 37)), tmp_path / name)])
    assert outcome.status == "ok"
    with Image.open(tmp_path / name) as output:
        assert output.size == (53, 37)


def test_a_photo_with_a_preview_behind_it_is_a_photo(
    translator: Translator, tmp_path: Path, draw: Draw
) -> None:
    with Image.open(draw(tmp_path / "preview.png", (8, 6))) as preview:
        source = draw(
            tmp_path / "photo.jpg", (32, 24), format="MPO", save_all=True, append_images=[preview]
        )
    [outcome] = translate(translator, [Job(source, tmp_path / "out.jpg")])
    assert (outcome.status, outcome.width) == ("ok", 32)


@pytest.mark.parametrize(("ending", "frames"), [("gif", 2), ("png", 2), ("jpg", None)])
def test_each_frame_of_an_animation_is_translated_or_the_whole_refused(
    translator: Translator, tmp_path: Path, draw: Draw, ending: str, frames: int | None
) -> None:
    with Image.open(draw(tmp_path / "frame.png", mode="L")) as frame:
        source = draw(
            tmp_path / "moving.gif", save_all=True, append_images=[frame], mode="RGB", loop=0
        )
    output = tmp_path / f"out.{ending}"
    [outcome] = translate(translator, [Job(source, output)])
    assert json.dumps(outcome.to_document())
    if frames is None:
        assert outcome.status == "failed"
        assert "JPEG holds no animation, and this one has 2 frames" in str(outcome.error)
        return
    assert (outcome.status, outcome.width) == ("ok", 13)
    expected = [translator.translate_levels(level) for level in decode(source).frames]
    difference = np.subtract(decode(output).frames, expected, dtype=np.int16)
    assert np.abs(difference).mean() < (0.01 if ending == "png" else 4)
