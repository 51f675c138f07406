"""The CycleGAN model: four networks, two optimizers, and the training step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from cyclegan_cli.config import TrainConfig
from cyclegan_cli.models.color_matching import PATCH, ColorMatching, patch_features
from cyclegan_cli.models.cuda_graphs import CUDAGraphFunction
from cyclegan_cli.models.ema import GeneratorAverages
from cyclegan_cli.models.losses import GAN_LOSSES, adversarial_loss, discriminator_loss, l1_loss
from cyclegan_cli.models.networks import (
    INITIAL_DEVIATION,
    ResnetGenerator,
    all_parameters,
    build_discriminator,
    initialize_weights,
    unnormalized_deviations,
)
from cyclegan_cli.models.replay import ReplayPool

T = TypeVar("T")


@dataclass(frozen=True)
class StepLosses:
    """Unweighted losses of one step: detached fp32 scalars on the device.

    ``adversarial_a2b`` is the adversarial loss of ``generator_a2b`` against ``discriminator_b``.

    Attributes:
        gradient_norms: L2 norms of the gradients of both generators and of both discriminators.
        is_applied: Whether the networks were updated; False if a gradient was not finite.
    """

    adversarial_a2b: Tensor
    adversarial_b2a: Tensor
    cycle_a: Tensor
    cycle_b: Tensor
    identity_a: Tensor
    identity_b: Tensor
    discriminator_a: Tensor
    discriminator_b: Tensor
    color_a2b: Tensor
    color_b2a: Tensor
    gradient_norms: tuple[float, float]
    is_applied: bool

    def stacked(self) -> Tensor:
        """Stack all losses into a tensor ``[10]``, in the order of :data:`LOSS_NAMES`."""
        return torch.stack([getattr(self, name) for name in LOSS_NAMES])


@dataclass(frozen=True)
class RealImages:
    """A batch of training images, and how their elements count.

    Attributes:
        pixels: ``[B, C, H, W]`` in [-1, 1], channels-last.
        valid: Weights of the elements in the cycle and identity losses, see
            :func:`~cyclegan_cli.models.losses.l1_loss`; None: all count the same.
        mask: ``[B, 1, H, W]`` bool: the pixels to translate; None: all.
    """

    pixels: Tensor
    valid: Tensor | None = None
    mask: Tensor | None = None

    def hide_outside(self, images: Tensor) -> Tensor:
        """Replace pixels outside of the mask by 0.

        Args:
            images: ``[B, C, H, W]`` in [-1, 1], aligned with the mask.
        """
        if self.mask is None:
            return images
        return torch.where(self.mask, images, images.new_zeros(()))

    def whole_patches(self) -> Tensor | None:
        """Patches inside of the mask without missing data: ``[B, 1, H // 8, W // 8]`` bool.

        None: all.
        """
        if self.valid is None:
            return None
        usable = (self.valid != 0).all(1, keepdim=True)
        if self.mask is not None:
            usable = usable & self.mask
        return F.avg_pool2d(usable.float(), PATCH) == 1

    @property
    def shown(self) -> Tensor:
        """The images as the discriminators see them: ``[B, C, H, W]`` in [-1, 1]."""
        return self.hide_outside(self.pixels)


class GeneratorPass(NamedTuple):
    """The results of the forward and backward passes of both generators.

    Attributes:
        losses: Those of the generators, by name.
        shown_a, shown_b: The real images as the discriminators see them, ``[B, C, H, W]``.
        fake_a, fake_b: The translations as the discriminators see them, ``[B, C, H, W]``.
    """

    losses: dict[str, Tensor]
    shown_a: Tensor
    shown_b: Tensor
    fake_a: Tensor
    fake_b: Tensor


LOSS_NAMES = tuple(field.name for field in fields(StepLosses) if field.type == "Tensor")

# Maximum number of elements of a generator's first feature map up to which translation and identity
# share a forward pass: fewer and larger operations, but 1.5 times the memory.
SHARED_PASS_ELEMENTS = 1 << 21
# Patches of each domain that the color loss is prepared from. Twice as many match hardly better.
COLOR_PATCHES = 1024


class CycleGAN:
    """The CycleGAN model with its optimizers and replay pools.

    Attributes:
        generator_a2b, generator_b2a: Translate A to B, and B to A.
        discriminator_a, discriminator_b: Classify images of domain A, and of domain B, as real or
            generated.
        pool_a, pool_b: Replay pools of ``fake_a`` and ``fake_b``.
        averages: Exponential moving averages of both generators; None if disabled.
        may_lack_data: Whether images of domain A, and of domain B, may have elements without data.
        colors_a2b, colors_b2a: Targets of the color loss; None without it, and before
            :meth:`match_colors`.

    Args:
        config: Training options; the seed determines the initial weights.
        device: Device of the networks.
        bf16: Whether to use mixed precision with bfloat16; weights, losses and optimizer states
            are fp32.
        rank: Rank of this process; replay pools are seeded differently on each rank.
        winograd_bf16: Whether to use Winograd convolutions in bf16. Direct convolutions are faster
            on CPUs with AMX.
    """

    def __init__(
        self,
        config: TrainConfig,
        device: torch.device,
        bf16: bool,
        rank: int = 0,
        winograd_bf16: bool = True,
    ) -> None:
        self.config = config
        self.device = device
        self.bf16 = bf16
        with torch.device("meta"):  # Initialized below.
            self.generator_a2b = ResnetGenerator(config.generator_config("a2b"))
            self.generator_b2a = ResnetGenerator(config.generator_config("b2a"))
            self.discriminator_a = build_discriminator(config.discriminator_config("a"))
            self.discriminator_b = build_discriminator(config.discriminator_config("b"))
        for trained in self.generators().values():
            trained.enable_kernel_cache(winograd_bf16)
        random = torch.Generator().manual_seed(config.seed)
        for network in self.networks().values():
            initialize_weights(network.to_empty(device="cpu"), random)
            # The kernels used here are fastest in channels-last.
            network.to(device).to(memory_format=torch.channels_last)
        self.averages = GeneratorAverages(self.generators(), config.ema) if config.ema else None
        self.generator_optimizer = self._adam("generator_a2b", "generator_b2a")
        self.discriminator_optimizer = self._adam("discriminator_a", "discriminator_b")
        self.pool_a = ReplayPool(config.pool_size, seed=config.seed + 2 * rank)
        self.pool_b = ReplayPool(config.pool_size, seed=config.seed + 2 * rank + 1)
        self.gan_loss = GAN_LOSSES[config.gan_loss]
        self.may_lack_data = (False, False)
        # A tensor: CUDA graphs do not contain numbers that change.
        self._color_weight = torch.tensor(float(config.color_weight), device=device)
        self.colors_a2b: ColorMatching | None = None
        self.colors_b2a: ColorMatching | None = None
        self._executor = ThreadPoolExecutor(1) if device.type == "cpu" else None
        self._is_distributed = False
        self._graphs: _StepGraphs | None = None

    @torch.no_grad()
    def distribute(self) -> None:
        """Train with all processes of the default process group, which must be initialized.

        Weights become those of rank 0, and each step averages the gradients over all processes,
        which must call :meth:`step` equally often.
        """
        self._is_distributed = True
        parameters = all_parameters(self.networks())
        flat = _flat(parameters)
        dist.broadcast(flat, 0)
        _copy_flat(flat, parameters)

    def networks(self) -> dict[str, nn.Module]:
        """Return the four networks by name, in a fixed order."""
        return {
            "generator_a2b": self.generator_a2b,
            "generator_b2a": self.generator_b2a,
            "discriminator_a": self.discriminator_a,
            "discriminator_b": self.discriminator_b,
        }

    def generators(self) -> dict[str, ResnetGenerator]:
        """Return the trained generators by name."""
        return {"generator_a2b": self.generator_a2b, "generator_b2a": self.generator_b2a}

    def result(self) -> dict[str, ResnetGenerator]:
        """Return the generators to save, by name: the averages if enabled."""
        return self.averages.generators if self.averages else self.generators()

    @property
    def optimizers(self) -> tuple[torch.optim.Adam, torch.optim.Adam]:
        """The optimizers of the generators and of the discriminators."""
        return self.generator_optimizer, self.discriminator_optimizer

    def _adam(self, *names: str) -> torch.optim.Adam:
        """Return the optimizer of these networks.

        Adam changes all weights by about the learning rate. Weights that are initialized larger
        than the others have a learning rate that is larger by the same factor, so that all of them
        change at the same relative speed (the equalized learning rate of Karras et al. 2018,
        sec. 4.1). Normalized weights need no such factor, since their scale has no effect.
        """
        networks = self.networks()
        groups: dict[float, list[nn.Parameter]] = {}
        for name in names:
            deviations = unnormalized_deviations(networks[name])
            for parameter in networks[name].parameters():
                factor = deviations.get(parameter, INITIAL_DEVIATION) / INITIAL_DEVIATION
                groups.setdefault(factor, []).append(parameter)
        rate, betas = self.config.learning_rate, (self.config.beta1, 0.999)
        # mps has no fused kernel.
        fused = self.device.type in ("cpu", "cuda")
        return torch.optim.Adam(
            [
                {"params": parameters, "lr": rate * factor, "lr_factor": factor}
                for factor, parameters in groups.items()
            ],
            rate,
            betas,
            fused=fused,
        )

    def is_finite(self) -> bool:
        """Whether all weights and optimizer states are finite."""
        tensors = all_parameters(self.networks())
        for optimizer in self.optimizers:
            tensors += [moment for state in optimizer.state.values() for moment in state.values()]
        return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set the learning rate of both optimizers, multiplied by the factors of the weights."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * group["lr_factor"]

    def set_color_weight(self, weight: float) -> None:
        """Set the weight of the color loss."""
        self._color_weight.fill_(weight)

    def match_colors(self, items: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Prepare the color loss: match the colors of a sample of images of both domains.

        Without patches that have data and lie inside of masks there is no color loss.

        Args:
            items: Images of domain A and of domain B, ``[B, C, H, W]`` each, as for :meth:`step`.
        """
        found: tuple[list[Tensor], list[Tensor]] = ([], [])
        for item in items:
            for images, patches in zip(self._prepared(*item), found, strict=True):
                features, whole = patch_features(images.pixels), images.whole_patches()
                patches.append(features.flatten(0, 2) if whole is None else features[whole[:, 0]])
        random = torch.Generator().manual_seed(self.config.seed)
        all_a, all_b = map(torch.cat, found)
        patches_a, patches_b = (
            of_domain[torch.randperm(len(of_domain), generator=random)[:COLOR_PATCHES]]
            for of_domain in (all_a, all_b)
        )
        if min(len(patches_a), len(patches_b)) > 1:
            self.colors_a2b = ColorMatching(patches_a, patches_b).to(self.device)
            self.colors_b2a = ColorMatching(patches_b, patches_a).to(self.device)

    def step(self, real_a: Tensor, real_b: Tensor) -> StepLosses:
        """Update all four networks once (Zhu et al. 2017, eq. 3 and 4).

        A step with a non-finite gradient is skipped: weights, optimizer states and pools do not
        change. A single such update would corrupt Adam's moments for thousands of steps.

        Args:
            real_a: Images of domain A, ``[B, C, H, W]`` in [-1, 1], on the model's device; NaN for
                elements without data. A further channel is a mask, positive inside: outside of it,
                the cycle and identity losses have the weight ``mask_weight``, and the
                discriminators see zeros.
            real_b: Images of domain B, of the same size and range.

        Returns:
            The losses before the update.
        """
        passes = self._graphs or self
        done = passes._generator_gradients(real_a, real_b)
        pooled_a, pooled_b = self.pool_a.exchange(done.fake_a), self.pool_b.exchange(done.fake_b)
        losses = done.losses | passes._discriminator_gradients(
            done.shown_a, done.shown_b, pooled_a, pooled_b
        )
        # Copies: the next replay of CUDA graphs overwrites their outputs.
        copies = torch.stack([losses[name] for name in LOSS_NAMES]).unbind()
        losses = dict(zip(LOSS_NAMES, copies, strict=True))
        if self._is_distributed:
            self._average_gradients()
        # The only synchronization with the device in a step.
        norms = torch.stack([_gradient_norm(optimizer) for optimizer in self.optimizers]).tolist()
        is_applied = all(map(math.isfinite, norms))
        if is_applied:
            for optimizer in self.optimizers:
                optimizer.step()
        else:
            self.pool_a.undo_exchange()
            self.pool_b.undo_exchange()
        return StepLosses(**losses, gradient_norms=(norms[0], norms[1]), is_applied=is_applied)

    @torch.no_grad()
    def update_sizes(self) -> tuple[float, float]:
        """Mean absolute update of a weight by Adam, as a multiple of the learning rate.

        Usually between 0.05 and 0.5; close to 0 after a gradient spike has inflated the second
        moments, or if gradients vanish.

        Returns:
            The values of the generators and of the discriminators; 0 before the first step.
        """
        generators, discriminators = map(_update_size, self.optimizers)
        return generators, discriminators

    def _prepared(self, real_a: Tensor, real_b: Tensor) -> tuple[RealImages, RealImages]:
        """Return the images in channels-last format, and how elements count."""
        gaps_a, gaps_b = self.may_lack_data
        return (
            self._prepared_domain(real_a, "a", gaps_a),
            self._prepared_domain(real_b, "b", gaps_b),
        )

    def _prepared_domain(self, real: Tensor, domain: str, has_gaps: bool) -> RealImages:
        channels, mask = self.config.channels(domain), None
        if real.shape[1] > channels:
            real, mask = real[:, :channels], real[:, channels:] > 0
        valid: Tensor | None = ~real.isnan() if has_gaps else None
        filled = real if valid is None else fill_missing(real)
        if mask is not None:
            weights = torch.where(mask, 1.0, self.config.mask_weight).expand_as(real)
            valid = weights if valid is None else weights * valid
        return RealImages(filled.contiguous(memory_format=torch.channels_last), valid, mask)

    def _generator_gradients(self, real_a: Tensor, real_b: Tensor) -> GeneratorPass:
        """Compute the gradients of both generators on images as for :meth:`step`.

        Each part of the objective is backpropagated as soon as it is computed, so that only a
        third of all feature maps is in memory at a time.
        """
        self.generator_optimizer.zero_grad()
        for network in self.generators().values():
            network.clear_kernel_cache()
        a2b, b2a = self.generator_a2b, self.generator_b2a
        images_a, images_b = self._prepared(real_a, real_b)
        real_a, real_b = images_a.pixels, images_b.pixels
        shares = self.config.identity_weight > 0 and self._is_small(real_a)
        target_a, target_b = (images_b, images_a) if shares else (None, None)
        with _frozen(self.discriminator_a, self.discriminator_b):
            found_a, found_b = self._both(
                lambda: self._cycle_backward(
                    images_a, a2b, b2a, self.discriminator_b, target_a, self.colors_a2b
                ),
                lambda: self._cycle_backward(
                    images_b, b2a, a2b, self.discriminator_a, target_b, self.colors_b2a
                ),
                real_a,
            )
            adversarial_a2b, cycle_a, identity_b, color_a2b, fake_b = found_a
            adversarial_b2a, cycle_b, identity_a, color_b2a, fake_a = found_b
            if self.config.identity_weight > 0 and not shares:
                identity_a = self._identity_backward(real_a, b2a, images_a.valid)
                identity_b = self._identity_backward(real_b, a2b, images_b.valid)
        losses = {
            "adversarial_a2b": adversarial_a2b,
            "adversarial_b2a": adversarial_b2a,
            "cycle_a": cycle_a,
            "cycle_b": cycle_b,
            "identity_a": identity_a,
            "identity_b": identity_b,
            "color_a2b": color_a2b,
            "color_b2a": color_b2a,
        }
        return GeneratorPass(losses, images_a.shown, images_b.shown, fake_a, fake_b)

    def _is_small(self, real: Tensor) -> bool:
        """Whether operations on the feature maps of these images are too small for many threads."""
        elements = real.numel() // real.shape[1] * self.config.base_channels
        return elements <= SHARED_PASS_ELEMENTS

    def _cycle_backward(
        self,
        images: RealImages,
        forward: nn.Module,
        backward: nn.Module,
        discriminator: nn.Module,
        target: RealImages | None,
        colors: ColorMatching | None,
    ) -> tuple[Tensor, ...]:
        """Backpropagate the adversarial, cycle and color losses of one direction (eq. 1 and 2).

        Args:
            images: Images of the source domain.
            forward: Generator from the source to the target domain.
            backward: Generator from the target to the source domain.
            discriminator: Discriminator of the target domain.
            target: Images of the target domain, to include the identity loss (sec. 5.2) in the
                same forward pass; None to leave it out.
            colors: Target of the color loss; None for no such loss.

        Returns:
            The unweighted adversarial, cycle, identity and color losses, and the translation as
            the discriminator sees it.
        """
        real = images.pixels
        identity = color = real.new_zeros(())
        with self._autocast():
            if target is None:
                fake = forward(real)
            else:
                fake, idt = forward(torch.cat([real, target.pixels])).chunk(2)
                identity = l1_loss(idt, target.pixels, target.valid)
            if colors is not None:
                means = F.avg_pool2d(fake.float(), PATCH)
                whole = images.whole_patches()
                counted = None if whole is None else whole.expand_as(means)
                color = l1_loss(means, colors(real), counted)
            rec = backward(fake)
            shown = images.hide_outside(fake)
            adversarial = adversarial_loss(self.gan_loss, discriminator(shown))
            cycle = l1_loss(rec, real, images.valid)
        loss = (
            adversarial
            + self.config.lambda_cycle * cycle
            + self.config.identity_weight * identity
            + self._color_weight * color
        )
        loss.backward()  # type: ignore[no-untyped-call]
        return tuple(one.detach() for one in (adversarial, cycle, identity, color, shown))

    def _identity_backward(
        self, real: Tensor, generator: nn.Module, valid: Tensor | None
    ) -> Tensor:
        """Backpropagate the identity loss of images of the generator's target domain (sec. 5.2)."""
        with self._autocast():
            identity = l1_loss(generator(real), real, valid)
        (self.config.identity_weight * identity).backward()  # type: ignore[no-untyped-call]
        return identity.detach()

    def _discriminator_gradients(
        self, real_a: Tensor, real_b: Tensor, pooled_a: Tensor, pooled_b: Tensor
    ) -> dict[str, Tensor]:
        """Compute the gradients of both discriminators on real images and images from the pools."""
        self.discriminator_optimizer.zero_grad()
        term_a, term_b = self._both(
            lambda: self._discriminator_backward(self.discriminator_a, real_a, pooled_a),
            lambda: self._discriminator_backward(self.discriminator_b, real_b, pooled_b),
            real_a,
        )
        return {"discriminator_a": term_a, "discriminator_b": term_b}

    def _discriminator_backward(
        self, discriminator: nn.Module, real: Tensor, pooled: Tensor
    ) -> Tensor:
        """Backpropagate the loss of one discriminator on real and generated images."""
        with self._autocast():
            logits = discriminator(torch.cat([real, pooled]))
            term = discriminator_loss(self.gan_loss, logits)
        term.backward()  # type: ignore[no-untyped-call]
        return term.detach()

    def _average_gradients(self) -> None:
        """Average the gradients of all networks over all processes."""
        gradients = _gradients(all_parameters(self.networks()))
        flat = _flat(gradients)
        dist.all_reduce(flat)
        _copy_flat(flat.div_(dist.get_world_size()), gradients)

    def _both(self, first: Callable[[], T], second: Callable[[], T], real: Tensor) -> tuple[T, T]:
        """Call both functions; for small feature maps on a CPU concurrently, with half the threads.

        Small operations do not scale over threads. Each function adds one gradient to a weight, and
        the sum of two gradients does not depend on their order, so the result is deterministic.
        """
        threads = torch.get_num_threads()
        if not self._is_small(real) or self._executor is None or threads == 1:
            return first(), second()
        torch.set_num_threads(threads // 2)
        try:
            second_result = self._executor.submit(_with_threads, threads // 2, second)
            try:
                found = first()
            finally:
                wait([second_result])
            return found, second_result.result()
        finally:
            torch.set_num_threads(threads)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def compile(self, real_a: Tensor, real_b: Tensor) -> None:
        """Compile the networks for images of this size, which takes a minute or two.

        Weights do not change. If compilation fails, the networks stay uncompiled. CUDA graphs must
        be captured again.

        Args:
            real_a: Images of the shape passed to :meth:`step`.
            real_b: Images of the shape passed to :meth:`step`.

        Raises:
            Exception: Compilation failed.
        """
        self._executor = self._graphs = None
        for network in self.networks().values():
            network.compile(mode="default")
        try:
            self._pass(real_a, real_b)
        except Exception:
            torch.compiler.set_stance("force_eager")
            raise
        finally:
            for optimizer in self.optimizers:
                optimizer.zero_grad()

    def capture_graphs(self, real_a: Tensor, real_b: Tensor) -> None:
        """Capture the forward and backward passes of a step as CUDA graphs, on a CUDA device.

        Later steps replay them. Takes the time of a few passes, and the memory of one for as long
        as the model exists; weights do not change. Call :meth:`match_colors` before.

        Args:
            real_a: Images of the shape of all later calls of :meth:`step`.
            real_b: Images of the shape of all later calls of :meth:`step`.

        Raises:
            torch.OutOfMemoryError: There is not enough memory; steps run without graphs.
            Exception: The passes cannot be captured.
        """
        self._graphs = None
        self._graphs = _StepGraphs(self, real_a, real_b)

    def _pass(self, real_a: Tensor, real_b: Tensor) -> None:
        """Run a step without its updates."""
        done = self._generator_gradients(real_a, real_b)
        self._discriminator_gradients(done.shown_a, done.shown_b, done.fake_a, done.fake_b)

    @torch.no_grad()
    def translate_and_reconstruct(
        self, real_a: Tensor, real_b: Tensor, identities: bool = False
    ) -> dict[str, Tensor]:
        """Translate and reconstruct images with the generators of :meth:`result`.

        Args:
            real_a: ``[B, C, H, W]`` in [-1, 1].
            real_b: ``[B, C, H, W]`` in [-1, 1].
            identities: Whether to also return the identity mappings ``idt_a`` and ``idt_b``, which
                exist if both domains have the same number of channels.

        Returns:
            ``fake_b``, ``rec_a``, ``fake_a``, ``rec_b`` and, if requested, ``idt_a`` and ``idt_b``;
            each ``[B, C, H, W]`` in [-1, 1], fp32.
        """
        generator_a2b, generator_b2a = self.result().values()
        with self._autocast():
            fake_b, fake_a = generator_a2b(real_a), generator_b2a(real_b)
            images = {
                "fake_b": fake_b,
                "rec_a": generator_b2a(fake_b),
                "fake_a": fake_a,
                "rec_b": generator_a2b(fake_a),
            }
            if identities and real_a.shape[1] == real_b.shape[1]:
                images |= {"idt_a": generator_b2a(real_a), "idt_b": generator_a2b(real_b)}
        return {name: image.float() for name, image in images.items()}


class _StepGraphs:
    """The passes of :meth:`CycleGAN.step` as CUDA graphs.

    Gradients lie where they were when the passes were captured.
    """

    def __init__(self, model: CycleGAN, real_a: Tensor, real_b: Tensor) -> None:
        self._generator_gradients = CUDAGraphFunction(model._generator_gradients, (real_a, real_b))
        done = self._generator_gradients.outputs
        self._discriminator_gradients = CUDAGraphFunction(
            model._discriminator_gradients,
            (done.shown_a, done.shown_b, done.fake_a, done.fake_b),
            after=self._generator_gradients,
        )


def fill_missing(images: Tensor) -> Tensor:
    """Fill elements without data by the mean of their image and channel.

    Args:
        images: ``[B, C, H, W]`` in [-1, 1]; NaN for elements without data.

    Returns:
        The same shape and range, without NaN; 0 in channels without any data.
    """
    means = images.nanmean(dim=(2, 3), keepdim=True).nan_to_num(0.0)
    return torch.where(images.isnan(), means, images)


def _with_threads(threads: int, work: Callable[[], T]) -> T:
    """Call ``work`` with a number of intra-op threads, which torch keeps per thread."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    return work()


def _gradient_norm(optimizer: torch.optim.Optimizer) -> Tensor:
    """L2 norm of all gradients of an optimizer's parameters: a scalar on the device."""
    parameters = (one for group in optimizer.param_groups for one in group["params"])
    return nn.utils.get_total_norm(_gradients(parameters))


def _gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _update_size(optimizer: torch.optim.Adam) -> float:
    beta1, beta2 = optimizer.param_groups[0]["betas"]
    total, elements = 0.0, 0
    for parameter, state in optimizer.state.items():
        if parameter.dim() == 1:
            continue  # Gradients of biases before norms are zero or rounding noise.
        steps = float(state["step"])
        mean = state["exp_avg"] / (1 - beta1**steps)
        deviation = (
            (state["exp_avg_sq"] / (1 - beta2**steps)).sqrt_().add_(optimizer.defaults["eps"])
        )
        total += float(mean.div_(deviation).abs_().sum())
        elements += mean.numel()
    return total / max(elements, 1)


def _flat(tensors: list[Tensor]) -> Tensor:
    """Concatenate the elements of tensors of any shapes: ``[n]``."""
    return torch.cat([tensor.flatten() for tensor in tensors])


def _copy_flat(flat: Tensor, tensors: list[Tensor]) -> None:
    """Copy elements in the order of :func:`_flat` to tensors."""
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


@contextmanager
def _frozen(*networks: nn.Module) -> Iterator[None]:
    """Disable gradients of the networks' weights."""
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)
