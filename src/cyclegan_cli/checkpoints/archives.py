"""Zip files as torch writes them, nothing in them compressed: what is in them, and where."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ZIP_MAGIC = b"PK\x03\x04"
LOCAL_HEADER = 30  # Bytes before an entry's name; the last four are two lengths of what follows.
LONGEST_READ = 4_000_000  # Of the directory, which Python reads at once.


@dataclass(frozen=True)
class Span:
    """Where in a file a storage is: its first byte, and how many there are."""

    start: int
    size: int


class _ShortReads(io.FileIO):
    """A file that nobody reads much of at once, whatever its own directory claims."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= LONGEST_READ:
            size = LONGEST_READ + 1
        # Of what is there alone: so much memory is taken before anything is read.
        content = super().read(min(size, os.fstat(self.fileno()).st_size - self.tell()))
        if content and len(content) > LONGEST_READ:
            raise ValueError("its directory is too long")
        return content or b""


@dataclass(frozen=True)
class Archive:
    """An open zip file, all of whose entries are stored as they are.

    Attributes:
        entries: By their names.
    """

    entries: dict[str, zipfile.ZipInfo]
    _stream: io.FileIO
    _archive: zipfile.ZipFile

    def read(self, name: str, longest: int) -> bytes:
        """An entry's bytes.

        Raises:
            KeyError: There is none of that name.
            ValueError: There are more than ``longest``.
        """
        if self.entries[name].file_size > longest:
            raise ValueError("an entry is too long")
        return self._archive.read(name)

    def span(self, name: str) -> Span:
        """Where an entry's bytes are.

        Raises:
            KeyError: There is none of that name.
            ValueError: Its own header is damaged.
        """
        entry = self.entries[name]
        self._stream.seek(entry.header_offset)
        header = self._stream.read(LOCAL_HEADER)
        named, more = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        start = entry.header_offset + LOCAL_HEADER + named + more
        end = os.fstat(self._stream.fileno()).st_size
        if not header.startswith(ZIP_MAGIC) or start + entry.file_size > end:
            raise ValueError("an entry is not where its directory says")
        return Span(start, entry.file_size)


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open a zip file as torch writes them: nothing compressed, nothing twice.

    Raises:
        ValueError: It is another zip file.
        zipfile.BadZipFile: It is damaged.
    """
    with _ShortReads(str(path)) as stream, zipfile.ZipFile(stream) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if len(entries) != len(archive.infolist()):
            raise ValueError("two of its entries have one name")
        if any(e.compress_type or e.file_size != e.compress_size for e in entries.values()):
            raise ValueError("its entries are compressed")
        size = path.stat().st_size
        if sum(entry.file_size for entry in entries.values()) > size:
            raise ValueError("its entries are larger than the file")
        # A directory of zip64 has offsets that no file system knows.
        if any(not 0 <= entry.header_offset < size for entry in entries.values()):
            raise ValueError("its entries are outside of the file")
        yield Archive(entries, stream, archive)
