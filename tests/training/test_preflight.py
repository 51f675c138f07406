"""What is found before the first step."""

import dataclasses
import shutil
from pathlib import Path

import pytest
from PIL import Image

from cyclegan_cli.errors import UsageError
from cyclegan_cli.training.disk import disk_need, gigabytes
from cyclegan_cli.training.plan import plan_new, plan_resumed
from cyclegan_cli.training.preflight import DRY_RUN, FULL, START, Depth, preflight
from cyclegan_cli.training.trainer import train
from runs import Recorder, never


def test_nothing_is_wrong_with_good_images(config):
    found = preflight(plan_new(config), FULL)
    assert found.warnings() == []
    assert (found.a.looked_at, found.a.decoded, found.a.images) == (5, 5, 5)
    assert found.same.to_document() == {"a": [], "b": [], "across": []}
    found.refuse_useless()


def test_copies_are_found_within_and_across_the_domains(config, tmp_path):
    for copy in ("day/copy.png", "day/third.png", "night/copy.png"):
        shutil.copy(tmp_path / "day" / "0.png", tmp_path / copy)
    shutil.copy(tmp_path / "night" / "1.png", tmp_path / "night" / "twin.png")
    found = preflight(plan_new(config), START)
    day, night = tmp_path / "day", tmp_path / "night"
    assert found.same.a == [[day / "0.png", day / "copy.png", day / "third.png"]]
    assert found.same.b == [[night / "1.png", night / "twin.png"]]
    assert found.same.across == [[day / "0.png", night / "copy.png"]]
    first, second, third = found.warnings()
    assert first.startswith("--domain-a has 2 exact copies: ")
    assert second.startswith("--domain-b has 1 exact copy: ")
    assert third.startswith("1 image in both domains")


def test_a_folder_in_the_other_has_its_images_in_both(config, tmp_path):
    shutil.copytree(tmp_path / "night", tmp_path / "day" / "night")
    config = dataclasses.replace(config, domain_b=tmp_path / "day" / "night")
    found = preflight(plan_new(config), START)
    assert len(found.same.across) == 4
    assert "4 images in both domains" in found.warnings()[-1]


def test_one_folder_for_both_domains_is_refused(config, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "day")
    with pytest.raises(UsageError, match="--domain-a and --domain-b are the same folder"):
        plan_new(dataclasses.replace(config, domain_b=tmp_path / "link"))


def test_only_a_dry_run_decodes(config, tmp_path):
    path = tmp_path / "day" / "3.png"
    path.write_bytes(path.read_bytes()[:-200])
    plan = plan_new(config)
    assert preflight(plan, START).a.useless == {}
    assert list(preflight(plan, DRY_RUN).a.useless) == [path]


def test_of_many_images_a_sample_is_looked_at(config):
    found = preflight(plan_new(config), Depth(headers=3, pixels=1, duplicates=8))
    assert (found.a.looked_at, found.a.decoded, found.same) == (3, 1, None)
    assert found.b.looked_at == 2


def test_enlarged_images_are_counted(config, tmp_path):
    Image.new("RGB", (48, 35)).save(tmp_path / "day" / "small.png")
    Image.new("RGB", (48, 36)).save(tmp_path / "day" / "enough.png")
    found = preflight(plan_new(config), START)
    assert (found.a.enlarged, found.a.useless) == (1, {})


def test_held_out_images_are_looked_at_too(config, tmp_path):
    config = dataclasses.replace(config, val_fraction=0.5)
    found = preflight(plan_new(config), START)
    assert (found.a.images, found.a.held_out, found.a.looked_at) == (3, 2, 5)
    val = {"val_a": tmp_path / "day", "val_b": tmp_path / "night"}
    found = preflight(plan_new(dataclasses.replace(config, **val)), START)
    assert (found.a.images, found.a.held_out, found.a.looked_at) == (5, 5, 5)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_run_leaves_no_more_than_it_was_said_to_need(config, ema):
    config = dataclasses.replace(
        config, ema=ema, val_fraction=0.5, validate_every=2, keep_checkpoints=2, checkpoint_every=2,
        pool_size=50, base_channels=24, crop_size=64, load_size=64,
    )  # fmt: skip
    plan = plan_new(config)
    need = disk_need(plan)
    train(plan, Recorder(), never)
    files = {path.name: path.stat().st_size for path in plan.run_dir.iterdir() if path.is_file()}
    # The pools are not full after so few steps; all else of the state is there.
    pools = 2 * (50 - 7) * 3 * 64 * 64 * 4
    state = files["state.safetensors"] + pools
    saved = state + files["model.safetensors"]
    assert need.checkpoint == pytest.approx(saved, rel=0.05)
    assert size_of(plan.run_dir) + pools + state <= need.run
    assert need.run <= 1.3 * (size_of(plan.run_dir) + pools + state) + 8e6
    # What is there already is not needed again.
    again = disk_need(plan_resumed(plan.run_dir, {"steps": 20}))
    assert again.run == pytest.approx(need.run - size_of(plan.run_dir), rel=0.05)


def test_sizes_are_said_in_two_digits():
    assert [gigabytes(n) for n in (0, 12_345_678, 1_260_000_000)] == ["0 MB", "12 MB", "1.3 GB"]
