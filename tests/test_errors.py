"""The exception tree: exit codes, what an error carries, and crossing process borders."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from cyclegan_cli import errors
from cyclegan_cli.errors import CycleGANError, DataError, InterruptedRunError

EXIT_CODES = {
    "CycleGANError": 1,
    "UsageError": 2,
    "DataError": 3,
    "OutputError": 3,
    "DivergedError": 3,
    "CheckpointError": 4,
    "ExportError": 4,
    "DeviceError": 5,
    "SomeFailedError": 6,
    "InterruptedRunError": 130,
}


@pytest.mark.parametrize(("name", "exit_code"), EXIT_CODES.items())
def test_every_error_has_its_documented_exit_code(name: str, exit_code: int) -> None:
    assert getattr(errors, name)("a sentence").exit_code == exit_code


def test_the_tree_in_the_docstring_shows_every_exception_with_its_exit_code() -> None:
    defined = {
        name: thing("a sentence").exit_code
        for name, thing in inspect.getmembers(errors, inspect.isclass)
        if issubclass(thing, CycleGANError)
    }
    tree = dict(re.findall(r"(\w+Error) +(\d+|\.\.\.|\()", str(errors.__doc__)))
    assert tree.keys() == defined.keys()
    for name, shown in tree.items():
        assert not shown.isdigit() or int(shown) == defined[name]


@pytest.mark.parametrize("name", EXIT_CODES)
def test_every_error_is_caught_by_the_root_class(name: str) -> None:
    with pytest.raises(CycleGANError, match="a sentence"):
        raise getattr(errors, name)("a sentence")


@pytest.mark.parametrize(
    ("name", "parent"),
    [
        ("OutputError", "DataError"),
        ("DivergedError", "DataError"),
        ("ExportError", "CheckpointError"),
    ],
)
def test_a_special_error_is_caught_with_its_kind(name: str, parent: str) -> None:
    with pytest.raises(getattr(errors, parent)):
        raise getattr(errors, name)("a sentence")


@pytest.mark.parametrize(("signal_number", "exit_code"), [(2, 130), (15, 143)])
def test_an_interrupted_run_exits_as_shells_have_it(signal_number: int, exit_code: int) -> None:
    error = InterruptedRunError("saved", "run it again", signal_number=signal_number)
    assert error.exit_code == exit_code


def test_an_error_shows_its_message_and_keeps_its_hint_apart() -> None:
    error = DataError("no images", "add some")
    assert (str(error), error.message, error.hint) == ("no images", "no images", "add some")


def test_the_hint_is_empty_where_none_is_given() -> None:
    assert DataError("no images").hint == ""


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", EXIT_CODES)
def test_a_pickled_error_comes_back_whole(name: str, protocol: int) -> None:
    error = getattr(errors, name)("a sentence", "a hint")
    copy = pickle.loads(pickle.dumps(error, protocol))
    assert type(copy) is type(error)
    assert (copy.message, copy.hint, str(copy)) == ("a sentence", "a hint", "a sentence")
    assert copy.exit_code == error.exit_code


def test_a_pickled_interruption_keeps_its_signal() -> None:
    copy = pickle.loads(pickle.dumps(InterruptedRunError("saved", signal_number=15)))
    assert (copy.signal_number, copy.exit_code) == (15, 143)
