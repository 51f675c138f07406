"""Every exported file is opened again and compared with the network before it is left."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import torch
from torch import Tensor

from cyclegan_cli.data.decode import decode
from cyclegan_cli.data.tensors import array_to_tensor, to_pixel_values
from cyclegan_cli.errors import ExportError
from cyclegan_cli.exporting.formats import Precision

Model = Callable[[Tensor], Tensor]

# Batch, height, width: a square, a batch of another shape, sides that 4 does not divide, and
# one much longer than the other.
CHECKED_SIZES = ((1, 64, 64), (2, 40, 96), (1, 61, 45), (1, 24, 136))
PHOTO = "photo.jpg"  # Photograph by Rachel Michetti, CC0, as in scikit-image; 125×83 pixels.


@dataclass(frozen=True)
class Gate:
    """How near an exported model must be.

    Attributes:
        largest_difference: Of two outputs, in [-1, 1] or in levels; None: any.
        psnr: The smallest allowed, in decibels.
    """

    largest_difference: float | None = None
    psnr: float = 0.0


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        what: ``noise``, ``photo``, ``a single colour``, or ``held-out 1`` and so on.
        size: Batch, height, width of the input.
        largest_difference: Of two outputs: in [-1, 1], or in levels with pixels.
        mean_difference: Likewise.
        psnr: In decibels, over the outputs' whole range; None: they are identical.
    """

    what: str
    size: tuple[int, int, int]
    largest_difference: float
    mean_difference: float
    psnr: float | None

    def to_document(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return vars(self) | {"size": list(self.size)}


@dataclass(frozen=True)
class Verification:
    """What was compared, and how far apart it was.

    Attributes:
        checks: Every comparison.
        judged: Those that decide: with held-out images these alone.
    """

    checks: tuple[Check, ...]
    judged: tuple[Check, ...]

    @property
    def largest_difference(self) -> float:
        """The largest of all judged."""
        return max(check.largest_difference for check in self.judged)

    @property
    def mean_difference(self) -> float:
        """The mean of all judged, each counting alike."""
        return sum(check.mean_difference for check in self.judged) / len(self.judged)

    @property
    def psnr(self) -> float | None:
        """The worst of all judged; None: all are identical."""
        return min((check.psnr for check in self.judged if check.psnr is not None), default=None)

    def to_document(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "largest_difference": self.largest_difference,
            "mean_difference": self.mean_difference,
            "psnr": self.psnr,
            "judged": [check.what for check in self.judged],
            "checks": [check.to_document() for check in self.checks],
        }


def gate_for(precision: Precision, image_io: bool, min_psnr: float) -> Gate:
    """How near a model of a precision must be.

    Rounding to 8 bits alone leaves 59 dB between two equal images. 60 dB are an error of a
    quarter of a level (root mean square), which rounding hides; trained networks reach 75 and
    more in fp16. With pixels what differs is whole levels, so less is asked of them.
    """
    if precision == "int8":
        return Gate(psnr=min_psnr)
    if precision == "bf16":
        return Gate(psnr=40.0)
    if precision == "fp16":
        return Gate(psnr=50.0 if image_io else 60.0)
    return Gate(largest_difference=1.0 if image_io else 1e-4)


@torch.inference_mode()
def verify(
    run: Model,
    reference: Model,
    channels: int,
    image_io: bool,
    gate: Gate,
    held_out: Mapping[str, Tensor] | None = None,
) -> Verification:
    """Compare an exported model with its source.

    Args:
        run: The exported model.
        reference: Its source, on the CPU; ``[B, C, H, W]`` in [-1, 1], or with pixels
            ``[B, H, W, C]`` uint8, in and out, as ``run``.
        channels: Of the input.
        image_io: Whether pixels go in and come out.
        gate: How near it must be.
        held_out: Images by name that are judged instead of noise and photo; those are only
            looked at for shape and finite numbers then.

    Raises:
        ExportError: An output has another shape, or is further away than the gate allows.
    """
    inputs = _inputs(channels, image_io)
    checks = [_compare(what, run, reference, given) for what, given in inputs]
    judged = [_compare(what, run, reference, given) for what, given in (held_out or {}).items()]
    for check in judged or checks:
        _judge(check, gate)
    return Verification((*checks, *judged), tuple(judged or checks))


def _inputs(channels: int, image_io: bool) -> list[tuple[str, Tensor]]:
    """Fixed random images of several sizes, a photograph, and an image of a single colour."""
    random = torch.Generator().manual_seed(0)
    images = [
        ("noise", torch.rand((batch, channels, height, width), generator=random) * 2 - 1)
        for batch, height, width in CHECKED_SIZES
    ]
    images.append(("photo", photo()[:, :channels]))
    colour = torch.linspace(-0.75, 0.6, channels).view(1, channels, 1, 1)
    images.append(("a single colour", colour.expand(1, channels, 48, 64).contiguous()))
    if not image_io:
        return images
    return [(what, to_pixel_values(image).permute(0, 2, 3, 1)) for what, image in images]


def photo() -> Tensor:
    """The photograph that comes with the package, ``[1, 3, 83, 125]`` in [-1, 1]."""
    with resources.as_file(resources.files("cyclegan_cli.exporting") / PHOTO) as path:
        return array_to_tensor(decode(path).frames[0])


def _compare(what: str, run: Model, reference: Model, given: Tensor) -> Check:
    expected, found = reference(given), run(given)
    if found.shape != expected.shape:
        raise ExportError(
            f"the exported model makes {list(found.shape)} of {list(given.shape)}, "
            f"the network {list(expected.shape)}; nothing is written"
        )
    pixels = expected.dtype == torch.uint8
    difference = (found.double() - expected.double()).abs()
    if not difference.isfinite().all():
        raise ExportError(
            "the exported model computes numbers that are not finite; nothing is written"
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


def _judge(check: Check, gate: Gate) -> None:
    where = f"on {check.what} of {check.size[2]}x{check.size[1]}"
    limit = gate.largest_difference
    if limit is not None and check.largest_difference > limit:
        raise ExportError(
            f"the exported model differs from the network by {check.largest_difference:.2g} "
            f"{where}, more than {limit:g}; nothing is written"
        )
    if check.psnr is not None and check.psnr < gate.psnr:
        raise ExportError(
            f"the exported model is {check.psnr:.1f} dB from the network {where}, less than "
            f"{gate.psnr:g}; nothing is written",
            "Use a higher precision; for int8, more and typical --calibration images, or a "
            "lower --min-psnr.",
        )
