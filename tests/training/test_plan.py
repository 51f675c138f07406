import math
from pathlib import Path

import pytest
import tomli_w
from PIL import Image

from cyclegan_cli.config import TrainConfig
from cyclegan_cli.errors import DataError, DeviceError, UsageError
from cyclegan_cli.training.plan import plan_new, plan_resumed, read_config_values

pytestmark = pytest.mark.cpu_features


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """``day`` with 3 images and ``night`` with 2, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name, count in (("day", 3), ("night", 2)):
        Path(name).mkdir()
        for i in range(count):
            Image.new("RGB", (40, 40)).save(f"{name}/{i}.png")
    return {"domain_a": Path("day"), "domain_b": Path("night")}


def config(folders, **changes) -> TrainConfig:
    return TrainConfig(**{**folders, "load_size": 32, "crop_size": 32, "device": "cpu", **changes})


def test_domains_are_named_after_their_folders(folders):
    plan = plan_new(config(folders))
    assert (plan.name_a, plan.name_b, plan.run_dir) == ("day", "night", Path("runs/day2night"))
    plan = plan_new(config(folders, name_a="sun", name_b="moon"))
    assert (plan.name_a, plan.name_b, plan.run_dir.name) == ("sun", "moon", "sun2moon")
    Path("x").mkdir()
    Path("night").rename("x/day")
    plan = plan_new(config(folders, domain_b=Path("x/day")))
    assert (plan.name_a, plan.name_b) == ("day_a", "day_b")


@pytest.mark.parametrize("name", ["a/b", "..\\x", "", "tab\t", "new\nline"])
def test_invalid_domain_name_is_refused(folders, name):
    with pytest.raises(UsageError, match="--name-b"):
        plan_new(config(folders, name_a="day", name_b=name or " "))


def test_two_equal_names_are_refused(folders):
    with pytest.raises(UsageError, match="both 'x'"):
        plan_new(config(folders, name_a="x", name_b="x"))


def test_weight_of_the_color_loss_decays_with_the_cube_of_the_learning_rate(folders):
    options = {"lambda_cycle": 4, "lambda_color": 0.5, "learning_rate": 1e-3}
    plan = plan_new(config(folders, steps=8, decay_steps=3, **options))
    weights = [plan.color_weight_at(step) for step in range(9)]
    assert weights == pytest.approx([2, 2, 2, 2, 2, 2 * 27 / 64, 2 / 8, 2 / 64, 0])


def test_used_run_folder_gets_next_number_or_is_refused(folders):
    for name in ("runs/day2night", "runs/day2night-2"):
        Path(name).mkdir(parents=True)
        Path(name, "file").touch()
    assert plan_new(config(folders)).run_dir == Path("runs/day2night-3")
    with pytest.raises(UsageError, match="--run-dir day already exists"):
        plan_new(config(folders, run_dir=Path("day")))


def test_derived_options_are_resolved_and_nothing_is_written(folders, tmp_path):
    resolved = plan_new(config(folders)).config
    assert resolved.residual_blocks == 6
    assert resolved.precision in ("fp32", "bf16")
    assert resolved.domain_a == tmp_path / "day"
    assert not (tmp_path / "runs").exists()


def test_epoch_is_a_pass_over_the_larger_domain(folders):
    plan = plan_new(config(folders, epochs=2, decay_epochs=2, batch_size=2))
    assert (plan.epoch_items, plan.total_steps) == (3, math.ceil(4 * 3 / 2))
    assert plan.epoch_of(plan.total_steps) == 4


@pytest.mark.parametrize("missing", ["domain_a", "domain_b"])
def test_a_missing_domain_is_named(folders, missing):
    option = "--" + missing.replace("_", "-")
    with pytest.raises(UsageError, match=option):
        plan_new(config({**folders, missing: None}))
    with pytest.raises(DataError, match=option):
        plan_new(config({**folders, missing: Path("nowhere")}))
    Path("empty").mkdir()
    with pytest.raises(DataError, match=f"{option}: .*empty has no images"):
        plan_new(config({**folders, missing: Path("empty")}))


def test_a_missing_device_is_refused(folders):
    with pytest.raises(DeviceError, match="--device cuda:77"):
        plan_new(config(folders, device="cuda:77"))


def test_run_killed_before_results_resumes_from_config(folders):
    plan = plan_new(config(folders, steps=5))
    plan.run_dir.mkdir(parents=True)
    (plan.run_dir / "config.toml").write_text(tomli_w.dumps(plan.config.to_document()))
    resumed = plan_resumed(plan.run_dir, {})
    assert resumed.first_step == 0
    assert resumed.config == plan.config
    assert resumed.images_digest == plan.images_digest


def test_resume_accepts_state_file(folders, run_folder):
    with pytest.raises(UsageError, match="is a file, not a run folder"):
        plan_resumed(run_folder / "model.safetensors", {})
    plan = plan_resumed(run_folder / "state.safetensors", {})
    assert plan.run_dir == run_folder


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("crop_size = ", "not valid TOML"),
        ("crop_sise = 64", "'crop_sise', which is not an option"),
        ("crop_size = '64'", "crop_size to '64', but it must be a whole number"),
        ("flip = 1", "flip to 1, but it must be true or false"),
        ("\xff\xfec\0", "not valid TOML: byte 0 is not UTF-8"),
        ("# \xe4", "not valid TOML: byte 2 is not UTF-8"),
    ],
)
def test_invalid_config_file_is_a_usage_error(tmp_path, text, sentence):
    path = tmp_path / "options.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=sentence):
        read_config_values(path)
    with pytest.raises(UsageError, match="cannot read"):
        read_config_values(tmp_path / "missing.toml")


def test_config_file_with_byte_order_mark(tmp_path):
    path = tmp_path / "options.toml"
    path.write_text("crop_size = 64", encoding="utf-8-sig")
    assert read_config_values(path) == {"crop_size": 64}
