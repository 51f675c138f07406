import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from PIL import Image

import trainings
from cyclegan_cli.checkpoints.header import read_state_info
from cyclegan_cli.training.split import name_digest
from preloaded import Preloaded
from trainings import TINY, draw_domains, wait_for_steps

CLI = [sys.executable, "-m", "cyclegan_cli"]


@pytest.fixture
def folder(tmp_path):
    """A folder with ``day`` (5 images) and ``night`` (4)."""
    return draw_domains(tmp_path, 5, 4)


@pytest.fixture
def train(folder, cyclegan, monkeypatch):
    """``train(...)``: ``cyclegan train`` in the folder, within this process, which is quicker."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments):
        answer = cyclegan("train", *arguments)
        return answer.code, answer.out, answer.err

    return run


def start(folder: Path, *arguments: str) -> Preloaded:
    return Preloaded(["train", *arguments], folder, os.environ | {"COLUMNS": "100"})


def finish(folder: Path, *arguments: str) -> tuple[int, str, str]:
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=240)
    return process.wait(0), out, err


def new_run(run: str, *arguments: str) -> list[str]:
    return [*TINY, "--run-dir", run, *arguments]


LONG = ["--steps", "60", "--log-every", "1", "--checkpoint-every", "4", "--sample-every", "12"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The model of an uninterrupted run."""
    folder = draw_domains(tmp_path_factory.mktemp("whole"), 5, 4)
    # A new interpreter, whose sets have another order.
    command = [*CLI, "train", *new_run("whole", *LONG), "--workers", "0"]
    code, _, err = trainings.finish(command, folder)
    assert code == 0, err
    return (folder / "whole" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_killed_run_resumes_to_identical_model(folder, whole):
    arguments = [*new_run("killed", *LONG), "--workers", "1"]
    moments = sorted(random.sample(range(1, 25), 2))
    print(f"killed after the rows {moments}")
    for moment in moments:
        process = start(folder, *arguments)
        wait_for_steps(folder, "killed", moment)
        process.send_group_signal(signal.SIGKILL)
        process.communicate()
        arguments = ["--resume", "killed"]
    code, _, err = finish(folder, *arguments)
    assert code == 0, err
    assert (folder / "killed" / "model.safetensors").read_bytes() == whole


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.slow
def test_signal_saves_and_prints_resume_command(folder, whole, number, exit_code):
    process = start(folder, *new_run("stopped", *LONG), "--workers", "1")
    wait_for_steps(folder, "stopped", random.randint(1, 12))
    process.send_group_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == exit_code
    assert re.search(r"error: stopped after step \d+ of 60; the run was saved", err)
    assert "hint: Resume with: cyclegan train --resume stopped" in err
    assert "Traceback" not in err
    code, _, err = finish(folder, "--resume", "stopped")
    assert code == 0, err
    assert (folder / "stopped" / "model.safetensors").read_bytes() == whole


@pytest.mark.parametrize("grace", [0.0, 0.02, 0.1])
@pytest.mark.slow
def test_sigkill_after_sigterm_resumes_to_identical_model(folder, whole, grace):
    process = start(folder, *new_run("short", *LONG), "--workers", "1")
    wait_for_steps(folder, "short", 10)
    process.send_group_signal(signal.SIGTERM)
    time.sleep(grace)
    process.send_group_signal(signal.SIGKILL)
    process.communicate()
    code, _, err = finish(folder, "--resume", "short")
    assert code == 0, err
    assert int(re.search(r"from step (\d+) ", err)[1]) >= 8
    assert (folder / "short" / "model.safetensors").read_bytes() == whole


@pytest.mark.cpu_features
@pytest.mark.slow
def test_training_prints_report_checkpoint_and_example(folder, cyclegan, monkeypatch):
    monkeypatch.chdir(folder)
    command = [*CLI, "train", *new_run("r", "--steps", "2", "--log-every", "1")]
    code, out, err = trainings.finish(command, folder)
    assert code == 0
    assert out == "checkpoint: r/model.safetensors\n"
    assert "step 1/2" in err
    assert "step 2/2" in err
    [page] = re.findall(r"report: (.*)", err)
    assert "step 2 of 2 (100%)" in (folder / page).read_text(encoding="utf-8")
    [command] = re.findall(r"try: cyclegan (.*)", err)
    answer = cyclegan(*command.split())
    assert answer.code == 0, answer.err
    with Image.open(next(folder.glob("0_night.*"))) as translated:
        assert translated.filename.endswith(command.split()[1][-4:])  # As the photo's name does.
        assert translated.size == (40, 40)


def test_quiet_shows_nothing(train):
    code, out, err = train(*new_run("r", "--steps", "1", "--quiet"))
    assert (code, out, err) == (0, "checkpoint: r/model.safetensors\n", "")


def test_dry_run_prints_plan_and_writes_nothing(folder, train, known_cost):
    before = sorted(folder.rglob("*"))
    code, out, err = train(*new_run("r", "--steps", "10"), "--dry-run")
    assert (code, err) == (0, "")
    assert "5 images" in out
    assert "5 PNG; short side 40 pixels" in out
    assert "5 checked, 5 of them decoded: none left out" in out
    assert "0 done of 10 (2.0 epochs of 5 images)" in out
    assert "0.0002 to step 5, then falling to 3.33333e-05 at step 10" in out
    assert "--base-channels 2" in out
    assert len(out.splitlines()) <= 24
    assert sorted(folder.rglob("*")) == before


def test_dry_run_json_lists_all_problems(folder, train):
    shutil.copy(folder / "day" / "1.png", folder / "night" / "again.png")
    (folder / "day" / "words.png").write_text("no image")
    for number in range(5):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / "night" / f"icon{number}.png")
    code, out, err = train(*new_run("r", "--epochs", "9"), "--dry-run", "--json", "--full")
    assert code == 0, err
    found = json.loads(out)
    assert found["domains"]["a"]["formats"] == {"PNG": 5}
    assert [one["path"] for one in found["domains"]["a"]["useless"]] == [
        str(folder / "day" / "words.png")
    ]
    assert len(found["domains"]["b"]["useless"]) == 5
    assert found["same_files"] == {
        "a": [], "b": [], "across": [[str(folder / "day/1.png"), str(folder / "night/again.png")]]
    }  # fmt: skip
    assert err.count("warning: ") == len(found["warnings"]) == 3
    assert "icon2.png is 4x4: too small for crops of 32 pixels; and 2 more" in err
    assert found["steps"] == {"done": 0, "total": 1090}
    assert found["learning_rate"]["falls_after_step"] == 90
    assert 100e6 < found["memory_bytes"] < 3e9  # torch alone is more than the first
    assert found["seconds_left"] == pytest.approx(1090 * found["seconds_per_step"], abs=1.1)
    assert found["disk"]["needed_bytes"] > 8e6
    assert found["options"]["crop_size"] == 32
    code, out, err = train(*new_run("r"), "--dry-run", "--strict")
    assert (code, out) == (3, "")
    assert err.splitlines()[-2].startswith("error: --strict: --domain-a: 1 of 6 checked images")


@pytest.mark.parametrize("option", ["--full", "--json"])
def test_full_and_json_need_dry_run(folder, train, option):
    code, _, err = train(*new_run("r"), option)
    assert code == 2
    assert f"error: {option} needs --dry-run" in err
    assert not (folder / "r").exists()


def test_dry_run_of_resumed_run_shows_remaining_steps(train, known_cost):
    code, _, err = train(*new_run("r", "--steps", "4"))
    assert code == 0, err
    code, out, err = train("--resume", "r", "--steps", "10", "--dry-run", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["steps"] == {"done": 4, "total": 10}
    assert (found["seconds_per_step"], found["seconds_left"]) == (2, 6 * 2)


@pytest.mark.cpu_features
@pytest.mark.slow
def test_command_line_overrides_the_config_file(folder, train, known_cost):
    (folder / "options.toml").write_text(
        'domain_a = "day"\ndomain_b = "night"\nsteps = 9\ncrop_size = 32\nload_size = 40\n'
        "base_channels = 2\ndiscriminator_channels = 2\n"
    )
    code, out, err = train("--config", "options.toml", "--load-size", "36", "--dry-run")
    assert code == 0, err
    assert "from images of 36" in out
    assert "of 9 (" in out
    code, out, _ = train("--config", "options.toml", "--epochs", "2", "--dry-run")
    assert code == 0
    assert "of 510 (" in out


def test_config_file_of_run_reproduces_model(folder, train):
    train(*new_run("r", "--steps", "1"))
    code, _, err = train("--config", "r/config.toml")
    assert code == 0, err
    first, second = (
        tomllib.loads((folder / name / "config.toml").read_text())
        for name in ("r", "runs/day2night")
    )
    assert first == second
    models = [
        (folder / name / "model.safetensors").read_bytes() for name in ("r", "runs/day2night")
    ]
    assert models[0] == models[1]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 2, "error: --domain-a is missing"),
        (["--domain-a", "day", "--domain-b", "gone"], 3, "error: --domain-b: .*gone is not a fold"),
        (["--crop-size", "300"], 2, "error: --crop-size 300 is larger than --load-size 286"),
        (["--crop-size", "x"], 2, "Invalid value for '--crop-size'"),
        (["--steps", "5", "--epochs", "2"], 2, "error: --steps and --epochs exclude each other"),
        (["--resume", "gone"], 4, "error: --resume: there is no run folder gone"),
        (["--resume", "day"], 4, r"error: the folder day has no state.safetensors"),
        (["--device", "cuda:99"], 5, "error: --device cuda:99"),
    ],
)
def test_invalid_input_message_and_exit_code(train, arguments, code, sentence):
    found, out, err = train(*arguments)
    assert found == code
    assert out == ""
    assert re.search(sentence, err), err
    assert "Traceback" not in err


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's file size limit")
@pytest.mark.slow
def test_full_disk_keeps_last_checkpoint(folder, train, cyclegan):
    """RLIMIT_FSIZE stands for the disk: the next file that grows beyond it cannot be written."""
    code, _, err = train(*new_run("r", "--steps", "2"))
    assert code == 0, err
    before = (folder / "r" / "state.safetensors").read_bytes()
    limit = len(before) // 2
    program = (
        "import resource, signal, runpy, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "sys.argv = ['cyclegan', 'train', '--resume', 'r', '--steps', '4', '--sample-every', '0']\n"
        "runpy.run_module('cyclegan_cli', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 3, done.stderr
    assert re.search(r"error: cannot write r/state\.safetensors: ", done.stderr)
    assert "Traceback" not in done.stderr
    assert (folder / "r" / "state.safetensors").read_bytes() == before
    assert not list((folder / "r").glob(".cyclegan-*"))
    [document] = cyclegan("inspect", "r", "--json").documents
    assert document["progress"] == {"step": 2, "of": 2}


FEW = ["--steps", "4", "--checkpoint-every", "2", "--validate-every", "2", "--val-fraction", "0.5"]


def contents(run: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("lost", "left"),
    [
        (["state"], "model.safetensors"),
        (["state", "model"], "best.safetensors"),
        (["state", "model", "best"], "checkpoints/step_00000004.safetensors"),
        (["state", "model", "best", "checkpoints/*"], "metrics.csv"),
    ],
)
def test_run_without_state_is_not_restarted(folder, train, cyclegan, lost, left):
    assert train(*new_run("run", *FEW), "--keep-checkpoints", "1")[0] == 0
    for name in lost:
        for path in (folder / "run").glob(f"{name}.safetensors"):
            path.unlink()
    before = contents(folder / "run")
    code, _, err = train("--resume", "run")
    assert code == 4
    assert f"error: run has {left} but no state.safetensors" in err
    assert "hint: Put the file back" in err
    begin = "--config run/config.toml" if left == "metrics.csv" else f"--init-from run/{left}"
    assert begin in err.replace("\n", " ")
    assert contents(folder / "run") == before
    assert cyclegan("inspect", "run", "--json").documents[0]["resumable"] is False


@pytest.mark.parametrize("name", ["state", "model"])
def test_dangling_links_in_run_folder_are_refused(folder, train, cyclegan, name):
    assert train(*new_run("run", *FEW))[0] == 0
    file = folder / "run" / f"{name}.safetensors"
    file.unlink()
    file.symlink_to(folder / "unmounted" / file.name)
    before = contents(folder / "run")
    code, _, err = train("--resume", "run", "--steps", "6")
    assert code == 4
    assert f"run/{file.name} is a link to {folder}/unmounted/{file.name}, which does not" in err
    assert not (folder / "unmounted").exists()
    assert contents(folder / "run") == before
    assert cyclegan("inspect", "run", "--json").documents[0]["resumable"] is False


@pytest.mark.parametrize("interval", ["--log-every", "--sample-every", "--validate-every"])
@pytest.mark.slow
def test_state_precedes_first_results(folder, interval):
    rarely = ("--log-every", "--sample-every", "--checkpoint-every", "--validate-every")
    options = [word for name in rarely for word in (name, "1000")]
    options += [interval, "2", "--steps", "100000", "--val-fraction", "0.5"]
    process = start(folder, *new_run("run", *options))
    deadline = time.monotonic() + 100
    run = folder / "run"
    while time.monotonic() < deadline:
        table = run / "metrics.csv"
        if [*run.glob("samples/*.jpg")] or (run / "best.safetensors").exists():
            break
        if table.exists() and table.read_text().count("\n") > 1:
            break
        time.sleep(0.01)
    process.send_group_signal(signal.SIGKILL)
    process.communicate()
    assert (run / "state.safetensors").exists()


def test_resume_without_results_starts_again(folder, train):
    assert train(*new_run("run", "--steps", "2"))[0] == 0
    for path in (folder / "run").iterdir():
        if path.name != "config.toml":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    code, _, err = train("--resume", "run")
    assert code == 0
    assert "warning: run was stopped before its first checkpoint and starts again" in err


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ("nowhere", "--resume: there is no run folder nowhere"),
        ("nowhere/state.safetensors", "--resume: there is no run folder nowhere"),
        ("link", "--resume link is a link to unmounted/run, which does not exist"),
    ],
)
def test_missing_run_folder_is_refused_with_a_hint(folder, train, named, sentence):
    (folder / "link").symlink_to("unmounted/run")
    code, _, err = train("--resume", named)
    assert code == 4
    assert sentence in err
    assert "--checkpoint" not in err
    assert not (folder / "unmounted").exists()


def test_resuming_finished_run_exits_with_zero(folder, train):
    assert train(*new_run("run", "--steps", "2"))[0] == 0
    before = contents(folder / "run")
    code, out, err = train("--resume", "run")
    assert (code, out) == (0, "")
    assert err == (
        "run is complete: 2 of 2 steps are done; to continue, resume with more --steps or "
        "--epochs\n"
    )
    assert contents(folder / "run") == before
    code, _, err = train("--resume", "run", "--steps", "1")
    assert code == 2
    assert "error: --steps: run has done 2 steps, more than the 1 requested" in err


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
@pytest.mark.slow
def test_warning_signal_saves_and_may_repeat(folder, name):
    number = getattr(signal, name)
    process = start(folder, *new_run("warned", *LONG, "--steps", "100000"))
    wait_for_steps(folder, "warned", 2)
    process.send_signal(number)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert re.search(r"error: stopped after step \d+ of 100000; the run was saved", err)
    assert (folder / "warned" / "state.safetensors").exists()


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.slow
def test_unreadable_validation_images_are_reported(folder, train, known_cost, own):
    if own:
        shutil.copytree(folder / "day", folder / "val")
        spoilt, options = folder / "val" / "0.png", ["--val-a", "val", "--val-b", "night"]
    else:
        options = ["--val-fraction", "0.5"]
        spoilt = min((folder / "day").iterdir(), key=lambda one: name_digest(one, folder / "day"))
    spoilt.write_bytes(spoilt.read_bytes()[:1000])  # Its header is whole.
    code, _, err = train(*new_run("run", *options, "--steps", "1"))
    assert code == 0
    assert f"{spoilt.name}: " in err
    option, count = ("--val-a", 5) if own else ("--domain-a", 2)
    sentence = f"{option}: 1 of {count} validation images cannot be used"
    assert sentence in err
    if own:
        assert "--val-b and --domain-b are the same folder" in err
    code, _, err = train(*new_run("strict", *options, "--steps", "1", "--strict"))
    assert code == 3
    assert f"error: --strict: {sentence}" in err
    code, out, err = train(*new_run("dry", *options, "--dry-run"))
    assert code == 0
    assert f"{count} for validation (1 left out)" in out


def test_options_override_config_file_and_config_file_overrides_recipe(train, known_cost, tmp_path):
    (tmp_path / "own.toml").write_text("crop_size = 64\nload_size = 64\n")
    domains = ["--domain-a", "day", "--domain-b", "night"]
    given = ["--recipe", "cpu", "--config", "own.toml", "--base-channels", "2"]
    code, out, err = train(*domains, *given, "--epochs", "2", "--dry-run", "--json")
    assert code == 0, err
    found = json.loads(out)
    options = {name: found["options"][name] for name in ("crop_size", "base_channels", "ema")}
    assert options == {"crop_size": 64, "base_channels": 2, "ema": 0.999}
    assert found["options"]["discriminator_channels"] == 32  # Of the recipe.
    assert "steps" not in found["options"]  # --epochs replaces the steps of the recipe.


def test_recipe_and_resume_exclude_each_other(train):
    code, _, err = train("--resume", "runs/x", "--recipe", "cpu")
    assert code == 2
    assert "--resume and --recipe exclude each other" in err


def test_duration_is_reported_once_after_the_first_steps(train):
    code, _, err = train(*new_run("timed", "--steps", "30", "--log-every", "5"))
    assert code == 0, err
    assert err.count("the training ends in about a minute, at ") == 1


def test_run_with_discriminators_of_two_scales_resumes_to_identical_model(train, folder):
    options = ["--crop-size", "64", "--load-size", "64", "--discriminator-scales", "2"]
    options += ["--steps", "4", "--decay-steps", "0", "--workers", "0", "--lambda-color", "0"]
    assert train(*new_run("whole", *options))[0] == 0
    assert train(*new_run("parts", *options, "--steps", "2"))[0] == 0
    assert train("--resume", "parts", "--steps", "4")[0] == 0
    whole, parts = ((folder / run / "model.safetensors").read_bytes() for run in ("whole", "parts"))
    assert parts == whole
    assert read_state_info(folder / "parts" / "state.safetensors").discriminator.scales == 2


def test_too_small_crops_for_the_scales_of_the_discriminators_are_refused(train):
    code, _, err = train(*new_run("small", "--discriminator-scales", "2"))
    assert code == 2
    assert "--discriminator-scales 2 needs crops of at least 64 pixels" in err
