"""Trainings with masks: how they follow their images, and what the networks see."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import bands
from cyclegan_cli.config import TrainConfig
from cyclegan_cli.data.cache import CachePlan, ImageCache
from cyclegan_cli.data.dataset import UnpairedDataset, loader
from cyclegan_cli.errors import DataError, UsageError
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.models.losses import l1_loss
from cyclegan_cli.training.plan import plan_new, plan_resumed
from cyclegan_cli.training.preflight import FULL, preflight
from cyclegan_cli.training.trainer import train
from runs import draw_discs, make_config, train_until

CPU = torch.device("cpu")
DISCS = {"day": (250, 250, 200), "night": (200, 200, 90)}
GROUNDS = {"day": (90, 160, 230), "night": (10, 10, 40)}


@pytest.fixture
def discs(tmp_path) -> Path:
    """Images of discs in ``day`` and ``night``, and masks of the discs below ``masks``."""
    for seed, name in enumerate(DISCS):
        folder = draw_discs(tmp_path / name, seed, DISCS[name], GROUNDS[name])
        (tmp_path / "masks" / name).mkdir(parents=True)
        for path in folder.iterdir():
            with Image.open(path) as image:
                inside = (np.asarray(image) == DISCS[name]).all(axis=2)
            Image.fromarray(inside).save(tmp_path / "masks" / name / path.name)
    return tmp_path


def config_of(folder: Path, **changes) -> TrainConfig:
    masks = {"mask_a": folder / "masks/day", "mask_b": folder / "masks/night"}
    return make_config(folder, **masks | changes)


@pytest.mark.parametrize("cached", [False, True])
def test_masks_are_cropped_and_flipped_with_their_images(discs, cached):
    # As large as the images, so that no pixel is mixed with its neighbors.
    plan = plan_new(config_of(discs, load_size=36, crop_size=32, run_dir=discs / "run"))
    cache = ImageCache(CachePlan(10**8, 10**8, 0)) if cached else None
    dataset = UnpairedDataset(plan.images_a, plan.images_b, plan.config, cache)
    for batch in loader(dataset, 0, 45, 0, pin_memory=False):
        for crop, name in ((batch.real_a, "day"), (batch.real_b, "night")):
            assert crop.shape == (1, 4, 32, 32)
            is_disc = (crop[0, :3] == torch.tensor(DISCS[name]).view(3, 1, 1)).all(dim=0)
            assert torch.equal(crop[0, 3] == 255, is_disc)
            assert torch.equal(crop[0, 3] == 0, ~is_disc)


def test_masks_of_other_values_than_rgb(tmp_path):
    bands.draw_domains(tmp_path, 5)
    for name in ("ct", "mr"):
        (tmp_path / "masks" / name).mkdir(parents=True)
        for path in (tmp_path / name).iterdir():
            inside = np.zeros((48, 56), bool)
            inside[:, :20] = True
            Image.fromarray(inside).save(tmp_path / "masks" / name / f"{path.stem}.png")
    config = config_of(
        tmp_path, domain_a=tmp_path / "ct", domain_b=tmp_path / "mr", flip=False,
        mask_a=tmp_path / "masks/ct", mask_b=tmp_path / "masks/mr", run_dir=tmp_path / "run",
        steps=2, val_fraction=0.0,
    )  # fmt: skip
    plan = plan_new(config)
    dataset = UnpairedDataset(plan.images_a, plan.images_b, plan.config, formats=plan.formats)
    [mask] = dataset[0].real_a[:, 1]
    assert set(mask.unique().tolist()) == {-1.0, 1.0}
    assert (mask == mask[0]).all()
    assert train(plan).exists()


def test_weighted_l1_loss_by_hand():
    image, target = torch.zeros(1, 1, 1, 4), torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]])
    weights = torch.tensor([[[[1.0, 3.0, 0.0, 0.5]]]])
    # (1 + 6 + 2) / 3: the element with a weight of 0 does not count.
    assert l1_loss(image, target, weights).item() == pytest.approx(3)
    assert l1_loss(image, target, weights > 0).item() == pytest.approx(7 / 3)


def tiny(**options) -> CycleGAN:
    size = {"load_size": 32, "crop_size": 32, "residual_blocks": 1}
    width = {"base_channels": 4, "discriminator_channels": 4}
    masks = {"mask_a": Path("a"), "mask_b": Path("b")}
    return CycleGAN(TrainConfig(**size | width | masks | options), CPU, bf16=False)


def masked_images(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise, whose masks are the left and the lower half."""
    random = torch.Generator().manual_seed(seed)
    real_a, real_b = torch.rand((2, 1, 4, 32, 32), generator=random) * 2 - 1
    real_a[:, 3], real_b[:, 3] = -1, -1
    real_a[:, 3, :, :16], real_b[:, 3, 16:] = 1, 1
    return real_a, real_b


def test_discriminators_see_nothing_outside():
    model, (real_a, real_b) = tiny(), masked_images()
    losses = model.step(real_a, real_b)
    # Generated images have the mask of their source.
    fake_b, fake_a = model.pool_b.state()["images"], model.pool_a.state()["images"]
    assert (fake_b[..., 16:] == 0).all()
    assert (fake_a[:, :, :16] == 0).all()
    assert (fake_b[..., :16] != 0).any()
    hidden = real_b.clone()
    hidden[:, :3, :16] = 0.25
    other = tiny().step(real_a, hidden)
    # The part of the discriminator's loss on real images is the same; that on fakes is of A.
    assert torch.equal(losses.discriminator_b, other.discriminator_b)
    assert not torch.equal(losses.cycle_b, other.cycle_b)


def test_losses_outside_have_their_weight():
    real_a, real_b = masked_images()
    models = {weight: tiny(mask_weight=weight) for weight in (0.0, 1.0, 5.0)}
    losses = {weight: model.step(real_a, real_b) for weight, model in models.items()}
    plain = tiny(mask_a=None, mask_b=None).step(real_a[:, :3], real_b[:, :3])
    for name in ("cycle_a", "cycle_b", "identity_a", "identity_b"):
        inside, whole, heavy = (float(getattr(losses[w], name)) for w in (0.0, 1.0, 5.0))
        assert whole == pytest.approx(float(getattr(plain, name)), rel=1e-5)
        # Half of the pixels are outside: whole = (inside + outside) / 2.
        outside = 2 * whole - inside
        assert heavy == pytest.approx((inside + 5 * outside) / 2, rel=1e-4)


def test_a_resumed_run_equals_one_that_was_not_interrupted(discs):
    whole, stopped = (
        config_of(discs, run_dir=discs / name, steps=4, sample_every=0, validate_every=0)
        for name in ("whole", "stopped")
    )
    train(plan_new(whole))
    train_until(stopped, 2)
    train(plan_resumed(discs / "stopped", {}))
    models = [(discs / name / "model.safetensors").read_bytes() for name in ("whole", "stopped")]
    assert models[0] == models[1]


def test_images_without_usable_masks_are_left_out(discs):
    (discs / "masks/day/3.png").unlink()
    (discs / "masks/day/5.png").write_bytes(b"no image")
    Image.new("L", (36, 18), 255).save(discs / "masks/day/7.png")
    plan = plan_new(config_of(discs, run_dir=discs / "run"))
    found = preflight(plan, FULL)
    assert "3.png has no mask" in " ".join(found.a.unusable.values())
    dataset = UnpairedDataset(plan.images_a, plan.images_b, plan.config)
    skipped = {sentence for number in range(20) for sentence in dataset[number].skipped}
    text = " ".join(skipped)
    assert len(skipped) == 3
    assert f"{discs / 'day/3.png'} has no mask" in text
    assert "5.png is not an image" in text
    assert f"the mask {discs / 'masks/day/7.png'} has 36x18 pixels" in text


def test_masks_inside_a_domain_are_no_training_images(discs):
    (discs / "masks/day").rename(discs / "day/masks")
    plan = plan_new(config_of(discs, mask_a=discs / "day/masks", run_dir=discs / "run"))
    assert len(plan.images_a) == 20


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"mask_b": None}, UsageError, "--mask-a needs --mask-b"),
        ({"mask_a": None}, UsageError, "--mask-b needs --mask-a"),
        ({"mask_a": None, "mask_b": None, "mask_weight": 5.0}, UsageError, "needs masks"),
        ({"mask_a": Path("gone")}, DataError, "--mask-a .*gone is not a folder: found nothing"),
    ],
)
def test_options_that_contradict_each_other(discs, changes, error, sentence):
    with pytest.raises(error, match=sentence):
        plan_new(config_of(discs, run_dir=discs / "run", **changes))
