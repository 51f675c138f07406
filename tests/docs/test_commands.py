"""Every command in the documents runs, on tiny images and networks."""

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import torch
from PIL import Image

import bands
import volumes
from cyclegan_cli.errors import InterruptedRunError
from cyclegan_cli.training.plan import plan_new
from cyclegan_cli.training.trainer import train
from documents import (
    DOCUMENTS,
    ROOT,
    Block,
    blocks,
    cyclegan_calls,
    is_operator,
    shell_blocks,
    words,
)
from original import original_generator
from preloaded import write_program
from runs import Recorder, draw_discs, make_config, stop_after
from videos import moving_square, write_video

BLOCKS = shell_blocks()
# Options that shrink a documented training.
TINY = {
    "--steps": "2", "--load-size": "36", "--crop-size": "32", "--discriminator-channels": "2",
    "--workers": "0", "--device": "cpu",
}  # fmt: skip
TINY_GENERATORS = {"--base-channels": "2", "--residual-blocks": "1"}
LENGTHS = {"--steps", "--epochs", "--decay-epochs", "--decay-steps"}


def shell_of(block: Block) -> str:
    return "\n".join(block.commands())


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language != "make"], ids=str)
def test_commands_are_valid_shell(block):
    done = subprocess.run(["bash", "-n"], input=shell_of(block), text=True, capture_output=True)
    assert not done.stderr


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_mentioned_files_exist(block):
    missing = []
    for word in (word for command in block.commands() for word in words(command)):
        path = word.split("=")[-1]
        if re.match(r"(\./)?(tests|examples|benchmarks|docs|src|\.ci)/", path):
            missing += [] if (ROOT / path).exists() else [path]
    assert not missing


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_mentioned_extras_exist(block):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].keys()
    named = re.findall(r"(?:\.|cyclegan-cli)\[([\w,]+)\]", block.text)
    assert {one for names in named for one in names.split(",")} <= extras


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_benchmark_options_exist(block):
    for command in block.commands():
        scripts = [word for word in words(command) if word.startswith("benchmarks/")]
        for script in scripts:
            code = (ROOT / script).read_text()
            options = [word for word in words(command) if word.startswith("--")]
            assert [one for one in options if f'"{one}"' not in code] == []


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A folder with everything that the documents have commands for."""
    folder = tmp_path_factory.mktemp("documents")
    draw_discs(folder / "day", 0, (250, 250, 200), (90, 160, 230))
    draw_discs(folder / "night", 1, (200, 200, 90), (10, 10, 40))
    recorder = Recorder()
    validation = {"validate_every": 2, "val_fraction": 0.2}  # It leaves a best model.
    # The original's layout has no layers for blurs.
    config = make_config(
        folder,
        run_dir=folder / "runs" / "day2night",
        resampling="strided",
        norms="all",
        **validation,
    )
    with pytest.raises(InterruptedRunError):  # So that there is something to resume.
        train(plan_new(config), [recorder], stop_after(recorder, 3), float("inf"))
    _copy_images(folder)
    _copy_checkpoints(folder)
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=lambda *_: ["node_modules"])
    (folder / "list.txt").write_text("photos/a/1.png\nphotos/2.jpg\n")
    return folder


def _copy_images(folder: Path) -> None:
    image = Image.open(folder / "day" / "0.png")
    for name in ("photo.jpg", "photos/a/1.png", "photos/2.jpg", "photos/b/3.jpg", "day/photo.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name)
    mask = Image.new("L", image.size)
    mask.paste(255, (4, 4, 20, 30))
    for name in ("photo_mask.png", "masks/a/1.png", "masks/2.png", "masks/b/3.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        mask.save(folder / name)
    for path in [*(folder / "day").iterdir(), *(folder / "night").iterdir()]:
        target = folder / "masks" / path.parent.name / f"{path.stem}.png"
        target.parent.mkdir(exist_ok=True)
        mask.save(target)
    for name in ("labels/a/1.txt", "labels/2.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("0 0.5 0.5 0.25 0.25\n")
    bands.draw_domains(folder, 2)
    volumes.draw_volumes(folder, 2)
    # As long as the times in the documents require.
    write_video(folder / "drive.mp4", moving_square(9), times=range(0, 90_000, 10_000))
    for name in ("drive_mask.mp4", "videos/drive.mp4", "masks/drive.mp4"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "drive.mp4", folder / name)
    for name in ("train/day", "test/day", "train/fluent", "test/fluent"):
        shutil.copytree(folder / "day", folder / name)
    for name in ("train/night", "test/night", "train/noto"):
        shutil.copytree(folder / "night", folder / name)


def _copy_checkpoints(folder: Path) -> None:
    shutil.copytree(folder / "runs" / "day2night", folder / "runs" / "fluent2noto")
    (folder / "horse2zebra").mkdir()
    pair = ("horse2zebra/latest_net_G_A.pth", "horse2zebra/latest_net_G_B.pth")
    for name in (*pair, "latest_net_G_A.pth", "old.pth"):
        torch.save(original_generator().state_dict(), folder / name)
    (folder / "horse2zebra_cut_pretrained").mkdir()
    for name in ("horse2zebra_cut_pretrained/latest_net_G.pth", "latest_net_G.pth"):
        torch.save(original_generator(antialias=True).state_dict(), folder / name)


@pytest.fixture
def folder(prepared, tmp_path, monkeypatch):
    """A copy of the prepared folder to work in."""
    shutil.copytree(prepared, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def simple_calls(command: str) -> list[list[str]]:
    """The calls of a line that is nothing but calls of cyclegan, one after the other; else none."""
    if "$" in command or "`" in command:
        return []
    parts: list[list[str]] = [[]]
    for word in words(command):
        if word == "&&":
            parts.append([])
        elif is_operator(word):
            return []
        else:
            parts[-1].append(word)
    parts = [part for part in parts if part[:1] != ["pip"]]
    return [part[1:] for part in parts] if all(p[:1] == ["cyclegan"] for p in parts) else []


def is_possible_here(call: list[str]) -> bool:
    return not any(re.match(r"cuda|mps", argument) for argument in call)


def made_small(call: list[str]) -> list[str]:
    """A documented training with as few steps, and as small networks, as can be.

    One that is resumed had seven steps before it.
    """
    if "--resume" in call:
        tiny = {"--steps": "9"} if LENGTHS & set(call) else {}
    else:
        tiny = TINY if "--init-from" in call else TINY | TINY_GENERATORS
    kept: list[str] = []
    rest = iter(call)
    for argument in rest:
        if argument in tiny.keys() | LENGTHS:
            next(rest)
        else:
            kept.append(argument)
    return [*kept, *(word for option in tiny.items() for word in option)]


SIMPLE = [block for block in BLOCKS if any(simple_calls(command) for command in block.commands())]


@pytest.mark.parametrize("block", SIMPLE, ids=str)
@pytest.mark.cpu_features
@pytest.mark.slow
def test_every_simple_command_runs(block, folder, cyclegan, known_cost, traced_once):
    calls = [call for command in block.commands() for call in simple_calls(command)]
    for call in filter(is_possible_here, calls):
        is_training = call[0] == "train" and "--help" not in call
        answer = cyclegan(*(made_small(call) if is_training else call))
        assert answer.code == 0, (call, answer.err)


def test_documents_contain_commands():
    assert len(SIMPLE) >= 8


def piped(command: str) -> bool:
    """Whether a line runs cyclegan together with programs that can be run here."""
    if (
        not cyclegan_calls(command)
        or simple_calls(command)
        or re.search("torchrun|cuda|docker", command)
    ):
        return False
    first = [command.split()[0], *re.findall(r"[|(]\s*([a-z][\w-]*)", command)]
    return all(shutil.which(one) or one in ("cyclegan", "for") for one in first)


PIPED = [
    block
    for block in BLOCKS
    if (block.language == "make" and shutil.which("make"))
    or any(piped(command) for command in block.commands())
]


@pytest.fixture
def shell(folder, clean_environment):
    """Runs a program in the folder, where ``cyclegan`` is a command and ``curl`` finds a photo."""
    commands = folder.parent / "bin"
    commands.mkdir()
    server = write_program(commands / "cyclegan")
    (commands / "curl").write_text(f"#!/bin/sh\nexec cat {shlex.quote(str(folder))}/photo.jpg\n")
    (commands / "curl").chmod(0o755)
    environment = os.environ | {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "SLURM_ARRAY_TASK_ID": "1",
        "SLURM_ARRAY_TASK_COUNT": "2",
    }

    def run(*arguments):
        done = subprocess.run(
            arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=240,
            pass_fds=[server],
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    return run


@pytest.mark.parametrize("block", PIPED, ids=str)
@pytest.mark.slow
def test_every_pipeline_runs(block, folder, shell):
    before = set(folder.rglob("*"))
    if block.language == "make":
        (folder / "Makefile").write_text(block.text)
        shell("make")
    is_script = block.language in ("bash", "sh")
    for command in [block.text] if is_script else block.commands():
        if block.language != "make" and (is_script or piped(command)):
            shell("bash", "-euo", "pipefail", "-c", command)
    written = {path.suffix for path in set(folder.rglob("*")) - before}
    # The first of many shards may be an empty one.
    assert written & {".jpg", ".png"} or "SLURM" in block.text


def test_readme_commands_are_run_by_the_gate():
    first = [block for block in blocks(ROOT / "README.md") if block.language == "console"][:2]
    run, test = (block.text.strip() for block in first)
    gate = (ROOT / ".ci" / "run").read_text()
    assert run.startswith("pip install . && cyclegan ")
    assert test == "pip install '.[test]' && pytest"
    assert re.search(r"^pip install --quiet '\.\[test\]'\n(wait .*\n)?pytest\n", gate, re.MULTILINE)
    inputs = [word for call in cyclegan_calls(run) for word in call if word.startswith("examples/")]
    assert inputs
    assert all(word in gate for word in inputs)


PROGRAMS = [
    block
    for document in DOCUMENTS
    for block in blocks(document)
    if block.language == "python" and "from cyclegan_cli" in block.text
]


@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_python_examples_run(block, folder):
    exec(compile(block.text, str(block), "exec"), {})
    assert (folder / "photo_night.png").exists()
