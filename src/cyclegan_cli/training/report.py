"""What a run leaves for people to look at: metrics.csv and the sample grids."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torchvision.utils import make_grid

from cyclegan_cli import files
from cyclegan_cli.data.encoding import encode
from cyclegan_cli.data.picture import Picture
from cyclegan_cli.data.tensors import tensor_to_array
from cyclegan_cli.errors import OutputError
from cyclegan_cli.models.cyclegan import LOSS_NAMES

COLUMNS = ("step", "epoch", "learning_rate", *LOSS_NAMES, "images_per_second", "seconds")
GAP = 2  # Pixels between the pictures of a grid.


class MetricsFile:
    """``metrics.csv``: a row an interval, on disk as soon as it is measured.

    Args:
        path: The file; created, or cut back to what the run had when it was saved.
        steps_done: Rows of later steps are dropped: a resumed run will write them again.

    Raises:
        OutputError: It cannot be written.
    """

    def __init__(self, path: Path, steps_done: int) -> None:
        self.path = path
        kept = [row for row in _rows(path) if float(row["step"]) <= steps_done]
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
        files.write_text(path, text.getvalue())

    def append(self, row: Mapping[str, float]) -> None:
        """Add a row.

        Raises:
            OutputError: It cannot be written.
        """
        text = io.StringIO()
        values = (f"{row[name]:.{12 if name == 'step' else 6}g}" for name in COLUMNS)
        csv.writer(text, lineterminator="\n").writerow(values)
        try:
            with self.path.open("a", encoding="utf-8", newline="") as stream:
                stream.write(text.getvalue())
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from error


def _rows(path: Path) -> list[dict[str, str]]:
    """The whole rows of a metrics file; a kill may have left half a row at its end."""
    if not path.exists():
        return []
    with path.open(newline="", errors="replace") as stream:
        rows = list(csv.DictReader(stream))
    return [row for row in rows if all(_is_number(row.get(name)) for name in COLUMNS)]


def _is_number(text: str | None) -> bool:
    try:
        float(text or "")
    except ValueError:
        return False
    return True


def save_sample_grid(path: Path, pictures: Mapping[str, Tensor]) -> None:
    """Write a grid with a row a picture: real, fake, reconstruction of A, then of B.

    Args:
        path: Where to, a ``.jpg``.
        pictures: ``real_a``, ``fake_b``, ``rec_a``, ``real_b``, ``fake_a``, ``rec_b``, each
            ``[N, 3, H, W]`` in [-1, 1].

    Raises:
        OutputError: It cannot be written.
    """
    columns = [pictures[n] for n in ("real_a", "fake_b", "rec_a", "real_b", "fake_a", "rec_b")]
    in_rows = torch.stack([column.cpu() for column in columns], dim=1).flatten(0, 1)
    grid = make_grid(in_rows, nrow=len(columns), padding=GAP, pad_value=1.0)
    encode(Picture((tensor_to_array(grid.unsqueeze(0)),)), path, "JPEG")
