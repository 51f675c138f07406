"""What became of each image, and of all together."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "skipped", "failed"]


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        input: The image.
        output: Its translation; not written unless ``ok``.
        status: ``ok``, ``skipped`` (the output exists) or ``failed``.
        error: One sentence, if failed.
        width: In pixels, if ok.
        height: In pixels, if ok.
        seconds: From the beginning of reading to having written.
        warnings: A sentence for each thing of the image that its translation does not have.
    """

    input: str
    output: str
    status: Status
    error: str | None = None
    width: int | None = None
    height: int | None = None
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()

    def to_document(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return vars(self) | {"warnings": list(self.warnings)}


@dataclass
class Summary:
    """What became of all images of a process.

    Attributes:
        images: How many there were to begin with.
        counts: How many of each status.
        seconds: From the first to the last.
        stopped: Why it ended before all were through: ``SIGINT``, ``SIGTERM``, ``failure`` (with
            --fail-fast), ``disk full``; None where all are.
    """

    images: int
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    stopped: str | None = None

    def to_document(self) -> dict[str, Any]:
        """As plain values for JSON."""
        ok, skipped, failed = (self.counts[status] for status in ("ok", "skipped", "failed"))
        return {
            "summary": {
                "pictures": self.images,
                "ok": ok,
                "skipped": skipped,
                "failed": failed,
                "seconds": round(self.seconds, 4),
                "pictures_per_second": round(ok / self.seconds, 4) if ok else 0.0,
                "stopped": self.stopped,
            }
        }
