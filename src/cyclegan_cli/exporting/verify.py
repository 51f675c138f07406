"""Every exported file is opened again and compared with the network before it is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import torch
from torch import Tensor

from cyclegan_cli.config import ExportPrecision
from cyclegan_cli.data.decode import decode
from cyclegan_cli.data.tensors import array_to_tensor, to_pixel_values
from cyclegan_cli.errors import ExportError
from cyclegan_cli.exporting.converted import Model

# Batch, height, width: a square, a batch of another shape, sides that are not multiples of 4, and
# an elongated one.
CHECKED_SIZES = ((1, 64, 64), (2, 40, 96), (1, 61, 45), (1, 24, 136))
PHOTO = "photo.jpg"  # Photograph by Rachel Michetti, CC0, as in scikit-image; 125×83 pixels.


@dataclass(frozen=True)
class Tolerance:
    """The allowed deviation of an exported model.

    Attributes:
        largest_difference: Maximum absolute difference, in [-1, 1] or in pixel values; None: any.
        psnr: Minimum PSNR in dB.
    """

    largest_difference: float | None = None
    psnr: float = 0.0


@dataclass(frozen=True)
class Check:
    """The comparison on one input.

    Attributes:
        what: ``noise``, ``photo``, ``a single colour``, or ``held-out 1`` and so on.
        size: Batch, height, width of the input.
        largest_difference: Maximum absolute difference, in [-1, 1] or in pixel values.
        mean_difference: Mean absolute difference.
        psnr: PSNR in dB over the whole range of the outputs; None: they are identical.
    """

    what: str
    size: tuple[int, int, int]
    largest_difference: float
    mean_difference: float
    psnr: float | None

    def to_document(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return vars(self) | {"size": list(self.size)}


@dataclass(frozen=True)
class Verification:
    """The comparison of an exported model with the network.

    Attributes:
        checks: All comparisons.
        decisive: Those that decide: only held-out images, if there are any.
    """

    checks: tuple[Check, ...]
    decisive: tuple[Check, ...]

    @property
    def largest_difference(self) -> float:
        """Maximum over the deciding checks."""
        return max(check.largest_difference for check in self.decisive)

    @property
    def mean_difference(self) -> float:
        """Mean over the deciding checks, with equal weights."""
        return sum(check.mean_difference for check in self.decisive) / len(self.decisive)

    @property
    def psnr(self) -> float | None:
        """Minimum over the deciding checks; None: all are identical."""
        return min((check.psnr for check in self.decisive if check.psnr is not None), default=None)

    def to_document(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "largest_difference": self.largest_difference,
            "mean_difference": self.mean_difference,
            "psnr": self.psnr,
            "judged": [check.what for check in self.decisive],
            "checks": [check.to_document() for check in self.checks],
        }


def tolerance_for(precision: ExportPrecision, image_io: bool, min_psnr: float) -> Tolerance:
    """Return the tolerance of a precision.

    Rounding to 8 bits alone gives a PSNR of 59 dB. 60 dB are a root mean square error of a quarter
    of a pixel value, which rounding hides; trained networks reach 75 dB and more in fp16. With
    pixels the differences are whole pixel values, so the tolerance is larger.
    """
    if precision == "int8":
        return Tolerance(psnr=min_psnr)
    if precision == "bf16":
        return Tolerance(psnr=40.0)
    if precision == "fp16":
        return Tolerance(psnr=50.0 if image_io else 60.0)
    return Tolerance(largest_difference=1.0 if image_io else 1e-4)


@torch.inference_mode()
def verify(
    run: Model,
    reference: Model,
    channels: int,
    image_io: bool,
    tolerance: Tolerance,
    held_out: Mapping[str, Tensor] | None = None,
) -> Verification:
    """Compare an exported model with the network.

    Args:
        run: The exported model.
        reference: The network on the CPU; like ``run`` it maps ``[B, C, H, W]`` in [-1, 1] to the
            same, or ``[B, H, W, C]`` uint8 with pixels.
        channels: Input channels.
        image_io: Whether the model takes and returns pixels.
        tolerance: The allowed deviation.
        held_out: Images by name that decide instead of noise and photo, whose outputs then need
            only have the right shape and finite elements.

    Raises:
        ExportError: An output has another shape, or deviates by more than the tolerance.
    """
    inputs = _inputs(channels, image_io)
    checks = [_compare(what, run, reference, given) for what, given in inputs]
    evaluated = [_compare(what, run, reference, given) for what, given in (held_out or {}).items()]
    for check in evaluated or checks:
        _check_tolerance(check, tolerance)
    return Verification((*checks, *evaluated), tuple(evaluated or checks))


def _inputs(channels: int, image_io: bool) -> list[tuple[str, Tensor]]:
    """Return fixed random images of several sizes, a photo, and an image of a single colour."""
    random = torch.Generator().manual_seed(0)
    images = [
        ("noise", torch.rand((batch, channels, height, width), generator=random) * 2 - 1)
        for batch, height, width in CHECKED_SIZES
    ]
    repeats = -(-channels // 3)
    images.append(("photo", photo().repeat(1, repeats, 1, 1)[:, :channels]))
    color = torch.linspace(-0.75, 0.6, channels).view(1, channels, 1, 1)
    images.append(("a single colour", color.expand(1, channels, 48, 64).contiguous()))
    if not image_io:
        return images
    return [(what, to_pixel_values(image).permute(0, 2, 3, 1)) for what, image in images]


def photo() -> Tensor:
    """Return the photo in the package, ``[1, 3, 83, 125]`` in [-1, 1]."""
    with resources.as_file(resources.files("cyclegan_cli.exporting") / PHOTO) as path:
        return array_to_tensor(decode(path).frames[0])


def _compare(what: str, run: Model, reference: Model, given: Tensor) -> Check:
    expected, found = reference(given), run(given)
    if found.shape != expected.shape:
        raise ExportError(
            f"the exported model maps {list(given.shape)} to {list(found.shape)}, "
            f"the network to {list(expected.shape)}; nothing is written"
        )
    pixels = expected.dtype == torch.uint8
    difference = (found.double() - expected.double()).abs()
    if not difference.isfinite().all():
        raise ExportError(
            "the exported model returns values that are not finite; nothing is written"
        )
    squared = float(difference.square().mean())
    peak = 255.0 if pixels else 2.0
    batch, height, width = given.shape[:3] if pixels else (given.shape[0], *given.shape[2:])
    return Check(
        what=what,
        size=(batch, height, width),
        largest_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        psnr=10 * math.log10(peak**2 / squared) if squared else None,
    )


def _check_tolerance(check: Check, tolerance: Tolerance) -> None:
    where = f"on {check.what} of {check.size[2]}x{check.size[1]}"
    limit = tolerance.largest_difference
    if limit is not None and check.largest_difference > limit:
        raise ExportError(
            f"the exported model differs from the network by {check.largest_difference:.2g} "
            f"{where}, more than {limit:g}; nothing is written"
        )
    if check.psnr is not None and check.psnr < tolerance.psnr:
        raise ExportError(
            f"the exported model differs from the network {where}: PSNR {check.psnr:.1f} dB, less "
            f"than {tolerance.psnr:g}; nothing is written",
            "Use a higher precision; for int8, more and typical --calibration images, or a "
            "lower --min-psnr.",
        )
