"""The command ``cyclegan export``; ``tests/exporting`` tests the exporter."""

import shutil
from pathlib import Path

import pytest

from cyclegan_cli.checkpoints.locate import read_checkpoint
from cyclegan_cli.exporting import exporter
from cyclegan_cli.exporting.exporter import Report
from cyclegan_cli.exporting.job import FORMATS, Job
from cyclegan_cli.exporting.verify import Check, Verification


@pytest.fixture
def here(tmp_path, run_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(run_folder, tmp_path / "run")


@pytest.fixture
def jobs(monkeypatch):
    """Exports take seconds: what the command asks for is noted instead."""
    noted: list[Job] = []

    def export(job):
        noted.append(job)
        check = Check("noise", (1, 64, 48), 1.5e-6, 2e-7, 130.04)
        one = {"a2b": ("day", "night"), "b2a": ("night", "day")}[job.directions[0]]
        document = {
            "from": one[0],
            "to": one[1],
            "source": {"file": "model.safetensors", "sha256": "12ab"},
            "versions": {"torch": "2.9"},
        }
        held_out = job.precision == "int8"
        judged = (check,)
        checks = (check, check) if held_out else judged
        return Report(job, document, Verification(checks, judged), {job.output.name: "34cd"}, 4567)

    monkeypatch.setattr(exporter, "export", export)
    return noted


@pytest.mark.parametrize("named", ["run", "run/model.safetensors", "run/state.safetensors"])
def test_export_of_a_run_or_file(cyclegan, here, jobs, named):
    answer = cyclegan("export", named, "-o", "x.onnx")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines() == [
        "x.onnx (day -> night): onnx fp32, 4,567 bytes",
        "difference to the network: largest 1.5e-06, mean 2e-07, PSNR 130.0 dB",
        "compared on: noise 1x64x48",
        "versions: torch 2.9",
        "sha256: 12ab  model.safetensors (source)",
        "sha256: 34cd  x.onnx",
    ]
    file = "run/model.safetensors" if named == "run" else named
    assert jobs == [Job(read_checkpoint(Path(file)), ("a2b",), Path("x.onnx"), FORMATS["onnx"])]


@pytest.mark.parametrize(
    ("options", "written"),
    [
        (["--to", "night"], {"day2night.onnx": ("a2b",)}),
        (["--to", "day", "--format", "pt2"], {"night2day.pt2": ("b2a",)}),
        (["--direction", "both"], {"day2night.onnx": ("a2b",), "night2day.onnx": ("b2a",)}),
    ],
)
def test_default_outputs_follow_the_domains(cyclegan, here, jobs, options, written):
    assert cyclegan("export", "run", *options).code == 0
    assert {str(job.output): job.directions for job in jobs} == written


def test_options_reach_the_job(cyclegan, here, jobs, images):
    shutil.copy("run/model.safetensors", "run/best.safetensors")
    answer = cyclegan(
        "export", "run", "--precision", "int8", "--calibration", images, "--min-psnr", "40",
        "--image-io", "--which", "best",
    )  # fmt: skip
    assert answer.code == 0
    assert "compared on: 1 held-out images" in answer.out
    [job] = jobs
    assert (job.precision, job.calibration, job.min_psnr) == ("int8", images, 40.0)
    assert (job.image_io, job.checkpoint.path) == (True, Path("run/best.safetensors"))


def test_json_has_one_line_per_file(cyclegan, here, jobs):
    answer = cyclegan("export", "run", "--direction", "both", "-o", "out", "--json")
    assert (answer.code, answer.err) == (0, "")
    first, second = answer.documents
    assert (first["output"], second["output"]) == ("out/day2night.onnx", "out/night2day.onnx")
    assert (second["from"], second["to"]) == ("night", "day")
    assert first["verification"]["psnr"] == 130.04
    assert first["sha256"] == {"day2night.onnx": "34cd"}
    assert first["bytes"] == 4567


def test_safetensors_export_end_to_end(cyclegan, here):
    answer = cyclegan("export", "run", "--format", "safetensors", "--precision", "fp16", "--json")
    assert answer.code == 0
    [document] = answer.documents
    assert document["output"] == "day2night.safetensors"
    assert document["bytes"] == Path("day2night.safetensors").stat().st_size
    assert cyclegan("inspect", "day2night.safetensors").code == 0
    again = cyclegan("export", "day2night.safetensors", "--direction", "b2a", "--format", "pt2")
    assert again.code == 4
    assert "not in the other direction" in again.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "--to", "noon"], 2, "--to noon: the domains of this checkpoint are 'day'"),
        (["run", "--to", "day", "--direction", "b2a"], 2, "--to and --direction exclude"),
        (["run", "--precision", "bf16"], 2, "--precision bf16 is not supported by onnx"),
        (["run", "-o", "old.onnx"], 2, "-o old.onnx already exists"),
        (["run", "-o", "run", "--overwrite"], 2, "-o run already exists"),
        (["old.onnx", "--which", "best"], 2, "--which best chooses within a run folder"),
        (["run", "--which", "best"], 4, "the folder run has no best.safetensors"),
        (
            ["run", "--precision", "int8", "--calibration", "run/samples"],
            3,
            "--calibration run/sam",
        ),
        (["old.onnx"], 4, "old.onnx is not a safetensors file"),
    ],
)
def test_invalid_exports_are_refused_in_one_line(cyclegan, here, jobs, arguments, code, message):
    Path("old.onnx").write_text("old")
    answer = cyclegan("export", *arguments)
    assert (answer.code, answer.out, jobs) == (code, "", [])
    [line] = answer.errors
    assert line.startswith(f"error: {message}")
    assert Path("old.onnx").read_text() == "old"


def test_overwrite_never_replaces_the_checkpoint(cyclegan, here, jobs):
    Path("old.onnx").write_text("old")
    assert cyclegan("export", "run", "-o", "old.onnx", "--overwrite").code == 0
    assert len(jobs) == 1
    model = Path("run/model.safetensors")
    content = model.read_bytes()
    answer = cyclegan("export", "run", "--format", "safetensors", "-o", model, "--overwrite")
    assert (answer.code, model.read_bytes()) == (2, content)
    assert answer.errors == [f"error: -o {model} is the checkpoint itself"]
