"""Health checks: detect the known failures of CycleGAN training.

Each check uses values that are measured anyway: mean losses, gradient norms, weight updates, and
translations of the validation images.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor

from cyclegan_cli import files
from cyclegan_cli.checkpoints.locate import HEALTH_FILE
from cyclegan_cli.config import GanLossChoice
from cyclegan_cli.metrics.distances import diversity, luminance_correlation
from cyclegan_cli.metrics.spectrum import TILE, pattern_ratio
from cyclegan_cli.models.cyclegan import LOSS_NAMES, StepLosses
from cyclegan_cli.models.losses import l1_loss
from cyclegan_cli.training.callbacks.base import TrainingCallback, TrainingRun
from cyclegan_cli.training.callbacks.logging import (
    GRADIENT_COLUMNS,
    HEALTH_COLUMN,
    VALIDATION_COLUMNS,
    VALIDATION_FILE,
    read_rows,
)
from cyclegan_cli.training.plan import Plan
from cyclegan_cli.training.trend import trend
from cyclegan_cli.training.validation import ValidationBatch

Kind = Literal[
    "non-finite", "diverged", "gradient-spike", "stall", "discriminator-won", "collapse",
    "inversion", "identity", "checkerboard", "plateau",
]  # fmt: skip
HEALTHY = "ok"
NETWORKS = ("generators", "discriminators")
# The training does not recover from this many consecutive steps with non-finite gradients.
MAX_CONSECUTIVE_SKIPS = 10

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
# Diversity of the translations relative to real images.
COLLAPSED_BELOW = 0.1
# Correlation of luminance before and after translation; a negative has -1.
INVERTED_BELOW = -0.5
# Distance of translations to their inputs relative to the distance between the domains.
UNCHANGED_BELOW = 0.08
# Consecutive rows or validations: new generators return gray images first, then their inputs.
CONSECUTIVE: dict[Kind, int] = {"stall": 3, "collapse": 2, "inversion": 1, "identity": 3,
                                "checkerboard": 2, "plateau": 2}  # fmt: skip
# If real images differ by less than this, of a range of 2, translations cannot be judged.
MIN_DIFFERENCE = 0.02
# Peaks of the translations' spectrum relative to real images. Real images of one domain have up to
# 1.3 relative to others of it, and up to 2.5 relative to another domain; strided generators have
# 15 to 230 after 1,200 to 7,000 steps.
PATTERN_ABOVE, PATTERN_OVER_BELOW = 5.0, 3.0
# All networks have patterns at first. The losses have settled once the mean cycle loss over this
# many steps is above a fraction of that of the steps before: 1,500 steps in four measured runs.
SETTLING_STEPS, SETTLED_ABOVE = 500, 0.85
CHECKERBOARD_ADVICE = (
    "A longer training (more --steps) weakens patterns slowly, last in even areas such as skies."
)
STRIDED_ADVICE = (
    "Fine-tune with --init-from and --resampling blur, which removes it by construction."
)
# The distance falls by less than this over the later half of the validations.
PLATEAU_BELOW, PLATEAU_OVER_ABOVE = 0.05, 0.1


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


@dataclass
class Settling:
    """Whether the cycle loss has settled after its fall at the start of a training.

    Attributes:
        total: Sum of the mean cycle losses of the steps since ``previous``.
        steps: Number of these steps.
        previous: Mean over the steps before; 0 at first.
        is_over: Whether the loss has settled. It stays settled.
    """

    total: float = 0.0
    steps: int = 0
    previous: float = 0.0
    is_over: bool = False

    def update(self, loss: float, steps: int) -> None:
        """Add the mean loss of ``steps`` steps."""
        self.total += loss * steps
        self.steps += steps
        if self.steps >= SETTLING_STEPS:
            mean = self.total / self.steps
            self.is_over = self.is_over or mean > SETTLED_ABOVE * self.previous > 0
            self.total, self.steps, self.previous = 0.0, 0, mean


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
        self.settling = Settling(**state.get("settling", {}))
        # Step and distances of each validation; not in the state, since validation.csv has them.
        self.distances: list[tuple[int, float, float]] = []
        self.verdicts = {k: Verdict(**one) for k, one in state.get("verdicts", {}).items()}

    def state_dict(self) -> dict[str, Any]:
        """Return plain values for the checkpoint."""
        return {
            "low_steps": self.low_steps,
            "times": self.times,
            "usual_norms": self.usual_norms,
            "rows": self.rows,
            "spikes": self.spikes,
            "settling": asdict(self.settling),
            "verdicts": {name: asdict(verdict) for name, verdict in self.verdicts.items()},
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
        self.settling.update((means["cycle_a"] + means["cycle_b"]) / 2, steps)
        below = WON_BELOW[self.plan.config.gan_loss]
        for domain, name in (("a", self.plan.name_a), ("b", self.plan.name_b)):
            loss = means[f"discriminator_{domain}"]
            low = self.low_steps.get(domain, 0) + steps if loss < below else 0
            self.low_steps[domain] = low
            sentence = (
                f"the discriminator of {name} has won: for {low} steps its loss has been below "
                f"{below:g} ({loss:.2g} now), and the generator no longer learns from it"
            )
            advice = "Use more images, fewer --discriminator-channels or a smaller --lambda-cycle."
            verdict = Verdict("discriminator-won", step, sentence, advice)
            self._set(domain, low >= WON_FOR_STEPS, verdict, change)
        highest = DIVERGED_ABOVE[self.plan.config.gan_loss]
        terms = {name: means[name] for name in means if "adversarial" in name or "discr" in name}
        worst = max(terms, key=lambda name: terms[name])
        sentence = (
            f"the training has diverged: the loss {worst} is {terms[worst]:.3g}, more than "
            f"{highest:g}"
        )
        verdict = Verdict("diverged", step, sentence, "Start again with a smaller --learning-rate.")
        self._set("", terms[worst] > highest, verdict, change)
        return change

    def check_gradients(self, step: int, largest: Mapping[str, float]) -> Change:
        """Check the largest gradient norms since the last row, by networks."""
        change = Change([], [])
        self.rows += 1
        for name, norm in largest.items():
            usual = self.usual_norms.setdefault(name, norm)
            if self.rows > USUAL_AFTER and norm > SPIKE_FACTOR * usual:
                self.spikes[name] = step
            elif norm > 0:
                self.usual_norms[name] = usual * (norm / usual) ** USUAL_WEIGHT if usual else norm
            sentence = (
                f"the gradients of the {name} jumped to a norm of {norm:.2g}; {usual:.2g} is usual"
            )
            advice = (
                "The spike stays in the moments of Adam for thousands of steps. Start with new "
                "moments from an earlier checkpoint (--init-from; see --keep-checkpoints), with a "
                "smaller --learning-rate or --precision fp32."
            )
            lasts = name in self.spikes and step - self.spikes[name] < SPIKE_LASTS
            self._set(name, lasts, Verdict("gradient-spike", step, sentence, advice), change)
        return change

    def check_updates(self, step: int, sizes: Mapping[str, float], rate: float) -> Change:
        """Check the mean update of a weight, in learning rates, unless the rate is near zero."""
        change = Change([], [])
        if rate <= 0.01 * self.plan.config.learning_rate:
            return change
        for name, size in sizes.items():
            sentence = (
                f"the {name} have stalled: their weights move by {size:.1g} learning rates per "
                "step; 0.1 is usual"
            )
            advice = (
                "Either a gradient spike fills the moments of Adam, or the gradients vanish. Start "
                "with new moments from an earlier checkpoint (--init-from), or again with a "
                "smaller --learning-rate."
            )
            verdict = Verdict("stall", step, sentence, advice)
            self._set_if_repeated(name, size < STALLED_BELOW, verdict, change)
        return change

    def check_translations(self, step: int, batch: ValidationBatch) -> Change:
        """Check the translations of the validation images."""
        change = Change([], [])
        a2b, b2a = (
            _failures(f"{self.plan.name_a} -> {self.plan.name_b}", batch.real_a, batch.fake_b,
                      batch.real_b, batch.idt_b),
            _failures(f"{self.plan.name_b} -> {self.plan.name_a}", batch.real_b, batch.fake_a,
                      batch.real_a, batch.idt_a),
        )  # fmt: skip
        for direction, failures in (("a2b", a2b), ("b2a", b2a)):
            for kind, has_failed, sentence, advice in failures:
                verdict = Verdict(kind, step, sentence, advice)
                self._set_if_repeated(direction, has_failed, verdict, change)
        self._check_patterns(step, batch, change)
        return change

    def _check_patterns(self, step: int, batch: ValidationBatch, change: Change) -> None:
        """Check for checkerboard artifacts, once the losses have settled or at the end."""
        at_end = step == self.plan.total_steps and step >= 2 * SETTLING_STEPS
        if not (self.settling.is_over or at_end) or min(batch.real_a.shape[-2:]) < TILE:
            return
        name_a, name_b = self.plan.name_a, self.plan.name_b
        for direction, name, fake, real in (
            ("a2b", f"{name_a} -> {name_b}", batch.fake_b, batch.real_b),
            ("b2a", f"{name_b} -> {name_a}", batch.fake_a, batch.real_a),
        ):
            ratio = pattern_ratio(fake, real)
            sentence = (
                f"the translations {name} have a checkerboard pattern: in even areas the power at "
                f"a period of 2 or 4 pixels is {ratio:.0f} times that of real images"
            )
            is_strided = self.plan.config.resampling == "strided"
            advice = STRIDED_ADVICE if is_strided else CHECKERBOARD_ADVICE
            verdict = Verdict("checkerboard", step, sentence, advice)
            is_present = f"checkerboard {direction}" in self.verdicts
            has_failed = ratio > (PATTERN_OVER_BELOW if is_present else PATTERN_ABOVE)
            if at_end and has_failed:
                self._set(direction, True, verdict, change)
            else:
                self._set_if_repeated(direction, has_failed, verdict, change)

    def check_distances(self, row: Mapping[str, float]) -> Change:
        """Check whether the distances to the target domains still fall.

        Args:
            row: A row of ``validation.csv``.
        """
        change = Change([], [])
        step = int(row["step"])
        self.distances.append((step, row["swd_a2b"], row["swd_b2a"]))
        steps, *both = zip(*self.distances, strict=True)
        a2b, b2a = (trend(values, steps) for values in both)
        if a2b is None or b2a is None:
            return change
        since = self.distances[a2b.start][0]
        limit = PLATEAU_OVER_ABOVE if "plateau" in self.verdicts else PLATEAU_BELOW
        name_a, name_b = self.plan.name_a, self.plan.name_b
        sentence = (
            f"the distance to the target domains no longer falls: since step {since:,} "
            f"({a2b.count} validations) by at most {a2b.fall:.1%} {name_a} -> {name_b} and "
            f"{b2a.fall:.1%} {name_b} -> {name_a}, with 95 % confidence"
        )
        if step <= self.plan.constant_steps:
            advice = (
                "A smaller learning rate may lower it: stop and resume with fewer --steps, so that "
                "the decay starts. More steps at this rate are unlikely to; --patience stops early."
            )
        else:
            advice = (
                "More --steps are unlikely to lower it: stop and compare the last model with the "
                "best one (--which best); --patience stops early."
            )
        verdict = Verdict("plateau", step, sentence, advice)
        self._set_if_repeated("", max(a2b.fall, b2a.fall) < limit, verdict, change)
        return change

    def add_non_finite(self, step: int, sentence: str, advice: str) -> None:
        """Add the verdict that values are not finite."""
        self.verdicts["non-finite"] = Verdict("non-finite", step, sentence, advice)

    def _set_if_repeated(
        self, subject: str, has_failed: bool, verdict: Verdict, change: Change
    ) -> None:
        """Set a verdict once a check has failed :data:`CONSECUTIVE` times in a row."""
        name = f"{verdict.kind} {subject}".rstrip()
        self.times[name] = self.times.get(name, 0) + 1 if has_failed else 0
        self._set(subject, self.times[name] >= CONSECUTIVE[verdict.kind], verdict, change)

    def _set(self, subject: str, has_failed: bool, verdict: Verdict, change: Change) -> None:
        name = f"{verdict.kind} {subject}".rstrip()
        if has_failed and name not in self.verdicts:
            self.verdicts[name] = verdict
            change.found.append(verdict)
        elif not has_failed and name in self.verdicts:
            change.over.append(self.verdicts.pop(name))


def _failures(
    name: str, real: Tensor, fake: Tensor, target: Tensor, identity: Tensor | None
) -> Iterator[tuple[Kind, bool, str, str]]:
    """Yield the failures of a generator: kind, whether it applies, sentence and advice.

    Args:
        name: The generator.
        real: Images of the source domain, ``[N, C, H, W]`` in [-1, 1].
        fake: Their translations.
        target: Images of the target domain.
        identity: The outputs for those; None if the domains have different numbers of channels.
            Changes cannot be measured then, and "identity" is not checked.
    """
    reference = min(diversity(real), diversity(target))
    ratio = diversity(fake) / reference if reference >= MIN_DIFFERENCE else 1.0
    yield (
        "collapse",
        ratio < COLLAPSED_BELOW,
        f"the generator {name} has collapsed: its translations of different images are alike, "
        f"with {ratio:.0%} of the diversity of real ones",
        "Start again with another --seed, a smaller --learning-rate or a larger --batch-size; a "
        "--lambda-cycle below 5 makes it more likely.",
    )
    # The sky is bright by day and dark at night: that alone is not a failure. A generator that
    # produces negatives also does so for images of its target domain.
    correlation = luminance_correlation(real, fake)
    others = [] if identity is None else [luminance_correlation(target, identity)]
    yield (
        "inversion",
        max([correlation, *others]) < INVERTED_BELOW,
        f"the generator {name} produces negatives: its translations are dark where their inputs "
        f"are bright (correlation {correlation:.2f})",
        "Start again with another --seed or a larger --lambda-color, unless this is the "
        "difference between the domains.",
    )
    if real.shape[1] != fake.shape[1]:
        return
    distance = float(l1_loss(real, target))
    change = float(l1_loss(fake, real)) / distance if distance >= MIN_DIFFERENCE else 1.0
    yield (
        "identity",
        change < UNCHANGED_BELOW,
        f"the generator {name} changes almost nothing: its translations differ from their inputs "
        f"by {change:.1%} of the difference between the domains",
        "Lower --lambda-cycle, or --lambda-identity if it is not 0, and check that the two folders "
        "differ as intended.",
    )


class Health(TrainingCallback):
    """Reports known failures of the method, and ends a training that has diverged."""

    def __init__(self, plan: Plan) -> None:
        state = plan.callback_state
        self.monitor = HealthMonitor(plan, state.get("monitor", {}))
        self.skipped: int = state.get("skipped", 0)
        self.consecutive_skips: int = state.get("skipped_in_a_row", 0)

    def on_train_begin(self, run: TrainingRun) -> None:
        """Write ``health.json``, without the verdicts on steps that a crash has undone."""

        def begin() -> None:
            rows = read_rows(run.plan.run_dir / VALIDATION_FILE, VALIDATION_COLUMNS)
            self.monitor.distances = [
                (int(float(row["step"])), float(row["swd_a2b"]), float(row["swd_b2a"]))
                for row in rows
                if float(row["step"]) <= run.step
            ]
            self._write(run)

        run.group.on_rank_zero(begin)

    def on_step_end(self, run: TrainingRun, losses: StepLosses) -> None:
        """Count skipped steps: single ones are harmless, many in a row are not.

        Raises:
            DivergedError: Too many consecutive steps were skipped.
        """
        if losses.is_applied:
            self.consecutive_skips = 0
            return
        self.skipped += 1
        self.consecutive_skips += 1
        if self.consecutive_skips == MAX_CONSECUTIVE_SKIPS:
            raise run.diverged(f"the gradients of {self.consecutive_skips} steps are not finite")
        if self.skipped > 1 and self.skipped.bit_count() == 1:  # 2, 4, 8 ...
            run.warn(
                f"step {run.step}: the gradients are not finite, and the step is skipped; "
                f"{self.skipped} steps so far. If the number keeps growing, resume with "
                "--precision fp32 or a lower --learning-rate"
            )

    def on_log(self, run: TrainingRun, row: dict[str, Any]) -> None:
        """Check losses, gradients and updates, and add the result to the row."""
        losses = {name: row[name] for name in LOSS_NAMES}
        norms = dict(zip(NETWORKS, (row[name] for name in GRADIENT_COLUMNS), strict=False))
        sizes = dict(zip(NETWORKS, run.model.update_sizes(), strict=True))
        self._report(
            run,
            self.monitor.check_losses(run.step, losses, row["steps"]),
            self.monitor.check_gradients(run.step, norms),
            self.monitor.check_updates(run.step, sizes, row["learning_rate"]),
        )
        row[HEALTH_COLUMN] = self.monitor.summary

    def on_validation_batch(self, run: TrainingRun, batch: ValidationBatch) -> None:
        self._report(run, self.monitor.check_translations(run.step, batch))

    def on_validation(self, run: TrainingRun, row: dict[str, float]) -> None:
        self._report(run, self.monitor.check_distances(row))

    def on_diverged(self, run: TrainingRun, reason: str, hint: str) -> None:
        """Record that values are not finite."""
        self.monitor.add_non_finite(run.step, reason, hint)
        if run.group.is_rank_zero:
            self._write(run)

    def state_dict(self, step: int) -> dict[str, Any]:
        return {
            "monitor": self.monitor.state_dict(),
            "skipped": self.skipped,
            "skipped_in_a_row": self.consecutive_skips,
        }

    def _report(self, run: TrainingRun, *changes: Change) -> None:
        for change in changes:
            for verdict in change.found:
                run.warn(f"{verdict.sentence}. {verdict.advice}")
            for verdict in change.over:
                run.log(f"step {run.step}: resolved: {verdict.sentence}")
        self._write(run)

    def _write(self, run: TrainingRun) -> None:
        document = self.monitor.document(run.step)
        files.write_text(run.run_dir.file(HEALTH_FILE), json.dumps(document, indent=1) + "\n")
