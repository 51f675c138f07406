"""Chunks of PNG and WebP files and boxes of AVIF and JPEG 2000 files, which Pillow does not show.

A PNG is a signature and chunks: length, kind, data, CRC-32 of kind and data (PNG specification,
third edition, 5.3). If the first letter of the kind is a capital, readers need the chunk.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_CHUNK_HEAD = struct.Struct(">I4s")
READ_SIZE = 1 << 20  # Bytes read at once, whatever length a chunk claims.
MAX_PROFILE_BYTES = 1 << 22  # Pillow refuses longer ones.
FRAME_CHUNKS = frozenset({b"acTL", b"fcTL", b"fdAT"})  # Of an animation
PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})


@dataclass(frozen=True)
class Chunk:
    """A chunk of a PNG file.

    Attributes:
        kind: Four letters.
        start: Offset of its length field in the file.
        stop: Offset behind its checksum.
        is_sound: Whether its checksum is right, and a profile in it complete.
    """

    kind: bytes
    start: int
    stop: int
    is_sound: bool


class RepairedPng(io.BytesIO):
    """A PNG file in memory without its damaged chunks.

    Attributes:
        remarks: A message for each kind of removed chunk.
    """

    remarks: tuple[str, ...] = ()


def repair_png(stream: BinaryIO, head_only: bool = False) -> RepairedPng | None:
    """Remove damaged ancillary chunks from a PNG; Pillow does not verify all checksums.

    Args:
        stream: The file; its position is reset to the start.
        head_only: Whether to stop at the pixel data.

    Returns:
        The repaired file, or None if nothing is damaged or only the end of the file is missing.

    Raises:
        ValueError: A critical chunk is damaged.
    """
    damaged: list[Chunk] = []
    for chunk in png_chunks(stream):
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
    content, kept, position = stream.read(), bytearray(), 0
    for chunk in damaged:
        kept += content[position : chunk.start]
        position = chunk.stop
    file = RepairedPng(bytes(kept) + content[position:])
    kinds = dict.fromkeys(chunk.kind.decode("latin-1") for chunk in damaged)
    file.remarks = tuple(f"its chunk {kind} is damaged and was left out" for kind in kinds)
    return file


def pixels_alone(content: bytes) -> bytes:
    """Return a PNG with the chunks of its pixels only; libpng prints messages about others."""
    stream = io.BytesIO(content)
    parts = (
        content[chunk.start : chunk.stop]
        for chunk in png_chunks(stream)
        if chunk.kind in PIXEL_CHUNKS
    )
    return PNG_SIGNATURE + b"".join(parts)


def png_chunks(stream: BinaryIO) -> Iterator[Chunk]:
    """Yield the chunks of a PNG, up to the last or up to one that is incomplete."""
    start = stream.seek(len(PNG_SIGNATURE))
    while len(head := stream.read(PNG_CHUNK_HEAD.size)) == PNG_CHUNK_HEAD.size:
        length, kind = PNG_CHUNK_HEAD.unpack(head)
        checksum, left, profile = zlib.crc32(kind), length, bytearray()
        while left and (piece := stream.read(min(left, READ_SIZE))):
            checksum = zlib.crc32(piece, checksum)
            left -= len(piece)
            if kind == b"iCCP":
                profile += piece
        stored = stream.read(4)
        if left or len(stored) < 4 or not kind.isalpha():
            return
        stop = start + PNG_CHUNK_HEAD.size + length + 4
        is_sound = int.from_bytes(stored) == checksum and not (profile and _is_cut(profile))
        yield Chunk(kind, start, stop, is_sound)
        if kind == b"IEND":
            return
        start = stop


def _is_cut(profile: bytearray) -> bool:
    """Return whether a chunk iCCP (name, zero, method, compressed profile) is truncated or damaged.

    Pillow and libpng use the part of the profile that is there.
    """
    compressed = profile[profile.find(b"\0") + 2 :]
    stream = zlib.decompressobj()
    try:
        stream.decompress(compressed, MAX_PROFILE_BYTES)
    except zlib.error:
        return True
    return not stream.eof and not stream.unconsumed_tail


LOSSY, LOSSLESS, FRAME = b"VP8 ", b"VP8L", b"ANMF"
RIFF_HEAD_SIZE, CHUNK_HEAD_SIZE, FRAME_HEAD_SIZE = 12, 8, 16
WEBP_ALPHA_FLAG = 0x10  # In the extended header.


def is_lossless_webp(content: Any) -> bool:
    """Return whether the pixels of a WebP, or of its first frame, are compressed losslessly.

    Args:
        content: The whole file.
    """
    at = RIFF_HEAD_SIZE
    while at + CHUNK_HEAD_SIZE <= len(content):
        kind = content[at : at + 4]
        if kind in (LOSSY, LOSSLESS):
            return bool(kind == LOSSLESS)
        (length,) = struct.unpack_from("<I", content, at + 4)
        # The chunks of a frame are nested in it.
        at += CHUNK_HEAD_SIZE + (FRAME_HEAD_SIZE if kind == FRAME else length + length % 2)
    return False


def with_alpha_flag(webp: bytes) -> bytes:
    """Set the alpha flag, which the encoder omits after cropping all frames to opaque areas.

    A file without an extended header, which the encoder writes for equal frames, is unchanged.
    """
    offset = webp.find(b"VP8X", RIFF_HEAD_SIZE, RIFF_HEAD_SIZE + 4)
    if offset < 0:
        return webp
    flags = offset + CHUNK_HEAD_SIZE
    return webp[:flags] + bytes([webp[flags] | WEBP_ALPHA_FLAG]) + webp[flags + 1 :]


FULL_BOX = 4  # Bytes of version and flags before the content.
SAMPLE_ENTRIES, VISUAL_SAMPLE_ENTRY = 8, 78  # Bytes before the nested boxes.
ICC_METHODS = (2, 3)  # ISO/IEC 15444-1, I.5.3.3: restricted, and (JPX) any profile
ENUMERATED, CICP_METHOD = 1, 5
E_SRGB_AND_KIN = {14: "CIELab", 19: "CIEJab", 20: "e-sRGB", 21: "ROMM RGB", 24: "e-sYCC"}


@dataclass(frozen=True)
class ColorBox:
    """Colour specification of a file.

    Attributes:
        icc: ICC profile, or None.
        cicp: Colour primaries and transfer characteristics (ITU-T H.273), or None.
        other: Name of an enumerated colour space that is not supported, or None.
    """

    icc: bytes | None = None
    cicp: tuple[int, int] | None = None
    other: str | None = None


def _boxes(content: Any, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of the content of each box between two offsets."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", content, start)
        head = 8
        if size == 1 and start + 16 <= end:
            (size,) = struct.unpack_from(">Q", content, start + 8)
            head = 16
        size = end - start if size == 0 else size
        if size < head:
            return
        yield kind, start + head, min(start + size, end)
        start += size


def _inside(content: Any, path: tuple[bytes, ...], skips: dict[bytes, int]) -> tuple[int, int]:
    """Return start and end of the content of the first box at a path of kinds, else (0, 0)."""
    start, end = 0, len(content)
    for kind in path:
        found = next((box for box in _boxes(content, start, end) if box[0] == kind), None)
        if found is None:
            return 0, 0
        start, end = found[1] + skips.get(kind, 0), found[2]
    return start, end


def avif_colors(content: Any) -> ColorBox:
    """Return the colour specification of the main image of an AVIF, or of its first track.

    Args:
        content: The whole file.

    Raises:
        struct.error: The file is damaged.
    """
    skips = {b"meta": FULL_BOX, b"stsd": SAMPLE_ENTRIES, b"av01": VISUAL_SAMPLE_ENTRY}
    start, end = _inside(content, (b"meta", b"iprp", b"ipco"), skips)
    properties = list(_boxes(content, start, end))
    chosen = [properties[i - 1] for i in _main_item_properties(content) if 0 < i <= len(properties)]
    if not properties:
        track = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"av01")
        chosen = list(_boxes(content, *_inside(content, track, skips)))
    found = ColorBox()
    for kind, start, _ in chosen:
        if kind == b"colr" and content[start : start + 4] == b"nclx" and found.cicp is None:
            found = ColorBox(cicp=struct.unpack_from(">HH", content, start + 4))
    return found


def _main_item_properties(content: Any) -> Iterator[int]:
    """Yield the 1-based indices of the main item's properties (ISO/IEC 23008-12, 9.3)."""
    start, end = _inside(content, (b"meta", b"pitm"), {b"meta": FULL_BOX})
    if start == end:
        return
    main = struct.unpack_from(">I" if content[start] else ">H", content, start + FULL_BOX)[0]
    start, end = _inside(content, (b"meta", b"iprp", b"ipma"), {b"meta": FULL_BOX})
    if start == end:
        return
    version, is_wide = content[start], content[start + 3] & 1
    position = start + 8
    while position < end:
        item, count = struct.unpack_from(">IB" if version else ">HB", content, position)
        position += 5 if version else 3
        for _ in range(count):
            number = struct.unpack_from(">H" if is_wide else ">B", content, position)[0]
            position += 2 if is_wide else 1
            if item == main:
                yield number & (0x7FFF if is_wide else 0x7F)


def jpeg2000_colors(content: Any) -> ColorBox:
    """Return the first supported colour specification of a JPEG 2000 file with a container.

    Args:
        content: The whole file.
    """
    for kind, start, end in _boxes(content, *_inside(content, (b"jp2h",), {})):
        if kind != b"colr" or end - start < 4:
            continue
        method = content[start]
        if method in ICC_METHODS:
            return ColorBox(icc=bytes(content[start + 3 : end]))
        if method == CICP_METHOD and end - start >= 7:
            return ColorBox(cicp=struct.unpack_from(">HH", content, start + 3))
        if method == ENUMERATED and end - start >= 7:
            (number,) = struct.unpack_from(">I", content, start + 3)
            return ColorBox(other=E_SRGB_AND_KIN.get(number))
    return ColorBox()


def whole_file(image: Any, most: int = -1) -> bytes:
    """Return all bytes, or the first ``most``, of a file that Pillow has opened.

    Reads instead of mapping: truncation of a mapped file would kill the process with SIGBUS.
    """
    stream = image.fp
    position = stream.tell()
    stream.seek(0)
    content = stream.read(most)
    stream.seek(position)
    return bytes(content)
