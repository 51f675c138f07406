"""Checks before the first step."""

import dataclasses
import shutil
from pathlib import Path

import pytest
from PIL import Image

from cyclegan_cli.errors import UsageError
from cyclegan_cli.training.estimate import disk_space, gigabytes
from cyclegan_cli.training.plan import plan_new, plan_resumed
from cyclegan_cli.training.preflight import DRY_RUN, FULL, START, ScanLimits, preflight
from cyclegan_cli.training.trainer import train


def test_preflight_of_valid_images_has_no_warnings(config):
    found = preflight(plan_new(config), FULL)
    assert found.warnings() == []
    assert (found.a.checked, found.a.decoded, found.a.images) == (5, 5, 5)
    assert found.duplicates.to_document() == {"a": [], "b": [], "across": []}
    found.check_strict()


def test_duplicates_within_and_across_domains(config, tmp_path):
    for copy in ("day/copy.png", "day/third.png", "night/copy.png"):
        shutil.copy(tmp_path / "day" / "0.png", tmp_path / copy)
    shutil.copy(tmp_path / "night" / "1.png", tmp_path / "night" / "twin.png")
    found = preflight(plan_new(config), START)
    day, night = tmp_path / "day", tmp_path / "night"
    assert found.duplicates.a == [[day / "0.png", day / "copy.png", day / "third.png"]]
    assert found.duplicates.b == [[night / "1.png", night / "twin.png"]]
    assert found.duplicates.across == [[day / "0.png", night / "copy.png"]]
    first, second, third = found.warnings()
    assert first.startswith("--domain-a has 2 exact copies: ")
    assert second.startswith("--domain-b has 1 exact copy: ")
    assert third.startswith("1 image in both domains")


def test_nested_domain_folders_share_images(config, tmp_path):
    shutil.copytree(tmp_path / "night", tmp_path / "day" / "night")
    config = dataclasses.replace(config, domain_b=tmp_path / "day" / "night")
    found = preflight(plan_new(config), START)
    assert len(found.duplicates.across) == 4
    assert "4 images in both domains" in found.warnings()[-1]


def test_one_folder_for_both_domains_is_refused(config, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "day")
    with pytest.raises(UsageError, match="--domain-a and --domain-b are the same folder"):
        plan_new(dataclasses.replace(config, domain_b=tmp_path / "link"))


def test_only_a_dry_run_decodes(config, tmp_path):
    path = tmp_path / "day" / "3.png"
    path.write_bytes(path.read_bytes()[:-200])
    plan = plan_new(config)
    assert preflight(plan, START).a.unusable == {}
    assert list(preflight(plan, DRY_RUN).a.unusable) == [path]


def test_scan_limits_sample_images(config):
    found = preflight(plan_new(config), ScanLimits(headers=3, pixels=1, duplicates=8))
    assert (found.a.checked, found.a.decoded, found.duplicates) == (3, 1, None)
    assert found.b.checked == 2


def test_enlarged_images_are_counted(config, tmp_path):
    Image.new("RGB", (48, 35)).save(tmp_path / "day" / "small.png")
    Image.new("RGB", (48, 36)).save(tmp_path / "day" / "enough.png")
    found = preflight(plan_new(config), START)
    assert (found.a.enlarged, found.a.unusable) == (1, {})


def test_validation_images_are_checked(config, tmp_path):
    config = dataclasses.replace(config, val_fraction=0.5)
    found = preflight(plan_new(config), START)
    assert (found.a.images, found.a.val_images, found.a.checked) == (3, 2, 5)
    val = {"val_a": tmp_path / "day", "val_b": tmp_path / "night"}
    found = preflight(plan_new(dataclasses.replace(config, **val)), START)
    assert (found.a.images, found.a.val_images, found.a.checked) == (5, 5, 5)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.slow
def test_disk_space_estimate_is_an_upper_bound(config, ema):
    config = dataclasses.replace(
        config, ema=ema, val_fraction=0.5, validate_every=2, keep_checkpoints=2, checkpoint_every=2,
        pool_size=50, base_channels=24, crop_size=64, load_size=64,
    )  # fmt: skip
    plan = plan_new(config)
    need = disk_space(plan)
    train(plan)
    files = {path.name: path.stat().st_size for path in plan.run_dir.iterdir() if path.is_file()}
    # The pools are not full after so few steps; all else of the state is there.
    pools = 2 * (50 - 7) * 3 * 64 * 64 * 4
    state = files["state.safetensors"] + pools
    saved = state + files["model.safetensors"]
    assert need.checkpoint == pytest.approx(saved, rel=0.05)
    assert size_of(plan.run_dir) + pools + state <= need.run
    assert need.run <= 1.3 * (size_of(plan.run_dir) + pools + state) + 8e6
    # Existing files need no further space.
    again = disk_space(plan_resumed(plan.run_dir, {"steps": 20}))
    assert again.run == pytest.approx(need.run - size_of(plan.run_dir), rel=0.05)


def test_gigabytes_format():
    assert [gigabytes(n) for n in (0, 12_345_678, 1_260_000_000)] == ["0 MB", "12 MB", "1.3 GB"]
