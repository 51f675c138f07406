"""The terms of the objective, against values worked out by hand."""

import math

import pytest
import torch
from torch import Tensor

from cyclegan_cli.models.losses import (
    GAN_LOSSES,
    adversarial_loss,
    discriminator_loss,
    l1_loss,
    lsgan_loss,
    vanilla_loss,
)


def logits(*values: float, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(values, dtype=dtype).reshape(1, 1, 1, -1)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


@pytest.mark.parametrize(
    ("loss", "values", "target_is_real", "expected"),
    [
        (lsgan_loss, (0.0, 3.0), True, (1 + 4) / 2),
        (lsgan_loss, (1.0, -3.0), False, (1 + 9) / 2),
        (vanilla_loss, (2.0, -1.0), True, (softplus(-2) + softplus(1)) / 2),
        (vanilla_loss, (2.0, -1.0), False, (softplus(2) + softplus(-1)) / 2),
        (vanilla_loss, (-1000.0,), True, 1000.0),
        (vanilla_loss, (1000.0,), False, 1000.0),
    ],
)
def test_gan_loss_by_hand(loss, values, target_is_real, expected):
    """``-log(sigmoid(x))`` is ``softplus(-x)``, and ``-log(1 - sigmoid(x))`` is ``softplus(x)``."""
    assert loss(logits(*values), target_is_real) == pytest.approx(expected)


def test_vanilla_generator_gradient_does_not_saturate():
    """The saturating form's gradient, sigmoid(-20), would be next to nothing."""
    losing = logits(-20.0).requires_grad_()
    vanilla_loss(losing, True).backward()
    assert losing.grad.item() == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("loss", "real", "fake", "expected"),
    [
        (lsgan_loss, (0.0, 3.0), (1.0, -3.0), (2.5 + 5.0) / 2),
        (vanilla_loss, (2.0,), (-1.0,), (softplus(-2) + softplus(-1)) / 2),
    ],
)
def test_discriminator_loss_is_half_the_sum(loss, real, fake, expected):
    batch = torch.cat([logits(*real), logits(*fake)])
    assert discriminator_loss(loss, batch) == pytest.approx(expected)


def test_losses_are_means_over_scales_of_different_sizes():
    fine = torch.cat([logits(0.0, 1.0, 2.0), logits(0.0, 0.0, 0.0)])
    coarse = torch.cat([logits(3.0), logits(1.0)])
    found = discriminator_loss(lsgan_loss, (fine, coarse))
    assert found == pytest.approx(((2 / 3 + 0) / 2 + (4 + 1) / 2) / 2)
    assert adversarial_loss(lsgan_loss, (fine[:1], coarse[:1])) == pytest.approx((2 / 3 + 4) / 2)
    assert adversarial_loss(lsgan_loss, fine[:1]) == pytest.approx(2 / 3)


def test_l1_loss_is_the_mean_absolute_error():
    image = torch.tensor([1.0, -1.0, 0.5, 0.0]).reshape(1, 1, 2, 2)
    target = torch.tensor([-1.0, -1.0, 0.0, 0.5]).reshape(1, 1, 2, 2)
    assert l1_loss(image, target) == pytest.approx((2 + 0 + 0.5 + 0.5) / 4)


@pytest.mark.parametrize("gan_loss", GAN_LOSSES.values(), ids=GAN_LOSSES)
@pytest.mark.parametrize("target_is_real", [True, False])
def test_gan_losses_of_bf16_logits_are_fp32(gan_loss, target_is_real):
    """A sum of 4096 patches in bf16 would be visibly wrong."""
    coarse = torch.linspace(-3, 3, 4096).bfloat16().reshape(1, 1, 64, 64)
    found = gan_loss(coarse, target_is_real)
    assert found.dtype == torch.float32
    assert found.shape == ()
    assert torch.equal(found, gan_loss(coarse.float(), target_is_real))


def test_discriminator_loss_of_bf16_logits_is_fp32():
    coarse = logits(0.3, 0.7, dtype=torch.bfloat16)
    assert discriminator_loss(lsgan_loss, torch.cat([coarse, coarse])).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_l1_loss_of_bf16_images_is_fp32(dtype):
    coarse = torch.linspace(-1, 1, 3072).bfloat16().reshape(1, 3, 32, 32)
    target = torch.linspace(1, -0.9, 3072).to(dtype).reshape(1, 3, 32, 32)
    found = l1_loss(coarse, target)
    assert found.dtype == torch.float32
    assert torch.equal(found, (coarse.float() - target.float()).abs().mean())


@pytest.mark.parametrize("gan_loss", GAN_LOSSES.values(), ids=GAN_LOSSES)
def test_losses_are_fp32_under_autocast(gan_loss):
    both = torch.cat([logits(0.3), logits(0.7)])
    with torch.autocast("cpu", torch.bfloat16):
        found = discriminator_loss(gan_loss, both)
        distance = l1_loss(logits(0.3), logits(0.7))
    assert found.dtype == distance.dtype == torch.float32
    assert torch.equal(found, discriminator_loss(gan_loss, both))
