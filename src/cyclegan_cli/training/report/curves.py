"""The charts of the report."""

from __future__ import annotations

from collections.abc import Sequence

from cyclegan_cli.training.report.charts import Chart, Curve, Row
from cyclegan_cli.training.validation import mean_distance


def quality_charts(name_a: str, name_b: str, rows: Sequence[Row]) -> list[Chart]:
    """Return the charts of ``validation.csv``; none without rows."""
    if not rows:
        return []
    there, back = f"{name_a} → {name_b}", f"{name_b} → {name_a}"
    best = min(rows, key=mean_distance)
    return [
        Chart(
            "Distance to the target domain",
            "Sliced Wasserstein distance of validation translations to real images: "
            f"lower is better, best at step {best['step']:,.0f}.",
            (Curve("swd_a2b", there), Curve("swd_b2a", back)),
            best=int(best["step"]),
        ),
        Chart(
            "Diversity",
            "Of the validation translations: 1 is as diverse as the inputs, 0 means that all "
            "translations are equal.",
            (Curve("diversity_a2b", there), Curve("diversity_b2a", back)),
            marked=1.0,
        ),
        Chart(
            "Validation cycle error",
            "L1 distance between images and their reconstructions.",
            (Curve("cycle_a", f"{there} → {name_a}"), Curve("cycle_b", f"{back} → {name_b}")),
        ),
        Chart(
            "Validation identity error",
            "L1 distance between images and their translations to their own domain.",
            (Curve("identity_a", name_a), Curve("identity_b", name_b)),
        ),
    ]


def loss_charts(name_a: str, name_b: str, with_identity: bool) -> list[Chart]:
    """Return the charts of ``metrics.csv``."""
    there, back = f"{name_a} → {name_b}", f"{name_b} → {name_a}"
    identity = Chart(
        "Identity loss",
        "L1 distance between images and their translations to their own domain.",
        (Curve("identity_a", name_a), Curve("identity_b", name_b)),
        noisy=True,
    )
    return [
        Chart(
            "Adversarial loss",
            "Of the generators: high while the discriminators detect the translations.",
            (Curve("adversarial_a2b", there), Curve("adversarial_b2a", back)),
            noisy=True,
        ),
        Chart(
            "Discriminator loss",
            "If it stays near zero, the discriminators have won and the generators learn nothing.",
            (Curve("discriminator_a", name_a), Curve("discriminator_b", name_b)),
            noisy=True,
        ),
        Chart(
            "Cycle loss",
            "L1 distance between images and their reconstructions.",
            (Curve("cycle_a", f"{there} → {name_a}"), Curve("cycle_b", f"{back} → {name_b}")),
            noisy=True,
        ),
        *([identity] if with_identity else []),
        Chart(
            "Gradient norm",
            "Maximum between two rows. A jump by orders of magnitude is a spike.",
            (
                Curve("gradient_norm_generators", "generators"),
                Curve("gradient_norm_discriminators", "discriminators"),
            ),
            noisy=True,
        ),
        Chart("Learning rate", "Of both optimizers.", (Curve("learning_rate", "Adam"),)),
        Chart(
            "Speed",
            "Images of each domain per second.",
            (Curve("images_per_second", "images/s"),),
            noisy=True,
        ),
    ]
