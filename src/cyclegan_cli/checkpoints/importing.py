"""Weights out of the original implementation's files. Nothing in them is ever executed."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cyclegan_cli.checkpoints.header import Direction
from cyclegan_cli.checkpoints.reading import read_reference
from cyclegan_cli.errors import CheckpointError


def load_reference_weights(path: Path, direction: Direction) -> dict[str, Tensor]:
    """Read the weights of one direction.

    Before torch sees the file, ``read_reference`` has held its tensors against its bytes and its
    pickle against a short list of names; torch then unpickles with a list of its own
    (``weights_only``).

    Args:
        path: A file of ``torch.save``, or a folder with one a direction.
        direction: One that it holds.

    Returns:
        Our names and fp32 tensors, on the CPU.

    Raises:
        CheckpointError: It is damaged or foreign, or its weights are not finite.
    """
    file, generator = read_reference(path).generators[direction]
    try:
        with warnings.catch_warnings():
            # Of pickle protocols that torch.save does not choose by itself.
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Torch's own words advise to run the pickle.
        raise CheckpointError(
            f"{file} has a pickle that torch does not read without running it",
            "Save its state_dict() again, by torch.save without further options.",
        ) from error
    except MemoryError:
        raise
    except Exception as error:
        # Damaged bytes make its unpickler raise whatever it stumbles over.
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"cannot read {file}: {reason}") from error
    flat = _flat(content)
    weights = {ours: flat[name].float().contiguous() for ours, name in generator.names.items()}
    for ours, name in generator.names.items():
        refuse_not_finite(file, name, weights[ours])
    return weights


def refuse_not_finite(path: Path, name: str, tensor: Tensor) -> None:
    """Refuse what would only make black images, or spoil a training.

    Args:
        path: The file.
        name: The tensor's name in it.
        tensor: Of any shape and dtype.

    Raises:
        CheckpointError: One of its elements is NaN or infinite.
    """
    if bool(torch.isfinite(tensor).all()):
        return
    wrong = int((~torch.isfinite(tensor)).sum())
    raise CheckpointError(
        f"{path}: {wrong:,} of the {tensor.numel():,} elements of {name} are not finite (NaN or "
        "infinity)",
        "The training that wrote it had diverged: take a checkpoint from before.",
    )


def _flat(content: Any, prefix: str = "") -> dict[str, Tensor]:
    """Tensors of dicts within dicts by their dotted names."""
    found: dict[str, Tensor] = {}
    for key, value in content.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Tensor):
            found[name] = value.detach()
        elif isinstance(value, dict):
            found |= _flat(value, name)
    return found
