"""Shell completion."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def offered(folder: Path, line: str, *, options: tuple[str, ...] = ()) -> list[str]:
    """Words for the last word of a command line, which ends with a blank if that is empty."""
    words = line.split()
    environment = os.environ | {
        "_CYCLEGAN_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - (0 if line.endswith(" ") else 1)),
    }
    environment.pop("CYCLEGAN_CHECKPOINT", None)
    done = subprocess.run(
        [sys.executable, *options, "-m", "cyclegan_cli"],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == "" or options
    return done.stdout.split() if not options else done.stderr.splitlines()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("cyclegan tr", ["train", "translate"]),
        ("cyclegan translate --to ", ["night", "day"]),
        ("cyclegan translate --checkpoint day2night --to n", ["night"]),
        ("cyclegan translate --checkpoint tiny.safetensors --to ", ["night", "day"]),
        ("cyclegan translate --checkpoint nothing --to ", []),
        ("cyclegan export tiny.safetensors --to n", ["night"]),
        ("cyclegan translate --checkpoint ", ["day2night", "folder/", "tiny.safetensors"]),
        ("cyclegan translate --checkpoint t", ["tiny.safetensors"]),
        ("cyclegan export day", ["day2night"]),
        ("cyclegan train --resize-mode s", ["short-side", "stretch"]),
    ],
)
def test_words_are_offered(tmp_path, checkpoint, line, words):
    (tmp_path / "folder").mkdir()
    (tmp_path / "tiny.safetensors").write_bytes(checkpoint.read_bytes())
    assert offered(tmp_path, line) == words


def test_completion_imports_no_heavy_modules(tmp_path):
    imports = offered(tmp_path, "cyclegan translate --to ", options=("-X", "importtime"))
    loaded = {line.split("|")[-1].strip() for line in imports}
    assert "cyclegan_cli.checkpoints.locate" in loaded
    assert not loaded & {"torch", "numpy", "PIL", "PIL.Image"}


def test_bash_is_given_its_script():
    # By a shell, since it is the shell around it that is asked for.
    script = f"{sys.executable} -m cyclegan_cli --show-completion; true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert "_CYCLEGAN_COMPLETE=complete_bash" in done.stdout, done.stderr
