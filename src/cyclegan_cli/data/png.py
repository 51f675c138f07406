"""PNG files before Pillow has them: checksums, which it does not look at where pixels are.

A PNG is a signature and chunks: length, kind, data, CRC-32 of kind and data (PNG specification,
third edition, 5.3). Where the first letter of a kind is a capital, a reader cannot do without it.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEAD = struct.Struct(">I4s")
PIECE = 1 << 20  # Bytes that are read at once, whatever length a chunk claims.
LONGEST_PROFILE = 1 << 22  # Of a longer one Pillow tells by itself.
FRAME_CHUNKS = frozenset({b"acTL", b"fcTL", b"fdAT"})  # Small letters, but an animation's frames.
PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})


@dataclass(frozen=True)
class Chunk:
    """A chunk of a file.

    Attributes:
        kind: Four letters.
        start: Where in the file it begins, with its length.
        stop: Where it ends, behind its checksum.
        is_sound: Whether the checksum is that of its content, and a profile in it whole.
    """

    kind: bytes
    start: int
    stop: int
    is_sound: bool


class MendedFile(io.BytesIO):
    """A file in memory, without chunks that were damaged.

    Attributes:
        remarks: A sentence for each kind of them.
    """

    remarks: tuple[str, ...] = ()


def mended(stream: BinaryIO, head_only: bool = False) -> MendedFile | None:
    """A PNG without its damaged chunks that a reader can do without.

    Args:
        stream: The file; it is left at its beginning.
        head_only: Whether to look no further than where the pixels begin.

    Returns:
        The file; None where nothing is damaged, or only the file's end is missing.

    Raises:
        ValueError: A chunk is damaged that is needed.
    """
    damaged: list[Chunk] = []
    for chunk in _chunks(stream):
        if head_only and chunk.kind == b"IDAT":
            break
        if chunk.is_sound or chunk.kind == b"IEND":
            continue
        if chunk.kind[:1].isupper() or chunk.kind in FRAME_CHUNKS:
            kind = chunk.kind.decode("latin-1")
            raise ValueError(f"it is damaged: the checksum of a chunk {kind} is wrong")
        damaged.append(chunk)
    stream.seek(0)
    if not damaged:
        return None
    content, kept, place = stream.read(), bytearray(), 0
    for chunk in damaged:
        kept += content[place : chunk.start]
        place = chunk.stop
    file = MendedFile(bytes(kept) + content[place:])
    kinds = dict.fromkeys(chunk.kind.decode("latin-1") for chunk in damaged)
    file.remarks = tuple(f"its chunk {kind} is damaged and was left out" for kind in kinds)
    return file


def pixels_alone(content: bytes) -> bytes:
    """A PNG without what its pixels do not need; libpng tells the terminal of faults in that."""
    stream = io.BytesIO(content)
    parts = (
        content[chunk.start : chunk.stop] for chunk in _chunks(stream) if chunk.kind in PIXEL_CHUNKS
    )
    return SIGNATURE + b"".join(parts)


def _chunks(stream: BinaryIO) -> Iterator[Chunk]:
    """All chunks up to the last, or up to one that is not there as a whole."""
    place = stream.seek(len(SIGNATURE))
    while len(head := stream.read(HEAD.size)) == HEAD.size:
        length, kind = HEAD.unpack(head)
        checksum, left, profile = zlib.crc32(kind), length, bytearray()
        while left and (piece := stream.read(min(left, PIECE))):
            checksum = zlib.crc32(piece, checksum)
            left -= len(piece)
            if kind == b"iCCP":
                profile += piece
        said = stream.read(4)
        if left or len(said) < 4 or not kind.isalpha():
            return
        stop = place + HEAD.size + length + 4
        is_sound = int.from_bytes(said) == checksum and not (profile and _is_cut(profile))
        yield Chunk(kind, place, stop, is_sound)
        if kind == b"IEND":
            return
        place = stop


def _is_cut(profile: bytearray) -> bool:
    """Whether a chunk iCCP (name, zero, method, compressed profile) ends too early or is damaged.

    Pillow and libpng take what there is of it for a profile.
    """
    compressed = profile[profile.find(b"\0") + 2 :]
    stream = zlib.decompressobj()
    try:
        stream.decompress(compressed, LONGEST_PROFILE)
    except zlib.error:
        return True
    return not stream.eof and not stream.unconsumed_tail
