"""``cyclegan translate``: files, checkpoints, errors and signals."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cyclegan_cli.cli import interrupts
from cyclegan_cli.cli.interrupts import StopRequest, stop_request
from cyclegan_cli.translation.file_stages import FileStages
from cyclegan_cli.translation.translator import Translator
from images import files

pytestmark = pytest.mark.cpu_features

Cyclegan = Callable[..., Any]
JSON_KEYS = {"input", "output", "status", "error", "width", "height", "seconds", "warnings"}


def assert_whole(folder: str) -> None:
    """Every image below a folder can be read to its last pixel."""
    for name in files(folder):
        if not Path(name).name.startswith("."):
            with Image.open(Path(folder, name)) as image:
                image.load()


# When all goes well


def test_output_is_written_beside_input(cyclegan, here):
    answer = cyclegan("translate", "photos/a.png", "--precision", "fp32")
    assert (answer.code, answer.out) == (0, "")
    assert answer.err.splitlines() == [
        "checkpoint: runs/day2night/model.safetensors",
        "photos/a.png -> photos/a_night.png",
    ]
    assert files("photos") == ["a.png", "a_night.png", "b.jpg", "sub/c.png"]


def test_which_best_selects_best_model(cyclegan, here):
    run = Path("runs/day2night")
    shutil.copy(run / "model.safetensors", run / "best.safetensors")
    answer = cyclegan("translate", "photos/a.png", "--which", "best")
    assert answer.code == 0
    assert answer.err.splitlines()[0] == "checkpoint: runs/day2night/best.safetensors"
    (run / "model.safetensors").write_bytes(b"not read")
    again = ("translate", "photos/a.png", "--overwrite", "--checkpoint", str(run))
    assert cyclegan(*again, "--which", "best").code == 0
    assert cyclegan(*again).code == 4


def test_automatic_precision_is_reported(cyclegan, here, each_cpu):
    native = each_cpu != "avx2"
    answer = cyclegan("translate", "photos/a.png")
    reported = [line for line in answer.err.splitlines() if line.startswith("precision:")]
    assert answer.code == 0
    assert len(reported) == native
    assert all(
        re.fullmatch(r"precision: bf16 \(.* \d+ dB against fp32; .*\)", line) for line in reported
    )


def test_folder_structure_is_reproduced(cyclegan, here):
    answer = cyclegan("translate", "photos", "-o", "out")
    assert answer.code == 0
    assert files("out") == files("photos") == ["a.png", "b.jpg", "sub/c.png"]
    assert answer.err.splitlines()[-1] == "3 translated, 0 skipped, 0 failed"


def test_second_run_skips_existing_outputs(cyclegan, here):
    cyclegan("translate", "photos/a.png", "-o", "out")
    before = Path("out/a.png").stat().st_mtime_ns
    answer = cyclegan("translate", "photos", "-o", "out")
    assert answer.code == 0
    assert "photos/a.png -> out/a.png (exists, skipped)" in answer.err
    assert "2 translated, 1 skipped, 0 failed" in answer.err
    assert Path("out/a.png").stat().st_mtime_ns == before


def test_overwrite_replaces_existing_outputs(cyclegan, here):
    Path("night.png").write_text("old")
    assert cyclegan("translate", "photos/a.png", "-o", "night.png", "--overwrite").code == 0
    assert_whole("photos")
    with Image.open("night.png") as image:
        assert image.size == (13, 10)


def test_quiet_prints_nothing_on_success(cyclegan, here):
    answer = cyclegan("translate", "photos", "-o", "out", "--quiet")
    assert (answer.code, answer.out, answer.err) == (0, "", "")


def test_glob_can_be_repeated_with_outputs_beside_inputs(cyclegan, here):
    assert cyclegan("translate", "photos/*.png").code == 0
    assert cyclegan("translate", "photos/*.png").code == 0
    assert files("photos") == ["a.png", "a_night.png", "b.jpg", "sub/c.png"]


@pytest.mark.parametrize(
    "inputs", [["a.png", "b.jpg", "out"], ["**/*.png"]], ids=["what the shell makes of *", "**"]
)
def test_overwrite_refuses_inputs_in_output_folder(cyclegan, here, monkeypatch, inputs):
    """Which of them are images of the user's own cannot be reported: none is overwritten."""
    monkeypatch.setenv("CYCLEGAN_CHECKPOINT", str(here / "runs" / "day2night"))
    monkeypatch.chdir("photos")
    assert cyclegan("translate", *[name for name in inputs if name != "out"], "-o", "out").code == 0
    before = {path: Path(path).read_bytes() for path in files(".")}
    answer = cyclegan("translate", *inputs, "-o", "out", "--overwrite")
    assert answer.code == 2
    assert "is an input, which the output would overwrite" in answer.err
    assert {path: Path(path).read_bytes() for path in files(".")} == before


# Directions


def translated_by(direction: Any, photo: str) -> np.ndarray[Any, Any]:
    with Image.open(photo) as image:
        return np.asarray(Translator.load("runs/day2night", direction, "cpu")(image))


@pytest.mark.parametrize(
    ("options", "direction", "target"),
    [
        ([], "a2b", "night"),
        (["--direction", "a2b"], "a2b", "night"),
        (["--to", "night"], "a2b", "night"),
        (["--direction", "b2a"], "b2a", "day"),
        (["--to", "day"], "b2a", "day"),
    ],
)
def test_direction_selects_generator_and_file_name(cyclegan, here, options, direction, target):
    answer = cyclegan("translate", "photos/a.png", "--device", "cpu", *options)
    assert answer.code == 0
    with Image.open(f"photos/a_{target}.png") as image:
        assert np.array_equal(np.asarray(image), translated_by(direction, "photos/a.png"))


# Which checkpoint


def test_option_overrides_environment_variable(cyclegan, here, monkeypatch):
    monkeypatch.setenv("CYCLEGAN_CHECKPOINT", "nothing")
    answer = cyclegan("translate", "photos/a.png", "--checkpoint", "runs/day2night")
    assert answer.code == 0
    assert "checkpoint:" not in answer.err  # The user knows it.


def test_which_best_without_run_is_refused(cyclegan, here):
    shutil.rmtree("runs")
    answer = cyclegan("translate", "photos/a.png", "--which", "best")
    assert (answer.code, answer.out) == (4, "")
    assert answer.err.splitlines() == [
        "error: there is no checkpoint to translate with",
        "hint: Name one with --checkpoint, or set CYCLEGAN_CHECKPOINT; cyclegan train makes one; "
        "cyclegan inspect --models lists those in the package.",
    ]


# Errors


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["", "-o", "out"], 2, "an INPUT is empty"),
        (["photos"], 2, "photos is a folder, which requires -o DIR"),
        (["photos/a.png", "-o", "photos/a.png"], 2, "photos/a.png is an input"),
        (["photos/a.png", "--to", "noon"], 2, "--to noon: the domains of this checkpoint are"),
        (["photos/a.png", "--to", "day", "--direction", "a2b"], 2, "--to and --direction exclude"),
        (["photos/a.png", "--device", "toaster"], 2, "--device must be"),
        (["nothing.png", "--json"], 3, "there is no file or folder nothing.png"),
        (["photos/a.png", "--checkpoint", "half.safetensors"], 4, "half.safetensors is truncated"),
    ],
)
def test_invalid_commands_are_refused_before_writing(
    cyclegan, here, checkpoint, arguments, code, message
):
    content = checkpoint.read_bytes()
    Path("half.safetensors").write_bytes(content[: len(content) // 2])
    before = files(".")
    answer = cyclegan("translate", *arguments)
    assert (answer.code, answer.out) == (code, "")
    [line] = answer.errors
    assert line.startswith(f"error: {message}")
    assert files(".") == before


@pytest.mark.parametrize("quiet", [[], ["--quiet"]], ids=["", "quiet"])
def test_bad_image_is_named_and_exits_with_6(cyclegan, here, quiet):
    Path("photos/[red]bad.jpg").write_bytes(b"no image")
    answer = cyclegan("translate", "photos", "-o", "out", *quiet)
    assert (answer.code, answer.out) == (6, "")
    assert answer.errors == ["error: 1 of 4 images failed"]
    assert "warning: photos/[red]bad.jpg is not an image" in answer.err
    assert files("out") == ["a.png", "b.jpg", "sub/c.png"]


def test_unwritable_outputs_are_named(cyclegan, here):
    Path("file").touch()  # No permission, as far as root can be without one.
    answer = cyclegan("translate", "photos", "-o", "file/out")
    assert answer.code == 6
    assert answer.err.count("warning: cannot write file/out/") == 3
    assert answer.errors == ["error: 3 of 3 images failed"]


def test_full_disk_stops_with_one_error(cyclegan, here, monkeypatch):
    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    answer = cyclegan("translate", "photos", "-o", "out")
    assert answer.code == 3
    assert answer.errors == ["error: cannot write out/a.png: no space left on device"]
    assert files("out") == []


# JSON


def test_json_lines_have_exactly_the_documented_keys(cyclegan, here):
    Path("photos/bad.jpg").write_bytes(b"no image")
    cyclegan("translate", "photos/b.jpg", "-o", "out")
    answer = cyclegan("translate", "photos", "-o", "out", "--json", "--ordered")
    assert answer.code == 6
    assert answer.errors == ["error: 1 of 4 images failed"]
    *documents, last = answer.documents
    # Only translations have a structure score.
    scores = {document["output"]: document.pop("structure", None) for document in documents}
    assert scores.keys() == {document["output"] for document in documents}
    assert {name for name, score in scores.items() if score is not None} == {
        "out/a.png", "out/sub/c.png"
    }  # fmt: skip
    assert all(set(document) == JSON_KEYS for document in documents)
    reported = [
        {key: value for key, value in document.items() if key != "seconds"}
        for document in documents
    ]
    size = {"width": 13, "height": 10}
    nothing = {"width": None, "height": None}
    ok = {"status": "ok", "error": None, "warnings": []}
    skipped = {"status": "skipped", "error": None, "warnings": []}
    reason = "photos/bad.jpg is not an image in a supported format"
    assert reported == [
        {"input": "photos/a.png", "output": "out/a.png", **ok, **size},
        {"input": "photos/b.jpg", "output": "out/b.jpg", **skipped, **nothing},
        {"input": "photos/bad.jpg", "output": "out/bad.jpg", "status": "failed", "error": reason,
         "warnings": [], **nothing},
        {"input": "photos/sub/c.png", "output": "out/sub/c.png", **ok, **size},
    ]  # fmt: skip
    assert last["summary"].pop("seconds") > 0
    assert last["summary"].pop("pictures_per_second") > 0
    assert last == {
        "summary": {
            "pictures": 4, "ok": 2, "skipped": 1, "rejected": 0, "failed": 1, "stopped": None
        }
    }  # fmt: skip


def test_json_is_one_line_per_image_for_any_name(cyclegan, here, draw):
    names = ["two\nlines.png", "[bold]x.png", 'quo"te.png', "ніч.png", ":smile:.png"]
    for name in names:
        draw(Path("odd") / name)
    answer = cyclegan("translate", "odd", "-o", "out", "--json")
    assert sorted(Path(document["input"]).name for document in answer.documents[:-1]) == sorted(
        names
    )
    assert files("out") == sorted(names)


# Real processes


@pytest.fixture
def many(here, draw):
    """The number of images in ``many``: more than fit into a small pipe's buffer."""
    first = draw(Path("many/0000.png"), (64, 64))
    for index in range(1, 150):
        shutil.copyfile(first, f"many/{index:04d}.png")
    return 150


def start_many(start_python: Cyclegan) -> subprocess.Popen[str]:
    """A translation of ``many`` that has just reported of its third image.

    It cannot end before its lines are read, as far as the system has pipes of that size.
    """
    process: subprocess.Popen[str] = start_python(
        "-m", "cyclegan_cli", "translate", "many", "-o", "out", "--json", "--device", "cpu",
        "--precision", "fp32", pipesize=4096,
    )  # fmt: skip
    for _ in range(3):
        assert process.stdout.readline()
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.slow
def test_signal_finishes_current_image_and_rerun_completes(
    start_python, cyclegan, many, number, code
):
    process = start_many(start_python)
    process.send_signal(number)
    # Not communicate(), which would miss the lines that readline() has read ahead.
    reported = 3 + len(process.stdout.readlines()[:-1])
    err = process.stderr.read()
    assert process.wait(timeout=60) == code
    assert reported < many
    assert files("out") == [f"{index:04d}.png" for index in range(reported)]  # No temporary file.
    assert_whole("out")
    assert err.splitlines() == [
        "checkpoint: runs/day2night/model.safetensors",
        "finishing the images in progress; repeat to stop at once",
        f"{reported} translated, 0 skipped, 0 failed",
        f"error: stopped after {reported} of {many} images",
        "hint: Run the same command again: existing outputs are skipped.",
    ]
    again = cyclegan("translate", "many", "-o", "out")
    assert again.code == 0
    assert f"{many - reported} translated, {reported} skipped, 0 failed" in again.err


@pytest.mark.slow
def test_broken_pipe_ends_without_traceback(start_python, many):
    process = start_many(start_python)
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=60) == 141
    assert err == "checkpoint: runs/day2night/model.safetensors\n"
    assert len(files("out")) < many
    assert_whole("out")


@pytest.mark.slow
def test_closed_stderr_does_not_stop_translation(cyclegan_process, here):
    reading, writing = os.pipe()
    os.close(reading)
    answer = cyclegan_process("translate", "photos", "-o", "out", stderr=writing)
    os.close(writing)
    assert answer.code == 0
    assert files("out") == files("photos")


@pytest.mark.parametrize(
    ("photo", "code", "error"),
    [("photos", 130, ["error: stopped after 1 of 3 images"]), ("photos/a.png", 0, [])],
)
def test_signal_stops_after_current_image_unless_it_is_last(
    cyclegan, here, monkeypatch, photo, code, error
):
    requests: list[StopRequest] = []

    class NotedRequest(StopRequest):
        def __init__(self):
            requests.append(self)

    def interrupt_and_translate(work, image):
        os.kill(os.getpid(), signal.SIGINT)
        while requests[0].signal_number is None:
            time.sleep(0.01)
        return translate(work, image)

    translate = FileStages.translate
    monkeypatch.setattr(interrupts, "StopRequest", NotedRequest)
    monkeypatch.setattr(FileStages, "translate", interrupt_and_translate)
    answer = cyclegan("translate", photo, "-o", "out")
    assert (answer.code, answer.errors) == (code, error)
    assert files("out") == ["a.png"]


@pytest.mark.parametrize(("second", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_first_signal_requests_stop_and_second_exits(second, code):
    before = signal.getsignal(second)
    with stop_request("stopping") as requested:
        assert requested() is None
        signal.raise_signal(signal.SIGINT)
        assert requested() == signal.SIGINT
        with pytest.raises(SystemExit) as caught:
            signal.raise_signal(second)
    assert caught.value.code == code
    assert signal.getsignal(second) is before
