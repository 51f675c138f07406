"""The command ``cyclegan`` itself: its help, its start, and its errors."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import cyclegan_cli
from cyclegan_cli import errors

Cyclegan = Callable[..., Any]
COMMANDS = ("train", "translate", "export", "inspect")
HEAVY_MODULES = {"torch", "torchvision", "numpy", "PIL", "onnx", "onnxruntime", "safetensors"}
# Loaded for the inputs that need them.
OF_VIDEOS = "cyclegan_cli.translation.video.reader"
OF_LABELS = "cyclegan_cli.translation.labels"
HEAVY_MODULES |= {OF_VIDEOS, OF_LABELS}
# Runs a command line, then prints the heavy modules loaded by it.
COMMAND_THEN_MODULES = f"""
import sys
from cyclegan_cli.cli.app import app
code = app(sys.argv[1:], standalone_mode=False)
print()
print("modules:", *sorted({HEAVY_MODULES} & sys.modules.keys()))
sys.exit(code)
"""


def heavy_modules_after(start_python: Cyclegan, *arguments: object) -> list[str]:
    process: subprocess.Popen[str] = start_python("-c", COMMAND_THEN_MODULES, *arguments)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert len(out.splitlines()) > 2  # The command has done its work.
    return out.splitlines()[-1].split()[1:]


# Start-up


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)], ids=" ".join
)
def test_help_and_version_load_nothing_heavy(start_python, arguments):
    assert heavy_modules_after(start_python, *arguments) == []


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors", "."])
@pytest.mark.parametrize("options", [[], ["--json"]], ids=["table", "json"])
def test_inspect_of_a_checkpoint_or_run_loads_nothing_heavy(
    start_python, run_folder, name, options
):
    assert heavy_modules_after(start_python, "inspect", run_folder / name, *options) == []


def test_inspect_of_a_image_loads_no_torch(start_python, draw, tmp_path):
    loaded = heavy_modules_after(start_python, "inspect", draw(tmp_path / "photo.jpg"))
    assert "PIL" in loaded  # So this test would see torch, too.
    assert not {"torch", "torchvision", "numpy"} & set(loaded)


def test_translate_of_a_photo_loads_what_it_needs(start_python, run_folder, draw, tmp_path):
    photo, checkpoint = draw(tmp_path / "photo.jpg"), run_folder / "model.safetensors"
    command = ("translate", photo, "--checkpoint", checkpoint, "-o", tmp_path / "out.png")
    process = start_python("-c", COMMAND_THEN_MODULES, *command)
    loaded = process.communicate(timeout=60)[0].splitlines()[-1].split()[1:]
    assert (tmp_path / "out.png").exists()
    assert "torch" in loaded
    assert not {"torchvision", OF_VIDEOS, OF_LABELS} & set(loaded)


def test_the_package_itself_loads_nothing_heavy(start_python):
    script = f"import sys, cyclegan_cli; print(*({HEAVY_MODULES} & sys.modules.keys()))"
    assert start_python("-c", script).communicate(timeout=60) == ("\n", "")


# Help


@pytest.mark.parametrize("command", COMMANDS)
def test_short_and_long_help_are_the_same(cyclegan, command):
    assert cyclegan(command, "-h").out == cyclegan(command, "--help").out


def test_version_and_command_name_under_python_m(cyclegan_process):
    answer = cyclegan_process("--version")
    assert (answer.code, answer.out) == (0, f"cyclegan {cyclegan_cli.__version__}\n")
    assert "Usage: cyclegan export" in cyclegan_process("export").err


def test_without_a_command_there_is_help(cyclegan):
    answer = cyclegan()
    assert answer.code == 2
    assert all(name in answer.out for name in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["paint"], "paint"),
        (["--paint"], "--paint"),
        (["inspect"], "PATH"),
        (["translate"], "INPUT"),
        (["translate", "x.jpg", "--paint"], "--paint"),
        (["translate", "x.jpg", "--direction", "up"], "--direction"),
        (["export", "x", "--format", "paint"], "--format"),
    ],
    ids=" ".join,
)
def test_a_command_line_that_cannot_be_read_is_a_usage_error(cyclegan, arguments, named):
    answer = cyclegan(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert named in answer.err


# Errors


@pytest.fixture
def failing(cyclegan, monkeypatch):
    """``failing(error)``: what a command answers in which that error came up."""

    def run(error):
        def describe(path, request):
            raise error

        monkeypatch.setattr("cyclegan_cli.cli.inspect.describe", describe)
        return cyclegan("inspect", "anything")

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.DataError("what was found", "What to do."), 3),
        (errors.SomeFailedError("what was found", "What to do."), 6),
        (errors.InterruptedRunError("what was found", "What to do.", 15), 143),
    ],
)
def test_error_output_and_exit_code(failing, error, code):
    answer = failing(error)
    assert (answer.code, answer.out) == (code, "")
    assert answer.err == "error: what was found\nhint: What to do.\n"
    assert failing(errors.DataError("no hint")).err == "error: no hint\n"


@pytest.mark.parametrize(
    "message",
    [
        "[bold]x[/bold].png",
        "[/]",
        "[red",
        "pip install 'cyclegan-cli[onnx]' 12",
        ":smile:.png",
        "long " * 100 + "end",
    ],
)
def test_markup_in_a_message_is_printed_as_it_is(failing, message):
    assert failing(errors.DataError(message, message)).err == f"error: {message}\nhint: {message}\n"


def test_unexpected_exception_keeps_its_traceback(failing):
    with pytest.raises(ZeroDivisionError):
        failing(ZeroDivisionError())


def test_ctrl_c_before_the_work_began_exits_with_130(failing):
    answer = failing(KeyboardInterrupt())
    assert (answer.code, answer.err) == (130, "interrupted\n")


# Output streams


def closed_pipe() -> int:
    """The writing end of a pipe without a reader."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["table", "json"])
def test_broken_pipe_exits_with_141(cyclegan_process, run_folder, options):
    pipe = closed_pipe()
    answer = cyclegan_process("inspect", run_folder, *options, stdout=pipe)
    os.close(pipe)
    assert (answer.code, answer.err) == (141, "")


@pytest.mark.parametrize(
    "options", [pytest.param([], id="table"), pytest.param(["--json"], id="json")]
)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_inspect_on_a_full_disk_is_an_error(cyclegan_process, run_folder, options):
    with open("/dev/full", "w") as full:
        answer = cyclegan_process("inspect", run_folder, *options, stdout=full)
    assert answer.code == 3
    assert answer.err == "error: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["table", "json"])
def test_closed_stdout_has_no_traceback(start_python, run_folder, options):
    close_then_run = (
        "import os, sys; os.close(1); os.execv(sys.executable, sys.orig_argv[:1] + sys.argv[1:])"
    )
    process = start_python(
        "-c", close_then_run, "-m", "cyclegan_cli", "inspect", run_folder, *options
    )
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert process.returncode in (0, 3)


def test_output_on_an_ascii_terminal_is_escaped(
    cyclegan_process, draw, run_folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    answer = cyclegan_process("inspect", run_folder, draw(tmp_path / "ніч.png"))
    assert (answer.code, answer.err) == (0, "")
    assert "night" in answer.out
    assert "png" in answer.out


@pytest.mark.skipif(not hasattr(os, "fork"), reason="not on POSIX")
def test_too_little_memory_for_torch_is_one_sentence(cyclegan_process, tmp_path):
    import resource

    photo = tmp_path / "photo.png"
    Image.new("RGB", (16, 16)).save(photo)
    few = 300 << 20  # Bytes of address space; torch's library alone has more.
    found = cyclegan_process(
        "translate", photo, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (few, few))
    )
    assert found.code == errors.DeviceError.exit_code
    last = found.err.splitlines()[-2:]
    assert last == ["error: not enough memory to start", "hint: Raise the limit: ulimit -v."]
