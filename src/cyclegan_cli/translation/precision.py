"""Choose the floating-point format in which a generator computes."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from cyclegan_cli.config import PrecisionChoice
from cyclegan_cli.models.networks import ResnetGenerator
from cyclegan_cli.runtime.devices import has_native_bf16, require_precision, set_fp32_precision
from cyclegan_cli.translation.arena import StoredRows
from cyclegan_cli.translation.strips import StripGenerator, StripPlan

# The PSNR in dB that bf16 must reach against fp32: an RMS error of 2.6 of 255 pixel values.
REQUIRED_PSNR = 40.0
PROBE_SIDE = 128


def build_strip_generator(
    generator: ResnetGenerator, choice: PrecisionChoice, device: torch.device
) -> tuple[StripGenerator, str]:
    """Return the generator in the chosen precision, and a sentence about the choice of ``auto``.

    ``auto`` is bf16 if the hardware multiplies it natively and a probe image reaches
    ``REQUIRED_PSNR`` against fp32, else fp32. The error of bf16 depends on the weights: 0.1 to 0.6
    of 255 pixel values with trained weights, more with random ones. bf16 uses Winograd
    convolutions only if the probe image reaches the PSNR with them.

    Args:
        generator: The network, fp32, on ``device``; it is modified.
        choice: ``auto``, ``fp32`` (exact, also on a GPU), ``tf32`` or ``bf16``.
        device: The computing device.

    Returns:
        The generator, fp32 or bf16; and a sentence, which is empty if there was no choice.

    Raises:
        DeviceError: The device does not support tf32.
    """
    require_precision(choice, device)
    set_fp32_precision(choice)  # Also for the fp32 reference of bf16.
    if choice in ("fp32", "tf32") or (choice == "auto" and not has_native_bf16(device)):
        return StripGenerator(generator), ""
    candidate, decibels = _in_bf16(generator)
    if choice == "bf16":
        return candidate, ""
    found = f"a probe image has a PSNR of {decibels:.0f} dB against fp32"
    if decibels >= REQUIRED_PSNR:
        return candidate, f"precision: bf16 ({found}; --precision fp32 for exact)"
    remark = f"precision: fp32 (in bf16, {found}, less than {REQUIRED_PSNR:.0f})"
    return StripGenerator(generator), remark


@torch.inference_mode()
def _in_bf16(generator: ResnetGenerator) -> tuple[StripGenerator, float]:
    """Return the fastest bf16 generator that reaches the PSNR, else the last; and its PSNR."""
    probe = probe_image(generator.config.input_channels).to(generator.head.weight)
    exact = generator(probe)
    for winograd in (True, False):
        candidate = StripGenerator(copy.deepcopy(generator), torch.bfloat16, winograd)
        decibels = _psnr(exact, _translate_probe(candidate, probe.bfloat16()))
        if decibels >= REQUIRED_PSNR or not candidate.is_winograd:
            break
    return candidate, decibels


def _translate_probe(candidate: StripGenerator, probe: Tensor) -> Tensor:
    parts: list[Tensor] = []
    plan = StripPlan(PROBE_SIDE // 4, keep_full=True)
    candidate.translate(StoredRows(probe, probe.device), plan, lambda _, rows: parts.append(rows))
    return torch.cat(parts, dim=2)


def _psnr(exact: Tensor, other: Tensor) -> float:
    """Return the PSNR in dB of ``[B, C, H, W]`` in [-1, 1]."""
    error = float((exact - other.float()).square().mean())
    return math.inf if error == 0 else 10 * math.log10(4 / error) if error > 0 else -math.inf


def probe_image(channels: int) -> Tensor:
    """Return noise with the spectrum of photos: amplitude falls with frequency (Field 1987).

    Returns:
        ``[1, channels, 128, 128]`` in [-1, 1], always the same.
    """
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(1, channels, PROBE_SIDE, PROBE_SIDE, generator=random)
    rows, columns = torch.fft.fftfreq(PROBE_SIDE), torch.fft.rfftfreq(PROBE_SIDE)
    frequency = torch.hypot(rows[:, None], columns).clamp(min=1 / PROBE_SIDE)
    image: Tensor = torch.fft.irfft2(torch.fft.rfft2(noise) / frequency)
    return (image / (2.5 * image.std())).clamp(-1, 1)
