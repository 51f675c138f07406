"""``.pt2`` files of ``torch.export``, read without torch: what is in the archive."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cyclegan_cli.checkpoints.archives import Archive, open_archive
from cyclegan_cli.checkpoints.container import (
    DTYPE_BITS,
    METADATA_KEY,
    Place,
    TensorInfo,
    count_elements,
    file_size,
    read_document,
    unreadable,
)
from cyclegan_cli.errors import CheckpointError
from cyclegan_cli.inspection.checkpoints import count, listed, without_repetition
from cyclegan_cli.inspection.summary import Facts, Request, Summary

LONGEST_JSON = 4_000_000
WEIGHTS = "data/weights"
# Numbers of torch's ScalarType in the weights' description (torch/_export/serde/schema.py).
DTYPES = {1: "U8", 2: "I8", 3: "I16", 4: "I32", 5: "I64", 6: "F16", 7: "F32", 8: "F64",
          12: "BOOL", 13: "BF16"}  # fmt: skip


def describe_pt2(path: Path, request: Request) -> Summary:
    """An exported program.

    Raises:
        CheckpointError: It is damaged, or none.
    """
    facts: Facts = {"bytes": file_size(path)}
    try:
        with open_archive(path) as archive:
            root = next(iter(archive.entries), "").partition("/")[0] + "/"
            if f"{root}archive_format" not in archive.entries:
                raise ValueError("it is a zip file of something else")
            tensors = _weights(archive, f"{root}{WEIGHTS}/")
            document = _json(archive, f"{root}extra/{METADATA_KEY}.json")
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, EOFError,
            NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:  # fmt: skip
        raise CheckpointError(f"{path} is not an exported program, or a damaged one") from error
    facts |= {"tensors": len(tensors), "parameters": count(tensors, "")}
    if document:
        facts["cyclegan"] = document
    return Summary(path, "pt2", facts | listed(path, tensors, request))


def _json(archive: Archive, name: str) -> Facts:
    return read_document(archive.read(name, LONGEST_JSON)) if name in archive.entries else {}


def _weights(archive: Archive, folder: str) -> dict[str, TensorInfo]:
    """The weights as the archive's own description has them."""
    config = _json(archive, f"{folder}model_weights_config.json").get("config", {})
    found = {
        str(name): _weight(archive, f"{folder}{entry.get('path_name')}", entry["tensor_meta"])
        for name, entry in config.items()
    }
    stored = sum(entry.file_size for entry in archive.entries.values())
    return without_repetition(found, stored)


def _weight(archive: Archive, file: str, meta: Facts) -> TensorInfo:
    shape = _whole(size["as_int"] for size in meta["sizes"])
    info = TensorInfo(DTYPES.get(meta["dtype"], "?"), shape)
    count_elements(shape)
    if file not in archive.entries or info.dtype not in DTYPE_BITS or "strides" not in meta:
        return info
    strides = _whole(stride["as_int"] for stride in meta["strides"])
    [offset] = _whole([meta.get("storage_offset", {"as_int": 0})["as_int"]])
    if len(strides) != len(shape):
        raise ValueError("sizes without strides")
    span, width = archive.span(file), DTYPE_BITS[info.dtype] // 8
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if 0 not in shape and (last + 1) * width > span.size:
        return info  # Pickled, or damaged: not the numbers that are described.
    return replace(info, place=Place(span.start + offset * width, strides))


def _whole(numbers: Iterable[Any]) -> tuple[int, ...]:
    found = tuple(numbers)
    if any(type(number) is not int or number < 0 for number in found):
        raise ValueError("an impossible shape")
    return found
