"""Health checks: detect the known failures of CycleGAN training.

Each check uses values that are measured anyway: mean losses, gradient norms, weight updates, and
translations of the validation images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor

from cyclegan_cli.config import GanLossChoice
from cyclegan_cli.metrics.distances import diversity, luminance_correlation
from cyclegan_cli.models.losses import l1_loss
from cyclegan_cli.training.plan import Plan
from cyclegan_cli.training.validation import ValidationBatch

Kind = Literal[
    "non-finite", "diverged", "gradient-spike", "stall", "discriminator-won", "collapse",
    "inversion", "identity",
]  # fmt: skip
HEALTHY = "ok"

# The loss of a perfect discriminator is 0; that of a guessing one is 0.25 or 0.69.
WON_BELOW: dict[GanLossChoice, float] = {"lsgan": 0.01, "vanilla": 0.03}
WON_FOR_STEPS = 500
# A guessing discriminator has 0.25 or 0.69; a generator that never fools it 1 or about 5.
DIVERGED_ABOVE: dict[GanLossChoice, float] = {"lsgan": 10.0, "vanilla": 50.0}
# Largest gradient norm between two rows relative to the usual one: normal runs stay below 10.
SPIKE_FACTOR = 100.0
USUAL_WEIGHT = 0.1  # Weight of a new row in the usual norm, a geometric running mean.
USUAL_AFTER = 5  # Rows; the first steps of a run have large gradients.
# Adam's second moments forget a spike in 1 / (1 - 0.999) steps, times the logarithm of its size.
SPIKE_LASTS = 2000
# Mean update of a weight per step, in learning rates: 0.05 to 0.5 while a network learns.
STALLED_BELOW = 1e-3
STALLED_ROWS = 3
# Diversity of the translations relative to real images.
COLLAPSED_BELOW = 0.1
# Correlation of luminance before and after translation; a negative has -1.
INVERTED_BELOW = -0.5
# Distance of translations to their inputs relative to the distance between the domains.
UNCHANGED_BELOW = 0.08
# Consecutive validations: new generators return gray images first, then their inputs.
CONSECUTIVE: dict[Kind, int] = {"collapse": 2, "inversion": 1, "identity": 3}
# If real images differ by less than this, of a range of 2, translations cannot be judged.
MIN_DIFFERENCE = 0.02


@dataclass(frozen=True)
class Verdict:
    """A detected failure.

    Attributes:
        kind: The kind of failure.
        step: The step at which it was detected.
        sentence: What was detected, with the measured values.
        advice: What to do about it.
    """

    kind: Kind
    step: int
    sentence: str
    advice: str


@dataclass(frozen=True)
class Change:
    """Verdicts that a check has added and removed."""

    found: list[Verdict]
    over: list[Verdict]


class HealthMonitor:
    """Checks a run and keeps the present verdicts.

    Args:
        plan: The training.
        state: Values from :meth:`state_dict`; empty for a new run.
    """

    def __init__(self, plan: Plan, state: Mapping[str, Any]) -> None:
        self.plan = plan
        self.low_steps: dict[str, int] = dict(state.get("low_steps", {}))
        self.times: dict[str, int] = dict(state.get("times", {}))
        self.usual_norms: dict[str, float] = dict(state.get("usual_norms", {}))
        self.rows: int = state.get("rows", 0)
        self.spikes: dict[str, int] = dict(state.get("spikes", {}))
        verdicts = state.get("verdicts", {})
        self.verdicts: dict[str, Verdict] = {
            name: Verdict(**verdict) for name, verdict in verdicts.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Return plain values for the checkpoint."""
        verdicts = {name: asdict(verdict) for name, verdict in self.verdicts.items()}
        return {
            "low_steps": self.low_steps,
            "times": self.times,
            "usual_norms": self.usual_norms,
            "rows": self.rows,
            "spikes": self.spikes,
            "verdicts": verdicts,
        }

    @property
    def summary(self) -> str:
        """The kinds of the present verdicts, or ``ok``."""
        return " ".join(sorted({verdict.kind for verdict in self.verdicts.values()})) or HEALTHY

    def document(self, step: int) -> dict[str, Any]:
        """Return the content of ``health.json``."""
        verdicts = sorted(self.verdicts.values(), key=lambda one: (one.step, one.sentence))
        return {"schema": 1, "step": step, "verdicts": [asdict(verdict) for verdict in verdicts]}

    def check_losses(self, step: int, means: Mapping[str, float], steps: int) -> Change:
        """Check the mean losses of the last ``steps`` steps."""
        change = Change([], [])
        below = WON_BELOW[self.plan.config.gan_loss]
        for domain, name in (("a", self.plan.name_a), ("b", self.plan.name_b)):
            loss = means[f"discriminator_{domain}"]
            low = self.low_steps.get(domain, 0) + steps if loss < below else 0
            self.low_steps[domain] = low
            verdict = Verdict(
                "discriminator-won",
                step,
                f"the discriminator of {name} has won: for {low} steps its loss has been below "
                f"{below:g} ({loss:.2g} now), and the generator no longer learns from it",
                "Use more images, fewer --discriminator-channels or a smaller --lambda-cycle.",
            )
            self._set(f"discriminator-won {domain}", low >= WON_FOR_STEPS, verdict, change)
        highest = DIVERGED_ABOVE[self.plan.config.gan_loss]
        terms = {name: means[name] for name in means if "adversarial" in name or "discr" in name}
        worst = max(terms, key=lambda name: terms[name])
        verdict = Verdict(
            "diverged",
            step,
            f"the training has diverged: the loss {worst} is {terms[worst]:.3g}, more than "
            f"{highest:g}",
            "Start again with a smaller --learning-rate.",
        )
        self._set("diverged", terms[worst] > highest, verdict, change)
        return change

    def check_gradients(self, step: int, largest: Mapping[str, float]) -> Change:
        """Check the largest gradient norms since the last row, by networks."""
        change = Change([], [])
        self.rows += 1
        for name, norm in largest.items():
            usual = self.usual_norms.setdefault(name, norm)
            is_spike = self.rows > USUAL_AFTER and norm > SPIKE_FACTOR * usual
            if is_spike:
                self.spikes[name] = step
            elif norm > 0 < usual:
                self.usual_norms[name] = usual * (norm / usual) ** USUAL_WEIGHT
            elif norm > 0:
                self.usual_norms[name] = norm
            verdict = Verdict(
                "gradient-spike",
                step,
                f"the gradients of the {name} jumped to a norm of {norm:.2g}; {usual:.2g} is usual",
                "The spike stays in the moments of Adam for thousands of steps. Start with new "
                "moments from an earlier checkpoint (--init-from; see --keep-checkpoints), with a "
                "smaller --learning-rate or --precision fp32.",
            )
            lasts = name in self.spikes and step - self.spikes[name] < SPIKE_LASTS
            self._set(f"gradient-spike {name}", lasts, verdict, change)
        return change

    def check_updates(self, step: int, sizes: Mapping[str, float], rate: float) -> Change:
        """Check the mean update of a weight, in learning rates, unless the rate is near zero."""
        change = Change([], [])
        if rate <= 0.01 * self.plan.config.learning_rate:
            return change
        for name, size in sizes.items():
            rows = self.times.get(f"stall {name}", 0) + 1 if size < STALLED_BELOW else 0
            self.times[f"stall {name}"] = rows
            verdict = Verdict(
                "stall",
                step,
                f"the {name} have stalled: their weights move by {size:.1g} learning rates per "
                "step; 0.1 is usual",
                "Either a gradient spike fills the moments of Adam, or the gradients vanish. Start "
                "with new moments from an earlier checkpoint (--init-from), or again with a "
                "smaller --learning-rate.",
            )
            self._set(f"stall {name}", rows >= STALLED_ROWS, verdict, change)
        return change

    def check_translations(self, step: int, batch: ValidationBatch) -> Change:
        """Check the translations of the validation images."""
        change = Change([], [])
        name_a, name_b = self.plan.name_a, self.plan.name_b
        a2b = Translations(
            f"{name_a} -> {name_b}", batch.real_a, batch.fake_b, batch.real_b, batch.idt_b
        )
        b2a = Translations(
            f"{name_b} -> {name_a}", batch.real_b, batch.fake_a, batch.real_a, batch.idt_a
        )
        for direction, images in (("a2b", a2b), ("b2a", b2a)):
            for verdict, has_failed in _check(step, images):
                name = f"{verdict.kind} {direction}"
                self.times[name] = self.times.get(name, 0) + 1 if has_failed else 0
                often = self.times[name] >= CONSECUTIVE[verdict.kind]
                self._set(name, often, verdict, change)
        return change

    def add_non_finite(self, step: int, sentence: str, advice: str) -> None:
        """Add the verdict that values are not finite."""
        self.verdicts["non-finite"] = Verdict("non-finite", step, sentence, advice)

    def _set(self, name: str, has_failed: bool, verdict: Verdict, change: Change) -> None:
        if has_failed and name not in self.verdicts:
            self.verdicts[name] = verdict
            change.found.append(verdict)
        elif not has_failed and name in self.verdicts:
            change.over.append(self.verdicts.pop(name))


@dataclass(frozen=True)
class Translations:
    """The outputs of one generator, each ``[N, 3, H, W]`` in [-1, 1].

    Attributes:
        direction: The generator, for messages.
        real: Images of the source domain.
        fake: Their translations.
        target: Images of the target domain.
        identity: The outputs for those.
    """

    direction: str
    real: Tensor
    fake: Tensor
    target: Tensor
    identity: Tensor


def _check(step: int, images: Translations) -> Iterator[tuple[Verdict, bool]]:
    """Yield the verdict for each failure of a generator, and whether it applies."""
    ratio, is_collapsed = _collapse(images)
    yield (
        Verdict(
            "collapse",
            step,
            f"the generator {images.direction} has collapsed: its translations of different "
            f"images are alike, with {ratio:.0%} of the diversity of real ones",
            "Start again with another --seed, a smaller --learning-rate or a larger --batch-size; "
            "a --lambda-cycle below 5 makes it more likely.",
        ),
        is_collapsed,
    )
    correlation, is_inverted = _inversion(images)
    yield (
        Verdict(
            "inversion",
            step,
            f"the generator {images.direction} produces negatives: its translations are dark where "
            f"their inputs are bright (correlation {correlation:.2f})",
            "Start again with another --seed or a larger --lambda-identity, unless this is the "
            "difference between the domains.",
        ),
        is_inverted,
    )
    change, is_unchanged = _identity(images)
    yield (
        Verdict(
            "identity",
            step,
            f"the generator {images.direction} changes almost nothing: its translations differ "
            f"from their inputs by {change:.1%} of the difference between the domains",
            "Lower --lambda-identity or --lambda-cycle, and check that the two folders differ as "
            "intended.",
        ),
        is_unchanged,
    )


def _collapse(images: Translations) -> tuple[float, bool]:
    """Return the diversity of the translations relative to the less diverse domain."""
    reference = min(diversity(images.real), diversity(images.target))
    if reference < MIN_DIFFERENCE:
        return 1.0, False
    ratio = diversity(images.fake) / reference
    return ratio, ratio < COLLAPSED_BELOW


def _inversion(images: Translations) -> tuple[float, bool]:
    """Return the correlation of luminance before and after translation.

    The sky is bright by day and dark at night: that alone is not a failure. A generator that
    produces negatives also does so for images of its target domain.
    """
    correlation = luminance_correlation(images.real, images.fake)
    of_target = luminance_correlation(images.target, images.identity)
    return correlation, max(correlation, of_target) < INVERTED_BELOW


def _identity(images: Translations) -> tuple[float, bool]:
    """Return the L1 distance of translations to inputs relative to that between the domains."""
    distance = float(l1_loss(images.real, images.target))
    if distance < MIN_DIFFERENCE:
        return 1.0, False
    change = float(l1_loss(images.fake, images.real)) / distance
    return change, change < UNCHANGED_BELOW
