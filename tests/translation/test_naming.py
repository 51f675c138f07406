"""Names of translations."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyclegan_cli.errors import UsageError
from cyclegan_cli.translation.inputs import InputImage
from cyclegan_cli.translation.outputs import OutputNaming, Template, resolve_naming


def name_of(path: str, output: str | None = "out/", **names: str) -> str:
    source = InputImage(path, os.path.basename(path))
    return resolve_naming(output, [source], "night", **names).output_of(source)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{stem}{ext}", "out/a.b.JPG"),
        ("{stem}_{domain}{ext}", "out/a.b_night.JPG"),
        ("{parent}-{stem}.png", "out/day 1-a.b.png"),
        ("{domain}/{parent}/{stem}{ext}", "out/night/day 1/a.b.JPG"),
        ("{{{stem}}}{ext}", "out/{a.b}.JPG"),
    ],
)
def test_templates_name_translations(template: str, expected: str) -> None:
    assert name_of("x/day 1/a.b.JPG", template=template) == expected


def test_suffixes_stand_before_the_ending() -> None:
    assert name_of("x/a.jpg", suffix="-{neu}") == "out/a-{neu}.jpg"
    assert name_of("x/a.jpg", None, suffix="-x") == "x/a-x.jpg"
    assert name_of("x/a.psd", suffix="-x") == "out/a-x.png"


def test_an_ending_for_all_takes_the_place_of_their_own() -> None:
    assert name_of("x/a.jpg", ending=".webp") == "out/a.webp"
    assert name_of("x/a.jpg", None, ending=".webp") == "x/a_night.webp"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"template": "{stem}{ext"}, "unpaired braces"),
        ({"template": "{stem}{}{ext}"}, "unknown placeholder {}"),
        ({"template": "{index}{stem}{ext}"}, "unknown placeholder {index}"),
        ({"template": "{stem.__class__}{ext}"}, "unknown placeholder"),
        ({"template": "{stem!r}{ext}"}, "unknown placeholder"),
        ({"template": "{stem:>9999999999}{ext}"}, "unknown placeholder"),
        ({"template": "{domain}{ext}"}, "no {stem}"),
        ({"template": "{stem}.docx"}, "must end in {ext} or in an ending"),
        ({"template": "{stem}"}, "must end in {ext} or in an ending"),
        ({"template": "../{stem}{ext}"}, "no name in the output folder"),
        ({"template": "/{stem}{ext}"}, "no name in the output folder"),
        ({"template": "x/../{stem}{ext}"}, "no name in the output folder"),
        ({"template": "x//{stem}{ext}"}, "no name in the output folder"),
        ({"suffix": "/../x"}, "has a folder in it"),
        ({"suffix": "x", "template": "{stem}{ext}"}, "exclude each other"),
    ],
)
def test_names_that_cannot_be_are_refused(names: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        name_of("x/a.jpg", **names)
    assert message in caught.value.message


def test_a_file_has_its_name_already() -> None:
    with pytest.raises(UsageError, match="there is nothing to name"):
        name_of("x/a.jpg", "night.png", suffix="x")


def test_a_folder_that_is_called_like_the_one_above_leads_nowhere() -> None:
    """Of ``/a.jpg`` the folder has no name at all."""
    with pytest.raises(UsageError, match="no name in the output folder"):
        name_of("/a.jpg", template="{parent}/{stem}{ext}")


@given(
    st.lists(
        st.sampled_from(["{stem}", "{ext}", "{domain}", "{parent}", "/", ".", "..", "x", "{"])
    ),
    st.sampled_from(["a.jpg", "..jpg", "...png", "b/../c.png", "../d.gif", "/e.png", ". .png"]),
)
def test_no_template_leads_out_of_the_output_folder(parts: list[str], path: str) -> None:
    source = InputImage(path, os.path.basename(path))
    try:
        naming = OutputNaming("night", "out", None, Template("".join(parts)))
        output = naming.output_of(source)
    except UsageError:
        return
    assert os.path.normpath(output).startswith("out/")
    assert len(os.path.normpath(output)) > len("out/")
