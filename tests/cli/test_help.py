"""Help texts word by word; after a wanted change, python tests/cli/test_help.py rewrites them.

And docs/commands.md and the manual page, docs/man/cyclegan.1, with them.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"
COMMANDS = ["", "train", "translate", "export", "inspect"]


def help_text(command: str) -> str:
    """The help as one line an option, without frames: those change with rich's versions."""
    done = subprocess.run(
        [sys.executable, "-m", "cyclegan_cli", *command.split(), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "400", "TERM": "dumb", "NO_COLOR": "1"},
    )
    lines = [re.sub(r"[\s─│╭╮╰╯]+", " ", line).strip() for line in done.stdout.splitlines()]
    return "\n".join(line for line in lines if line) + "\n"


def golden_file(command: str) -> Path:
    return GOLDEN / f"{command or 'cyclegan'}.txt"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_equals_the_golden_files(command):
    assert help_text(command) == golden_file(command).read_text()


def test_commands_page_is_up_to_date():
    import command_reference

    assert command_reference.page() == command_reference.PAGE.read_text(encoding="utf-8")


def test_manual_page_is_up_to_date():
    import manual

    assert manual.page() == manual.PAGE.read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("groff") is None, reason="there is no groff")
def test_the_manual_is_set_without_a_warning():
    import manual

    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", str(manual.PAGE)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    text = re.sub(r"\x1b\[[0-9;]*m|.\x08", "", done.stdout)
    assert "cyclegan translate" in text
    assert "--domain-a DIR" in text


if __name__ == "__main__":
    sys.path.append(str(GOLDEN.parents[1]))
    import command_reference
    import manual

    for made in (command_reference, manual):
        made.PAGE.parent.mkdir(exist_ok=True)
        made.PAGE.write_text(made.page(), encoding="utf-8")
    for name in COMMANDS:
        golden_file(name).write_text(help_text(name))
