"""Standard input and output under their file names, and closed."""

import io
import subprocess
import sys

import pytest
from PIL import Image

from cyclegan_cli.cli.console import binary_stdout
from cyclegan_cli.errors import UsageError
from images import encoded, noise


def test_closed_standard_output_is_reported(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(UsageError, match="standard output is closed"):
        binary_stdout()


@pytest.mark.skipif(sys.platform == "win32", reason="names of Unix")
def test_dev_stdin_and_dev_stdout(run_folder, clean_environment):
    command = [sys.executable, "-m", "cyclegan_cli", "translate", "/dev/stdin", "-o", "/dev/stdout"]
    options = ["--checkpoint", str(run_folder), "--device", "cpu", "--quiet"]
    done = subprocess.run(
        [*command, *options], input=encoded(noise(20, 12), "PNG"), capture_output=True
    )
    assert done.returncode == 0, done.stderr
    with Image.open(io.BytesIO(done.stdout)) as image:
        assert image.size == (20, 12)
