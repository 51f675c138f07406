"""Which curves a run's page shows, and how each is to be read."""

from __future__ import annotations

from collections.abc import Sequence

from cyclegan_cli.training.page.charts import Chart, Curve, Row
from cyclegan_cli.training.validation import mean_distance


def quality_charts(name_a: str, name_b: str, rows: Sequence[Row]) -> list[Chart]:
    """Those of ``validation.csv``; none without rows."""
    if not rows:
        return []
    there, back = f"{name_a} → {name_b}", f"{name_b} → {name_a}"
    best = min(rows, key=mean_distance)
    return [
        Chart(
            "Distance to the target domain",
            "Sliced Wasserstein distance of held-out translations to real images: "
            f"lower is nearer, best at step {best['step']:,.0f}.",
            (Curve("swd_a2b", there), Curve("swd_b2a", back)),
            best=int(best["step"]),
        ),
        Chart(
            "Diversity",
            "Of held-out translations: 1 is as different as their inputs, near 0 they all look "
            "alike.",
            (Curve("diversity_a2b", there), Curve("diversity_b2a", back)),
            marked=1.0,
        ),
        Chart(
            "Held-out cycle error",
            "How far there and back again ends from where it began.",
            (Curve("cycle_a", f"{there} → {name_a}"), Curve("cycle_b", f"{back} → {name_b}")),
        ),
        Chart(
            "Held-out identity error",
            "How much an image changes that is in the target domain already.",
            (Curve("identity_a", name_a), Curve("identity_b", name_b)),
        ),
    ]


def loss_charts(name_a: str, name_b: str, with_identity: bool) -> list[Chart]:
    """Those of ``metrics.csv``."""
    there, back = f"{name_a} → {name_b}", f"{name_b} → {name_a}"
    identity = Chart(
        "Identity loss",
        "How much an image changes that is in the target domain already.",
        (Curve("identity_a", name_a), Curve("identity_b", name_b)),
        noisy=True,
    )
    return [
        Chart(
            "Adversarial loss",
            "How badly the generators fool the discriminators.",
            (Curve("adversarial_a2b", there), Curve("adversarial_b2a", back)),
            noisy=True,
        ),
        Chart(
            "Discriminator loss",
            "Near zero for long: the discriminators have won, and nothing is learned from them.",
            (Curve("discriminator_a", name_a), Curve("discriminator_b", name_b)),
            noisy=True,
        ),
        Chart(
            "Cycle loss",
            "How far there and back again ends from where it began.",
            (Curve("cycle_a", f"{there} → {name_a}"), Curve("cycle_b", f"{back} → {name_b}")),
            noisy=True,
        ),
        *([identity] if with_identity else []),
        Chart(
            "Gradient norm",
            "The largest between two measurements. A jump by orders of magnitude is a spike.",
            (
                Curve("gradient_norm_generators", "generators"),
                Curve("gradient_norm_discriminators", "discriminators"),
            ),
            noisy=True,
        ),
        Chart("Learning rate", "Of both optimisers.", (Curve("learning_rate", "Adam"),)),
        Chart(
            "Speed",
            "Images of each domain a second.",
            (Curve("images_per_second", "images/s"),),
            noisy=True,
        ),
    ]
