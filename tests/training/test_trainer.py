import csv
import dataclasses
import os
import shutil
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest
import torch
from PIL import Image

from cyclegan_cli.checkpoints.store import load_generator
from cyclegan_cli.config import TrainConfig
from cyclegan_cli.data import cache
from cyclegan_cli.errors import (
    DataError,
    DeviceError,
    DivergedError,
    InterruptedRunError,
    OutputError,
    UsageError,
)
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.training.callbacks import checkpointing
from cyclegan_cli.training.callbacks.health import Health
from cyclegan_cli.training.distributed import ProcessGroup
from cyclegan_cli.training.estimate import disk_space
from cyclegan_cli.training.plan import plan_new, plan_resumed
from cyclegan_cli.training.trainer import Trainer, default_callbacks, train
from runs import STEPS, Recorder, make_config, stop_after, train_until
from trainings import draw_domains


def test_run_folder_contents(config):
    recorder = Recorder()
    checkpoint = train(plan_new(config), [recorder])
    run = config.run_dir
    assert checkpoint == run / "model.safetensors"
    assert sorted(path.name for path in run.iterdir()) == [
        ".lock", "config.toml", "health.json", "index.html", "metrics.csv", "model.safetensors",
        "samples", "state.safetensors",
    ]  # fmt: skip
    assert sorted(path.name for path in (run / "samples").iterdir()) == [
        "step_00000004.jpg", "step_00000007.jpg",
    ]  # fmt: skip
    assert recorder.steps == list(range(1, STEPS + 1))
    with (run / "metrics.csv").open(newline="") as stream:
        assert [int(row["step"]) for row in csv.DictReader(stream)] == [3, 6, 7]


SHOW_THREADS = """
import sys
from pathlib import Path
import torch
from cyclegan_cli import TrainConfig, TrainingCallback, train

class Threads(TrainingCallback):
    def on_step_end(self, run, losses):
        print(torch.get_num_threads())

folder = Path(sys.argv[1])
train(TrainConfig(
    domain_a=folder / "day", domain_b=folder / "night", run_dir=folder / "run", steps=2,
    load_size=34, crop_size=32, base_channels=2, residual_blocks=1, discriminator_channels=2,
), [Threads()])
"""


@pytest.mark.slow
def test_all_threads_compute(tmp_path):
    """Loading threads set their number to 1, which other threads of a new process adopt."""
    draw_domains(tmp_path, 2, 2)

    def printed(code):
        command = [sys.executable, "-c", code, str(tmp_path)]
        two = os.environ | {"OMP_NUM_THREADS": "2"}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=two)
        return done.stdout.split()

    default = printed("import torch; print(torch.get_num_threads())")
    assert printed(SHOW_THREADS) == default * 2


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.usefixtures("fp32_settings")
def test_training_disables_tf32(tmp_path, config, precision):
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    run = make_config(tmp_path, run_dir=tmp_path / "run", steps=1, precision=precision)
    train(plan_new(run))
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_config_file_has_the_resolved_options(config):
    plan = plan_new(config)
    train(plan)
    document = tomllib.loads((config.run_dir / "config.toml").read_text())
    found = TrainConfig.from_document(document, "config.toml")
    # Without its own folder, so that the file can be fed back as it is.
    assert found == dataclasses.replace(plan.config, run_dir=None)


def test_checkpoint_metadata_after_training(config):
    train(plan_new(config))
    _, info = load_generator(config.run_dir / "model.safetensors", "a2b")
    assert (info.kind, info.name_a, info.name_b) == ("model", "day", "night")
    assert info.training == {
        "step": 7, "epoch": 1.4, "crop_size": 32, "load_size": 36, "gan_loss": "lsgan",
        "lambda_cycle": 10.0, "lambda_identity": 0.0, "lambda_color": 0.5, "ema": 0.999,
        "pictures_a": 5, "pictures_b": 4,
    }  # fmt: skip
    assert set(info.versions) == {"cyclegan_cli", "safetensors", "torch"}


def test_model_file_contains_no_local_paths(config, tmp_path):
    train(plan_new(config))
    assert str(tmp_path).encode() not in (config.run_dir / "model.safetensors").read_bytes()


@pytest.mark.parametrize("stop", [1, 4, 6])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.slow
def test_resumed_run_gives_identical_model(tmp_path, config, stop, precision):
    whole = make_config(tmp_path, run_dir=tmp_path / "whole", precision=precision)
    train(plan_new(whole))

    stopped = make_config(tmp_path, run_dir=tmp_path / "stopped", precision=precision)
    recorder = Recorder()
    with pytest.raises(InterruptedRunError) as caught:
        train(plan_new(stopped), [recorder], stop_after(recorder, stop))
    assert caught.value.exit_code == 143
    assert f"stopped after step {stop} of {STEPS}" in caught.value.message
    assert f"cyclegan train --resume {stopped.run_dir}" in caught.value.hint
    torch.rand(3)  # Nobody else's random numbers matter.
    train(plan_resumed(stopped.run_dir, {}))

    first, second = (run.run_dir / "model.safetensors" for run in (whole, stopped))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("cache", ["none", "ram"])
@pytest.mark.slow
def test_workers_and_cache_do_not_change_the_model(tmp_path, config, workers, cache):
    whole = make_config(tmp_path, run_dir=tmp_path / "whole", workers=0, cache="none")
    expected = train(plan_new(whole)).read_bytes()
    run = make_config(tmp_path, run_dir=tmp_path / "run", workers=workers, cache=cache)
    train_until(run, 3)
    found = train(plan_resumed(run.run_dir, {}))
    assert found.read_bytes() == expected


def test_loading_threads_end_with_the_run(tmp_path, config):
    before = threading.active_count()
    run = make_config(tmp_path, run_dir=tmp_path / "run", workers=2)
    train_until(run, 3)
    assert threading.active_count() == before
    train(plan_resumed(run.run_dir, {}))
    assert threading.active_count() == before


def test_cache_ram_warns_if_it_cannot_hold_all_images(tmp_path, config, monkeypatch):
    run = make_config(tmp_path, run_dir=tmp_path / "run", cache="ram")
    plan = plan_new(run)
    needed = plan.cache.needed
    monkeypatch.setattr(cache, "host_memory_free", lambda: needed)
    recorder = Recorder()
    train(plan_new(run), [recorder])
    [sentence] = recorder.warnings
    assert sentence.startswith("--cache ram keeps images in memory: up to ")


def test_resumed_metrics_have_each_step_once(config):
    train_until(config, 4)
    # As if the process had gone on for a while after its last checkpoint, and then been killed.
    metrics = config.run_dir / "metrics.csv"
    late = "6," + ",".join("1" for _ in metrics.read_text().splitlines()[0].split(",")[1:])
    metrics.write_text(metrics.read_text() + late + "\n6,")
    train(plan_resumed(config.run_dir, {}))
    with metrics.open(newline="") as stream:
        assert [int(row["step"]) for row in csv.DictReader(stream)] == [3, 6, 7]


def test_finished_run_resumes_with_more_steps(config):
    train(plan_new(config))
    assert plan_resumed(config.run_dir, {}).is_complete
    recorder = Recorder()
    train(plan_resumed(config.run_dir, {"steps": 9}), [recorder])
    assert recorder.steps == [8, 9]


def test_resume_stores_absolute_paths(config, tmp_path, monkeypatch):
    train_until(config, 2)
    monkeypatch.chdir(tmp_path)
    plan = plan_resumed(config.run_dir, {"domain_a": Path("day")})
    assert plan.config.domain_a == tmp_path / "day"


def test_architecture_cannot_change_on_resume(config):
    train_until(config, 2)
    with pytest.raises(UsageError, match="--base-channels cannot be changed by --resume"):
        plan_resumed(config.run_dir, {"base_channels": 4})
    assert plan_resumed(config.run_dir, {"base_channels": 2, "workers": 1}).workers == 1


def test_resume_warns_of_changed_images(config, tmp_path):
    train_until(config, 2)
    Image.new("RGB", (40, 40)).save(tmp_path / "day" / "new.png")
    recorder = Recorder()
    train(plan_resumed(config.run_dir, {}), [recorder])
    [sentence] = recorder.warnings
    assert "other images than when the run started" in sentence


def test_preflight_warnings_are_not_repeated(config, tmp_path):
    (tmp_path / "night" / "2.png").write_bytes(b"no image")
    Image.new("RGB", (7, 7)).save(tmp_path / "day" / "icon.png")
    shutil.copy(tmp_path / "day" / "0.png", tmp_path / "night" / "same.png")
    recorder = Recorder()
    train(plan_new(config), [recorder])
    of_a, of_b, same = recorder.warnings
    assert of_a.startswith("--domain-a: 1 of 6 checked images will be left out: ")
    assert of_a.endswith("icon.png is 7x7: too small for crops of 32 pixels")
    assert of_b.endswith("2.png is not an image in a supported format")
    assert same.startswith("1 image in both domains, which teach the networks nothing: ")


def test_strict_is_refused_before_the_run_folder_is_created(config, tmp_path):
    (tmp_path / "night" / "2.png").write_bytes(b"no image")
    plan = plan_new(dataclasses.replace(config, strict=True))
    with pytest.raises(DataError, match=r"--strict: --domain-b: .*2\.png"):
        train(plan)
    assert not plan.run_dir.exists()


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"no image")])
@pytest.mark.slow
def test_image_lost_during_training_is_replaced_or_refused_by_strict(config, tmp_path, harm):
    config = dataclasses.replace(config, cache="none", steps=40)

    class Harmful(Recorder):
        def on_step_end(self, run, losses):
            super().on_step_end(run, losses)
            if run.step == 3:
                harm(tmp_path / "day" / "1.png")

    harmful = Harmful()
    train(plan_new(config), [harmful])
    assert len(harmful.steps) == 40
    [sentence] = harmful.warnings
    assert "1.png" in sentence
    Image.new("RGB", (40, 40)).save(tmp_path / "day" / "1.png")
    strict = dataclasses.replace(config, strict=True, run_dir=tmp_path / "strict")
    with pytest.raises(DataError, match=r"--strict: .*1\.png.*the run was saved") as refusal:
        train(plan_new(strict), [Harmful()])
    assert "--resume" in refusal.value.hint
    Image.new("RGB", (40, 40)).save(tmp_path / "day" / "1.png")
    rest = Recorder()
    train(plan_resumed(strict.run_dir, {}), [rest])
    assert rest.steps[-1] == 40


def test_full_disk_is_refused_before_anything_is_written(config, monkeypatch):
    plan = plan_new(config)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OutputError, match=r"a checkpoint in .*run needs .* MB, and 0 MB are free"):
        train(plan)
    assert not plan.run_dir.exists()
    checkpoint = disk_space(plan).checkpoint
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=checkpoint))
    recorder = Recorder()
    train(plan, [recorder])
    [sentence] = recorder.warnings
    assert "the run needs about" in sentence


@pytest.mark.parametrize("workers", [0, 1])
def test_domain_without_readable_image_ends_run(tmp_path, config, workers):
    for path in (tmp_path / "night").iterdir():
        path.write_bytes(b"no image")
    run = make_config(tmp_path, run_dir=tmp_path / "x", workers=workers, sample_every=0)
    with pytest.raises(DataError, match="^no image of domain B can be read: .*not an image"):
        train(plan_new(run))
    assert not run.run_dir.exists()


def test_non_finite_weights_are_not_saved(tmp_path, config, monkeypatch):
    """The losses of a step are from before its update: only the weights show what it did."""
    run = make_config(tmp_path, run_dir=tmp_path / "run", checkpoint_every=1)
    real_step = CycleGAN.step

    def breaking_step(self, real_a, real_b):
        losses = real_step(self, real_a, real_b)
        if len(recorder.steps) == 3:
            self.generator_a2b.head.weight.data[0] = float("inf")
        return losses

    recorder = Recorder()
    monkeypatch.setattr(CycleGAN, "step", breaking_step)
    with pytest.raises(DivergedError, match="the weights are not finite at step 4") as caught:
        train(plan_new(run), [recorder])
    assert "the previous checkpoint is kept" in caught.value.message
    monkeypatch.undo()
    assert plan_resumed(run.run_dir, {}).first_step == 3


def test_divergence_without_checkpoint_suggests_new_run(config, monkeypatch):
    monkeypatch.setattr(CycleGAN, "is_finite", lambda self: False)
    with pytest.raises(DivergedError) as caught:
        train(plan_new(config))
    assert "checkpoint" not in caught.value.message
    assert "--resume" not in caught.value.hint


@pytest.mark.parametrize("stale", [False, True])
def test_resume_repairs_missing_or_stale_model(config, stale):
    model = train(plan_new(config))
    finished = model.read_bytes()
    if stale:
        other = make_config(config.domain_a.parent, run_dir=config.run_dir / "other", steps=3)
        model.write_bytes(train(plan_new(other)).read_bytes())
    else:
        model.unlink()
    recorder = Recorder()
    assert train(plan_resumed(config.run_dir, {}), [recorder]) == model
    assert recorder.steps == []
    assert model.read_bytes() == finished


def test_resume_command_is_shell_quoted(tmp_path, config):
    run = make_config(tmp_path, run_dir=tmp_path / "my run")
    recorder = Recorder()
    with pytest.raises(InterruptedRunError) as caught:
        train(plan_new(run), [recorder], stop_after(recorder, 1))
    assert caught.value.hint == f"Resume with: cyclegan train --resume '{tmp_path}/my run'"


def test_resume_with_other_precision(config):
    train_until(config, 4)
    train(plan_resumed(config.run_dir, {"precision": "bf16"}))


def test_crash_between_state_and_model_resumes(config, monkeypatch):
    whole = train(plan_new(config)).read_bytes()

    class CrashError(BaseException):
        pass

    def crash(*arguments):
        raise CrashError

    monkeypatch.setattr(checkpointing, "save_model", crash)
    run = make_config(config.domain_a.parent, run_dir=config.run_dir / "inner", checkpoint_every=4)
    with pytest.raises(CrashError):
        train(plan_new(run))
    assert not (run.run_dir / "model.safetensors").exists()
    monkeypatch.undo()
    assert train(plan_resumed(run.run_dir, {})).read_bytes() == whole


def test_the_learning_rate_follows_the_schedule(config, monkeypatch):
    rates = []
    real = CycleGAN.set_learning_rate
    monkeypatch.setattr(
        CycleGAN, "set_learning_rate", lambda self, rate: (rates.append(rate), real(self, rate))
    )
    plan = plan_new(config)
    train(plan)
    # 7 steps, the last 3 of which decay: rate * 3/4, 2/4, 1/4.
    assert rates == pytest.approx([2e-4] * 4 + [1.5e-4, 1e-4, 0.5e-4])


def test_out_of_memory_is_a_device_error(config, monkeypatch):
    def exhausted(self, real_a, real_b):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(CycleGAN, "step", exhausted)
    with pytest.raises(DeviceError, match="training: not enough memory") as caught:
        train(plan_new(config))
    assert "--batch-size" in caught.value.hint


def test_uncreatable_run_folder_is_an_output_error(tmp_path, config):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write .*file"):
        train(plan_new(make_config(tmp_path, run_dir=tmp_path / "file" / "run")))


def test_resumed_run_of_wide_networks_gives_identical_model(config):
    """Wide enough for Winograd's convolutions, which remember their kernels transformed."""
    wide = dataclasses.replace(
        config, base_channels=32, crop_size=96, load_size=96, steps=4, validate_every=0,
        sample_every=0,
    )  # fmt: skip
    whole = train(plan_new(wide)).read_bytes()
    recorder = Recorder()
    wide = dataclasses.replace(wide, run_dir=config.domain_a.parent / "stopped")
    with pytest.raises(InterruptedRunError):
        train(plan_new(wide), [recorder], stop_after(recorder, 2))
    assert train(plan_resumed(wide.run_dir, {})).read_bytes() == whole


def test_health_is_written_inside_rank_zero_collective(config, monkeypatch):
    """Files of rank 0 are written inside the collective, so that other ranks learn of a failure."""
    writing = []

    class Watched(ProcessGroup):
        def on_rank_zero(self, function):
            writing.append(True)
            super().on_rank_zero(function)
            writing.pop()

    def write_health(_callback, _run):
        assert writing

    monkeypatch.setattr(Health, "_write", write_health)
    plan = plan_new(config)
    Trainer(plan, default_callbacks(plan), Watched()).fit()
