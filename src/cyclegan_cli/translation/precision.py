"""Which number format a generator computes in."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from cyclegan_cli.config import PrecisionChoice
from cyclegan_cli.models.networks import ResnetGenerator
from cyclegan_cli.runtime.devices import has_native_bf16, require_precision, set_fp32_precision
from cyclegan_cli.translation.stored import StoredRows
from cyclegan_cli.translation.strips import StripGenerator, StripPlan

# bf16 is taken where a probe stays this near to fp32, in dB: 2.6 levels of 255, root mean square.
NEAR_ENOUGH = 40.0
PROBE_SIDE = 128


def settle_precision(
    generator: ResnetGenerator, choice: PrecisionChoice, device: torch.device
) -> tuple[StripGenerator, str]:
    """The generator in the format that ``choice`` stands for, and a sentence about an ``auto``.

    ``auto`` is bf16 where the hardware multiplies it natively and a probe image comes out near
    enough to fp32, else fp32: what bf16 costs depends on the weights (trained ones err by 0.1 to
    0.6 levels of 255, random ones by more). bf16 convolves by Winograd's algorithm only if the
    probe comes out near enough so.

    Args:
        generator: fp32, on ``device``; it is taken over.
        choice: ``auto``, ``fp32`` (exact, on a GPU, too), ``tf32`` or ``bf16``.
        device: Where it computes.

    Returns:
        The generator, fp32 or bf16; the sentence is empty where nothing was decided.

    Raises:
        DeviceError: The device has no tf32.
    """
    require_precision(choice, device)
    set_fp32_precision(choice)  # Also for what bf16 is compared with.
    if choice in ("fp32", "tf32") or (choice == "auto" and not has_native_bf16(device)):
        return StripGenerator(generator), ""
    candidate, decibels = _in_bf16(generator)
    if choice == "bf16":
        return candidate, ""
    found = f"a probe image in bf16 is within {decibels:.0f} dB of fp32"
    if decibels >= NEAR_ENOUGH:
        return candidate, f"precision: bf16 ({found}; --precision fp32 for exact)"
    remark = f"precision: fp32 ({found}, less than {NEAR_ENOUGH:.0f})"
    return StripGenerator(generator), remark


@torch.inference_mode()
def _in_bf16(generator: ResnetGenerator) -> tuple[StripGenerator, float]:
    """The fastest way in bf16 that is near enough, else the nearest; and how near it is, in dB."""
    probe = probe_image(generator.config.input_channels).to(generator.head.weight)
    exact = generator(probe)
    for winograd in (True, False):
        candidate = StripGenerator(copy.deepcopy(generator), torch.bfloat16, winograd)
        decibels = _agreement(exact, _through(candidate, probe.bfloat16()))
        if decibels >= NEAR_ENOUGH or not candidate.is_winograd:
            break
    return candidate, decibels


def _through(candidate: StripGenerator, probe: Tensor) -> Tensor:
    parts: list[Tensor] = []
    plan = StripPlan(PROBE_SIDE // 4, keep_full=True)
    candidate.translate(StoredRows(probe, probe.device), plan, lambda _, rows: parts.append(rows))
    return torch.cat(parts, dim=2)


def _agreement(exact: Tensor, other: Tensor) -> float:
    """PSNR in dB between two translations of the probe."""
    error = float((exact - other.float()).square().mean())
    return math.inf if error == 0 else 10 * math.log10(4 / error) if error > 0 else -math.inf


def probe_image(channels: int) -> Tensor:
    """Noise with the spectrum of photos, where strength falls with frequency (Field 1987).

    Returns:
        ``[1, channels, 128, 128]`` in [-1, 1], always the same.
    """
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(1, channels, PROBE_SIDE, PROBE_SIDE, generator=random)
    rows, columns = torch.fft.fftfreq(PROBE_SIDE), torch.fft.rfftfreq(PROBE_SIDE)
    frequency = torch.hypot(rows[:, None], columns).clamp(min=1 / PROBE_SIDE)
    image: Tensor = torch.fft.irfft2(torch.fft.rfft2(noise) / frequency)
    return (image / (2.5 * image.std())).clamp(-1, 1)
