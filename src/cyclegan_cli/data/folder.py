"""Image files in a folder: listing, surveys of their headers, duplicates."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import statistics
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cyclegan_cli.data.formats import RAW_EXTENSIONS, readable_extensions
from cyclegan_cli.data.open_image import Probe, probe
from cyclegan_cli.data.volumes import VOLUME_HEAD_BYTES, volume_format
from cyclegan_cli.errors import DataError

# Folders of thumbnails and deleted files on network drives (Synology, QNAP) and Windows.
SYSTEM_FOLDERS = frozenset({"@eaDir", "#recycle", "@Recycle", "@__thumb", "$RECYCLE.BIN"})


def list_images(
    folder: Path, skipped: SkippedFiles | None = None, leave_out: Collection[str] = ()
) -> list[Path]:
    """Return all files below a folder with the extension of an image, sorted by relative path.

    Args:
        folder: Folder to search.
        skipped: Counts image files among all others.
        leave_out: Real paths of subfolders and files to exclude.

    Raises:
        DataError: The folder does not exist or cannot be listed.
    """
    if not os.path.isdir(folder):
        found = "a file" if os.path.exists(folder) else "nothing"
        raise DataError(f"{folder} is not a folder: found {found}", "Name a folder of images.")
    return [folder / path for path in walk_images(folder, leave_out=leave_out, skipped=skipped)]


def refuse_folder(error: OSError) -> None:
    """Raise a DataError for a folder that cannot be listed."""
    raise DataError(f"cannot list {error.filename}: {error.strerror}") from error


def walk_images(
    folder: Path,
    recursive: bool = True,
    leave_out: Collection[str] = (),
    on_error: Callable[[OSError], None] = refuse_folder,
    unlistable: bool = False,
    skipped: SkippedFiles | None = None,
    more_extensions: tuple[str, ...] = (),
) -> Iterator[str]:
    """Yield all files below a folder with the extension of an image, sorted by relative path.

    Skips hidden files and folders, those of network drives, links to folders, training run folders,
    and anything but regular files (pipes, sockets, devices). Holds in memory only the names in one
    folder and its parents.

    Args:
        folder: Folder to search.
        recursive: Whether to search its subfolders.
        leave_out: Real paths of subfolders and files to exclude.
        on_error: Called for a folder that cannot be listed, which is then skipped.
        unlistable: Whether to yield a subfolder that cannot be listed, so that reading it fails,
            instead of calling ``on_error``.
        skipped: Counts image files among all others.
        more_extensions: Extensions of files that are yielded besides images.

    Yields:
        Paths relative to ``folder``.
    """
    suffixes = (*readable_extensions(), *more_extensions)
    real = os.path.realpath(folder)

    def walk(below: str) -> Iterator[str]:
        try:
            names = _names(os.path.join(folder, below) if below else str(folder))
        except OSError as error:
            if below and unlistable:
                yield below
            else:
                on_error(error)
            return
        if below and _is_run(names):
            return
        while names:  # Popped to free memory.
            name = names.pop()
            path = os.path.join(below, name.rstrip("/"))
            if not name.endswith("/"):
                if name.lower().endswith(suffixes):
                    if not leave_out or os.path.join(real, path) not in leave_out:
                        yield path
                elif skipped:
                    skipped.add(os.path.join(folder, path))
            elif recursive and os.path.join(real, path) not in leave_out:
                yield from walk(path)

    return walk("")


# A folder with two of these is a training run, whose sample grids are not training images. One
# alone may belong to another program: model.safetensors is a common name.
RUN_NAMES = frozenset(
    {"config.toml", "health.json", "metrics.csv", "model.safetensors", "samples/",
     "state.safetensors"}
)  # fmt: skip


def _is_run(names: list[str]) -> bool:
    """Return whether these are the contents of a training run folder."""
    return len(RUN_NAMES.intersection(names)) > 1


def _names(folder: str) -> list[str]:
    """Return the names in a folder in reverse order; subfolders end with ``/``, also for sorting.

    Raises:
        OSError: The folder cannot be listed.
    """
    with os.scandir(folder) as entries:
        names = [
            f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
            for entry in entries
            if not (entry.name.startswith(".") or _is_left_out(entry))
        ]
    names.sort(reverse=True)
    return names


def _is_left_out(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a linked or system folder, or not a regular file."""
    try:
        if entry.name in SYSTEM_FOLDERS and entry.is_dir():
            return True
        if entry.is_file() or entry.is_dir(follow_symlinks=False):
            return False
        return stat.S_IFMT(entry.stat().st_mode) != stat.S_IFREG
    except OSError:
        return False  # Broken link or no permission; reading it reports the error.


# Extensions of unsupported image formats.
UNSUPPORTED_EXTENSIONS = RAW_EXTENSIONS | {
    ".ai", ".djvu", ".emf", ".eps", ".exr", ".fits", ".hdr", ".jxl", ".jxr", ".kra", ".pcd",
    ".psb", ".svg", ".svgz", ".wdp", ".wmf", ".xcf",
}  # fmt: skip
# Signatures of supported image formats, and of JPEG XL.
IMAGE_HEAD = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|II\*\0|MM\0\*|II\+\0|MM\0\+|RIFF....WEBP|8BPS"
    rb"|BM....\0\0\0\0|....ftyp(?:avif|avis|heic|heix|heim|heis|hevc|hevx|mif1|msf1)"
    rb"|\0\0\0\x0cjP  \r\n|\xff\x4f\xff\x51|P[1-6]\s|(?P<unsupported>\0\0\0\x0cJXL \r\n|\xff\x0a)",
    re.DOTALL,
)
MAX_LISTED_KINDS = 5


class SkippedFiles:
    """Counts image files that a search skips, by extension."""

    def __init__(self) -> None:
        self.unsupported: Counter[str] = Counter()
        self.misnamed: Counter[str] = Counter()

    def add(self, path: str) -> None:
        """Count a skipped file if it is an image.

        Args:
            path: Path of the file, which is opened if its extension is not that of an image.
        """
        suffix = os.path.splitext(path)[1].lower()
        if suffix in UNSUPPORTED_EXTENSIONS:
            self.unsupported[suffix] += 1
        elif volume_format(head := _head(path)) == "DICOM":
            self.misnamed[suffix or "without extension"] += 1
        elif found := IMAGE_HEAD.match(head):
            counts = self.unsupported if found["unsupported"] else self.misnamed
            counts[suffix or "without extension"] += 1

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of files by extension, for JSON."""
        return dict((self.unsupported + self.misnamed).most_common())

    def sentence(self, where: str = "") -> str:
        """Return how many files were skipped and what to do; empty if there are none.

        Args:
            where: Folder to name.
        """
        count = self.unsupported.total() + self.misnamed.total()
        if not count:
            return ""
        parts = []
        if self.unsupported:
            parts.append(
                f"{_listed(self.unsupported)} (not supported: convert to PNG, TIFF or JPEG)"
            )
        if self.misnamed:
            parts.append(
                f"{_listed(self.misnamed)} (extension does not match: rename to .jpg etc. by "
                "their format)"
            )
        files = "1 image file was" if count == 1 else f"{count} image files were"
        return f"{where + ': ' if where else ''}{files} skipped: {' and '.join(parts)}"


def _listed(counts: Counter[str]) -> str:
    named = [f"{count} {kind}" for kind, count in counts.most_common(MAX_LISTED_KINDS)]
    rest = counts.total() - sum(count for _, count in counts.most_common(MAX_LISTED_KINDS))
    return ", ".join([*named, f"{rest} others"] if rest else named)


def _head(path: str) -> bytes:
    """Return the first bytes of a regular file; empty for pipes, which could block."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return b""
        with open(path, "rb") as file:
            return file.read(VOLUME_HEAD_BYTES)
    except (OSError, ValueError):
        return b""


@dataclass
class Survey:
    """Facts from the headers of images.

    Attributes:
        probes: Header of each readable image.
        problems: Error message of each other image.
    """

    probes: dict[Path, Probe] = field(default_factory=dict)
    problems: dict[Path, str] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """Return counts of formats and modes, and side lengths in pixels, for JSON."""
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


def survey(images: Sequence[Path], any_size: bool = False) -> Survey:
    """Read the headers of images.

    Args:
        images: Their paths.
        any_size: Whether TIFFs that are read as arrays may have more pixels than an image in
            memory.
    """
    found = Survey()
    for image in images:
        try:
            found.probes[image] = probe(image, any_size)
        except DataError as error:
            found.problems[image] = error.message
    return found


def subsample(images: Sequence[Path], limit: int | None) -> Sequence[Path]:
    """Return at most ``limit`` evenly spaced images, or all if ``limit`` is None."""
    return images if limit is None else images[:: max(1, -(-len(images) // limit))]


def spread(values: Sequence[float], digits: int | None = None) -> dict[str, float]:
    """Return the ``smallest``, ``median`` and ``largest`` of values, rounded."""
    measures: dict[str, Callable[[Sequence[float]], float]] = {
        "smallest": min, "median": statistics.median, "largest": max
    }  # fmt: skip
    return {name: round(measure(values), digits) for name, measure in measures.items()}


def duplicates(images: Collection[Path]) -> list[list[Path]]:
    """Return groups of files with equal contents; only files of equal size are read.

    Files that cannot be read are ignored.
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
    # Opening a pipe could block forever.
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _digest(path: Path) -> bytes | None:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError:
        return None
