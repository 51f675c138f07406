"""The training step, against one written down here as the paper has it."""

import copy
from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cyclegan_cli.config import TrainConfig
from cyclegan_cli.models.cyclegan import LOSS_NAMES, CycleGAN

CPU = torch.device("cpu")
GENERATORS = ("generator_a2b", "generator_b2a")
DISCRIMINATORS = ("discriminator_a", "discriminator_b")


@pytest.fixture
def separate_passes(monkeypatch):
    """Translation and identity in a pass of their own, as in textbooks, to the bit."""
    monkeypatch.setattr("cyclegan_cli.models.cyclegan.SHARED_PASS_ELEMENTS", 0)


def tiny(*, bf16: bool = False, **options: Any) -> CycleGAN:
    size = {"load_size": 32, "crop_size": 32, "residual_blocks": 1}
    width = {"base_channels": 4, "discriminator_channels": 4}
    paper: dict[str, Any] = {"resampling": "strided", "norms": "all"}
    return CycleGAN(TrainConfig(**size | width | paper | options), CPU, bf16)


def images(batch: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """``real_a`` and ``real_b``: noise, with domain B darker."""
    random = torch.Generator().manual_seed(seed)
    both = torch.rand((2, batch, 3, 32, 32), generator=random) * 2 - 1
    return both[0], both[1] * 0.5 - 0.5


def weights(model: CycleGAN) -> dict[str, Tensor]:
    """Copies of all weights by network and name."""
    return {
        f"{name}.{key}": tensor.clone()
        for name, network in model.networks().items()
        for key, tensor in network.state_dict().items()
    }


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """The networks of which any weight is another one."""
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


# The textbook's step: no freezing, no fused kernels, no replay (its pool is still filling)


class Textbook:
    """Copies of a model's networks, and plain optimisers of the same kind."""

    def __init__(self, model: CycleGAN) -> None:
        nets = {name: copy.deepcopy(network) for name, network in model.networks().items()}
        self.g_ab, self.g_ba = (nets[name] for name in GENERATORS)
        self.d_a, self.d_b = (nets[name] for name in DISCRIMINATORS)
        self.networks = nets
        self.adversarial = {"lsgan": nn.MSELoss(), "vanilla": nn.BCEWithLogitsLoss()}[
            model.config.gan_loss
        ]
        self.g_optimizer = torch.optim.Adam(
            [
                {"params": [parameter], "lr": 2e-4 * self.rate_factor(model, name)}
                for generator in (self.g_ab, self.g_ba)
                for name, parameter in generator.named_parameters()
            ],
            betas=(0.5, 0.999),
        )
        self.d_optimizer = torch.optim.Adam(
            chain(self.d_a.parameters(), self.d_b.parameters()), lr=2e-4, betas=(0.5, 0.999)
        )

    @staticmethod
    def rate_factor(model: CycleGAN, name: str) -> float:
        """He's deviation over 0.02 for convolutions without a norm (4 channels, one block)."""
        if model.config.norms == "all":
            return 1.0
        inputs = {
            "stem.conv.weight": 3 * 49,
            "down.0.conv.weight": 4 * 9,
            "down.1.conv.weight": 8 * 9,
            # A transposed convolution of stride 2 sums a quarter of its terms.
            "up.0.conv.weight": 16 * 9 / 4 * 2,  # Two variances: the skip's and the block's.
            "up.1.conv.weight": 8 * 9 / 4,
        }
        return (2 / inputs[name]) ** 0.5 / 0.02 if name in inputs else 1.0

    def gan_term(self, logits: Tensor, real: bool) -> Tensor:
        target = torch.ones_like(logits) if real else torch.zeros_like(logits)
        return self.adversarial(logits, target)

    def step(self, both: tuple[Tensor, Tensor], cycle: float, identity: float) -> list[float]:
        # In the model's layout the kernels are the same, and so are the bits.
        a, b = (real.contiguous(memory_format=torch.channels_last) for real in both)
        l1 = nn.L1Loss()
        fake_b, fake_a = self.g_ab(a), self.g_ba(b)
        terms = [
            self.gan_term(self.d_b(fake_b), True),
            self.gan_term(self.d_a(fake_a), True),
            l1(self.g_ba(fake_b), a),
            l1(self.g_ab(fake_a), b),
            l1(self.g_ba(a), a),
            l1(self.g_ab(b), b),
        ]
        generator_loss = terms[0] + terms[1] + cycle * terms[2] + cycle * terms[3]
        generator_loss = generator_loss + identity * terms[4] + identity * terms[5]
        self.g_optimizer.zero_grad()
        generator_loss.backward()
        self.g_optimizer.step()

        self.d_optimizer.zero_grad()
        for discriminator, real, fake in ((self.d_a, a, fake_a), (self.d_b, b, fake_b)):
            loss = (
                self.gan_term(discriminator(real), True)
                + self.gan_term(discriminator(fake.detach()), False)
            ) / 2
            loss.backward()
            terms.append(loss)
        self.d_optimizer.step()
        return [term.item() for term in terms]


def is_before_a_norm(name: str) -> bool:
    """Biases without any influence: their gradients are zero, and the noise that is computed
    for them Adam makes as large as any other."""
    return name.endswith(".bias") and not name.endswith((".head.bias", ".first.bias", "judge.bias"))


@pytest.mark.usefixtures("separate_passes")
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("gan_loss", ["lsgan", "vanilla"])
def test_step_losses_equal_reference_implementation(gan_loss, batch):
    model = tiny(gan_loss=gan_loss, lambda_identity=0.5)
    textbook = Textbook(model)
    found = model.step(*images(batch))
    expected = textbook.step(images(batch), cycle=10.0, identity=5.0)
    assert found.stacked().tolist() == [*expected, 0, 0]  # Without match_colors.


@pytest.mark.parametrize(
    ("options", "cycle", "identity"),
    [
        ({"lambda_identity": 0.5}, 10.0, 5.0),
        ({"lambda_identity": 0.5, "norms": "residual"}, 10.0, 5.0),
        ({"lambda_identity": 0.5, "gan_loss": "vanilla"}, 10.0, 5.0),
        ({"lambda_cycle": 3.0, "lambda_identity": 2.0}, 3.0, 6.0),
    ],
)
def test_weights_after_two_steps_equal_reference_implementation(options, cycle, identity):
    model = tiny(**options)
    textbook = Textbook(model)
    before = weights(model)
    for seed in range(2):
        model.step(*images(2, seed))
        textbook.step(images(2, seed), cycle, identity)
    after = weights(model)
    for name in filter(lambda name: not is_before_a_norm(name), after):
        network, key = name.split(".", 1)
        expected = textbook.networks[network].state_dict()[key]
        torch.testing.assert_close(after[name], expected, rtol=0, atol=1e-6, msg=name)
        assert (after[name] - before[name]).abs().max() > 1e-4, name


@pytest.mark.parametrize("batch", [1, 2])
def test_step_gradients_equal_reference_implementation(batch):
    """With plain gradient descent, which shows every size that Adam levels out."""
    model = tiny(lambda_cycle=3.0, lambda_identity=2.0)
    textbook = Textbook(model)
    before = weights(model)
    model.generator_optimizer = descent(model, GENERATORS)
    model.discriminator_optimizer = descent(model, DISCRIMINATORS)
    textbook.g_optimizer = descent(textbook, GENERATORS)
    textbook.d_optimizer = descent(textbook, DISCRIMINATORS)

    model.step(*images(batch))
    textbook.step(images(batch), cycle=3.0, identity=6.0)
    for name, after in weights(model).items():
        network, key = name.split(".", 1)
        moved = after - before[name]
        expected = textbook.networks[network].state_dict()[key] - before[name]
        if is_before_a_norm(name):
            assert moved.abs().max() < 1e-4, name
        else:
            size = float(expected.abs().max())
            torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-5 * size, msg=name)
            assert moved.abs().max() > 1e-3, name


def descent(owner: CycleGAN | Textbook, names: tuple[str, ...]) -> Any:
    networks = owner.networks if isinstance(owner, Textbook) else owner.networks()
    return torch.optim.SGD([p for name in names for p in networks[name].parameters()], lr=1.0)


@pytest.mark.parametrize("batch", [1, 2])
def test_shared_pass_of_translation_and_identity_equals_separate_passes(batch, monkeypatch):
    shared, apart = tiny(lambda_identity=0.5), tiny(lambda_identity=0.5)
    losses = [shared.step(*images(batch))]
    monkeypatch.setattr("cyclegan_cli.models.cyclegan.SHARED_PASS_ELEMENTS", 0)
    losses.append(apart.step(*images(batch)))
    torch.testing.assert_close(losses[0].stacked(), losses[1].stacked(), rtol=1e-5, atol=1e-6)
    for one, other in zip(shared.networks().values(), apart.networks().values(), strict=True):
        for parameter, expected in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-3, atol=1e-4)


# Who learns from what


@pytest.mark.parametrize("network", [*GENERATORS, *DISCRIMINATORS])
@pytest.mark.parametrize("steps_before", [0, 3])
def test_step_with_non_finite_gradients_is_skipped(network, steps_before):
    model = tiny(pool_size=2)
    for seed in range(steps_before):
        assert model.step(*images(seed=seed)).is_applied
    before = copy.deepcopy(everything(model))
    parameter = list(model.networks()[network].parameters())[-2]
    hook = parameter.register_hook(lambda gradient: gradient * float("nan"))
    losses = model.step(*images(seed=9))
    assert not losses.is_applied
    assert losses.stacked().isfinite().all()
    torch.testing.assert_close(everything(model), before, rtol=0, atol=0)
    hook.remove()
    undisturbed = tiny(pool_size=2)
    for seed in range(steps_before):
        undisturbed.step(*images(seed=seed))
    for each in (model, undisturbed):
        assert each.step(*images(seed=10)).is_applied
    torch.testing.assert_close(everything(model), everything(undisturbed), rtol=0, atol=0)


def everything(model: CycleGAN) -> dict[str, Any]:
    """Weights, moments and pools."""
    optimizers = (model.generator_optimizer, model.discriminator_optimizer)
    return {
        "weights": weights(model),
        "moments": [list(optimizer.state_dict()["state"].values()) for optimizer in optimizers],
        "pools": [pool.state() for pool in (model.pool_a, model.pool_b)],
    }


def test_gradient_norms_cover_all_parameters_of_each_optimizer():
    model = tiny()
    found = model.step(*images()).gradient_norms
    for names, norm in zip((GENERATORS, DISCRIMINATORS), found, strict=True):
        parameters = chain.from_iterable(model.networks()[n].parameters() for n in names)
        gradients = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        assert norm == pytest.approx(float(gradients.double().norm()), rel=1e-5)


def test_update_sizes_are_relative_to_the_learning_rate():
    """The first step of Adam moves every weight by the learning rate."""
    model = tiny()
    assert model.update_sizes() == (0, 0)
    model.step(*images())
    assert model.update_sizes() == pytest.approx((1, 1), abs=0.05)
    for optimizer in (model.generator_optimizer, model.discriminator_optimizer):
        for state in optimizer.state.values():
            state["exp_avg_sq"] += 1e10
    model.step(*images())
    assert max(model.update_sizes()) < 1e-3


def test_discriminators_require_grad_after_a_failed_step():
    model = tiny()

    def failing_loss(logits, target_is_real):
        raise RuntimeError("out of memory")

    model.gan_loss = failing_loss
    with pytest.raises(RuntimeError, match="out of memory"):
        model.step(*images())
    assert all(
        p.requires_grad for network in model.networks().values() for p in network.parameters()
    )


@pytest.mark.usefixtures("separate_passes")
def test_discriminators_train_on_fakes_from_before_the_generator_update():
    model = tiny()
    real_a, real_b = (real.contiguous(memory_format=torch.channels_last) for real in images())
    with torch.no_grad():
        fake_a, fake_b = model.generator_b2a(real_b), model.generator_a2b(real_a)
    model.step(real_a, real_b)
    pooled_a, pooled_b = model.pool_a.state()["images"], model.pool_b.state()["images"]
    assert torch.equal(pooled_a, fake_a)
    assert torch.equal(pooled_b, fake_b)
    with torch.no_grad():
        assert not torch.equal(pooled_a, model.generator_b2a(real_b))
        assert not torch.equal(pooled_b, model.generator_a2b(real_a))


def test_discriminators_train_on_images_from_the_replay_pool():
    model = tiny()
    old_a, old_b = images(seed=7)
    model.pool_a.exchange = lambda fakes: old_a
    model.pool_b.exchange = lambda fakes: old_b
    real_a, real_b = images()
    expected = [
        ((discriminator(real) - 1).square().mean() + discriminator(old).square().mean()).item() / 2
        for discriminator, real, old in (
            (model.discriminator_a, real_a, old_a),
            (model.discriminator_b, real_b, old_b),
        )
    ]
    losses = model.step(real_a, real_b)
    found = [losses.discriminator_a.item(), losses.discriminator_b.item()]
    assert found == pytest.approx(expected, rel=1e-5)


def test_zero_identity_weight_skips_the_identity_pass():
    model = tiny(lambda_identity=0)
    calls: list[str] = []
    for name in GENERATORS:
        model.networks()[name].register_forward_hook(lambda *_, name=name: calls.append(name))
    losses = model.step(*images())
    assert sorted(calls) == 2 * ["generator_a2b"] + 2 * ["generator_b2a"]
    assert losses.identity_a == losses.identity_b == 0


@pytest.mark.usefixtures("separate_passes")
def test_zero_identity_weight_keeps_the_other_losses():
    without, with_identity = (tiny(lambda_identity=x).step(*images()) for x in (0, 0.5))
    for name in set(LOSS_NAMES) - {"identity_a", "identity_b"}:
        assert torch.equal(getattr(without, name), getattr(with_identity, name))


def test_color_loss_is_the_distance_of_patch_means_to_the_matched_colors():
    model, plain = (tiny(lambda_color=x, lambda_identity=0) for x in (0.5, 0))
    sample = [images(4, seed) for seed in range(4)]
    model.match_colors(sample)
    plain.match_colors(sample)
    real_a, real_b = images(2)
    gradients = []
    for network, real, colors in (
        (model.generator_a2b, real_a, model.colors_a2b),
        (model.generator_b2a, real_b, model.colors_b2a),
    ):
        fake = network(real)
        distance = F.l1_loss(F.avg_pool2d(fake, 8), colors(real))
        gradients.append(torch.autograd.grad(5.0 * distance, list(network.parameters())))
        assert distance > 0.05
    losses, without = model.step(real_a, real_b), plain.step(real_a, real_b)
    assert losses.color_a2b == without.color_a2b
    for name, added in zip(GENERATORS, gradients, strict=True):
        found, others = model.networks()[name], plain.networks()[name]
        pairs = zip(found.parameters(), others.parameters(), added, strict=True)
        for parameter, other, difference in pairs:
            torch.testing.assert_close(
                parameter.grad - other.grad, difference, rtol=1e-3, atol=1e-4
            )


def test_color_loss_ignores_missing_data():
    model = tiny(lambda_color=0.5)
    model.may_lack_data = (True, True)
    real_a, real_b = images(2)
    model.match_colors([(real_a, real_b)])
    complete = model.step(real_a, real_b)
    other = tiny(lambda_color=0.5)
    other.may_lack_data = (True, True)
    real_a, real_b = images(2)
    other.match_colors([(real_a, real_b)])
    real_a[0, :, :8, :8] = torch.nan
    real_b[:] = torch.nan
    missing = other.step(real_a, real_b)
    assert missing.color_b2a == 0
    assert missing.color_a2b != complete.color_a2b
    assert missing.color_a2b.isfinite()


def test_domains_without_data_have_no_color_loss():
    model = tiny(lambda_color=0.5)
    model.may_lack_data = (False, True)
    real_a, real_b = images()
    model.match_colors([(real_a, torch.full_like(real_b, torch.nan))])
    assert model.colors_a2b is None
    assert model.step(real_a, real_b).color_a2b == 0


def test_zero_cycle_weight_leaves_only_adversarial_gradients():
    """λ_identity is a share of λ_cycle, so it is gone too."""
    model = tiny(lambda_cycle=0)
    textbook = Textbook(model)
    model.step(*images())
    textbook.step(images(), cycle=0.0, identity=0.0)
    for name in GENERATORS:
        found, expected = model.networks()[name], textbook.networks[name]
        for ours, theirs in zip(found.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


# Losses


def test_step_losses_are_detached_fp32_scalars():
    losses = tiny().step(*images(2))
    for name in LOSS_NAMES:
        term = getattr(losses, name)
        assert (term.shape, term.dtype, term.requires_grad) == ((), torch.float32, False)


# Optimisers


def test_optimizers_are_adam_with_the_papers_hyperparameters():
    model = tiny(learning_rate=3e-4, beta1=0.4, norms="all")
    for optimizer, names in (
        (model.generator_optimizer, GENERATORS),
        (model.discriminator_optimizer, DISCRIMINATORS),
    ):
        (group,) = optimizer.param_groups
        expected = [p for name in names for p in model.networks()[name].parameters()]
        assert list(map(id, group["params"])) == list(map(id, expected))
        assert type(optimizer) is torch.optim.Adam
        assert (group["lr"], group["betas"], group["weight_decay"]) == (3e-4, (0.4, 0.999), 0)


def test_weights_without_a_norm_learn_as_fast_as_the_others_relative_to_their_scale():
    model = tiny(norms="residual", base_channels=8)
    initial = weights(model)
    for rate in (1e-3, 5e-4):
        before = weights(model)
        model.set_learning_rate(rate)
        model.step(*images())
        for name, after in weights(model).items():
            if is_before_a_norm(name) or ".bias" in name:
                continue
            normalized = "trunk" in name or "discriminator" in name or "head" in name
            scale = 0.02 if normalized else float(initial[name].std())
            change = float((after - before[name]).abs().max())
            if rate == 1e-3:  # Adam's first step is the learning rate, whatever the gradients.
                assert change == pytest.approx(rate * scale / 0.02, rel=0.1), name
            else:
                assert change < 0.6e-3 * 1.1 * scale / 0.02, name


def test_learning_rate_applies_to_all_four_networks():
    """The first step of Adam moves the weights by the learning rate, whatever the gradients."""
    model = tiny(norms="all")
    before = weights(model)
    model.set_learning_rate(0.125)
    model.step(*images())
    for name, after in weights(model).items():
        if not is_before_a_norm(name):
            assert (after - before[name]).abs().max() == pytest.approx(0.125, rel=1e-2), name


# Seeds


def trained(seed: int, global_seed: int) -> dict[str, Tensor]:
    """Weights after three steps, in which the pools have begun to exchange."""
    torch.manual_seed(global_seed)
    model = tiny(seed=seed, pool_size=2)
    for step in range(3):
        model.step(*images(2, seed=step))
    return weights(model)


def test_equal_seeds_initialize_identical_networks():
    assert changed(trained(5, global_seed=1), trained(5, global_seed=2)) == set()


def test_different_seeds_initialize_different_networks():
    assert changed(trained(5, 1), trained(6, 1)) == {*GENERATORS, *DISCRIMINATORS}


def test_the_four_networks_are_initialized_differently():
    model = tiny()
    for first, second in (GENERATORS, DISCRIMINATORS):
        networks = model.networks()
        pairs = zip(networks[first].parameters(), networks[second].parameters(), strict=True)
        assert all(not torch.equal(x, y) for x, y in pairs if x.ndim > 1)


def test_pools_have_pool_size_and_different_seeds():
    model = tiny(pool_size=7)
    assert model.pool_a.size == model.pool_b.size == 7
    assert not torch.equal(model.pool_a.state()["random"], model.pool_b.state()["random"])


# bf16


def test_bf16_keeps_weights_and_moments_in_fp32():
    model = tiny(bf16=True)
    computed: set[torch.dtype] = set()
    for network in model.networks().values():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.register_forward_hook(lambda _, __, output: computed.add(output.dtype))
    before = weights(model)
    losses = model.step(*images())
    assert computed == {torch.bfloat16}
    assert losses.stacked().dtype == torch.float32
    assert {weight.dtype for weight in weights(model).values()} == {torch.float32}
    for optimizer in (model.generator_optimizer, model.discriminator_optimizer):
        moments = [moment for state in optimizer.state.values() for moment in state.values()]
        assert {moment.dtype for moment in moments} == {torch.float32}
    assert changed(before, weights(model)) == {*GENERATORS, *DISCRIMINATORS}


def test_bf16_losses_are_close_to_fp32():
    coarse, fine = (tiny(bf16=bf16).step(*images(2)).stacked() for bf16 in (True, False))
    torch.testing.assert_close(coarse, fine, rtol=0.02, atol=1e-3)


def test_bf16_steps_with_full_pools():
    model = tiny(bf16=True, pool_size=1)
    for seed in range(4):
        assert model.step(*images(2, seed)).stacked().isfinite().all()


# Samples


@pytest.mark.parametrize("bf16", [False, True])
def test_sample_returns_fp32_translations_and_reconstructions(bf16):
    model = tiny(bf16=bf16)
    real_a, real_b = images(2)
    samples = model.translate_and_reconstruct(real_a, real_b)
    with torch.no_grad():
        fake_b, fake_a = model.generator_a2b(real_a), model.generator_b2a(real_b)
        expected = {
            "fake_b": fake_b,
            "rec_a": model.generator_b2a(fake_b),
            "fake_a": fake_a,
            "rec_b": model.generator_a2b(fake_a),
        }
    assert list(samples) == list(expected)
    tolerance = 0.1 if bf16 else 1e-5
    for name, sample in samples.items():
        torch.testing.assert_close(sample, expected[name], rtol=0, atol=tolerance)
        assert not sample.requires_grad


def test_sample_does_not_change_the_training_state():
    model = tiny()
    before = weights(model)
    model.translate_and_reconstruct(*images())
    assert changed(before, weights(model)) == set()
    assert model.pool_a.count == model.pool_b.count == 0
    assert all(
        p.grad is None for network in model.networks().values() for p in network.parameters()
    )


@pytest.mark.parametrize("bf16", [False, True])
def test_concurrent_directions_equal_sequential_ones(bf16):
    config = TrainConfig(
        load_size=32, crop_size=32, base_channels=4, discriminator_channels=4, residual_blocks=1
    )
    threads = torch.get_num_threads()
    results = []
    try:
        for concurrent in (False, True):
            torch.set_num_threads(2 if concurrent else 1)
            model = CycleGAN(config, torch.device("cpu"), bf16)
            images = torch.rand(4, 2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
            losses = [model.step(*pair).stacked() for pair in images]
            assert torch.get_num_threads() == (2 if concurrent else 1)
            weights = [p.detach() for n in model.networks().values() for p in n.parameters()]
            results.append([*losses, *weights])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))
