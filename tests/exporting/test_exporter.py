"""Formats other than ONNX, the report, and atomic writes."""

import hashlib
import json
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from cyclegan_cli.checkpoints.header import read_header, read_model_info
from cyclegan_cli.checkpoints.locate import read_checkpoint
from cyclegan_cli.checkpoints.store import load_generator
from cyclegan_cli.errors import CheckpointError, ExportError, OutputError
from cyclegan_cli.exporting import exporter
from cyclegan_cli.exporting.exporter import export
from cyclegan_cli.exporting.job import FORMATS, Job
from cyclegan_cli.translation.translator import Translator, TranslatorOptions


def noise(batch: int, height: int, width: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(5)
    return torch.rand(batch, 3, height, width, generator=random) * 2 - 1


# safetensors


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", "F32"), ("fp16", "F16"), ("bf16", "BF16")]
)
def test_safetensors_export_of_one_direction(exported, precision, dtype, checkpoint):
    report = exported("safetensors", precision=precision, directions=("b2a",))
    file = report.job.output
    header = read_header(file)
    assert {tensor.dtype for tensor in header.tensors.values()} == {dtype}
    assert {name.split(".")[0] for name in header.tensors} == {"generator_b2a"}
    assert read_model_info(file).directions == ("b2a",)
    assert header.document["export"]["precision"] == precision
    exact = TranslatorOptions("cpu", "fp32")
    ours, theirs = (Translator.load(path, "b2a", options=exact) for path in (file, checkpoint))
    difference = (ours.translate(noise(1, 30, 41)) - theirs.translate(noise(1, 30, 41))).abs().max()
    assert difference <= {"fp32": 0, "fp16": 0.02, "bf16": 0.2}[precision]
    with pytest.raises(CheckpointError, match="not in the other direction"):
        load_generator(file, "a2b")


def test_safetensors_export_of_both_directions(exported, tiny_model):
    report = exported("safetensors", directions=("a2b", "b2a"))
    for direction in ("a2b", "b2a"):
        generator, _ = load_generator(report.job.output, direction)
        expected = tiny_model.networks()[f"generator_{direction}"].state_dict()
        assert all(torch.equal(v, expected[k]) for k, v in generator.state_dict().items())
    assert report.document["to"] == ["night", "day"]
    assert report.verification.psnr is None


def test_exported_checkpoint_can_be_exported_again(exported, tmp_path):
    first = exported("safetensors", precision="bf16", directions=("b2a",))
    again = export(
        Job(
            read_checkpoint(first.job.output),
            ("b2a",),
            tmp_path / "y.safetensors",
            FORMATS["safetensors"],
            "bf16",
        )
    )
    assert again.verification.psnr is None  # No second rounding.
    assert read_header(again.job.output).tensors == read_header(first.job.output).tensors


# pt2


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("fp16", 0.03)])
@pytest.mark.slow
def test_pt2_has_dynamic_batch_and_size(exported, tiny_model, precision, tolerance):
    report = exported("pt2", precision=precision)
    model = torch.export.load(report.job.output).module()
    for size in ((1, 8, 8), (3, 20, 36), (2, 63, 130)):
        with torch.no_grad():
            expected = tiny_model.generator_a2b(noise(*size))
        found = model(noise(*size))
        assert found.dtype == torch.float32
        assert (found - expected).abs().max() < tolerance


def test_pt2_has_the_document(exported):
    extra = {"cyclegan.json": ""}
    torch.export.load(exported("pt2").job.output, extra_files=extra)
    section = json.loads(extra["cyclegan.json"])["export"]
    assert (section["format"], section["to"]) == ("pt2", "night")
    assert section["verification"]["largest_difference"] < 1e-4


def test_pt2_has_no_local_paths(exported):
    content = exported("pt2").job.output.read_bytes()
    assert b".py" not in content
    assert b"/home/" not in content


# OpenVINO


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("fp16", 0.03)])
@pytest.mark.slow
def test_openvino_computes_the_same(exported, tiny_model, precision, tolerance):
    openvino = pytest.importorskip("openvino", reason="the extra [openvino] is not installed")
    report = exported("openvino", precision=precision)
    core = openvino.Core()
    model = core.read_model(report.job.output)  # Finds its .bin by the name.
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for size in ((1, 8, 8), (3, 20, 36), (2, 63, 130)):
        with torch.no_grad():
            expected = tiny_model.generator_a2b(noise(*size))
        found = torch.from_numpy(compiled(noise(*size).numpy())["translation"])
        assert (found - expected).abs().max() < tolerance
    document = json.loads(model.get_rt_info(["cyclegan"]).astype(str))
    assert document["export"]["verification"] == report.verification.to_document()
    assert {path.name for path in report.job.output.parent.iterdir()} == {"x.xml", "x.bin"}
    assert set(report.sha256) == {"x.xml", "x.bin"}


# All formats


@pytest.mark.parametrize("name", ["onnx", "pt2", "safetensors"])
@pytest.mark.slow
def test_report_has_digests_of_source_and_output(exported, name, checkpoint):
    report = exported(name)
    document = report.to_document()
    content = report.job.output.read_bytes()
    assert document["sha256"] == {report.job.output.name: hashlib.sha256(content).hexdigest()}
    assert document["bytes"] == len(content)
    assert document["source"] == {
        "file": "model.safetensors",
        "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
    }
    assert json.loads(json.dumps(document, allow_nan=False)) == document


class WrongFormat:
    """A format whose files compute something else."""

    def convert(self, job, generators):
        def save(paths, document):
            paths[0].write_text("wrong")

        generator = generators["a2b"]
        return exporter.ConvertedModel(save, lambda paths, _: lambda images: -generator(images))


def test_unverified_export_keeps_the_old_file(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "import_module", lambda name: WrongFormat())
    (tmp_path / "x.pt2").write_text("old")
    with pytest.raises(ExportError, match="differs from the network by"):
        export(Job(read_checkpoint(checkpoint), ("a2b",), tmp_path / "x.pt2", FORMATS["pt2"]))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_unwritable_output_is_refused_before_conversion(checkpoint, tmp_path, monkeypatch):
    class NeverConverts:
        def convert(self, *arguments):
            raise AssertionError("converted")

    monkeypatch.setattr(exporter, "import_module", lambda name: NeverConverts())
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        export(
            Job(read_checkpoint(checkpoint), ("a2b",), tmp_path / "file" / "x.pt2", FORMATS["pt2"])
        )


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow beyond some bytes: every writer fails as it does on a full disk.

    pytest's own report may be a file too, so that nothing but the writer may run inside.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["onnx", "pt2", "safetensors", "pth", "openvino"])
@pytest.mark.slow
def test_full_disk_leaves_no_files(name, checkpoint, tmp_path, monkeypatch, exported):
    if name in ("onnx", "openvino"):
        import onnx

        from cyclegan_cli.exporting import onnx as exporting

        ready = onnx.load(exported("onnx").job.output)
        monkeypatch.setattr(exporting, "to_onnx", lambda *_: ready)
    if name == "openvino":
        pytest.importorskip("openvino", reason="the extra [openvino] is not installed")
        from cyclegan_cli.exporting import openvino as exporting

        monkeypatch.setattr(exporting, "to_onnx", lambda *_: ready)
    job = Job(
        read_checkpoint(checkpoint),
        ("a2b",),
        tmp_path / f"x{FORMATS[name].extensions[0]}",
        FORMATS[name],
    )
    with pytest.raises(OutputError) as caught, full_disk():
        export(job)
    place = f"{tmp_path / 'x.'}"
    if name == "openvino":
        place = f"to the folder for temporary files, {tempfile.gettempdir()}: openvino failed"
    assert caught.value.message.startswith(f"cannot write {place}")
    assert list(tmp_path.iterdir()) == []


def test_int8_without_temporary_space_names_the_folder(
    checkpoint, images, tmp_path, monkeypatch, exported
):
    import onnx

    from cyclegan_cli.exporting import onnx as exporting

    ready = onnx.load(exported("onnx").job.output)
    monkeypatch.setattr(exporting, "to_onnx", lambda *_: ready)
    job = Job(
        read_checkpoint(checkpoint),
        ("a2b",),
        tmp_path / "x.onnx",
        FORMATS["onnx"],
        "int8",
        calibration=images,
    )
    with pytest.raises(OutputError) as caught, full_disk():
        export(job)
    place = f"the folder for temporary files, {tempfile.gettempdir()}: "
    assert caught.value.message.startswith(f"cannot write to {place}")
    assert "TMPDIR" in (caught.value.hint or "")
    assert list(tmp_path.iterdir()) == []
