"""CycleGAN: four networks, two optimisers, and one training step that reads like the paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cyclegan_cli.config import DiscriminatorConfig, GeneratorConfig, TrainConfig
from cyclegan_cli.models.ema import GeneratorAverages
from cyclegan_cli.models.losses import GAN_LOSSES, discriminator_loss, l1_loss
from cyclegan_cli.models.networks import PatchDiscriminator, ResnetGenerator, initialise_weights
from cyclegan_cli.models.replay import ReplayPool

T = TypeVar("T")


@dataclass(frozen=True)
class StepLosses:
    """The unweighted terms of one step: detached scalars on the device, fp32.

    ``adversarial_a2b`` is how badly ``generator_a2b`` fools ``discriminator_b``.

    Attributes:
        gradient_norms: L2 norms of the generators' and of the discriminators' gradients.
        is_applied: Whether the networks were updated: not where a gradient is not finite.
    """

    adversarial_a2b: Tensor
    adversarial_b2a: Tensor
    cycle_a: Tensor
    cycle_b: Tensor
    identity_a: Tensor
    identity_b: Tensor
    discriminator_a: Tensor
    discriminator_b: Tensor
    gradient_norms: tuple[float, float]
    is_applied: bool

    def stacked(self) -> Tensor:
        """All terms as one tensor ``[8]``, in the order of :data:`LOSS_NAMES`."""
        return torch.stack([getattr(self, name) for name in LOSS_NAMES])


LOSS_NAMES = tuple(field.name for field in fields(StepLosses) if field.type == "Tensor")

# Elements of a generator's first feature map up to which translation and identity share a pass: it
# takes fewer and larger operations, but half as much memory again.
SHARED_PASS_ELEMENTS = 1 << 21
# With CUDA graphs the first pass warms up, the second records, the third replays.
PASSES_TO_RECORD = 3


class CycleGAN:
    """The model in training.

    Attributes:
        generator_a2b, generator_b2a: Translate A to B, and B to A.
        discriminator_a, discriminator_b: Judge whether an image is a real one of that domain.
        pool_a, pool_b: Earlier ``fake_a`` and ``fake_b`` for the discriminators to remember.
        averages: Moving averages of both generators; None where the options have none.

    Args:
        config: The options; the seed decides the first weights.
        device: Where the networks live.
        bf16: Whether convolutions run in bfloat16 (weights, losses and optimisers stay fp32).
        rank: Which of several processes this is that train together: replay pools draw other
            random numbers in each.
        winograd_bf16: Whether Winograd's algorithm is used in bf16, too: not on a CPU with matrix
            units for it.
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
        generator = GeneratorConfig(config.base_channels, config.generator_blocks)
        discriminator = DiscriminatorConfig(config.discriminator_channels)
        with torch.device("meta"):  # All weights are drawn below, from the seed alone.
            self.generator_a2b = ResnetGenerator(generator)
            self.generator_b2a = ResnetGenerator(generator)
            self.discriminator_a = PatchDiscriminator(discriminator)
            self.discriminator_b = PatchDiscriminator(discriminator)
        for trained in self.generators().values():
            trained.keep_kernels(winograd_bf16)
        random = torch.Generator().manual_seed(config.seed)
        for network in self.networks().values():
            initialise_weights(network.to_empty(device="cpu"), random)
            # In channels-last all kernels used here are at their fastest.
            network.to(device).to(memory_format=torch.channels_last)
        self.averages = GeneratorAverages(self.generators(), config.ema) if config.ema else None
        self.generator_optimizer = self._adam("generator_a2b", "generator_b2a")
        self.discriminator_optimizer = self._adam("discriminator_a", "discriminator_b")
        self.pool_a = ReplayPool(config.pool_size, seed=config.seed + 2 * rank)
        self.pool_b = ReplayPool(config.pool_size, seed=config.seed + 2 * rank + 1)
        self.gan_loss = GAN_LOSSES[config.gan_loss]
        self.is_recorded = False
        self._helper = ThreadPoolExecutor(1) if device.type == "cpu" else None
        # What gradients are computed through.
        self.trained: dict[str, nn.Module] = self.networks()

    def distribute(self) -> None:
        """Have gradients averaged over all processes of torch's default group, in each step.

        Each network is wrapped by itself in DistributedDataParallel, which also gives all
        processes the weights of the first. The group exists already, and every process calls
        this, and from then on :meth:`step`, equally often.
        """
        self._helper = None
        self.trained = {
            name: DistributedDataParallel(network, gradient_as_bucket_view=True)
            for name, network in self.networks().items()
        }

    def networks(self) -> dict[str, nn.Module]:
        """The four networks by name, always in the same order."""
        return {
            "generator_a2b": self.generator_a2b,
            "generator_b2a": self.generator_b2a,
            "discriminator_a": self.discriminator_a,
            "discriminator_b": self.discriminator_b,
        }

    def generators(self) -> dict[str, ResnetGenerator]:
        """The two trained generators by name."""
        return {"generator_a2b": self.generator_a2b, "generator_b2a": self.generator_b2a}

    def result(self) -> dict[str, ResnetGenerator]:
        """The generators that the training is for, by name: the averages where it has them."""
        return self.averages.generators if self.averages else self.generators()

    def _adam(self, *names: str) -> torch.optim.Adam:
        networks = self.networks()
        parameters = [p for name in names for p in networks[name].parameters()]
        betas = (self.config.beta1, 0.999)
        # One fused kernel for all parameters; mps has none.
        fused = self.device.type in ("cpu", "cuda")
        return torch.optim.Adam(parameters, self.config.learning_rate, betas, fused=fused)

    def is_finite(self) -> bool:
        """Whether all weights, and Adam's moments of them, are finite numbers."""
        tensors = [p for network in self.networks().values() for p in network.parameters()]
        for optimizer in (self.generator_optimizer, self.discriminator_optimizer):
            tensors += [moment for state in optimizer.state.values() for moment in state.values()]
        return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set the rate of both optimisers for the steps to come."""
        for optimizer in (self.generator_optimizer, self.discriminator_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate

    def step(self, real_a: Tensor, real_b: Tensor) -> StepLosses:
        """One update of all four networks (Zhu et al. 2017, eq. 3 and 4).

        A step whose gradients are not all finite changes nothing: neither weights nor optimisers'
        moments nor pools. One such update would poison Adam's moments for thousands of steps.

        Args:
            real_a: ``[B, 3, H, W]`` in [-1, 1], images of domain A, on the model's device.
            real_b: Likewise of domain B.

        Returns:
            The loss terms before the update.
        """
        real_a, real_b = self._begin(real_a, real_b)
        terms, fake_a, fake_b = self._generator_gradients(real_a, real_b)
        pooled_a, pooled_b = self.pool_a.exchange(fake_a), self.pool_b.exchange(fake_b)
        terms |= self._discriminator_gradients(real_a, real_b, pooled_a, pooled_b)
        optimizers = (self.generator_optimizer, self.discriminator_optimizer)
        # Reading the norms waits for the device, once per step.
        norms = torch.stack([_gradient_norm(optimizer) for optimizer in optimizers]).tolist()
        is_applied = all(map(math.isfinite, norms))
        if is_applied:
            for optimizer in optimizers:
                optimizer.step()
        else:
            self.pool_a.undo_exchange()
            self.pool_b.undo_exchange()
        return StepLosses(**terms, gradient_norms=(norms[0], norms[1]), is_applied=is_applied)

    @torch.no_grad()
    def update_sizes(self) -> tuple[float, float]:
        """How far Adam moves a weight in a step, in learning rates, on average.

        Between 0.05 and 0.5 while a network learns; nearly 0 where a spike has filled the second
        moments, or where no gradient arrives.

        Returns:
            Of the generators' and of the discriminators' weights; 0 before the first step.
        """
        generators, discriminators = map(
            _update_size, (self.generator_optimizer, self.discriminator_optimizer)
        )
        return generators, discriminators

    def _begin(self, *reals: Tensor) -> Iterator[Tensor]:
        """Begin a step with these images; return them in the networks' memory format."""
        if self.is_recorded:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return (real.contiguous(memory_format=torch.channels_last) for real in reals)

    def _generator_gradients(
        self, real_a: Tensor, real_b: Tensor
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """The gradients of both generators; also return the fakes.

        The objective is a sum. The gradients of each part are taken as soon as it is computed, so
        that only a third of all feature maps is in memory at a time.
        """
        self.generator_optimizer.zero_grad()
        for network in self.generators().values():
            network.forget_kernels()
        a2b, b2a = self.trained["generator_a2b"], self.trained["generator_b2a"]
        shares = self._identity_weight > 0 and self._is_small(real_a)
        # Each generator's last backward pass sends its gradients to the other processes.
        last = shares or self._identity_weight == 0

        def from_a() -> tuple[Tensor, Tensor, Tensor, Tensor]:
            with _gradients_kept_here(a2b, b2a):
                return self._there_and_back(
                    real_a, a2b, b2a, self.discriminator_b, real_b if shares else None
                )

        def from_b() -> tuple[Tensor, Tensor, Tensor, Tensor]:
            with nullcontext() if last else _gradients_kept_here(a2b, b2a):
                return self._there_and_back(
                    real_b, b2a, a2b, self.discriminator_a, real_a if shares else None
                )

        with _frozen(self.discriminator_a, self.discriminator_b):
            found_a, found_b = self._both(from_a, from_b, real_a)
            adversarial_a2b, cycle_a, identity_b, fake_b = found_a
            adversarial_b2a, cycle_b, identity_a, fake_a = found_b
            if not last:
                identity_a = self._stay_as_it_is(real_a, b2a)
                identity_b = self._stay_as_it_is(real_b, a2b)
        terms = {
            "adversarial_a2b": adversarial_a2b,
            "adversarial_b2a": adversarial_b2a,
            "cycle_a": cycle_a,
            "cycle_b": cycle_b,
            "identity_a": identity_a,
            "identity_b": identity_b,
        }
        return terms, fake_a, fake_b

    def _is_small(self, real: Tensor) -> bool:
        """Whether a generator's first feature map of these images is small."""
        elements = real.numel() // real.shape[1] * self.config.base_channels
        return elements <= SHARED_PASS_ELEMENTS

    @property
    def _identity_weight(self) -> float:
        return self.config.lambda_cycle * self.config.lambda_identity

    def _there_and_back(
        self,
        real: Tensor,
        there: nn.Module,
        back: nn.Module,
        judge: nn.Module,
        target: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Add the gradients of one direction's adversarial and cycle terms (eq. 1 and 2).

        Args:
            real: ``[B, 3, H, W]`` in [-1, 1].
            there: The generator that translates it.
            back: The other one.
            judge: The discriminator of the target domain.
            target: ``[B, 3, H, W]``, images of the target domain for the identity term (sec. 5.2),
                which then shares the pass; None: without that term.

        Returns:
            The adversarial, cycle and identity terms, unweighted, and the translation.
        """
        identity = real.new_zeros(())
        with self._autocast():
            if target is None:
                fake = there(real)
            else:
                fake, kept = there(torch.cat([real, target])).chunk(2)
                identity = l1_loss(kept, target)
            rec = back(fake)
            adversarial = self.gan_loss(judge(fake), True)
            cycle = l1_loss(rec, real)
        loss = adversarial + self.config.lambda_cycle * cycle + self._identity_weight * identity
        loss.backward()  # type: ignore[no-untyped-call]
        # A copy: what a compiled network returns is its memory, which its next calls write to.
        return adversarial.detach(), cycle.detach(), identity.detach(), fake.detach().clone()

    def _stay_as_it_is(self, real: Tensor, generator: nn.Module) -> Tensor:
        """An image that already is in the target domain should not change (sec. 5.2)."""
        with self._autocast():
            identity = l1_loss(generator(real), real)
        (self._identity_weight * identity).backward()  # type: ignore[no-untyped-call]
        return identity.detach()

    def _discriminator_gradients(
        self, real_a: Tensor, real_b: Tensor, pooled_a: Tensor, pooled_b: Tensor
    ) -> dict[str, Tensor]:
        """The gradients of both discriminators on real images and on fakes from the pools."""
        self.discriminator_optimizer.zero_grad()
        judge_a, judge_b = self.trained["discriminator_a"], self.trained["discriminator_b"]
        term_a, term_b = self._both(
            lambda: self._discriminator_term(judge_a, real_a, pooled_a),
            lambda: self._discriminator_term(judge_b, real_b, pooled_b),
            real_a,
        )
        return {"discriminator_a": term_a, "discriminator_b": term_b}

    def _discriminator_term(self, judge: nn.Module, real: Tensor, pooled: Tensor) -> Tensor:
        """Add one discriminator's gradients: real and translated images share a pass."""
        with self._autocast():
            real_logits, fake_logits = judge(torch.cat([real, pooled])).chunk(2)
            term = discriminator_loss(self.gan_loss, real_logits, fake_logits)
        term.backward()  # type: ignore[no-untyped-call]
        return term.detach()

    def _both(self, first: Callable[[], T], second: Callable[[], T], real: Tensor) -> tuple[T, T]:
        """Call both: on a CPU, where feature maps are small, at once, each on half of the cores.

        Small operations take no less time on more cores. Each weight gets one gradient of either,
        and the sum of two does not depend on their order.
        """
        threads = torch.get_num_threads()
        if not self._is_small(real) or self._helper is None or threads == 1:
            return first(), second()
        torch.set_num_threads(threads // 2)
        try:
            helped = self._helper.submit(_with_threads, threads // 2, second)
            try:
                found = first()
            finally:
                wait([helped])
            return found, helped.result()
        finally:
            torch.set_num_threads(threads)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def compile(self, real_a: Tensor, real_b: Tensor) -> None:
        """Compile the networks, forward and backward, for images of this size; takes a minute.

        On CUDA their kernels are recorded, too, and replayed as one (CUDA graphs). Nothing is
        learned on the way. If it fails, the networks stay as they were.

        Args:
            real_a: ``[B, 3, H, W]``, as :meth:`step` will get them.
            real_b: Likewise.

        Raises:
            Exception: Whatever compilers and their callers raise.
        """
        self._helper = None
        self.is_recorded = self.device.type == "cuda"
        for network in self.networks().values():
            network.compile(mode="reduce-overhead" if self.is_recorded else "default")
        try:
            for _ in range(PASSES_TO_RECORD if self.is_recorded else 1):
                self._pass(real_a, real_b)
        except Exception:
            self.is_recorded = False
            torch.compiler.set_stance("force_eager")
            raise
        finally:
            self.generator_optimizer.zero_grad()
            self.discriminator_optimizer.zero_grad()

    def _pass(self, real_a: Tensor, real_b: Tensor) -> None:
        """All of a step but its updates."""
        real_a, real_b = self._begin(real_a, real_b)
        with _gradients_kept_here(*self.trained.values()):
            _, fake_a, fake_b = self._generator_gradients(real_a, real_b)
            self._discriminator_gradients(real_a, real_b, fake_a, fake_b)

    @torch.no_grad()
    def translate_both_ways(
        self, real_a: Tensor, real_b: Tensor, identities: bool = False
    ) -> dict[str, Tensor]:
        """Translate fixed images there and back with :meth:`result`; nothing learns from them.

        Args:
            real_a: ``[B, 3, H, W]`` in [-1, 1].
            real_b: Likewise.
            identities: Whether to also translate into the domain that they are of already.

        Returns:
            ``fake_b``, ``rec_a``, ``fake_a`` and ``rec_b``, with ``identities`` also ``idt_a`` and
            ``idt_b``, each ``[B, 3, H, W]`` in [-1, 1], fp32.
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
            if identities:
                images |= {"idt_a": generator_b2a(real_a), "idt_b": generator_a2b(real_b)}
        return {name: image.float() for name, image in images.items()}


def _with_threads(threads: int, work: Callable[[], T]) -> T:
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    return work()


def _gradient_norm(optimizer: torch.optim.Optimizer) -> Tensor:
    """The L2 norm of all gradients that an optimizer is about to apply: a scalar on the device."""
    gradients = [
        parameter.grad
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]
    return nn.utils.get_total_norm(gradients)


def _update_size(optimizer: torch.optim.Adam) -> float:
    beta1, beta2 = optimizer.param_groups[0]["betas"]
    total, elements = 0.0, 0
    for parameter, state in optimizer.state.items():
        if parameter.dim() == 1:
            continue  # Gradients of biases before norms are rounding noise.
        steps = float(state["step"])
        mean = state["exp_avg"] / (1 - beta1**steps)
        deviation = (
            (state["exp_avg_sq"] / (1 - beta2**steps)).sqrt_().add_(optimizer.defaults["eps"])
        )
        total += float(mean.div_(deviation).abs_().sum())
        elements += mean.numel()
    return total / max(elements, 1)


@contextmanager
def _gradients_kept_here(*networks: nn.Module) -> Iterator[None]:
    """Add up gradients in this process, and send none to others yet."""
    with ExitStack() as stack:
        for network in networks:
            if isinstance(network, DistributedDataParallel):
                stack.enter_context(network.no_sync())
        yield


@contextmanager
def _frozen(*networks: nn.Module) -> Iterator[None]:
    """Gradients pass through these networks, but none are computed for their weights."""
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)
