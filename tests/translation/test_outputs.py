"""Names of outputs, and the plan of which image is written where."""

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyclegan_cli.config import BandFormat, TranslateConfig
from cyclegan_cli.errors import DataError, UsageError
from cyclegan_cli.translation.inputs import InputImage, Inputs, ignores_case
from cyclegan_cli.translation.outputs import (
    LedgerBuilder,
    OutputNaming,
    Template,
    TranslationJob,
    TranslationPlan,
    digest,
    output_format,
    resolve_naming,
    shard_hash,
)


@pytest.fixture
def here(tmp_path, monkeypatch):
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
    inputs = Inputs(texts, excluded=() if output is None else {os.path.realpath(output)})
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
        pytest.param(["noending"], {"noending": "noending_night.png"}, id="no extension"),
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
            id="a recursive glob",
        ),
    ],
)
def test_default_output_is_beside_input(here, inputs, expected):
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
def test_output_folder_reproduces_names_and_structure(here, inputs, places, output):
    assert planned(inputs, output) == {i: str(Path(output, place)) for i, place in places.items()}


@pytest.mark.parametrize("inputs", [["photos"], ["day.jpg", "photos/c.gif"]])
def test_unknown_extension_names_folder_for_several_inputs(here, inputs):
    assert all(output.startswith("v1.2/") for output in planned(inputs, "v1.2").values())


@pytest.mark.parametrize("text", ["day.jpg", "da*.jpg"])
@pytest.mark.parametrize("output", ["new.png", "new/night.webp", "photos/a.jpg"])
def test_single_image_to_output_file(here, text, output):
    assert planned([text], output) == {"day.jpg": output}


@pytest.mark.parametrize("repeated", [[], ["photos/c.gif"]])
def test_jobs_are_in_order_of_inputs(here, repeated):
    jobs = plan_jobs(["photos/c.gif", "more", "day.jpg", *repeated], "new", "night")
    expected = ["photos/c.gif", "more/a.jpg", "more/d.jpg", "day.jpg"]
    assert [str(job.input) for job in jobs] == expected


# Refused


@pytest.mark.parametrize(
    ("inputs", "output", "error", "message"),
    [
        pytest.param(["photos"], None, UsageError, "requires -o DIR", id="a folder, nowhere to go"),
        pytest.param(["photos"], "new.png", UsageError, "names a file", id="a folder to a file"),
        pytest.param(["photos"], "noending", UsageError, "names a file", id="... that exists"),
        pytest.param(["day.jpg", "photos/c.gif"], "new.png", UsageError, "names a file",
                     id="several to a file"),
        pytest.param(["mor*/*"], "new.png", UsageError, "names a file", id="a glob to a file"),
        pytest.param(["day.jpg"], "noending", UsageError, "'' is not the ext", id="no extension"),
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
def test_invalid_inputs_and_outputs_are_refused(here, inputs, output, error, message):
    with pytest.raises(error) as caught:
        plan_jobs(inputs, output, "night")
    assert type(caught.value) is error
    assert message in caught.value.message


def test_fallback_format_does_not_overwrite_sibling(here):
    Path("photos/scan.png").touch()
    with pytest.raises(UsageError, match=r"would both be written to new/scan\.png"):
        plan_jobs(["photos"], "new", "night")


@pytest.mark.parametrize(
    ("inputs", "output"),
    [(["link.jpg"], "day.jpg"), (["day.jpg"], "link.jpg"), (["photos"], "linked/")],
)
def test_input_is_not_overwritten_through_link(here, inputs, output):
    Path("link.jpg").symlink_to("day.jpg")
    Path("linked").symlink_to("photos")
    with pytest.raises(UsageError, match="is an input"):
        plan_jobs(inputs, output, "night")


@pytest.mark.parametrize("output", ["photos/out", "photos/out/", "linked", "photos/sub/../out"])
def test_output_folder_inside_input_folder_is_excluded(here, output):
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
def test_image_named_twice_is_translated_once(here, inputs):
    [job] = plan_jobs(inputs, "new", "night")
    assert (str(job.input), str(job.output)) == (inputs[0], "new/day.jpg")


def test_link_to_image_has_its_own_output(here):
    Path("linked.jpg").symlink_to("day.jpg")
    assert planned(["day.jpg", "linked.jpg"], "new") == {
        "day.jpg": "new/day.jpg",
        "linked.jpg": "new/linked.jpg",
    }


def test_image_named_with_its_folder_is_translated_once(here):
    assert len(planned(["more", "more/a.jpg"], "new")) == 2


@pytest.mark.parametrize(
    "name", ["[x].jpg", "a*.jpg", "what?.jpg", "нічний.jpg", "two\nlines.jpg", " .jpg", "-o.jpg"]
)
def test_existing_file_is_not_a_glob(here, name):
    Path("ax.jpg").touch()  # Another match of "a*.jpg".
    Path(name).touch()
    assert planned([name], "new") == {name: f"new/{name}"}
    assert planned([name], None) == {name: f"{name[:-4]}_night.jpg"}


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
def test_template_fills_placeholders(template, expected):
    assert name_of("x/day 1/a.b.JPG", template=template) == expected


def test_suffix_precedes_extension():
    assert name_of("x/a.jpg", suffix="-{neu}") == "out/a-{neu}.jpg"
    assert name_of("x/a.jpg", None, suffix="-x") == "x/a-x.jpg"
    assert name_of("x/a.psd", suffix="-x") == "out/a-x.png"


def test_extension_replaces_that_of_inputs():
    assert name_of("x/a.jpg", extension=".webp") == "out/a.webp"
    assert name_of("x/a.jpg", None, extension=".webp") == "x/a_night.webp"


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
        ({"template": "{stem}.docx"}, "must end in {ext} or an extension"),
        ({"template": "{stem}"}, "must end in {ext} or an extension"),
        ({"template": "../{stem}{ext}"}, "not a path inside the output folder"),
        ({"template": "/{stem}{ext}"}, "not a path inside the output folder"),
        ({"template": "x/../{stem}{ext}"}, "not a path inside the output folder"),
        ({"template": "x//{stem}{ext}"}, "not a path inside the output folder"),
        ({"suffix": "/../x"}, "contains a folder"),
        ({"suffix": "x", "template": "{stem}{ext}"}, "exclude each other"),
    ],
)
def test_invalid_templates_and_suffixes_are_refused(names, message):
    with pytest.raises(UsageError) as caught:
        name_of("x/a.jpg", **names)
    assert message in caught.value.message


def test_output_file_excludes_suffix_and_template():
    with pytest.raises(UsageError, match="which excludes --suffix"):
        name_of("x/a.jpg", "night.png", suffix="x")


def test_parent_of_root_folder_is_refused():
    """Of ``/a.jpg`` the folder has no name at all."""
    with pytest.raises(UsageError, match="not a path inside the output folder"):
        name_of("/a.jpg", template="{parent}/{stem}{ext}")


@given(
    st.lists(
        st.sampled_from(["{stem}", "{ext}", "{domain}", "{parent}", "/", ".", "..", "x", "{"])
    ),
    st.sampled_from(["a.jpg", "..jpg", "...png", "b/../c.png", "../d.gif", "/e.png", ". .png"]),
)
def test_template_stays_inside_output_folder(parts, path):
    source = InputImage(path, os.path.basename(path))
    try:
        naming = OutputNaming("night", "out", None, Template("".join(parts)))
        output = naming.output_of(source)
    except UsageError:
        return
    assert os.path.normpath(output).startswith("out/")
    assert len(os.path.normpath(output)) > len("out/")


NAMES = st.integers(0, 12).map(lambda number: f"p{number}".encode())
PAIRS = st.lists(st.tuples(NAMES, NAMES), max_size=40)


def builder_of(pairs: list[tuple[bytes, bytes]]) -> LedgerBuilder:
    draft = LedgerBuilder()
    for source, output in pairs:
        draft.add(digest(source), digest(output), shard_hash(source))
    return draft


@given(PAIRS)
def test_conflicts_are_those_of_the_paths(pairs):
    _, conflicts = builder_of(pairs).build(skip_outputs=False)
    writers = defaultdict(set)
    for source, output in pairs:
        writers[output].add(source)
    inputs = {source for source, _ in pairs}
    assert conflicts.shared == {digest(out) for out, sources in writers.items() if len(sources) > 1}
    assert conflicts.inputs == {digest(output) for output in writers if output in inputs}
    assert bool(conflicts) == bool(conflicts.shared or conflicts.inputs)


@given(PAIRS)
def test_ledger_skips_inputs_that_are_outputs(pairs):
    ledger, conflicts = builder_of(pairs).build(skip_outputs=True)
    left = {
        (source, output)
        for source, output in pairs
        if all(source != other_output or source == other for other, other_output in pairs)
    }
    inputs = {source for source, _ in left}
    assert conflicts.inputs == {digest(output) for _, output in left if output in inputs}
    assert len(ledger) == len({output for _, output in left})


@given(PAIRS)
def test_ledger_takes_each_output_once(pairs):
    ledger, _ = builder_of(pairs).build(skip_outputs=False)
    taken = [output for _, output in pairs if ledger.take(digest(output))]
    assert sorted(taken) == sorted({output for _, output in pairs})
    assert not ledger.take(digest(b"never seen"))


@given(PAIRS, st.integers(1, 7), st.randoms())
def test_shards_are_disjoint_and_complete_in_any_order(pairs, count, random):
    taken: list[bytes] = []
    for index in range(count):
        random.shuffle(pairs)
        ledger, _ = builder_of(pairs).build(skip_outputs=False)
        ledger.keep_shard(index, count)
        mine = [output for _, output in pairs if ledger.take(digest(output))]
        assert len(mine) == len(ledger)
        taken += mine
    assert sorted(taken) == sorted({output for _, output in pairs})


def test_shard_hash_is_stable():
    """Otherwise the jobs of an array that is running while we are upgraded would overlap."""
    assert shard_hash(b"photos/a.jpg") == 12356256285255488763


@pytest.fixture
def one_file(monkeypatch):
    """A drive on which case does not matter."""
    real = os.path.samefile
    monkeypatch.setattr(
        os.path, "samefile", lambda a, b: str(a).casefold() == str(b).casefold() or real(a, b)
    )


def case_matters(folder: Path) -> bool:
    """Asked of the drive itself."""
    (folder / "probe").touch()
    matters = not (folder / "PROBE").exists()
    (folder / "probe").unlink()
    return matters


def test_ignores_case_matches_file_system(tmp_path):
    expected = not case_matters(tmp_path)
    assert ignores_case(str(tmp_path)) == expected  # Empty: by its own name.
    (tmp_path / "a.jpg").touch()
    assert ignores_case(str(tmp_path)) == expected
    assert ignores_case(str(tmp_path / "to" / "be" / "made")) == expected


def test_existing_files_that_differ_in_case_are_distinct(tmp_path):
    if not case_matters(tmp_path):
        pytest.skip("this drive has no such files")
    (tmp_path / "a.jpg").touch()
    (tmp_path / "A.JPG").touch()
    assert not ignores_case(str(tmp_path))


@pytest.mark.usefixtures("one_file")
def test_case_insensitive_drive_is_detected_from_its_entries(tmp_path):
    assert ignores_case(str(tmp_path))
    (tmp_path / "12").mkdir()  # Without letters.
    assert ignores_case(str(tmp_path / "12"))
    assert ignores_case(str(tmp_path / "12" / "new"))


@pytest.mark.usefixtures("one_file")
def test_drive_without_letters_is_case_sensitive(monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda _: True)
    monkeypatch.setattr(os.path, "isdir", lambda _: True)
    assert not ignores_case("/nowhere/usb")


@pytest.fixture
def two_cameras(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("left/a.jpg", "right/A.JPG", "out/letters"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    return tmp_path


def plan() -> TranslationPlan:
    inputs = Inputs(["left", "right"])
    return TranslationPlan(inputs, resolve_naming("out", inputs.first_two(), "night"))


@pytest.mark.usefixtures("two_cameras", "one_file")
def test_outputs_that_differ_in_case_conflict_on_case_insensitive_drive():
    with pytest.raises(UsageError, match=r"left/a\.jpg and right/A\.JPG would both be written to"):
        plan()


def test_outputs_that_differ_in_case_are_distinct_on_case_sensitive_drive(two_cameras):
    if not case_matters(two_cameras):
        pytest.skip("on this drive they are one")
    assert {job.output for job in plan()} == {"out/a.jpg", "out/A.JPG"}


HEIGHT = BandFormat(1, "float32", (-0.5,), (9.5,), nodata=-1.0)
CT = BandFormat(1, "int16", (-1024.0,), (1500.0,))


@pytest.mark.parametrize(
    ("target", "options", "expected"),
    [
        (CT, {}, CT),
        (CT, {"bit_depth": "16"}, CT),
        (CT, {"bit_depth": "8"}, BandFormat(1, "uint8", (0.0,), (255.0,))),
        (CT, {"bit_depth": "32f"}, BandFormat(1, "float32", (-1024.0,), (1500.0,))),
        (CT, {"range": "0,1000"}, BandFormat(1, "int16", (0.0,), (1000.0,))),
        (CT, {"bit_depth": "16", "range": "0,60000"}, BandFormat(1, "uint16", (0.0,), (60000.0,))),
        (
            HEIGHT,
            {"bit_depth": "16"},
            BandFormat(1, "uint16", (0.0,), (65535.0,), nodata=0.0),
        ),
        (
            HEIGHT,
            {"bit_depth": "16", "range": "-100,900"},
            BandFormat(1, "int16", (-100.0,), (900.0,), nodata=-32768.0),
        ),
        (
            BandFormat(3, "uint16", (0.0,), (4000.0,), is_color=True),
            {"bit_depth": "32f"},
            BandFormat(3, "float32", (0.0,), (4000.0,)),
        ),
        (HEIGHT, {"range": "0,1"}, BandFormat(1, "float32", (0.0,), (1.0,))),
        (HEIGHT, {"bit_depth": "32f"}, HEIGHT),
        (None, {"bit_depth": "16"}, None),
    ],
)
def test_bit_depth_and_range_give_the_format_of_outputs(target, options, expected):
    assert output_format(TranslateConfig(inputs=("x",), **options), target) == expected


@pytest.mark.parametrize(
    ("target", "options", "sentence"),
    [
        (None, {"range": "0,1"}, "--range is for domains that are not RGB"),
        (None, {"bit_depth": "32f"}, "--bit-depth 32f is for domains that are not RGB"),
        (CT, {"range": "0,40000"}, "outside of the values of int16"),
        (CT, {"range": "-1,9", "bit_depth": "8"}, "outside of the values of uint8"),
    ],
)
def test_ranges_that_do_not_fit_are_refused(target, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        output_format(TranslateConfig(inputs=("x",), **options), target)


def test_volumes_keep_their_extension():
    naming = OutputNaming("mr", "out", None, Template("{stem}_{domain}{ext}"), format=CT)
    names = {
        "a/head.nii.gz": "out/a/head_mr.nii.gz",
        "a.b.NII.GZ": "out/a.b_mr.NII.GZ",
        "x.dcm": "out/x_mr.dcm",
        "IM0001": "out/IM0001_mr.tif",
        "x.jpg": "out/x_mr.tif",
        "x.npz": "out/x_mr.npz",
    }
    found = {name: naming.output_of(InputImage(name, name)) for name in names}
    assert found == names
    named = resolve_naming("x.nii.gz", [InputImage("y.nii.gz", "y.nii.gz")], "mr")
    assert named.file == "x.nii.gz"
    color = BandFormat(5, "uint16", (0.0,), (9.0,))
    for name in ("x.dcm", "x.nii", "x.png"):
        naming = OutputNaming("map", "out", None, Template("{stem}{ext}"), format=color)
        assert naming.output_of(InputImage(name, name)) == "out/x.tif"
