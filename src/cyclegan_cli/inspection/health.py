"""What a run's own ``health.json`` says: the verdicts of the training on itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cyclegan_cli.checkpoints.container import file_size, read_document
from cyclegan_cli.checkpoints.locate import HEALTH_FILE
from cyclegan_cli.errors import CheckpointError
from cyclegan_cli.inspection.summary import Facts

SCHEMA = 1  # Of the file.
LONGEST = 1_000_000  # Bytes.
VERDICT = {"kind": str, "step": int, "sentence": str, "advice": str}


def health_of(run: Path) -> Facts | None:
    """The verdicts of the last look that the training took at itself; none means healthy.

    Returns:
        ``step`` and ``verdicts``; None without such a file, and with one that is damaged or of
        another version: it is not what the run is looked at for.
    """
    path = run / HEALTH_FILE
    try:
        if file_size(path) > LONGEST:
            return None
        document = read_document(path.read_bytes())
        verdicts = [{key: verdict[key] for key in VERDICT} for verdict in document["verdicts"]]
    except (CheckpointError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    known = document.get("schema") == SCHEMA and type(document.get("step")) is int
    if not known or not all(map(_is_verdict, verdicts)):
        return None
    return {"step": document["step"], "verdicts": verdicts}


def _is_verdict(verdict: dict[str, Any]) -> bool:
    return all(type(verdict[key]) is kind for key, kind in VERDICT.items())
