"""Device and precision selection."""

from __future__ import annotations

import os
import platform
import re
from typing import TYPE_CHECKING

from cyclegan_cli import __version__
from cyclegan_cli.config import PrecisionChoice
from cyclegan_cli.errors import DeviceError, UsageError

if TYPE_CHECKING:
    import torch

# Overrides CPU feature detection, as comma-separated feature names; for tests.
CPU_FEATURES_VARIABLE = "CYCLEGAN_CPU_FEATURES"


def choose_device(name: str) -> torch.device:
    """Resolve ``--device``; ``auto`` picks the first available of cuda, mps and cpu.

    Raises:
        UsageError: ``name`` is not a device name.
        DeviceError: The machine does not have the device.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    match = re.fullmatch(r"(cpu|mps|cuda)|cuda:(0|[1-9]\d{0,3})", name)
    if match is None:
        raise UsageError(f"--device must be auto, cpu, cuda, cuda:N or mps, found {name!r}")
    _require_device(match[1] or "cuda", int(match[2] or 0), name)
    return torch.device(name)


def _require_device(kind: str, index: int, name: str) -> None:
    import torch

    hint = "Use --device cpu, or auto."
    if kind == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            f"--device {name}: this machine has no CUDA device that torch can use", hint
        )
    if kind == "cuda" and index >= torch.cuda.device_count():
        raise DeviceError(f"--device {name}: found {torch.cuda.device_count()} CUDA devices", hint)
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"--device {name}: this machine has no Metal device", hint)


def device_for_rank(name: str, local_rank: int, local_world_size: int) -> str:
    """Return the device name for one of several processes on this machine.

    Args:
        name: ``--device``. ``auto`` and ``cuda`` assign CUDA devices to processes in turn.
        local_rank: Rank of the process on this machine.
        local_world_size: Number of processes on this machine.
    """
    import torch

    if local_world_size > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{local_rank % torch.cuda.device_count()}"
    return name


def describe_environment(device: torch.device) -> str:
    """Return the versions of the program, Python and torch, and the device."""
    import torch

    where = f"{torch.get_num_threads()} threads"
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    return (
        f"cyclegan-cli {__version__}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, on {device} ({where})"
    )


def choose_precision(choice: PrecisionChoice, device: torch.device) -> PrecisionChoice:
    """Resolve ``--precision``.

    ``auto`` picks bf16 where the hardware multiplies it natively, else fp32. It never picks tf32:
    hardware that supports tf32 supports bf16, too.

    Raises:
        DeviceError: The device does not support tf32.
    """
    require_precision(choice, device)
    if choice != "auto":
        return choice
    return "bf16" if has_native_bf16(device) else "fp32"


def require_precision(choice: PrecisionChoice, device: torch.device) -> None:
    """Check that the device supports the precision.

    Raises:
        DeviceError: The device does not support tf32.
    """
    import torch

    if choice != "tf32":
        return
    found = str(device)
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability >= (8, 0):
            return
        found = f"{device} of capability {capability[0]}.{capability[1]}"
    raise DeviceError(
        f"--precision tf32 needs an NVIDIA GPU of compute capability 8.0 or more, found {found}",
        "Use --precision auto, or fp32.",
    )


def set_fp32_precision(precision: PrecisionChoice) -> None:
    """Enable TF32 on CUDA for ``tf32``, and disable it for every other precision.

    torch enables TF32 for cuDNN convolutions by default, but not for matrix products. The setting
    is process-wide.
    """
    import torch

    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"


def has_native_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 natively; emulation is slower than fp32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return any(_cpu_has(feature) for feature in ("avx512_bf16", "amx_bf16"))
    return False


def has_amx() -> bool:
    """Whether the CPU has AMX tiles for bfloat16 matrix products."""
    return _cpu_has("amx_bf16")


def _cpu_has(feature: str) -> bool:
    forced = os.environ.get(CPU_FEATURES_VARIABLE)
    if forced is not None:
        return feature in forced.split(",")
    import torch

    if hasattr(torch.cpu, "get_capabilities"):
        return bool(torch.cpu.get_capabilities().get(feature, False))
    # torch < 2.11 has no public function for it.
    private_name = {
        "avx512_bf16": "_is_avx512_bf16_supported",
        "amx_bf16": "_is_amx_tile_supported",
    }
    return bool(getattr(torch.cpu, private_name[feature], lambda: False)())
