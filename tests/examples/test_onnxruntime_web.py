"""The example's page in a real browser: load, choose an image, see its translation."""

import base64
import functools
import http.server
import io
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from browser import needs_chromium, new_page

PAGE = Path(__file__).parents[2] / "examples" / "onnxruntime-web"
MODULES = Path(os.environ.get("CYCLEGAN_NODE_MODULES", PAGE / "node_modules"))
RUNTIME_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")

pytestmark = [
    needs_chromium,
    pytest.mark.usefixtures("traced_once"),
    pytest.mark.skipif(
        not (MODULES / "onnxruntime-web").is_dir(),
        reason="npm install was not run in examples/onnxruntime-web",
    ),
]


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def site(tmp_path):
    """A copy of the page with what its README says that it needs, and the address it is served at;
    without a model."""
    folder = tmp_path / "site"
    shutil.copytree(PAGE, folder, ignore=shutil.ignore_patterns("node_modules", "model.onnx"))
    runtime = Path("onnxruntime-web", "dist")
    (folder / "node_modules" / runtime).mkdir(parents=True)
    for name in RUNTIME_FILES:
        (folder / "node_modules" / runtime / name).symlink_to(MODULES / runtime / name)
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def browse(url: str, image: Path) -> dict[str, Any]:
    """Open the page, choose an image if that can be done, and report what came of it."""
    status = "document.getElementById('status').textContent"
    with new_page() as page:
        page.open(url)
        page.wait_for(f"!{status}.endsWith('…')")
        found = {"loaded": page.run(status), "pixels": None}
        before = len(page.requests)
        if page.run("!document.getElementById('image').disabled"):
            page.choose_file("#image", image)
            page.wait_for(f"{status} !== 'choose one' && !{status}.endsWith('…')")
            found["pixels"] = page.run("document.getElementById('after').toDataURL('image/png')")
        found |= {"status": page.run(status), "requests": page.requests, "problems": page.problems}
        found["requests_after_choosing"] = [r for r in page.requests[before:] if "data:" not in r]
    return found


def test_browser_translation_equals_command_and_makes_no_requests(
    cyclegan, draw, checkpoint, site, tmp_path
):
    folder, url = site
    image = draw(tmp_path / "in.png", size=(101, 66))
    model = folder / "model.onnx"
    assert cyclegan("export", checkpoint, "--image-io", "-o", model).code == 0
    output = tmp_path / "out.png"
    options = ("--checkpoint", checkpoint, "--precision", "fp32")
    translated = cyclegan("translate", image, "-o", output, *options)
    assert translated.code == 0
    found = browse(url, image)
    assert found["problems"] == []
    assert found["loaded"] == "choose one"
    assert found["status"].startswith("101 × 66 pixels in ")
    content = base64.b64decode(found["pixels"].partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    assert np.abs(pixels - np.asarray(Image.open(output).convert("RGB"))).max() <= 1
    assert found["requests_after_choosing"] == []
    assert all(line.startswith(f"GET {url}") for line in found["requests"] if "data:" not in line)


@pytest.mark.parametrize("model", [None, "plain"])
def test_missing_or_wrong_model_shows_an_error(cyclegan, draw, checkpoint, site, tmp_path, model):
    folder, url = site
    sentence = "failed: there is no model.onnx beside this page (404)"
    if model:
        assert cyclegan("export", checkpoint, "-o", folder / "model.onnx").code == 0
        sentence = "failed: model.onnx takes no pixels: export it with --image-io"
    found = browse(url, draw(tmp_path / "in.png"))
    assert (found["status"], found["pixels"]) == (sentence, None)
