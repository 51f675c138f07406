"""Finished parts of a video, from which an interrupted translation continues.

They are in a hidden folder beside the output: ``record.json`` with the settings, and for each
segment a file with its packets, in decoding order, and what the next frame depends on.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cyclegan_cli.errors import OutputError
from cyclegan_cli.files import atomic_path, lock_file, make_folder, remove_leftovers, write_text
from cyclegan_cli.translation.smoothing import Histogram, Moments
from cyclegan_cli.translation.video.encoder import Packet

RECORD = "record.json"
SHOTS = "shots.npz"
PARTIAL = "partial"  # Exists if the frames of a stopped translation are in a file.
LOCK = "lock"
OWN = re.compile(r"record\.json|shots\.npz|partial|lock|\d+\.(npz|png)|\.cyclegan-.*\.tmp")
VERSION = 2


@dataclass
class SegmentState:
    """What the frames behind a segment depend on.

    Attributes:
        frames: Number of frames up to its end.
        last: Timestamp of the last one.
        moments: Averages of the statistics of instance norms.
        histogram: Of the last frame, ``[parts, bins]``; None if cuts are not searched for.
        damaged: Times of frames up to its end that cannot be decoded, in seconds.
        masked: Number of pixels up to its end with a mask value above 0.
    """

    frames: int = 0
    last: int | None = None
    moments: Moments | None = None
    histogram: Histogram | None = None
    damaged: list[float] = field(default_factory=list)
    masked: int = 0


class WorkFolder:
    """The segments of one output.

    Args:
        output: Path of the output.
        record: Everything that its frames depend on, as JSON. Segments of another record are
            removed.

    Attributes:
        folder: The folder; it exists from the first segment on.
        state: At the end of the last segment.
        shots: Index of the first frame of each shot, and its statistics; None if unknown.
        has_partial: Whether a stopped translation has written its frames to a file.

    Raises:
        OutputError: Segments of another record cannot be removed, the folder has other files, or
            another process uses it.
    """

    def __init__(self, output: str, record: Mapping[str, Any]) -> None:
        self.folder = self.path_for(output)
        self._record = json.dumps({"version": VERSION, **record}, sort_keys=True)
        self._files: list[Path] = []
        self.state = SegmentState()
        self.shots: tuple[list[int], list[Moments]] | None = None
        self.has_partial = (self.folder / PARTIAL).exists()
        self._unlock: Callable[[], object] | None = None
        if not self.folder.exists():
            return
        self._refuse_foreign()
        self._lock()
        if self._is_same():
            self._load()
        else:
            self.remove()

    @staticmethod
    def path_for(output: str) -> Path:
        """Return the folder of an output."""
        target = Path(os.path.realpath(output))
        return target.parent / f".{target.name.replace('%', '')}.segments"

    def _is_same(self) -> bool:
        try:
            return (self.folder / RECORD).read_text(encoding="utf-8") == self._record
        except (OSError, UnicodeDecodeError):
            return False

    def _refuse_foreign(self) -> None:
        """Refuse a folder of this name that contains other files."""
        foreign = [path.name for path in self.folder.iterdir() if not OWN.fullmatch(path.name)]
        if foreign:
            raise OutputError(
                f"{self.folder} is where unfinished videos are kept, and contains {foreign[0]}",
                "Move it.",
            )

    def _lock(self) -> None:
        """Lock the folder, which exists, until this object is removed or the process ends."""
        try:
            descriptor = lock_file(self.folder / LOCK)
        except BlockingIOError as error:
            raise OutputError(
                f"another process is translating to {self.folder}", "Wait for its end."
            ) from error
        except OSError as error:
            raise OutputError(f"cannot write {self.folder}: {error.strerror}") from error
        self._unlock = weakref.finalize(self, os.close, descriptor)

    def claim_partial(self, path: str) -> bool:
        """Return whether a file of the frames so far may be written: it is new, or of such frames.

        Args:
            path: The file.
        """
        if not self.has_partial and os.path.lexists(path):
            return False
        self.has_partial = True
        write_text(self.folder / PARTIAL, "")
        return True

    def _load(self) -> None:
        remove_leftovers(self.folder)
        while (path := self._path(len(self._files))).is_file():
            try:
                with np.load(path, allow_pickle=False) as stored:
                    self.state = _state_of(stored)
            except (OSError, ValueError, KeyError):
                break  # Damaged: it and those behind it are made again.
            self._files.append(path)
        with (
            suppress(OSError, ValueError, KeyError),
            np.load(self.folder / SHOTS, allow_pickle=False) as stored,
        ):
            self.shots = stored["starts"].tolist(), list(stored["moments"])

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.npz"

    def add(
        self, packets: Iterable[Packet], durations: Mapping[int, int], state: SegmentState
    ) -> None:
        """Store a segment.

        Raises:
            OutputError: It cannot be written.
        """
        make_folder(self.folder)
        if self._unlock is None:
            self._lock()
        if not self._files:
            self._write_record()
        listed = list(packets)
        arrays: dict[str, Any] = {
            "data": np.frombuffer(b"".join(p.data for p in listed), np.uint8),
            "sizes": np.array([len(p.data) for p in listed], np.int64),
            "pts": np.array([p.pts for p in listed], np.int64),
            "keys": np.array([p.is_key for p in listed], bool),
            "durations": np.array([durations.get(p.pts, 0) for p in listed], np.int64),
            "position": np.array([state.frames, state.last or 0, state.masked], np.int64),
            "damaged": np.array(state.damaged, np.float64),
            "histogram": np.zeros(0) if state.histogram is None else state.histogram,
        }
        if state.moments is not None:
            arrays["moments"] = state.moments
        path = self._path(len(self._files))
        _save(path, arrays)
        self._files.append(path)
        self.state = state

    def _write_record(self) -> None:
        write_text(self.folder / RECORD, self._record)
        if self.has_partial:
            write_text(self.folder / PARTIAL, "")
        if self.shots is not None:
            starts, moments = self.shots
            _save(self.folder / SHOTS, {"starts": np.array(starts), "moments": np.stack(moments)})

    def times(self) -> tuple[list[int], dict[int, int]]:
        """Return the timestamps of all packets, and the durations of their frames."""
        times: list[int] = []
        durations: dict[int, int] = {}
        for path in self._files:
            with np.load(path, allow_pickle=False) as stored:
                pts = stored["pts"].tolist()
                times += pts
                durations.update(zip(pts, stored["durations"].tolist(), strict=True))
        return times, durations

    def packets(self) -> Iterator[Packet]:
        """Yield all packets; only one segment is in memory at a time."""
        for path in self._files:
            with np.load(path, allow_pickle=False) as stored:
                data, start = stored["data"].tobytes(), 0
                columns = (stored[name].tolist() for name in ("sizes", "pts", "keys"))
                for size, pts, is_key in zip(*columns, strict=True):
                    yield Packet(pts, is_key, data[start : start + size])
                    start += size

    def remove(self) -> None:
        """Remove the folder.

        Raises:
            OutputError: It cannot be removed.
        """
        if self._unlock is not None:
            self._unlock()
            self._unlock = None
        with suppress(FileNotFoundError):
            try:
                shutil.rmtree(self.folder)
            except FileNotFoundError:
                raise
            except OSError as error:
                reason = (error.strerror or "").lower()
                raise OutputError(f"cannot remove {self.folder}: {reason}") from error


def _save(path: Path, arrays: Mapping[str, Any]) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def _state_of(stored: Mapping[str, Any]) -> SegmentState:
    frames, last, masked = stored["position"].tolist()
    histogram = stored["histogram"]
    return SegmentState(
        frames,
        last,
        stored.get("moments"),
        histogram if len(histogram) else None,
        stored["damaged"].tolist(),
        masked,
    )
