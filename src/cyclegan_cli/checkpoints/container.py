"""A safetensors file's header, read without torch and without its tensors.

A safetensors file is eight bytes (the header's length, little-endian), the header (JSON: for
each tensor its dtype, shape and place), and the tensors' bytes, without gaps
(https://huggingface.co/docs/safetensors). Its metadata is ``str -> str``; everything of ours is
one JSON document under the key ``cyclegan``.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cyclegan_cli.errors import CheckpointError
from cyclegan_cli.files import is_lfs_pointer

METADATA_KEY = "cyclegan"
LARGEST_HEADER = 100_000_000  # The limit of the safetensors library itself.
DTYPE_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8,
    "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip

MOST_ELEMENTS = 2**63 - 1  # Of one tensor, as every library counts.
LONGEST_LFS_POINTER = 1024  # Bytes, by its specification.
FLOAT_DTYPES = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Place:
    """Where in a file the numbers of a tensor are, within what the file has.

    Attributes:
        start: The first number's first byte.
        strides: From one number to the next along each size, counted in numbers; None: they lie
            one after the other.
    """

    start: int
    strides: tuple[int, ...] | None = None


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file.

    Attributes:
        dtype: The format's name for it, e.g. ``F32``.
        shape: Its sizes.
        place: Where its numbers are; None: elsewhere, or in a way that is not read. Tensors of
            two places are equal.
    """

    dtype: str
    shape: tuple[int, ...]
    place: Place | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Header:
    """A file's header.

    Attributes:
        tensors: By name.
        document: Our JSON document; empty in a foreign file.
    """

    tensors: dict[str, TensorInfo]
    document: dict[str, Any]


def read_header(path: Path) -> Header:
    """Read and check a safetensors header; no more than the header is read or allocated.

    Raises:
        CheckpointError: Not a safetensors file, or a truncated or inconsistent one.
    """
    size = file_size(path)
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or not 2 <= length <= min(size - 8, LARGEST_HEADER):
                raise CheckpointError(f"{path} is not a safetensors file, or a truncated one")
            raw = stream.read(length)
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        content = json.loads(raw)
        metadata = content.pop("__metadata__", {})
        end = 0
        tensors = {}
        for name, entry in sorted(content.items(), key=lambda item: item[1]["data_offsets"]):
            tensors[name], end = _checked_tensor(entry, start=end, base=8 + length)
        document = read_document(metadata.get(METADATA_KEY, "{}"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} has a damaged safetensors header") from error
    if end != size - 8 - length:
        raise CheckpointError(
            f"{path} is truncated or damaged: its header describes {end} bytes of tensors, "
            f"found {size - 8 - length}"
        )
    return Header(tensors, document)


def _checked_tensor(entry: dict[str, Any], start: int, base: int) -> tuple[TensorInfo, int]:
    """A tensor's description, and where it ends; raises ValueError if it does not fit there."""
    shape = tuple(entry["shape"])
    first, last = entry["data_offsets"]
    if any(type(n) is not int or n < 0 for n in (*shape, first, last)):
        raise ValueError("sizes and places must be whole numbers")
    bits = 8 * (last - first)
    if first != start or count_elements(shape, limit=bits) * DTYPE_BITS[entry["dtype"]] != bits:
        raise ValueError("a tensor's place does not fit its shape")
    return TensorInfo(entry["dtype"], shape, Place(base + first)), last


def count_elements(shape: tuple[int, ...], limit: int = MOST_ELEMENTS) -> int:
    """The number of elements; gives up above ``limit``, as hostile sizes have endless products.

    Raises:
        ValueError: There are more, or fewer than none.
    """
    if any(size < 0 for size in shape):
        raise ValueError("a negative size")
    if 0 in shape:
        return 0
    product = 1
    for size in shape:
        product *= size
        if product > limit:
            raise ValueError("more elements than bytes")
    return product


def check_tensor(
    path: Path,
    tensors: Mapping[str, TensorInfo],
    name: str,
    shape: tuple[int, ...],
    dtypes: tuple[str, ...] = FLOAT_DTYPES,
) -> None:
    """Refuse a file that has no tensor ``name``, or one of another shape or dtype.

    Raises:
        CheckpointError: That is so.
    """
    if name not in tensors:
        raise CheckpointError(f"{path} has no tensor {name}, which its architecture needs")
    found = tensors[name]
    if found.shape != shape or found.dtype not in dtypes:
        raise CheckpointError(
            f"{path}: {name} is {found.dtype} {list(found.shape)}, "
            f"but its architecture needs {dtypes[0]} {list(shape)}"
        )


def check_fit(
    path: Path,
    tensors: Mapping[str, TensorInfo],
    prefix: str,
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Refuse a file whose tensors under ``prefix`` are not exactly those of ``shapes``.

    Raises:
        CheckpointError: That is so.
    """
    expected = {prefix + name: shape for name, shape in shapes.items()}
    for name, shape in expected.items():
        check_tensor(path, tensors, name, shape)
    if surplus := sorted({name for name in tensors if name.startswith(prefix)} - set(expected)):
        raise CheckpointError(
            f"{path} has a tensor {surplus[0]}, which its architecture does not have"
        )


def read_document(text: str | bytes) -> dict[str, Any]:
    """A JSON object, of finite numbers alone, so that it can be written again; other values: {}.

    Raises:
        ValueError: It is no JSON.
        RecursionError: It is nested too deeply.
    """
    document = json.loads(text, parse_constant=_finite, parse_float=_finite)
    return document if isinstance(document, dict) else {}


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is no JSON")
    return value


def refuse_special(path: Path) -> os.stat_result:
    """What the system says of a file. Whoever opens a pipe may wait for ever.

    Raises:
        CheckpointError: It is a pipe or the like, or cannot be looked at.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"cannot read {path}: it is not a file, but a folder, pipe or device")
    return found


def file_size(path: Path) -> int:
    """Bytes of a file that is a checkpoint or a model.

    Raises:
        CheckpointError: It is a pipe or the like, cannot be looked at, or only points to the file.
    """
    size = refuse_special(path).st_size
    if size < LONGEST_LFS_POINTER:
        try:
            with path.open("rb") as stream:
                head = stream.read(64)
        except OSError as error:
            raise unreadable(path, error) from error
        if is_lfs_pointer(head):
            message = f"{path} is a Git LFS pointer, not the file itself"
            raise CheckpointError(message, "Fetch it: git lfs pull.")
    return size


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """What the system said, as an error of ours."""
    return CheckpointError(f"cannot read {path}: {(error.strerror or str(error)).lower()}")
