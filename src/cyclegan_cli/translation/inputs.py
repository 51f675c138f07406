"""Find the input images: files, folders, globs and lists of paths.

Everything is iterated lazily, so that millions of inputs need no list in memory.
"""

from __future__ import annotations

import fnmatch
import glob
import itertools
import os
import stat
import tempfile
import weakref
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO, NamedTuple

from cyclegan_cli.config import STREAM
from cyclegan_cli.data.folder import SkippedFiles, refuse_folder, walk_images
from cyclegan_cli.data.video_formats import FOLDER_EXTENSIONS
from cyclegan_cli.errors import DataError, OutputError, UsageError
from cyclegan_cli.files import is_temporary

CHUNK_BYTES = 1 << 16
LONGEST_PATH = 1 << 16  # More than any operating system allows.


class InputImage(NamedTuple):
    """An image to translate.

    Attributes:
        path: The path as the user would write it.
        relative_path: The path inside an output folder.
        folder: The input folder in which it was found; None if it was named itself.
    """

    path: str
    relative_path: str
    folder: str | None = None


class PathList:
    """A list of paths, copied into a temporary file: of any length, and iterable repeatedly.

    Args:
        stream: The list.
        name: Its name in error messages.
        null: Whether NUL bytes instead of newlines separate the paths.

    Raises:
        UsageError: It is not a list of paths.
        OutputError: The temporary file cannot be written.
    """

    def __init__(self, stream: BinaryIO, name: str, null: bool) -> None:
        self._name, self._separator = name, b"\0" if null else b"\n"
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the list
        weakref.finalize(self, self._spool.close)
        try:
            for path in self._split(stream):
                self._spool.write(path + b"\0")
            self._spool.flush()
        except OSError as error:
            raise OutputError(f"cannot copy the list {name}: {(error.strerror or '').lower()}",
                              "Set TMPDIR to a folder with free space.") from error  # fmt: skip

    @classmethod
    def open(cls, name: str, null: bool, stdin: BinaryIO | None) -> PathList:
        """Read the list from a file, or from ``stdin`` if ``name`` is ``-``.

        Raises:
            DataError: The file cannot be read.
            UsageError: It is not a list of paths.
        """
        if name == STREAM:
            if stdin is None:
                raise UsageError("--files-from -: standard input is closed", "Pipe a list into it.")
            return cls(stdin, "on standard input", null)
        try:
            with open(name, "rb") as stream:
                return cls(stream, name, null)
        except OSError as error:
            raise DataError(
                f"cannot read the list {name}: {(error.strerror or '').lower()}"
            ) from error

    def __iter__(self) -> Iterator[str]:
        self._spool.seek(0)
        rest = b""
        while chunk := self._spool.read(CHUNK_BYTES):
            *paths, rest = (rest + chunk).split(b"\0")
            yield from map(os.fsdecode, paths)

    def _split(self, stream: BinaryIO) -> Iterator[bytes]:
        """Yield the non-empty paths."""
        rest, is_first = b"", True
        while chunk := stream.read(CHUNK_BYTES):
            if is_first and chunk[:2] in (BOM_UTF16_LE, BOM_UTF16_BE) and b"\0" in chunk[2:4]:
                raise UsageError(
                    f"the list {self._name} is encoded in UTF-16, not in UTF-8",
                    "Convert it: iconv -f UTF-16 -t UTF-8",
                )
            if is_first and self._separator != b"\0":
                chunk = chunk.removeprefix(BOM_UTF8)  # Some editors write it.
            is_first = False
            *paths, rest = (rest + chunk).split(self._separator)
            yield from filter(None, map(self._checked, paths))
            if len(rest) > LONGEST_PATH:
                self._refuse()
        if last := self._checked(rest):
            yield last

    def _checked(self, path: bytes) -> bytes:
        if b"\0" in path:
            self._refuse()
        return path if self._separator == b"\0" else path.removesuffix(b"\r")

    def _refuse(self) -> None:
        found, hint = ("NUL bytes", "Leave out -0 if newlines separate the paths.")
        if self._separator == b"\n":
            found, hint = ("newlines", "Use -0 if NUL bytes separate the paths.")
        raise UsageError(f"the list {self._name} is not a list of paths separated by {found}", hint)


@dataclass(frozen=True)
class Inputs:
    """All input images; iterable repeatedly.

    Attributes:
        patterns: Files, folders or globs.
        listed: Further files and folders, without globs.
        recursive: Whether folders are searched recursively.
        root: The folder whose structure is reproduced in the output folder.
        excluded: Real paths of folders and files that are not inputs: the output folder, masks.
    """

    patterns: Sequence[str] = ()
    listed: PathList | None = None
    recursive: bool = True
    root: str | None = None
    excluded: Collection[str] = ()

    def checked(self, skipped: SkippedFiles | None = None) -> Iterator[InputImage]:
        """Yield the images in order, and check every argument.

        Args:
            skipped: Counts image files in folders that are not read.

        Raises:
            UsageError: An argument is empty, or a file lies outside the root.
            DataError: An argument matches nothing, or a folder contains no images or cannot be
                listed.
        """
        for text in self.patterns:
            if not text:
                raise UsageError("an INPUT is empty", "Name an image, a folder or a glob.")
            found = self._expand(text, refuse_folder, skipped)
            first = next(found, None)
            if first is None:
                raise _nothing_found(text, self.recursive, skipped)
            refuse_missing(first.path, text)
            yield first
            yield from found
        for text in self.listed or ():
            yield from self._listed(text, skipped)

    def first_two(self) -> list[InputImage]:
        """Return the first two images, or fewer; see :meth:`checked`."""
        return list(itertools.islice(self.checked(SkippedFiles()), 2))

    def __iter__(self) -> Iterator[InputImage]:
        """Yield the images in order; files that have disappeared since the check are skipped."""
        for text in self.patterns:
            yield from self._expand(text, lambda _error: None)
        for text in self.listed or ():
            yield from self._listed(text)

    def _expand(
        self,
        text: str,
        on_error: Callable[[OSError], None],
        skipped: SkippedFiles | None = None,
    ) -> Iterator[InputImage]:
        """Yield the images that an argument names; an existing path is never a glob."""
        if glob.has_magic(text) and not os.path.lexists(text):
            for path in iglob_sorted(text):
                if not is_temporary(os.path.basename(path)):
                    yield self._file(path)
        else:
            yield from self._expand_literal(text, on_error, skipped)

    def _listed(self, text: str, skipped: SkippedFiles | None = None) -> Iterator[InputImage]:
        """Yield the images that a line of the list names.

        A folder that cannot be listed is yielded itself, and fails when it is read.
        """
        unlistable: list[OSError] = []
        yield from self._expand_literal(text, unlistable.append, skipped)
        if unlistable:
            yield self._file(_tidied(text))

    def _expand_literal(
        self,
        text: str,
        on_error: Callable[[OSError], None],
        skipped: SkippedFiles | None = None,
    ) -> Iterator[InputImage]:
        if not _is_folder(text):
            if not is_temporary(os.path.basename(text)):
                yield self._file(_tidied(text))
            return
        folder = Path(text)
        for below in walk_images(
            folder,
            self.recursive,
            self.excluded,
            on_error,
            unlistable=True,
            skipped=skipped,
            more_extensions=FOLDER_EXTENSIONS,
        ):
            path = os.path.join("" if folder == Path() else folder, below)
            relative = below if self.root is None else self._relative(path)
            yield InputImage(path, relative, str(folder))

    def _file(self, path: str) -> InputImage:
        relative = os.path.basename(path) if self.root is None else self._relative(path)
        return InputImage(path, relative)

    def _relative(self, path: str) -> str:
        """Return the path relative to the root."""
        relative = os.path.relpath(os.path.abspath(path), os.path.abspath(self.root or "."))
        outside = (
            relative == os.pardir
            or relative.startswith(os.pardir + os.sep)
            or os.path.isabs(relative)
        )
        if outside:
            raise UsageError(f"{path} is not inside --root {self.root}", "Name a parent folder.")
        return relative


def refuse_missing(path: str, text: str) -> None:
    """Refuse a path that does not exist or cannot be accessed.

    Raises:
        DataError: With the argument, ``text``, in its message.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise DataError(f"there is no file or folder {text}") from error
    except OSError as error:
        raise DataError(f"cannot access {text}: {(error.strerror or '').lower()}") from error


def _tidied(path: str) -> str:
    """Return the path without ``./`` and ``//``, avoiding pathlib where possible: it is slow."""
    untidy = "//" in path or "./" in path or path.endswith(("/", os.curdir)) or os.sep != "/"
    return str(Path(path)) if untidy else path


def _is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _nothing_found(text: str, recursive: bool, skipped: SkippedFiles | None) -> DataError:
    """Return the error for an argument that names no image."""
    if not _is_folder(text):
        return DataError(f"nothing matches {text}")
    hint = "Folders are searched recursively."
    if skipped and (sentence := skipped.sentence()):
        hint = f"{sentence}."
    elif not recursive:
        hint = "With --no-recursive, subfolders are not searched."
    return DataError(f"{text} has no images", hint)


def iglob_sorted(pattern: str) -> Iterator[str]:
    """Yield the files that a pattern matches, folder by folder, in sorted order.

    Unlike :func:`glob.glob` it needs no list of all matches. ``*``, ``?`` and ``[abc]`` match
    within one name, ``**`` matches any number of folders. As in a shell, hidden names match only
    patterns that begin with a dot. ``**`` does not follow links to folders.
    """
    path = PurePath(pattern)
    return _expand_glob(path.anchor, path.parts[1 if path.anchor else 0 :])


def _expand_glob(base: str, parts: tuple[str, ...]) -> Iterator[str]:
    if not parts:
        if os.path.isfile(base):
            yield base
        return
    head, rest = parts[0], parts[1:]
    if head == "**":
        yield from _expand_any_depth(base, rest)
    elif glob.has_magic(head):
        for name in _names(base):
            if fnmatch.fnmatch(name, head) and (head.startswith(".") or not name.startswith(".")):
                yield from _expand_glob(os.path.join(base, name), rest)
    else:
        yield from _expand_glob(os.path.join(base, head), rest)


def _expand_any_depth(base: str, rest: tuple[str, ...]) -> Iterator[str]:
    """Match ``rest`` in ``base`` and in each folder below it."""
    while rest[:1] == ("**",):
        rest = rest[1:]
    yield from _expand_glob(base, rest or ("*",))
    for name in _names(base):
        path = os.path.join(base, name)
        if not name.startswith(".") and not os.path.islink(path) and os.path.isdir(path):
            yield from _expand_any_depth(path, rest)


def _names(folder: str) -> Iterator[str]:
    try:
        names = sorted(os.listdir(folder or "."), reverse=True)
    except OSError:
        return  # As in a shell, a folder that cannot be listed matches nothing.
    while names:
        yield names.pop()


def ignores_case(folder: str) -> bool:
    """Return whether ``night.jpg`` and ``Night.JPG`` are the same file in this folder.

    This is the default on macOS and Windows, and on Linux for drives with their file systems. It
    is tested by opening an existing entry of the folder, or a parent folder on the same drive,
    under its name in the other case. A folder that does not exist yet is like its parent.
    """
    for known in _existing_paths(folder):
        above, name = os.path.split(known)
        if name.swapcase() != name:
            with suppress(OSError):
                return os.path.samefile(known, os.path.join(above, name.swapcase()))
            return False
    return False


def _existing_paths(folder: str) -> Iterator[str]:
    """Yield an entry of ``folder``, then its existing parents on the same drive."""
    folder = os.path.abspath(folder)
    while not os.path.isdir(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.swapcase() != entry.name:
                yield entry.path
                break
    while (above := os.path.dirname(folder)) != folder and not os.path.ismount(folder):
        yield folder
        folder = above
