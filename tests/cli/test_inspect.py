"""``cyclegan inspect``: tables for humans, JSON for scripts."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cyclegan_cli.inspection import describe
from cyclegan_cli.inspection.comparison import compare
from original import original_generator


def rows(table: str) -> dict[str, str]:
    """Names and values of a table as it is printed."""
    lines = [line.strip().split("  ", 1) for line in table.splitlines()]
    return {line[0]: line[1].strip() for line in lines if len(line) == 2}


def test_run_is_shown_as_a_table(cyclegan, run_folder):
    answer = cyclegan("inspect", run_folder)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[0].startswith(f"{run_folder}: run")
    shown = rows(answer.out)
    assert shown["domains: a"] == "day"
    assert shown["generator: residual blocks"] == "1"
    assert shown["progress: of"] == "10"
    assert shown["resumable"] == "yes"
    assert shown["last metrics: cycle a"] == "0.25"


def test_large_numbers_are_grouped(cyclegan, checkpoint):
    assert rows(cyclegan("inspect", checkpoint).out)["bytes"] == f"{checkpoint.stat().st_size:,}"


@pytest.mark.parametrize("name", [".", "model.safetensors", "state.safetensors"])
def test_json_is_one_line(cyclegan, run_folder, name):
    answer = cyclegan("inspect", run_folder / name, "--json")
    assert (answer.code, answer.err) == (0, "")
    assert answer.documents == [describe(run_folder / name).to_document()]


def test_folder_of_images_lists_problems(cyclegan, tmp_path, draw, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw(Path("p/good.png"))
    Path("p/[red]y.png").touch()
    answer = cyclegan("inspect", "p")
    assert answer.code == 0
    assert rows(answer.out)["unreadable"] == "1"
    assert "p/[red]y.png is empty" in answer.out


def test_markup_in_a_name_is_printed_literally(cyclegan, tmp_path, draw, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw(Path("[bold]x[/bold].png"))
    answer = cyclegan("inspect", "[bold]x[/bold].png")
    assert answer.out.splitlines()[0].rstrip() == "[bold]x[/bold].png: image"


@pytest.mark.parametrize(
    ("name", "content", "code", "message"),
    [
        ("x" * 300, None, 3, ""),
        ("notes.txt", b"hello", 3, "notes.txt is not an image"),
        ("x.safetensors", b"damaged file", 4, "x.safetensors is not a safetensors file"),
    ],
)
def test_undescribable_paths_are_errors_of_one_line(
    cyclegan, tmp_path, monkeypatch, name, content, code, message
):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_bytes(content)
    answer = cyclegan("inspect", name)
    assert (answer.code, answer.out) == (code, "")
    [line] = answer.err.splitlines()
    assert line.startswith(f"error: {message}")


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8")
@pytest.mark.parametrize("options", [[], ["--json"]], ids=["table", "json"])
def test_names_that_are_not_utf_8_are_accepted(cyclegan_process, tmp_path, draw, options):
    name = os.fsdecode(b"\xff\xfe.png")
    os.rename(draw(tmp_path / "x.png"), tmp_path / name)
    answer = cyclegan_process("inspect", tmp_path / name, *options, errors="surrogateescape")
    assert (answer.code, answer.err) == (0, "")
    if options:
        assert json.loads(answer.out)["path"] == str(tmp_path / name)


def test_several_paths_are_described(cyclegan, run_folder, tmp_path, draw):
    photo = draw(tmp_path / "x.png")
    answer = cyclegan("inspect", run_folder, tmp_path / "gone", photo, "--json")
    assert [document["kind"] for document in answer.documents] == ["run", "picture"]
    assert answer.code == 6
    assert "there is no file or folder" in answer.errors[0]
    assert "1 of 3 could not be described" in answer.errors[1]


def test_two_checkpoints_are_described_and_compared(cyclegan, run_folder):
    pair = run_folder, run_folder / "state.safetensors"
    answer = cyclegan("inspect", *pair)
    assert (answer.code, answer.err) == (0, "")
    shown = rows(answer.out)
    assert shown["progress: of"] == "10"
    assert shown["discriminator: base channels"] == "2"
    assert f"{pair[0]} | {pair[1]}: comparison" in answer.out
    assert shown["same architecture"] == "yes"
    assert shown["weights: generator a2b: relative distance"] == "0"
    documents = cyclegan("inspect", *pair, "--json").documents
    assert [document["kind"] for document in documents] == ["run", "state", "comparison"]
    assert documents[2] == compare(*pair).to_document()


def test_missing_values_of_a_comparison_are_none(cyclegan, run_folder, tmp_path):
    torch.save(original_generator().state_dict(), tmp_path / "x.pth")
    shown = rows(cyclegan("inspect", run_folder, tmp_path / "x.pth").out)
    assert shown["differences: training.imported from"] == "none | x.pth"


def test_other_than_two_checkpoints_are_not_compared(
    cyclegan, run_folder, checkpoint, tmp_path, draw
):
    photo = draw(tmp_path / "x.png")
    for paths in ([checkpoint], [checkpoint, photo], [checkpoint] * 3, [photo, photo]):
        documents = cyclegan("inspect", *paths, "--json").documents
        assert len(documents) == len(paths)
    answer = cyclegan("inspect", checkpoint, tmp_path / "gone")
    assert (answer.code, "comparison" in answer.out) == (6, False)


def test_run_without_a_model_is_not_compared(cyclegan, run_folder, tmp_path):
    for name in ("config.toml", "metrics.csv"):
        (tmp_path / name).write_bytes((run_folder / name).read_bytes())
    answer = cyclegan("inspect", run_folder, tmp_path, "--json")
    assert (answer.code, len(answer.documents)) == (0, 2)


def test_health_is_one_line_per_verdict(cyclegan, run_folder, tmp_path):
    run = shutil.copytree(run_folder, tmp_path / "run")
    assert "health" not in rows(cyclegan("inspect", run).out)
    verdict = {"kind": "x", "step": 1200, "sentence": "It is ill.", "advice": "Heal it."}
    written: dict[str, Any] = {"schema": 1, "step": 2000, "verdicts": []}
    (run / "health.json").write_text(json.dumps(written))
    assert rows(cyclegan("inspect", run).out)["health"] == "healthy at step 2,000"
    (run / "health.json").write_text(json.dumps(written | {"verdicts": [verdict, verdict]}))
    out = cyclegan("inspect", run).out
    assert rows(out)["health"] == "It is ill. Heal it. (step 1,200)"
    assert out.count("It is ill.") == 2


def test_weights_are_listed_in_lines(cyclegan, checkpoint):
    out = cyclegan("inspect", checkpoint, "--weights", "--receptive-field").out
    assert "generator_a2b.head.weight  F32 [3, 2, 7, 7]" in out
    assert rows(out)["generator: receptive field"] == "51"
