"""The exception tree: exit codes, what an error carries, and crossing process borders."""

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
def test_exit_codes(name, exit_code):
    assert getattr(errors, name)("a sentence").exit_code == exit_code


def test_docstring_tree_lists_every_exception():
    defined = {
        name: thing("a sentence").exit_code
        for name, thing in inspect.getmembers(errors, inspect.isclass)
        if issubclass(thing, CycleGANError)
    }
    tree = dict(re.findall(r"(\w+Error) +(\d+|\.\.\.|\()", str(errors.__doc__)))
    assert tree.keys() == defined.keys()
    for name, shown in tree.items():
        assert not shown.isdigit() or int(shown) == defined[name]


@pytest.mark.parametrize(
    ("error", "parent"),
    [
        (errors.OutputError, DataError),
        (errors.DivergedError, DataError),
        (errors.ExportError, errors.CheckpointError),
    ],
)
def test_subclasses(error, parent):
    assert issubclass(error, parent)


@pytest.mark.parametrize(("signal_number", "exit_code"), [(2, 130), (15, 143)])
def test_interrupted_run_exit_code_is_128_plus_signal(signal_number, exit_code):
    error = InterruptedRunError("saved", "run it again", signal_number=signal_number)
    assert error.exit_code == exit_code


def test_message_and_hint_are_separate():
    error = DataError("no images", "add some")
    assert (str(error), error.message, error.hint) == ("no images", "no images", "add some")
    assert DataError("no images").hint == ""


@pytest.mark.parametrize("name", EXIT_CODES)
def test_error_pickle_round_trip(name):
    error = getattr(errors, name)("a sentence", "a hint")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (copy.message, copy.hint, str(copy)) == ("a sentence", "a hint", "a sentence")
    assert copy.exit_code == error.exit_code
    assert pickle.loads(pickle.dumps(InterruptedRunError("", signal_number=15))).exit_code == 143
