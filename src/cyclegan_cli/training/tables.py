"""CSV tables with one row per step: ``metrics.csv``, ``validation.csv`` and ``kid.csv``."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from cyclegan_cli import files
from cyclegan_cli.errors import OutputError
from cyclegan_cli.models.cyclegan import LOSS_NAMES

METRICS_FILE = "metrics.csv"
HEALTH_COLUMN = "health"
# Tables of earlier versions lack these columns; a resumed run leaves the cells empty.
LATER_COLUMNS = ("gradient_norm_generators", "gradient_norm_discriminators", "skipped_steps")
METRICS_COLUMNS = (
    "step", "epoch", "learning_rate", *LOSS_NAMES, *LATER_COLUMNS, "images_per_second", "seconds",
    HEALTH_COLUMN,
)  # fmt: skip
VALIDATION_FILE = "validation.csv"
VALIDATION_COLUMNS = (
    "step", "swd_a2b", "swd_b2a", "cycle_a", "cycle_b", "identity_a", "identity_b",
    "diversity_a2b", "diversity_b2a", "seconds",
)  # fmt: skip


class StepTable:
    """A table whose rows belong to steps. Rows are written at once.

    Args:
        path: The file, which is created if it does not exist.
        columns: Names of the columns, including ``step``.
        steps_done: Rows of later steps are removed: a resumed run writes them again.

    Raises:
        OutputError: The file cannot be written.
    """

    def __init__(self, path: Path, columns: Sequence[str], steps_done: int) -> None:
        self.path = path
        self.columns = columns
        kept = [row for row in read_rows(path, columns) if float(row["step"]) <= steps_done]
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(kept)
        files.write_text(path, text.getvalue())

    def append(self, row: Mapping[str, float | str]) -> None:
        """Append a row.

        Raises:
            OutputError: The file cannot be written.
        """
        text = io.StringIO()
        values = (_cell(name, row[name]) for name in self.columns)
        csv.writer(text, lineterminator="\n").writerow(values)
        try:
            with self.path.open("a", encoding="utf-8", newline="") as stream:
                stream.write(text.getvalue())
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from error


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a table without incomplete rows, which a killed process may leave at the end.

    Args:
        path: The table; a missing file has no rows.
        columns: The columns of a complete row.
    """
    if not path.exists():
        return []
    with path.open(newline="", errors="replace") as stream:
        rows = list(csv.DictReader(stream))
    numbers = [name for name in columns if name != HEALTH_COLUMN and name not in LATER_COLUMNS]
    return [row for row in rows if all(_is_number(row.get(name)) for name in numbers)]


def _cell(name: str, value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.{12 if name == 'step' else 6}g}"


def _is_number(text: str | None) -> bool:
    try:
        float(text or "")
    except ValueError:
        return False
    return True
