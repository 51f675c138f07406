"""What TensorBoard itself reads out of the files that a run leaves for it."""

import csv
import io
from importlib import util
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from cyclegan_cli.errors import OutputError, UsageError
from cyclegan_cli.models.cyclegan import LOSS_NAMES
from cyclegan_cli.training.callbacks.logging import GRADIENT_COLUMNS
from cyclegan_cli.training.callbacks.tensorboard import TensorBoardLogger
from cyclegan_cli.training.plan import plan_new, plan_resumed
from cyclegan_cli.training.trainer import train
from runs import Recorder, make_config

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


class PowerCut(BaseException):
    """Nothing of the program gets to do anything about it."""


class CutOff(Recorder):
    """The power goes after a step."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.last = last

    def on_step_end(self, run, losses):
        super().on_step_end(run, losses)
        if run.step == self.last:
            raise PowerCut


@pytest.fixture
def watched(config, tmp_path):
    return make_config(
        tmp_path, run_dir=tmp_path / "run", tensorboard=True, log_every=1, sample_every=2,
        checkpoint_every=3, val_a=tmp_path / "day", val_b=tmp_path / "night", validate_every=3,
    )  # fmt: skip


def events_of(run: Path):
    read = accumulator.EventAccumulator(
        str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0}
    )
    read.Reload()
    return read


def scalars(events, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events.Scalars(tag)]


def column(path: Path, name: str) -> list[tuple[int, float]]:
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [(int(row["step"]), pytest.approx(float(row[name]), rel=1e-4)) for row in rows]


def test_tensorboard_scalars_match_tables(watched):
    train(plan_new(watched))
    events = events_of(watched.run_dir)
    metrics, validation = (watched.run_dir / f"{name}.csv" for name in ("metrics", "validation"))
    for name in LOSS_NAMES:
        assert scalars(events, f"loss/{name}") == column(metrics, name)
    for name in ("learning_rate", "images_per_second"):
        assert scalars(events, name) == column(metrics, name)
    for name in ("swd_a2b", "diversity_b2a", "cycle_a"):
        assert scalars(events, f"quality/{name}") == column(validation, name)


def test_tensorboard_images_are_the_sample_grids(watched):
    train(plan_new(watched))
    found = events_of(watched.run_dir).Images("samples")
    assert [image.step for image in found] == [2, 4, 6, 7]
    grid = watched.run_dir / "samples" / "step_00000004.jpg"
    assert found[1].encoded_image_string == grid.read_bytes()
    with Image.open(io.BytesIO(grid.read_bytes())) as opened:
        assert (found[1].width, found[1].height) == opened.size


def test_tensorboard_events_after_crash_are_unique(watched):
    with pytest.raises(PowerCut):
        train(plan_new(watched), [CutOff(6)])
    assert [step for step, _ in scalars(events_of(watched.run_dir), "loss/cycle_a")][-1] == 5
    train(plan_resumed(watched.run_dir, {}))  # From step 3.
    events = events_of(watched.run_dir)
    assert [step for step, _ in scalars(events, "loss/cycle_a")] == [1, 2, 3, 4, 5, 6, 7]
    assert [step for step, _ in scalars(events, "quality/swd_a2b")] == [3, 6, 7]
    assert [image.step for image in events.Images("samples")] == [2, 4, 6, 7]


def test_incomplete_event_record_is_harmless(watched):
    with pytest.raises(PowerCut):
        train(plan_new(watched), [CutOff(5)])
    [path] = (watched.run_dir / "tensorboard").iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    train(plan_resumed(watched.run_dir, {}))
    found = scalars(events_of(watched.run_dir), "loss/cycle_a")
    assert [step for step, _ in found] == [1, 2, 3, 4, 5, 6, 7]


def test_no_tensorboard_folder_by_default(config):
    train(plan_new(config))
    assert not (config.run_dir / "tensorboard").exists()


@pytest.fixture
def not_installed(monkeypatch):
    real = util.find_spec
    monkeypatch.setattr(
        "cyclegan_cli.training.plan.find_spec",
        lambda name: None if name == "tensorboard" else real(name),
    )


def test_tensorboard_without_package_is_a_usage_error(watched, not_installed):
    with pytest.raises(UsageError, match="--tensorboard needs the package tensorboard") as caught:
        plan_new(watched)
    assert "pip install" in caught.value.hint
    assert not watched.run_dir.exists()


def test_resume_without_tensorboard_package(watched, monkeypatch, request):
    with pytest.raises(PowerCut):
        train(plan_new(watched), [CutOff(4)])
    request.getfixturevalue("not_installed")
    with pytest.raises(UsageError, match="not installed"):
        plan_resumed(watched.run_dir, {})
    train(plan_resumed(watched.run_dir, {"tensorboard": False}))


def test_full_disk_is_an_output_error(watched):
    board = TensorBoardLogger()
    run = SimpleNamespace(plan=plan_new(watched))
    board.on_train_begin(run)
    board.close(run)
    board.stream = Path("/dev/full").open("r+b", buffering=0)  # noqa: SIM115 closed below
    with pytest.raises(OutputError, match=r"cannot write .*tfevents\.000001: No space left"):
        names = ("step", "learning_rate", "images_per_second", *LOSS_NAMES, *GRADIENT_COLUMNS)
        board.on_log(run, dict.fromkeys(names, 1))
    board.close(run)
