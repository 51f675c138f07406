"""Names that differ only in case, on drives where they are two files and where they are one."""

import os
from pathlib import Path

import pytest

from cyclegan_cli.errors import UsageError
from cyclegan_cli.translation.inputs import Inputs, ignores_case
from cyclegan_cli.translation.outputs import TranslationPlan, resolve_naming


@pytest.fixture
def one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drive on which case does not matter."""
    real = os.path.samefile
    monkeypatch.setattr(
        os.path,
        "samefile",
        lambda a, b: str(a).casefold() == str(b).casefold() or real(a, b),
    )


def case_matters(folder: Path) -> bool:
    """Asked of the drive itself."""
    (folder / "probe").touch()
    matters = not (folder / "PROBE").exists()
    (folder / "probe").unlink()
    return matters


def test_it_is_as_the_drive_says(tmp_path: Path) -> None:
    expected = not case_matters(tmp_path)
    assert ignores_case(str(tmp_path)) == expected  # Empty: by its own name.
    (tmp_path / "a.jpg").touch()
    assert ignores_case(str(tmp_path)) == expected
    assert ignores_case(str(tmp_path / "to" / "be" / "made")) == expected


def test_two_files_whose_names_differ_in_case_are_two(tmp_path: Path) -> None:
    if not case_matters(tmp_path):
        pytest.skip("this drive has no such files")
    (tmp_path / "a.jpg").touch()
    (tmp_path / "A.JPG").touch()
    assert not ignores_case(str(tmp_path))


@pytest.mark.usefixtures("one_file")
def test_a_drive_that_ignores_case_is_told_by_what_is_on_it(tmp_path: Path) -> None:
    assert ignores_case(str(tmp_path))
    (tmp_path / "12").mkdir()  # No letters: that tells nothing.
    assert ignores_case(str(tmp_path / "12"))
    assert ignores_case(str(tmp_path / "12" / "new"))


@pytest.mark.usefixtures("one_file")
def test_of_a_drive_without_letters_nothing_is_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda _: True)
    monkeypatch.setattr(os.path, "isdir", lambda _: True)
    assert not ignores_case("/nowhere/usb")


@pytest.fixture
def two_cameras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("left/a.jpg", "right/A.JPG", "out/letters"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    return tmp_path


def plan() -> TranslationPlan:
    inputs = Inputs(["left", "right"])
    return TranslationPlan(inputs, resolve_naming("out", inputs.first_two(), "night"))


@pytest.mark.usefixtures("two_cameras", "one_file")
def test_outputs_that_would_be_one_file_are_refused() -> None:
    with pytest.raises(UsageError, match=r"left/a\.jpg and right/A\.JPG would both be written to"):
        plan()


def test_outputs_that_are_two_files_are_not(two_cameras: Path) -> None:
    if not case_matters(two_cameras):
        pytest.skip("on this drive they are one")
    assert {job.output for job in plan()} == {"out/a.jpg", "out/A.JPG"}
