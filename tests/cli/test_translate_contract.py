"""``cyclegan translate`` in scripts: streams, lists, shards, names and exit codes."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import preloaded
from cyclegan_cli.files import is_temporary
from cyclegan_cli.translation.translator import Translator
from disks import small_disk
from images import files, lock
from preloaded import Preloaded

pytestmark = pytest.mark.cpu_features

COMMAND = [sys.executable, "-m", "cyclegan_cli", "translate"]


def pipe(content: bytes, *arguments: str, **streams: Any) -> subprocess.CompletedProcess[bytes]:
    return preloaded.run(["translate", *arguments], content, **streams)


# Options without effect


# Too large to be honest


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_max_megapixels_sets_decompression_bomb_limit(here, cyclegan, draw, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # Restored after it.
    draw(Path("photos/large.png"), (120, 100))
    done = cyclegan("translate", "photos", "-o", "out", "--max-megapixels", "0.01")
    assert done.code == 6
    assert "photos/large.png claims more than 0.01 megapixels" in done.err
    assert files("out") == ["a.png", "b.jpg", "sub/c.png"]
    assert cyclegan("translate", "photos", "-o", "out", "--max-megapixels", "0.012").code == 0
    assert files("out") == ["a.png", "b.jpg", "large.png", "sub/c.png"]


# Streams


@pytest.mark.parametrize("output", [["-o", "-"], []])
@pytest.mark.slow
def test_stream_keeps_image_format(here, output):
    done = pipe(Path("photos/b.jpg").read_bytes(), "-", *output)
    assert done.returncode == 0
    with Image.open(io.BytesIO(done.stdout)) as image:
        assert (image.format, image.size) == ("JPEG", (13, 10))


@pytest.mark.slow
def test_streams_and_files_give_same_pixels(here, cyclegan):
    content = Path("photos/a.png").read_bytes()
    to_stdout = pipe(b"", "photos/a.png", "-o", "-").stdout
    assert pipe(content, "-", "-o", "new/night.png").returncode == 0
    assert cyclegan("translate", "photos/a.png").code == 0
    for other in (io.BytesIO(to_stdout), "new/night.png"):
        with Image.open(other) as image, Image.open("photos/a_night.png") as expected:
            assert image.tobytes() == expected.tobytes()


@pytest.mark.slow
def test_invalid_stream_writes_nothing_to_stdout(here):
    done = pipe(b"no image", "-", "-o", "-")
    assert (done.returncode, done.stdout) == (6, b"")
    assert b"standard input is not an image" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(("inputs", "code"), [("photos", 0), ("gone.png", 3)])
@pytest.mark.slow
def test_full_disk_for_stderr_does_not_stop_translation(here, inputs, code):
    with open("/dev/full", "w") as full:
        done = pipe(b"", inputs, "-o", "out/", stderr=full)
    assert done.returncode == code
    assert code or files("out") == ["a.png", "b.jpg", "sub/c.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="links are for administrators there")
def test_broken_link_is_replaced_by_output(here, cyclegan):
    Path("out").mkdir()
    Path("out/a.png").symlink_to("a.png")
    assert cyclegan("translate", "photos", "-o", "out").code == 0
    assert files("out") == ["a.png", "b.jpg", "sub/c.png"]
    assert not Path("out/a.png").is_symlink()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.slow
def test_full_disk_for_stdout_is_an_error(here):
    with open("/dev/full", "w") as full:
        # The end of an interpreter, which flushes standard output, is a part of it.
        done = subprocess.run(
            [*COMMAND, "photos/a.png", "-o", "-"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 3
    assert b"cannot write standard output: no space left on device" in done.stderr


@pytest.mark.slow
def test_json_of_stream_to_file(here):
    content = Path("photos/a.png").read_bytes()
    for status in ("ok", "skipped"):
        done = pipe(content, "-", "-o", "night.png", "--json")
        outcome, last = map(json.loads, done.stdout.splitlines())
        assert (done.returncode, outcome["input"], outcome["output"]) == (0, "-", "night.png")
        assert (outcome["status"], last["summary"][status]) == (status, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-", "--json"], "excludes --json"),
        (["photos/a.png", "-o", "-", "--json"], "excludes --json"),
        (["-", "--suffix", "x"], "excludes --suffix"),
        (["-", "--shard", "1/2"], "excludes --shard"),
        (["-", "photos/a.png"], "the inputs may be several"),
        (["photos", "-o", "-"], "the inputs may be several"),
        (["photos/*.png", "-o", "-"], "the inputs may be several"),
        (["-", "-o", "photos"], "names a folder"),
        (["--files-from", "-", "-o", "-"], "excludes --files-from"),
        ([], "INPUT is missing"),
        (["photos/a.png", "-o", ""], "-o is empty"),
        (["photos/a.png", "--root", "."], "--root needs an output folder"),
        (["photos", "-o", "out", "-0"], "--null needs a list of paths"),
        (["photos", "-o", "out", "--overwrite", "--if-newer"], "exclude each other"),
    ],
)
def test_invalid_options_are_refused_before_reading(here, cyclegan, arguments, message):
    before = files(".")
    answer = cyclegan("translate", *arguments)
    assert (answer.code, answer.out) == (2, "")
    [error] = answer.errors
    assert message in error
    assert files(".") == before


# Lists, names, what exists


@pytest.mark.slow
def test_list_from_stdin_with_missing_file(here):
    content = b"photos/a.png\0photos/nothing.png\0photos/sub/c.png\0"
    options = ["--files-from", "-", "-0", "-o", "out", "--root", "photos", "--json", "--ordered"]
    done = pipe(content, *options)
    assert done.returncode == 6
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert [d["status"] for d in documents[:-1]] == ["ok", "failed", "ok"]
    assert files("out") == ["a.png", "sub/c.png"]


def test_name_template(here, cyclegan):
    template = "{domain}/{parent}-{stem}{ext}"
    assert cyclegan("translate", "photos", "-o", "out", "--name-template", template).code == 0
    assert files("out") == ["night/photos-a.png", "night/photos-b.jpg", "sub/night/sub-c.png"]


def test_no_recursive(here, cyclegan):
    assert cyclegan("translate", "photos", "-o", "out", "--no-recursive").code == 0
    assert files("out") == ["a.png", "b.jpg"]


def test_if_newer_translates_changed_inputs_only(here, cyclegan):
    cyclegan("translate", "photos", "-o", "photos/out")
    later = time.time() + 10
    os.utime("photos/b.jpg", (later, later))
    answer = cyclegan("translate", "photos", "-o", "photos/out", "--if-newer", "--json")
    assert answer.documents[-1]["summary"]["skipped"] == 2
    assert [d["input"] for d in answer.documents[:-1] if d["status"] == "ok"] == ["photos/b.jpg"]


def test_outputs_in_input_folder_are_not_translated_again(here, cyclegan):
    command = ("translate", "photos", "-o", "photos", "--suffix", "_night", "--json")
    assert cyclegan(*command).code == 0
    before = files("photos")
    answer = cyclegan(*command)
    assert answer.code == 0
    assert answer.documents[-1]["summary"]["skipped"] == 3
    assert files("photos") == before


@pytest.mark.parametrize(
    "inputs", [["a.png", "b.jpg", "out"], ["**/*.*g"]], ids=["what the shell makes of *", "**"]
)
def test_inputs_containing_output_folder_can_be_repeated(here, cyclegan, monkeypatch, inputs):
    monkeypatch.setenv("CYCLEGAN_CHECKPOINT", str(here / "runs" / "day2night"))
    monkeypatch.chdir("photos")
    assert cyclegan("translate", *[name for name in inputs if name != "out"], "-o", "out").code == 0
    before = files("out")
    Path("out", before.pop()).unlink()
    answer = cyclegan("translate", *inputs, "-o", "out", "--json")
    assert answer.code == 0
    summary = answer.documents[-1]["summary"]
    assert (summary["ok"], summary["skipped"]) == (1, len(before))


# What cannot be done


def test_unreadable_folder_fails_alone(here, cyclegan, monkeypatch):
    lock(monkeypatch, here / "photos" / "sub")
    answer = cyclegan("translate", "photos", "-o", "out", "--json", "--ordered")
    assert answer.code == 6
    assert [d["status"] for d in answer.documents[:-1]] == ["ok", "ok", "failed"]
    assert answer.documents[2]["input"] == "photos/sub"
    assert answer.documents[2]["error"] == "cannot list photos/sub: Permission denied"
    assert files("out") == ["a.png", "b.jpg"]


def test_images_that_disappear_exit_with_6(here, cyclegan, monkeypatch):
    load = Translator.load

    def load_late(*arguments, **options):
        shutil.rmtree("photos/sub")
        return load(*arguments, **options)

    monkeypatch.setattr(Translator, "load", load_late)
    answer = cyclegan("translate", "photos", "-o", "out")
    assert answer.code == 6
    assert "0 of 3 images failed, 1 no longer existed when they were to be read" in answer.err
    assert files("out") == ["a.png", "b.jpg"]


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16"])
@pytest.mark.usefixtures("each_cpu")
def test_image_without_enough_memory_is_named(here, cyclegan, monkeypatch, precision):
    # Not that of memory.py: to it the translator adds what the probe of `auto` has left to reuse.
    monkeypatch.setattr(Translator, "budget", lambda self: 9.0)
    answer = cyclegan("translate", "photos/a.png", "-o", "out/", "--precision", precision)
    assert answer.code == 6
    assert "warning: photos/a.png: translating " in answer.err
    assert "found 9e-09 GB" in answer.err


def test_too_small_max_memory_is_refused_before_first_image(here, cyclegan):
    answer = cyclegan("translate", "photos", "-o", "out", "--max-memory", "1MB", "--json")
    assert (answer.code, answer.out) == (5, "")
    assert (
        "--max-memory of 0.001 GB leaves nothing for images: the process itself uses " in answer.err
    )


# Several processes


def test_shards_cover_all_images(here, cyclegan):
    reported = []
    for index in (1, 2, 3):
        answer = cyclegan("translate", "photos", "-o", "out", "--shard", f"{index}/3", "--json")
        assert answer.code == 0
        *documents, last = answer.documents
        assert last["summary"]["pictures"] == len(documents)
        reported += [document["input"] for document in documents]
    assert sorted(reported) == ["photos/a.png", "photos/b.jpg", "photos/sub/c.png"]


def test_conflicts_are_found_in_every_shard(here, cyclegan, draw):
    draw(Path("more/a.png"))
    for index in (1, 2):
        answer = cyclegan("translate", "photos", "more", "-o", "out", "--shard", f"{index}/2")
        assert answer.code == 2
        assert "would both be written to out/a.png" in answer.err


@pytest.mark.slow
def test_torchrun_ranks_wait_for_each_other(here, draw, clean_environment):
    first = draw(Path("many/0.png"))
    for number in range(1, 20):
        shutil.copyfile(first, f"many/{number}.png")
    Path("many/bad.png").touch()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [*torchrun, "-m", "cyclegan_cli", "translate", "many", "-o", "out", "--json"],
        capture_output=True, text=True, timeout=200, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 1  # torchrun's own.
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    reported = sorted(document["input"] for document in documents if "input" in document)
    assert reported == sorted([*(f"many/{number}.png" for number in range(20)), "many/bad.png"])
    assert [d["summary"]["stopped"] for d in documents if "summary" in d] == [None, None]
    assert len(files("out")) == 20
    assert done.stderr.count("checkpoint:") == 1


def test_ranks_cannot_share_standard_input(here, cyclegan, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    answer = cyclegan("translate", "--files-from", "-", "-o", "out")
    assert answer.code == 2
    assert "several processes cannot share standard input" in answer.err


# Ends


def test_fail_fast_stops_at_first_failure(here, cyclegan):
    for number in range(200):
        Path(f"photos/{number:03}.png").touch()
    answer = cyclegan("translate", "photos", "-o", "out", "--fail-fast", "--json")
    assert answer.code == 6
    [error] = answer.errors
    assert "stopped at the first failure (--fail-fast), after" in error
    summary = answer.documents[-1]["summary"]
    assert (summary["stopped"], summary["failed"]) == ("failure", 1)


@pytest.mark.parametrize("delay", [0.0, 0.03, 0.1])
@pytest.mark.slow
def test_kill_at_any_moment_leaves_whole_images(here, cyclegan, draw, delay):
    first = draw(Path("many/000.png"), (96, 96))
    for number in range(1, 60):
        shutil.copyfile(first, f"many/{number:03}.png")
    options = ("-o", "many/out", "--json", "--workers", "3")
    process = Preloaded(["translate", "many", *options])
    assert process.stdout.readline()
    time.sleep(delay)
    process.kill()
    process.communicate(timeout=120)
    written = [name for name in files("many/out") if not is_temporary(Path(name).name)]
    for name in written:
        with Image.open(Path("many/out", name)) as image:
            image.load()
    again = cyclegan("translate", "many", "-o", "many/out", "--json")
    summary = again.documents[-1]["summary"]
    assert (again.code, summary["pictures"], summary["failed"]) == (0, 60, 0)
    assert summary["skipped"] == len(written)
    visible = [name for name in files("many/out") if not is_temporary(Path(name).name)]
    assert visible == [f"{number:03}.png" for number in range(60)]


FIRST_SIGNAL_IN_A_LONG_IMAGE = """
import os, signal, sys, time
from cyclegan_cli.cli.app import app
from cyclegan_cli.translation.file_stages import FileStages
def translate(work, image):
    print("translating", flush=True)
    time.sleep(600)
FileStages.translate = translate
app(sys.argv[1:])
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.slow
def test_second_signal_exits_during_long_image(here, start_python, number, code):
    process = start_python(
        "-c", FIRST_SIGNAL_IN_A_LONG_IMAGE, "translate", "photos", "-o", "out",
        "--precision", "fp32",
    )  # fmt: skip
    assert process.stdout.readline() == "translating\n"
    # Python handles a signal that comes just before the main thread waits for the image after it.
    time.sleep(1)
    process.send_signal(number)
    assert "checkpoint" in process.stderr.readline()
    assert "repeat to stop at once" in process.stderr.readline()
    process.send_signal(number)
    assert process.wait(timeout=120) == code
    assert not Path("out").exists() or files("out") == []


@pytest.mark.slow
def test_small_disk_stops_and_keeps_written_images(here, draw):
    for number in range(40):
        draw(Path(f"many/{number:02}.bmp"), (96, 96))  # 27 KiB each.
    Path("out").mkdir()
    script = '"$@"; code=$?; cp -a out kept; exit $code'
    done = subprocess.run(
        [*small_disk(Path("out"), 256), "sh", "-c", script, "sh", *COMMAND, "many", "-o", "out",
         "--json"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert errors[0].endswith("no space left on device")
    *documents, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert last["summary"]["stopped"] == "disk full"
    assert 1 <= last["summary"]["ok"] < 40
    assert files("kept") == sorted(Path(document["output"]).name for document in documents)
    for name in files("kept"):
        with Image.open(Path("kept", name)) as image:
            image.load()
