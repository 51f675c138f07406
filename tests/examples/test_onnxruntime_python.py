"""The example translates as ``cyclegan translate`` does, and without torch."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclegan_cli.checkpoints.locate import read_checkpoint
from cyclegan_cli.exporting.exporter import export
from cyclegan_cli.exporting.job import FORMATS, Job
from cyclegan_cli.translation.translator import Translator, TranslatorOptions

SCRIPT = Path(__file__).parents[2] / "examples" / "onnxruntime-python" / "translate.py"


@pytest.mark.parametrize("image_io", [False, True])
@pytest.mark.slow
def test_example_output_equals_translator(traced_once, checkpoint, draw, tmp_path, image_io):
    model = tmp_path / "x.onnx"
    export(Job(read_checkpoint(checkpoint), ("a2b",), model, FORMATS["onnx"], image_io=image_io))
    image = draw(tmp_path / "in.png", size=(45, 31))
    # An import of torch or this package fails.
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for name in ("torch.py", "cyclegan_cli.py"):
        (blocked / name).write_text("raise ImportError('the example must do without')")
    done = subprocess.run(
        [sys.executable, SCRIPT, model, image, tmp_path / "out.png"],
        env=os.environ | {"PYTHONPATH": str(blocked)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{image} (day) -> {tmp_path / 'out.png'} (night)\n"
    found = np.asarray(Image.open(tmp_path / "out.png")).astype(int)
    exact = TranslatorOptions("cpu", "fp32")
    expected = Translator.load(checkpoint, options=exact)(Image.open(image))
    assert np.abs(found - np.asarray(expected)).max() <= 1
