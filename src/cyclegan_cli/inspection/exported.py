"""``.pt2`` files of ``torch.export``, read without torch: what is in the archive."""

from __future__ import annotations

import zipfile
from pathlib import Path

from cyclegan_cli.checkpoints.container import (
    METADATA_KEY,
    TensorInfo,
    count_elements,
    file_size,
    read_document,
    unreadable,
)
from cyclegan_cli.checkpoints.torch_files import open_archive
from cyclegan_cli.errors import CheckpointError
from cyclegan_cli.inspection.checkpoints import count, listed
from cyclegan_cli.inspection.summary import Facts, Request, Summary

LONGEST_JSON = 4_000_000
WEIGHTS = "data/weights/model_weights_config.json"
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
        with open_archive(path) as (archive, entries):
            root = next(iter(entries), "").partition("/")[0] + "/"
            if f"{root}archive_format" not in entries:
                raise ValueError("it is a zip file of something else")
            tensors = _weights(_json(archive, entries, f"{root}{WEIGHTS}"))
            document = _json(archive, entries, f"{root}extra/{METADATA_KEY}.json")
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, EOFError,
            NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:  # fmt: skip
        raise CheckpointError(f"{path} is not an exported program, or a damaged one") from error
    facts |= {"tensors": len(tensors), "parameters": count(tensors, "")}
    if document:
        facts["cyclegan"] = document
    return Summary(path, "pt2", facts | listed(tensors, request))


def _json(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], name: str) -> Facts:
    entry = entries.get(name)
    if entry is None:
        return {}
    if entry.file_size > LONGEST_JSON:
        raise ValueError("a description of megabytes")
    return read_document(archive.read(entry))


def _weights(config: Facts) -> dict[str, TensorInfo]:
    """Names, dtypes and shapes of the weights, as the archive's own description has them."""
    found = {}
    for name, entry in config.get("config", {}).items():
        meta = entry["tensor_meta"]
        shape = tuple(size["as_int"] for size in meta["sizes"])
        if any(type(size) is not int for size in shape):
            raise ValueError("an impossible shape")
        count_elements(shape)
        found[str(name)] = TensorInfo(DTYPES.get(meta["dtype"], "?"), shape)
    return found
