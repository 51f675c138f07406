"""The tiny model exported to all formats with graphs, which takes seconds: once per session."""

from importlib.util import find_spec

import pytest

import graphs
from cyclegan_cli.checkpoints.locate import read_checkpoint


@pytest.fixture(scope="session")
def exported_models(run_folder, tmp_path_factory):
    """The models by extension: ``onnx``, ``pt2``, and ``xml`` if OpenVINO is installed."""
    pytest.importorskip("onnxscript")
    from cyclegan_cli.exporting.exporter import export
    from cyclegan_cli.exporting.job import FORMATS, Job

    folder = tmp_path_factory.mktemp("exported")
    names = {"onnx": "onnx", "pt2": "pt2", "xml": "openvino"}
    if find_spec("openvino") is None:
        del names["xml"]
    source = read_checkpoint(run_folder / "model.safetensors")
    with graphs.traced_once():
        for extension, name in names.items():
            export(Job(source, ("a2b",), folder / f"x.{extension}", FORMATS[name]))
    return {extension: folder / f"x.{extension}" for extension in names}
