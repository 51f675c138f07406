"""The terms of the objective (Zhu et al. 2017, sec. 3).

A PatchGAN discriminator returns logits ``[B, 1, h, w]``, unbounded, one per patch of the image.
Losses are means over all patches, computed in fp32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from cyclegan_cli.config import GanLossChoice

GanLoss = Callable[[Tensor, bool], Tensor]
# Of one scale, or of several: each ``[B, 1, h, w]``.
Logits = Tensor | tuple[Tensor, ...]


def lsgan_loss(logits: Tensor, target_is_real: bool) -> Tensor:
    """Least-squares GAN loss with targets 1 and 0 (Mao et al. 2017; Zhu et al. 2017, sec. 4).

    Args:
        logits: ``[B, 1, h, w]``, unbounded.
        target_is_real: Whether the target is "real" (1) or "fake" (0).

    Returns:
        A scalar, fp32.
    """
    logits = logits.float()
    return F.mse_loss(logits, torch.full_like(logits, float(target_is_real)))


def vanilla_loss(logits: Tensor, target_is_real: bool) -> Tensor:
    """Binary cross-entropy loss of the original GAN (Goodfellow et al. 2014, eq. 1).

    ``-log D(x)`` for real and ``-log(1 - D(x))`` for fake targets, with ``D = sigmoid(logits)``.
    For a generator, ``target_is_real=True`` gives the non-saturating loss ``-log D(G(x))``
    (Goodfellow et al. 2014, sec. 3), whose gradient does not vanish when the discriminator is
    confident.

    Args:
        logits: ``[B, 1, h, w]``, unbounded.
        target_is_real: Whether the target is "real" (1) or "fake" (0).

    Returns:
        A scalar, fp32.
    """
    logits = logits.float()
    return F.binary_cross_entropy_with_logits(
        logits, torch.full_like(logits, float(target_is_real))
    )


GAN_LOSSES: dict[GanLossChoice, GanLoss] = {"lsgan": lsgan_loss, "vanilla": vanilla_loss}


def adversarial_loss(gan_loss: GanLoss, logits: Logits) -> Tensor:
    """Loss of a generator whose images a discriminator classifies (Zhu et al. 2017, eq. 1).

    Args:
        gan_loss: One of ``GAN_LOSSES``.
        logits: The discriminator's output on generated images, at one scale or at several.

    Returns:
        A scalar, fp32: the mean over the scales.
    """
    terms = [gan_loss(scale, True) for scale in _scales(logits)]
    return torch.stack(terms).mean()


def discriminator_loss(gan_loss: GanLoss, logits: Logits) -> Tensor:
    """Half the sum of the losses on real and fake images (Zhu et al. 2017, sec. 7.1).

    Args:
        gan_loss: One of ``GAN_LOSSES``.
        logits: The discriminator's output on a batch of real images followed by as many generated
            ones, at one scale or at several.

    Returns:
        A scalar, fp32: the mean over the scales.
    """
    terms = []
    for scale in _scales(logits):
        real, fake = scale.chunk(2)
        terms.append(0.5 * (gan_loss(real, True) + gan_loss(fake, False)))
    return torch.stack(terms).mean()


def _scales(logits: Logits) -> tuple[Tensor, ...]:
    return (logits,) if isinstance(logits, Tensor) else logits


def l1_loss(image: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean absolute error, used for the cycle (eq. 2) and identity (sec. 5.2) losses.

    Args:
        image: ``[B, C, H, W]`` in [-1, 1].
        target: ``[B, C, H, W]`` in [-1, 1].
        valid: ``[B, C, H, W]`` bool: the elements to average over, 0 if there are none; or fp32:
            weights, which are not normalized: elements with a weight of 0 do not count. None: all.

    Returns:
        A scalar, fp32.
    """
    if valid is not None:
        difference = (image.float() - target.float()).abs() * valid
        return difference.sum() / (valid != 0).sum().clamp(min=1)
    return F.l1_loss(image.float(), target.float())
