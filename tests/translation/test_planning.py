"""Which image goes where, and what is refused before anything is translated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cyclegan_cli.errors import CycleGANError, DataError, UsageError
from cyclegan_cli.translation.inputs import Inputs
from cyclegan_cli.translation.outputs import (
    TranslationJob,
    TranslationPlan,
    folder_to_exclude,
    resolve_naming,
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with files that are images by their names."""
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


def plan_jobs(
    texts: list[str], output: str | None, target: str, **names: Any
) -> list[TranslationJob]:
    inputs = Inputs(texts, excluded=folder_to_exclude(output))
    plan = TranslationPlan(inputs, resolve_naming(output, inputs.first_two(), target, **names))
    jobs = [*plan]
    assert len(plan) == len(jobs)
    return jobs


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
def test_one_image_can_go_to_one_file(here: Path, text: str, output: str) -> None:
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
        pytest.param(["empty"], "new", DataError, "no images", id="an empty folder"),
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
        output_file = Path(job.output)
        output_file.parent.mkdir(parents=True, exist_ok=True)
        output_file.touch()
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
def test_a_image_named_twice_is_translated_once(here: Path, inputs: list[str]) -> None:
    [job] = plan_jobs(inputs, "new", "night")
    assert (str(job.input), str(job.output)) == (inputs[0], "new/day.jpg")


def test_a_link_to_a_image_is_a_image_of_its_own_place(here: Path) -> None:
    Path("linked.jpg").symlink_to("day.jpg")
    assert planned(["day.jpg", "linked.jpg"], "new") == {
        "day.jpg": "new/day.jpg",
        "linked.jpg": "new/linked.jpg",
    }


def test_a_folder_and_a_image_in_it_translate_that_image_once(here: Path) -> None:
    assert len(planned(["more", "more/a.jpg"], "new")) == 2


@pytest.mark.parametrize(
    "name", ["[x].jpg", "a*.jpg", "what?.jpg", "нічний.jpg", "two\nlines.jpg", " .jpg", "-o.jpg"]
)
def test_a_file_that_exists_is_meant_literally(here: Path, name: str) -> None:
    Path("ax.jpg").touch()  # What "a*.jpg" would match besides itself.
    Path(name).touch()
    assert planned([name], "new") == {name: f"new/{name}"}
    assert planned([name], None) == {name: f"{name[:-4]}_night.jpg"}
