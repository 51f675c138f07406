"""What a folder of images holds: formats and sizes from headers, and files that are the same."""

from __future__ import annotations

import hashlib
import os
import stat
import statistics
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cyclegan_cli.data.opening import Probe, probe
from cyclegan_cli.errors import DataError


@dataclass
class Survey:
    """What was found in images' headers.

    Attributes:
        probes: Of every image that could be opened, what its header says.
        problems: Of every other, a sentence that says why not.
    """

    probes: dict[Path, Probe] = field(default_factory=dict)
    problems: dict[Path, str] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """Counts of formats and modes, and how long the sides are, in pixels; fit for JSON."""
        found = list(self.probes.values())
        if not found:
            return {}
        sizes = [(one.width, one.height) for one in found]
        return {
            "formats": dict(Counter(one.format for one in found).most_common()),
            "modes": dict(Counter(one.mode for one in found).most_common()),
            "short_side": spread([min(size) for size in sizes]),
            "long_side": spread([max(size) for size in sizes]),
        }


def survey(images: Sequence[Path]) -> Survey:
    """Read the headers of all these images, not their pixels."""
    found = Survey()
    for image in images:
        try:
            found.probes[image] = probe(image)
        except DataError as error:
            found.problems[image] = error.message
    return found


def evenly(images: Sequence[Path], limit: int | None) -> Sequence[Path]:
    """At most ``limit`` images, evenly over the sequence; all of them with None."""
    return images if limit is None else images[:: max(1, -(-len(images) // limit))]


def spread(values: Sequence[float], digits: int | None = None) -> dict[str, float]:
    """The ``smallest``, ``median`` and ``largest`` of some numbers, rounded."""
    measures: dict[str, Callable[[Sequence[float]], float]] = {
        "smallest": min, "median": statistics.median, "largest": max
    }  # fmt: skip
    return {name: round(measure(values), digits) for name, measure in measures.items()}


def duplicates(images: Collection[Path]) -> list[list[Path]]:
    """Groups of files with the same bytes; only files of one size are read.

    Files that cannot be read, or are gone, are left out.
    """
    by_size: dict[int, list[Path]] = {}
    for image in images:
        if (size := _size(image)) is not None:
            by_size.setdefault(size, []).append(image)
    by_content: dict[bytes | None, list[Path]] = {}
    for group in by_size.values():
        for image in group if len(group) > 1 else []:
            by_content.setdefault(_digest(image), []).append(image)
    by_content.pop(None, None)
    return [group for group in by_content.values() if len(group) > 1]


def _size(path: Path) -> int | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    # Whoever opens a pipe may wait for ever.
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _digest(path: Path) -> bytes | None:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError:
        return None
