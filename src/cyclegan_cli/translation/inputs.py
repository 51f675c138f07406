"""The images that the user's arguments stand for, one after the other."""

from __future__ import annotations

import glob
import itertools
import os
import stat
import tempfile
import weakref
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cyclegan_cli.data.folder import SkippedFiles, refuse_folder, walk_images
from cyclegan_cli.errors import DataError, OutputError, UsageError
from cyclegan_cli.files import is_temporary
from cyclegan_cli.translation.globbing import iglob_in_order

STDIN = "-"
CHUNK_BYTES = 1 << 16
LONGEST_PATH = 1 << 16  # Far more than any system allows.


class Source(NamedTuple):
    """An image to translate.

    Attributes:
        path: Where it is, as the user would write it.
        place: Where it belongs inside an output folder.
        folder: The input folder that it was found in, if any.
    """

    path: str
    place: str
    folder: str | None = None


class PathList:
    """The paths of a list, in a temporary file: as many as there may be, to be read again.

    Args:
        stream: The list.
        name: What the user calls it.
        null: Whether NUL bytes rather than newlines part the paths.

    Raises:
        UsageError: It is no list of paths.
        OutputError: There is no room for it.
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
                              "Set TMPDIR to a folder with room.") from error  # fmt: skip

    @classmethod
    def open(cls, name: str, null: bool, stdin: BinaryIO | None) -> PathList:
        """The list in a file, or in ``stdin`` where the name is ``-``.

        Raises:
            DataError: There is no such file.
            UsageError: It is no list of paths.
        """
        if name == STDIN:
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
        """The paths of a list, but for empty ones."""
        rest, is_first = b"", True
        while chunk := stream.read(CHUNK_BYTES):
            if is_first and chunk[:2] in (BOM_UTF16_LE, BOM_UTF16_BE) and b"\0" in chunk[2:4]:
                raise UsageError(
                    f"the list {self._name} is text in UTF-16, not in UTF-8",
                    "Convert it: iconv -f UTF-16 -t UTF-8",
                )
            if is_first and self._separator != b"\0":
                chunk = chunk.removeprefix(BOM_UTF8)  # Some editors begin a text with it.
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
        apart = "NUL bytes" if self._separator == b"\0" else "newlines"
        other = "Without -0 newlines do." if self._separator == b"\0" else "With -0 NUL bytes do."
        raise UsageError(f"the list {self._name} is no list of paths parted by {apart}", other)


@dataclass(frozen=True)
class Inputs:
    """All images that the arguments stand for; they can be walked through again and again.

    Attributes:
        texts: Files, folders or globs.
        listed: Paths of more files and folders, none of them a glob.
        recursive: Whether folders are searched in depth.
        root: The folder below which files keep their place in an output folder.
        leave_out: Real path of a folder, the output's, that is not searched for inputs.
    """

    texts: Sequence[str] = ()
    listed: PathList | None = None
    recursive: bool = True
    root: str | None = None
    leave_out: str | None = None

    def checked(self, passed_over: SkippedFiles | None = None) -> Iterator[Source]:
        """The images, in order, each argument checked.

        Args:
            passed_over: Counts the image files in folders that are none of them.

        Raises:
            UsageError: An argument is empty, or a file lies outside the root.
            DataError: An argument names nothing, or a folder has no images or cannot be listed.
        """
        for text in self.texts:
            if not text:
                raise UsageError("an INPUT is empty", "Name an image, a folder or a glob.")
            found = self._expand(text, refuse_folder, passed_over)
            first = next(found, None)
            if first is None:
                raise _nothing(text, self.recursive, passed_over)
            refuse_missing(first.path, text)
            yield first
            yield from found
        for text in self.listed or ():
            yield from self._listed(text, passed_over)

    def first_two(self) -> list[Source]:
        """The first two images, or as many as there are; see :meth:`checked`."""
        return list(itertools.islice(self.checked(SkippedFiles()), 2))

    def __iter__(self) -> Iterator[Source]:
        """The images, in order; what has gone since it was checked is passed over."""
        for text in self.texts:
            yield from self._expand(text, _pass_over)
        for text in self.listed or ():
            yield from self._listed(text)

    def _expand(
        self,
        text: str,
        on_error: Callable[[OSError], None],
        passed_over: SkippedFiles | None = None,
    ) -> Iterator[Source]:
        """The images that an argument stands for: a name that exists is never a glob."""
        if glob.has_magic(text) and not os.path.lexists(text):
            for path in iglob_in_order(text):
                if not is_temporary(os.path.basename(path)):
                    yield self._file(path)
        else:
            yield from self._expand_literal(text, on_error, passed_over)

    def _listed(self, text: str, passed_over: SkippedFiles | None = None) -> Iterator[Source]:
        """The images that an entry of the list stands for; one that cannot be listed fails."""
        unlistable: list[OSError] = []
        yield from self._expand_literal(text, unlistable.append, passed_over)
        if unlistable:
            yield self._file(_tidied(text))

    def _expand_literal(
        self,
        text: str,
        on_error: Callable[[OSError], None],
        passed_over: SkippedFiles | None = None,
    ) -> Iterator[Source]:
        if not _is_folder(text):
            if not is_temporary(os.path.basename(text)):
                yield self._file(_tidied(text))
            return
        folder = Path(text)
        for below in walk_images(
            folder,
            self.recursive,
            self.leave_out,
            on_error,
            unlistable=True,
            skipped=passed_over,
        ):
            path = os.path.join("" if folder == Path() else folder, below)
            yield Source(path, below if self.root is None else self._place(path), str(folder))

    def _file(self, path: str) -> Source:
        return Source(path, os.path.basename(path) if self.root is None else self._place(path))

    def _place(self, path: str) -> str:
        """Where a path is below the root."""
        place = os.path.relpath(os.path.abspath(path), os.path.abspath(self.root or "."))
        if place == os.pardir or place.startswith(os.pardir + os.sep) or os.path.isabs(place):
            raise UsageError(f"{path} is not below --root {self.root}", "Name a folder above it.")
        return place


def refuse_missing(path: str, text: str) -> None:
    """Refuse a path at which nothing is, or of which that cannot be known.

    Raises:
        DataError: It names the argument, ``text``.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise DataError(f"there is no file or folder {text}") from error
    except OSError as error:
        raise DataError(f"cannot look at {text}: {(error.strerror or '').lower()}") from error


def _pass_over(_error: OSError) -> None:
    """What to do about a folder that cannot be listed any more: nothing."""


def _tidied(path: str) -> str:
    """As pathlib writes it, which takes its time: without ``./`` and ``//``."""
    untidy = "//" in path or "./" in path or path.endswith(("/", os.curdir)) or os.sep != "/"
    return str(Path(path)) if untidy else path


def _is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _nothing(text: str, recursive: bool, passed_over: SkippedFiles | None) -> DataError:
    """What to say of an argument that stands for no image."""
    if _is_folder(text):
        searched = "Folders are searched recursively."
        alone = "With --no-recursive the folders below it are not searched."
        if passed_over and (sentence := passed_over.sentence()):
            return DataError(f"{text} has no images", f"{sentence}.")
        return DataError(f"{text} has no images", searched if recursive else alone)
    return DataError(f"nothing matches {text}")
