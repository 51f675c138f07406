"""The terms of the objective (Zhu et al. 2017, sec. 3).

Logits are what a PatchGAN discriminator returns, ``[B, 1, h, w]``, unbounded; each patch of the
image is judged by itself and the mean is over all of them. All terms are computed in fp32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from cyclegan_cli.config import GanLossChoice

GanLoss = Callable[[Tensor, bool], Tensor]


def lsgan_loss(logits: Tensor, target_is_real: bool) -> Tensor:
    """Least squares to 1 (real) or 0 (fake) (Mao et al. 2017; Zhu et al. 2017, sec. 4).

    Args:
        logits: ``[B, 1, h, w]``, unbounded.
        target_is_real: Whether these logits should say "real".

    Returns:
        A scalar, fp32.
    """
    logits = logits.float()
    return F.mse_loss(logits, torch.full_like(logits, float(target_is_real)))


def vanilla_loss(logits: Tensor, target_is_real: bool) -> Tensor:
    """The log-likelihood objective of the original GAN (Goodfellow et al. 2014, eq. 1).

    ``-log D(x)`` for a real target, ``-log(1 - D(x))`` for a fake one; ``D = sigmoid(logits)``.
    A generator that calls this with ``target_is_real=True`` minimises ``-log D(G(x))``: the
    non-saturating form (Goodfellow et al. 2014, sec. 3), whose gradient does not vanish while the
    discriminator is winning.

    Args:
        logits: ``[B, 1, h, w]``, unbounded.
        target_is_real: Whether these logits should say "real".

    Returns:
        A scalar, fp32.
    """
    logits = logits.float()
    return F.binary_cross_entropy_with_logits(
        logits, torch.full_like(logits, float(target_is_real))
    )


GAN_LOSSES: dict[GanLossChoice, GanLoss] = {"lsgan": lsgan_loss, "vanilla": vanilla_loss}


def discriminator_loss(gan_loss: GanLoss, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Half the sum of both terms, as in the paper (Zhu et al. 2017, sec. 7.1).

    Args:
        gan_loss: One of ``GAN_LOSSES``.
        real_logits: ``[B, 1, h, w]``, the judgement of real images.
        fake_logits: ``[B, 1, h, w]``, the judgement of translated ones.

    Returns:
        A scalar, fp32.
    """
    return 0.5 * (gan_loss(real_logits, True) + gan_loss(fake_logits, False))


def l1_loss(image: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference: the cycle (eq. 2) and identity (sec. 5.2) terms.

    Args:
        image: ``[B, 3, H, W]`` in [-1, 1].
        target: Likewise.

    Returns:
        A scalar, fp32.
    """
    return F.l1_loss(image.float(), target.float())
