"""``.pt2`` files of ``torch.export``, read without torch: what is in the archive."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from cyclegan_cli.checkpoints.container import METADATA_KEY, TensorInfo
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
    facts: Facts = {"bytes": path.stat().st_size}
    try:
        with open_archive(path) as (archive, entries):
            root = next(iter(entries), "").partition("/")[0] + "/"
            if f"{root}archive_format" not in entries:
                raise ValueError("it is a zip file of something else")
            tensors = _weights(_json(archive, entries, f"{root}{WEIGHTS}"))
            document = _json(archive, entries, f"{root}extra/{METADATA_KEY}.json")
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {(error.strerror or '').lower()}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, EOFError,
            NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:  # fmt: skip
        raise CheckpointError(f"{path} is not an exported program, or a damaged one") from error
    facts |= {"tensors": len(tensors), "parameters": count(tensors, "")}
    if isinstance(document, dict):
        facts["cyclegan"] = document
    return Summary(path, "pt2", facts | listed(tensors, request))


def _json(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], name: str) -> Any:
    entry = entries.get(name)
    if entry is None:
        return None
    if entry.file_size > LONGEST_JSON:
        raise ValueError("a description of megabytes")
    return json.loads(archive.read(entry))


def _weights(config: Any) -> dict[str, TensorInfo]:
    """Names, dtypes and shapes of the weights, as the archive's own description has them."""
    found = {}
    for name, entry in (config or {}).get("config", {}).items():
        meta = entry["tensor_meta"]
        shape = tuple(size["as_int"] for size in meta["sizes"])
        if any(type(size) is not int or size < 0 for size in shape):
            raise ValueError("an impossible shape")
        found[str(name)] = TensorInfo(DTYPES.get(meta["dtype"], "?"), shape)
    return found
