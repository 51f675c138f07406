"""A plain CycleGAN implementation: stock modules, six generator passes per step.

What the benchmarks compare with: eager, fp32, NCHW, nothing done for speed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.models.networks import ResnetGenerator
from cyclegan_cli.models.replay import ReplayPool


class TextbookBlock(nn.Module):
    """A residual block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to the same shape."""
        return x + self.layers(x)  # type: ignore[no-any-return]


def textbook_generator(channels: int, blocks: int) -> nn.Sequential:
    """The network of Zhu et al. 2017, sec. 7.2."""
    c = channels
    layers: list[nn.Module] = [nn.ReflectionPad2d(3), *_norm_relu(nn.Conv2d(3, c, 7))]
    layers += _norm_relu(nn.Conv2d(c, 2 * c, 3, stride=2, padding=1))
    layers += _norm_relu(nn.Conv2d(2 * c, 4 * c, 3, stride=2, padding=1))
    layers += [TextbookBlock(4 * c) for _ in range(blocks)]
    for wide in (4 * c, 2 * c):
        up = nn.ConvTranspose2d(wide, wide // 2, 3, stride=2, padding=1, output_padding=1)
        layers += _norm_relu(up)
    layers += [nn.ReflectionPad2d(3), nn.Conv2d(c, 3, 7), nn.Tanh()]
    return nn.Sequential(*layers)


def _norm_relu(conv: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    return [conv, nn.InstanceNorm2d(conv.out_channels), nn.ReLU(inplace=True)]


def generator_like(generator: ResnetGenerator) -> nn.Sequential:
    """A textbook generator with the weights of one of ours."""
    config = generator.config
    network = textbook_generator(config.base_channels, config.residual_blocks).eval()
    copy_weights(generator, network)
    return network.requires_grad_(False)


@torch.no_grad()
def copy_weights(original: nn.Module, copy: nn.Module) -> None:
    """Copy weights; both networks list their parameters in the same order."""
    for theirs, ours in zip(copy.parameters(), original.parameters(), strict=True):
        theirs.copy_(ours)


def textbook_discriminator(channels: int) -> nn.Sequential:
    """The 70×70 PatchGAN of the same section."""
    c = channels
    layers: list[nn.Module] = [nn.Conv2d(3, c, 4, stride=2, padding=1), nn.LeakyReLU(0.2, True)]
    for narrow, wide, stride in ((c, 2 * c, 2), (2 * c, 4 * c, 2), (4 * c, 8 * c, 1)):
        layers += [
            nn.Conv2d(narrow, wide, 4, stride=stride, padding=1),
            nn.InstanceNorm2d(wide),
            nn.LeakyReLU(0.2, True),
        ]
    return nn.Sequential(*layers, nn.Conv2d(8 * c, 1, 4, stride=1, padding=1))


class TextbookCycleGAN:
    """The training step of the paper without optimizations.

    Args:
        model: Whose first weights and options to begin with.
    """

    def __init__(self, model: CycleGAN) -> None:
        config = self.config = model.config
        blocks, channels = config.generator_blocks, config.base_channels
        self.g_a2b = textbook_generator(channels, blocks)
        self.g_b2a = textbook_generator(channels, blocks)
        self.d_a = textbook_discriminator(config.discriminator_channels)
        self.d_b = textbook_discriminator(config.discriminator_channels)
        copies = (self.g_a2b, self.g_b2a, self.d_a, self.d_b)
        for copy, original in zip(copies, model.networks().values(), strict=True):
            copy_weights(original, copy.to(model.device))
        generators = [*self.g_a2b.parameters(), *self.g_b2a.parameters()]
        discriminators = [*self.d_a.parameters(), *self.d_b.parameters()]
        self.generator_adam = torch.optim.Adam(generators, config.learning_rate, (0.5, 0.999))
        self.discriminator_adam = torch.optim.Adam(
            discriminators, config.learning_rate, (0.5, 0.999)
        )
        self.pool_a = ReplayPool(config.pool_size, config.seed)
        self.pool_b = ReplayPool(config.pool_size, config.seed + 1)

    def step(self, real_a: Tensor, real_b: Tensor) -> list[float]:
        """One update of all four networks; the losses in the order of ``LOSS_NAMES``."""
        mse, l1 = nn.MSELoss(), nn.L1Loss()

        def judged(logits: Tensor, real: float) -> Tensor:
            return mse(logits, torch.full_like(logits, real))  # type: ignore[no-any-return]

        for network in (self.d_a, self.d_b):
            network.requires_grad_(False)
        fake_b, fake_a = self.g_a2b(real_a), self.g_b2a(real_b)
        rec_a, rec_b = self.g_b2a(fake_b), self.g_a2b(fake_a)
        idt_a, idt_b = self.g_b2a(real_a), self.g_a2b(real_b)
        adversarial = [judged(self.d_b(fake_b), 1), judged(self.d_a(fake_a), 1)]
        cycle = [l1(rec_a, real_a), l1(rec_b, real_b)]
        identity = [l1(idt_a, real_a), l1(idt_b, real_b)]
        weight = self.config.lambda_cycle
        self.generator_adam.zero_grad()
        loss = sum(adversarial) + weight * sum(cycle)
        loss = loss + weight * self.config.lambda_identity * sum(identity)
        loss.backward()
        self.generator_adam.step()

        discriminator = []
        for network, real, fake, pool in (
            (self.d_a, real_a, fake_a, self.pool_a),
            (self.d_b, real_b, fake_b, self.pool_b),
        ):
            network.requires_grad_(True)
            pooled = pool.exchange(fake.detach())
            discriminator.append(0.5 * (judged(network(real), 1) + judged(network(pooled), 0)))
        self.discriminator_adam.zero_grad()
        sum(discriminator).backward()  # type: ignore[union-attr]
        self.discriminator_adam.step()
        return [float(term.detach()) for term in (*adversarial, *cycle, *identity, *discriminator)]
