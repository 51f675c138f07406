"""Shared fixtures: a tiny trained model on disk, small images, and the command line."""

import os

# Tiny networks: a second thread only waits, above all where other work runs on the same cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests see the same devices on every machine.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import json
import random
import re
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from hypothesis import settings
from PIL import Image
from typer.testing import CliRunner

import graphs
import preloaded
from cyclegan_cli.checkpoints.header import ModelInfo, StateInfo
from cyclegan_cli.checkpoints.locate import CONFIG_FILE, MODEL_FILE, STATE_FILE
from cyclegan_cli.checkpoints.store import library_versions, save_model, save_state
from cyclegan_cli.cli import console
from cyclegan_cli.cli.app import app
from cyclegan_cli.config import TrainConfig
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.runtime.devices import CPU_FEATURES_VARIABLE
from cyclegan_cli.training import estimate

# The same examples in every run, and no limit of time: other work may run on the same cores.
settings.register_profile("fixed", deadline=None, derandomize=True, database=None)
# `pytest --hypothesis-profile=search`: other examples in every run.
settings.register_profile("search", deadline=None, print_blob=True)
settings.load_profile("fixed")

# What CPUs have of what the product asks for: each test that depends on it runs with each.
CPU_FEATURES = {
    "avx2": "avx2",
    "avx512_bf16": "avx2,avx512_bf16",
    "amx": "avx2,avx512_bf16,amx_bf16",
}
# Reasons to skip a test that --no-skips accepts: what a machine or its user may lack.
ACCEPTED_SKIPS = re.compile(r"no GPU|not root|this drive |root may|Windows")
# What changes how the command line finds its checkpoint or draws its output.
UNWANTED_VARIABLES = (
    "CYCLEGAN_CHECKPOINT", "COLUMNS", "FORCE_COLOR", "GITHUB_ACTIONS", "LINES", "NO_COLOR",
    "PY_COLORS", "TERM", "TERMINAL_WIDTH",
)  # fmt: skip
DAY2NIGHT = TrainConfig(
    domain_a=Path("day"),
    domain_b=Path("night"),
    name_a="day",
    name_b="night",
    base_channels=2,
    residual_blocks=1,
    discriminator_channels=2,
    load_size=32,
    crop_size=32,
    pool_size=2,
    steps=10,
    ema=0,
    device="cpu",
)


@dataclass(frozen=True)
class Answer:
    """A command's exit code and output."""

    code: int
    out: str
    err: str

    @property
    def documents(self) -> list[dict[str, Any]]:
        """Stdout as JSON lines; anything else on it is an error."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def errors(self) -> list[str]:
        """The lines of stderr that are error messages."""
        return [line for line in self.err.splitlines() if line.startswith("error:")]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="fail where a test is skipped")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    _refuse_skip(item.config, report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    report = yield
    _refuse_skip(collector.config, report)
    return report


def pytest_sessionfinish() -> None:
    preloaded.close_server()


def _refuse_skip(config: pytest.Config, report: Any) -> None:
    """With --no-skips a skipped test has failed, unless the machine cannot have what it needs."""
    if not config.getoption("--no-skips") or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = str(report.longrepr[2])
    if not ACCEPTED_SKIPS.search(reason):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped, and --no-skips was given: {reason}"


@pytest.fixture(autouse=True)
def seeded():
    """Seed the global random generators."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(params=CPU_FEATURES)
def each_cpu(request, monkeypatch):
    """Run with each kind of CPU, whatever this machine has; the kind's name."""
    monkeypatch.setenv(CPU_FEATURES_VARIABLE, CPU_FEATURES[request.param])
    return str(request.param)


@pytest.fixture(scope="session")
def tiny_model():
    """A model after one step, so that optimisers and pools have a state; do not change it."""
    model = CycleGAN(DAY2NIGHT, torch.device("cpu"), bf16=False)
    with torch.no_grad():
        # As first drawn, the weights of the last layer make all images nearly grey, and of so few
        # channels, those of the trunk make its feature maps nearly constant.
        for generator in (model.generator_a2b, model.generator_b2a):
            generator.head.weight.mul_(5)
            for block in generator.trunk:
                block.first.conv.weight.mul_(10)
                block.second.weight.mul_(10)
    random = torch.Generator().manual_seed(0)
    real_a, real_b = torch.rand((2, 1, 3, 32, 32), generator=random) * 2 - 1
    model.step(real_a, real_b)
    return model


@pytest.fixture(scope="session")
def tiny_info(tiny_model):
    """The metadata of the tiny model."""
    return ModelInfo(
        kind="model",
        generator=tiny_model.generator_a2b.config,
        name_a="day",
        name_b="night",
        training={"step": 1, "epoch": 0.5, "crop_size": 32, "pictures_a": 2, "pictures_b": 2},
        versions=library_versions(),
    )


@pytest.fixture(scope="session")
def run_folder(tiny_model, tiny_info, tmp_path_factory):
    """A run folder as a training leaves it after step 1 of 10; copy it to change it."""
    folder = tmp_path_factory.mktemp("runs") / "day2night"
    save_model(folder / MODEL_FILE, tiny_model, tiny_info)
    state = StateInfo(
        model=ModelInfo(**vars(tiny_info) | {"kind": "state"}),
        discriminator=tiny_model.discriminator_a.config,
        config=DAY2NIGHT.to_document(),
        step=1,
        seconds=12.34,
        images="digest",
    )
    save_state(folder / STATE_FILE, tiny_model, state)
    (folder / CONFIG_FILE).write_text(tomli_w.dumps(DAY2NIGHT.to_document()))
    (folder / "metrics.csv").write_text("step,cycle_a\n1,0.25\n")
    (folder / "samples").mkdir()
    (folder / "samples" / "step_00000001.jpg").touch()
    return folder


@pytest.fixture(scope="session")
def checkpoint(run_folder):
    """The tiny model's checkpoint: two generators, day and night."""
    return run_folder / MODEL_FILE


@pytest.fixture(scope="module")
def traced_once():
    """Each network is traced for ONNX once per process."""
    with graphs.traced_once():
        yield


@pytest.fixture
def known_cost(monkeypatch):
    """``train --dry-run`` takes 2 s and 500 MB for a step, without a process that measures."""
    cost = estimate.StepCost(memory=500_000_000, seconds=2.0, steps=5)
    monkeypatch.setattr(estimate, "measure_steps", lambda plan: cost)


@pytest.fixture(scope="session")
def draw():
    """``draw(path, size=(13, 10), mode="RGB", **save_options)``: an image of smooth colours."""

    def draw_image(path, size=(13, 10), mode="RGB", **options):
        width, height = size
        x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
        levels = np.stack([x, y, (x + y) / 2, 1 - x * y], axis=2) * 255
        if mode == "I;16":
            image = Image.fromarray((levels[..., 2] * 257).astype(np.uint16))
        else:
            colours = levels if mode in ("RGBA", "LA") else levels[..., :3]
            image = Image.fromarray(colours.astype(np.uint8)).convert(mode)
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, **options)
        return path

    return draw_image


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A folder of nine images to calibrate with, of several sizes."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for index in range(9):
        coarse = random.integers(0, 256, (5, 6, 3)).astype(np.uint8)
        size = (40 + index, 33 + 2 * index)
        Image.fromarray(coarse).resize(size).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def fp32_settings():
    """Whether CUDA rounds fp32 to TF32, as it was before the test."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    yield
    cudnn.allow_tf32, matmul.allow_tf32 = before


@pytest.fixture
def clean_environment(monkeypatch):
    """No variable of the developer's shell changes what the command line does."""
    for name in UNWANTED_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cyclegan(clean_environment):
    """``cyclegan("translate", path, ...)``: the command line within this process."""

    def run(*arguments):
        # Rich decides about colours when a console is made, for the streams of that moment.
        console.stderr.cache_clear()
        # A bug is to fail the test with its own traceback.
        result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
        return Answer(result.exit_code, result.stdout, result.stderr)

    yield run
    console.stderr.cache_clear()


@pytest.fixture
def start_python(clean_environment):
    """``start_python("-m", "cyclegan_cli", ...)``: a real process, its stdout and stderr pipes."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments, **options):
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()


@pytest.fixture
def cyclegan_process(start_python):
    """``cyclegan_process("translate", path, ...)``: the command line in a subprocess."""

    def run(*arguments, **options):
        process = start_python("-m", "cyclegan_cli", *arguments, **options)
        out, err = process.communicate(timeout=120)
        return Answer(process.returncode, out or "", err or "")

    return run
