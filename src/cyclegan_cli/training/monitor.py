"""Whether a training is healthy, in words: what is wrong, and what to do about it.

The faults that this method is known for, each read off something that is measured anyway: the
losses of an interval, or translations of the same images at intervals. A healthy run has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor

from cyclegan_cli.checkpoints.header import Direction
from cyclegan_cli.config import GanLossChoice
from cyclegan_cli.models.losses import l1_loss
from cyclegan_cli.training.metrics import diversity, luminance_correlation
from cyclegan_cli.training.plan import Plan
from cyclegan_cli.training.validation import Examination

Kind = Literal[
    "non-finite", "diverged", "gradient-spike", "stall", "discriminator-won", "collapse",
    "inversion", "identity",
]  # fmt: skip
HEALTHY = "ok"

# A discriminator that is right everywhere has loss 0; one that knows nothing 0.25 or 0.69.
WON_BELOW: dict[GanLossChoice, float] = {"lsgan": 0.01, "vanilla": 0.03}
WON_FOR_STEPS = 500
# A discriminator that guesses has 0.25 or 0.69, a generator that it sees through 1 or about 5.
DIVERGED_ABOVE: dict[GanLossChoice, float] = {"lsgan": 10.0, "vanilla": 50.0}
# The largest gradient norm between two rows, over the usual one: ordinary runs stay below 10.
SPIKE_FACTOR = 100.0
USUAL_WEIGHT = 0.1  # Of a new row in the usual norm, a geometric running mean.
USUAL_AFTER = 5  # Rows: the first steps of a run have large gradients.
# Adam's second moments forget a spike in 1 / (1 - 0.999) steps, times the logarithm of its size.
SPIKE_LASTS = 2000
# Mean movement of a weight per step, in learning rates: 0.05 to 0.5 while a network learns.
STALLED_BELOW = 1e-3
STALLED_ROWS = 3
# Translations differ from each other by less than this share of what real images differ by.
COLLAPSED_BELOW = 0.1
# Correlation of brightness before and after; a negative has -1.
INVERTED_BELOW = -0.5
# Translations differ from their inputs by less than this share of what the domains differ by.
UNCHANGED_BELOW = 0.08
# Measurements in a row; a generator begins with grey, and then with what goes in.
OFTEN: dict[Kind, int] = {"collapse": 2, "inversion": 1, "identity": 3}
# Real images that differ by less than this, of 2, say nothing about translations.
LEAST_DIFFERENCE = 0.02


@dataclass(frozen=True)
class Verdict:
    """Something that is wrong.

    Attributes:
        kind: What sort of fault.
        step: When it was found.
        sentence: What is wrong, with the numbers that say so.
        advice: What to do about it.
    """

    kind: Kind
    step: int
    sentence: str
    advice: str


@dataclass(frozen=True)
class Change:
    """What became of the health: faults that were found, and faults that are over."""

    found: list[Verdict]
    over: list[Verdict]


class Monitor:
    """Follows a run and remembers what is wrong with it.

    Args:
        plan: The run.
        remembered: What :meth:`state` gave; empty for a new run.
    """

    def __init__(self, plan: Plan, remembered: Mapping[str, Any]) -> None:
        self.plan = plan
        self.low_steps: dict[str, int] = dict(remembered.get("low_steps", {}))
        self.times: dict[str, int] = dict(remembered.get("times", {}))
        self.usual_norms: dict[str, float] = dict(remembered.get("usual_norms", {}))
        self.rows: int = remembered.get("rows", 0)
        self.spikes: dict[str, int] = dict(remembered.get("spikes", {}))
        verdicts = remembered.get("verdicts", {})
        self.verdicts: dict[str, Verdict] = {
            name: Verdict(**verdict) for name, verdict in verdicts.items()
        }

    def state(self) -> dict[str, Any]:
        """What a resumed run has to know, as plain values."""
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
    def word(self) -> str:
        """For a table: the sorts of faults, or ``ok``."""
        return " ".join(sorted({verdict.kind for verdict in self.verdicts.values()})) or HEALTHY

    def document(self, step: int) -> dict[str, Any]:
        """What ``health.json`` has at a step."""
        verdicts = sorted(self.verdicts.values(), key=lambda one: (one.step, one.sentence))
        return {"schema": 1, "step": step, "verdicts": [asdict(verdict) for verdict in verdicts]}

    def see_losses(self, step: int, means: Mapping[str, float], steps: int) -> Change:
        """Take in the mean losses of the last ``steps`` steps."""
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
                f"{below:g} ({loss:.2g} now), and the generator learns no more from it",
                "Use more images, fewer --discriminator-channels or a smaller --lambda-cycle.",
            )
            self._judge(f"discriminator-won {domain}", low >= WON_FOR_STEPS, verdict, change)
        highest = DIVERGED_ABOVE[self.plan.config.gan_loss]
        terms = {name: means[name] for name in means if "adversarial" in name or "discr" in name}
        worst = max(terms, key=lambda name: terms[name])
        verdict = Verdict(
            "diverged",
            step,
            f"the training has diverged: the loss {worst} is {terms[worst]:.3g}, and the objective "
            f"means nothing above {highest:g}",
            "Begin again with a smaller --learning-rate.",
        )
        self._judge("diverged", terms[worst] > highest, verdict, change)
        return change

    def see_gradients(self, step: int, largest: Mapping[str, float]) -> Change:
        """Judge the largest gradient norms since the last row, by which networks they are of."""
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
                f"the gradients of the {name} jumped to a norm of {norm:.2g}, {usual:.2g} is usual",
                "Adam's moments remember it for thousands of steps. Go on with fresh ones from an "
                "earlier checkpoint (--init-from; --keep-checkpoints keeps some), with a smaller "
                "--learning-rate or --precision fp32.",
            )
            lasts = name in self.spikes and step - self.spikes[name] < SPIKE_LASTS
            self._judge(f"gradient-spike {name}", lasts, verdict, change)
        return change

    def see_updates(self, step: int, sizes: Mapping[str, float], rate: float) -> Change:
        """Judge how far weights move per step, in learning rates, unless the rate is near zero."""
        change = Change([], [])
        if rate <= 0.01 * self.plan.config.learning_rate:
            return change
        for name, size in sizes.items():
            rows = self.times.get(f"stall {name}", 0) + 1 if size < STALLED_BELOW else 0
            self.times[f"stall {name}"] = rows
            verdict = Verdict(
                "stall",
                step,
                f"the {name} stand still: their weights move by {size:.1g} learning rates per "
                "step, and 0.1 is usual",
                "Either a spike of the gradients fills Adam's moments, or no gradient arrives. "
                "Begin with fresh moments from an earlier checkpoint (--init-from), or again with "
                "a smaller --learning-rate.",
            )
            self._judge(f"stall {name}", rows >= STALLED_ROWS, verdict, change)
        return change

    def see_images(self, step: int, found: Examination) -> Change:
        """Take in translations of fixed images."""
        change = Change([], [])
        directions = (
            Seen("a2b", found.real_a, found.fake_b, found.real_b, found.idt_b),
            Seen("b2a", found.real_b, found.fake_a, found.real_a, found.idt_a),
        )
        for seen in directions:
            for verdict, is_so in _faults(step, self._arrow(seen.direction), seen):
                name = f"{verdict.kind} {seen.direction}"
                self.times[name] = self.times.get(name, 0) + 1 if is_so else 0
                often = self.times[name] >= OFTEN[verdict.kind]
                self._judge(name, often, verdict, change)
        return change

    def _arrow(self, direction: Direction) -> str:
        names = self.plan.name_a, self.plan.name_b
        return " -> ".join(names if direction == "a2b" else names[::-1])

    def see_no_numbers(self, step: int, sentence: str, advice: str) -> None:
        """Take in that the run has left the finite numbers."""
        self.verdicts["non-finite"] = Verdict("non-finite", step, sentence, advice)

    def _judge(self, name: str, is_so: bool, verdict: Verdict, change: Change) -> None:
        if is_so and name not in self.verdicts:
            self.verdicts[name] = verdict
            change.found.append(verdict)
        elif not is_so and name in self.verdicts:
            change.over.append(self.verdicts.pop(name))


@dataclass(frozen=True)
class Seen:
    """What one generator makes of fixed images, each ``[N, 3, H, W]`` in [-1, 1].

    Attributes:
        direction: Which generator.
        real: Images of the domain that it translates from.
        fake: Their translations.
        target: Images of the domain that it translates to.
        kept: What it makes of those.
    """

    direction: Direction
    real: Tensor
    fake: Tensor
    target: Tensor
    kept: Tensor


def _faults(step: int, arrow: str, seen: Seen) -> Iterator[tuple[Verdict, bool]]:
    """Every fault that translations can have, and whether these have it."""
    share, is_collapsed = _collapse(seen)
    yield (
        Verdict(
            "collapse",
            step,
            f"the generator {arrow} has collapsed: its translations of different images are "
            f"alike, with {share:.0%} of the differences between real ones",
            "Begin again with another --seed, a smaller --learning-rate or a larger --batch-size; "
            "a --lambda-cycle below 5 invites it.",
        ),
        is_collapsed,
    )
    correlation, is_inverted = _inversion(seen)
    yield (
        Verdict(
            "inversion",
            step,
            f"the generator {arrow} makes negatives: its translations are dark where their "
            f"inputs are bright (correlation {correlation:.2f})",
            "Begin again with another --seed or a larger --lambda-identity, unless that is what "
            "the domains differ in.",
        ),
        is_inverted,
    )
    change, is_unchanged = _identity(seen)
    yield (
        Verdict(
            "identity",
            step,
            f"the generator {arrow} translates nothing: its translations differ from their "
            f"inputs by {change:.1%} of what the domains differ by",
            "Lower --lambda-identity or --lambda-cycle, and see whether the two folders differ "
            "in what they should.",
        ),
        is_unchanged,
    )


def _collapse(seen: Seen) -> tuple[float, bool]:
    """The translations' diversity as a share of that of the more uniform domain."""
    reference = min(diversity(seen.real), diversity(seen.target))
    if reference < LEAST_DIFFERENCE:
        return 1.0, False
    share = diversity(seen.fake) / reference
    return share, share < COLLAPSED_BELOW


def _inversion(seen: Seen) -> tuple[float, bool]:
    """The correlation of brightness before and after.

    Night skies are dark where skies are bright, and that is no fault. But a generator that makes
    negatives makes them of everything, of images that are in its target domain too.
    """
    correlation = luminance_correlation(seen.real, seen.fake)
    of_target = luminance_correlation(seen.target, seen.kept)
    return correlation, max(correlation, of_target) < INVERTED_BELOW


def _identity(seen: Seen) -> tuple[float, bool]:
    """What a translation changes as a share of what any two images of the domains differ by."""
    apart = float(l1_loss(seen.real, seen.target))
    if apart < LEAST_DIFFERENCE:
        return 1.0, False
    change = float(l1_loss(seen.fake, seen.real)) / apart
    return change, change < UNCHANGED_BELOW
