"""What Pillow does not say of WebP files, from their chunks (WebP container specification)."""

from __future__ import annotations

import struct
from typing import Any

LOSSY, LOSSLESS, FRAME = b"VP8 ", b"VP8L", b"ANMF"
RIFF_HEAD, CHUNK_HEAD, FRAME_HEAD = 12, 8, 16
ALPHA = 0x10  # A flag of the extended header.


def is_lossless_webp(content: Any) -> bool:
    """Whether the pixels of a WebP, or of its first frame, are compressed without loss.

    Args:
        content: All bytes of the file.
    """
    at = RIFF_HEAD
    while at + CHUNK_HEAD <= len(content):
        kind = content[at : at + 4]
        if kind in (LOSSY, LOSSLESS):
            return bool(kind == LOSSLESS)
        (length,) = struct.unpack_from("<I", content, at + 4)
        # A frame's chunks are inside of it.
        at += CHUNK_HEAD + (FRAME_HEAD if kind == FRAME else length + length % 2)
    return False


def said_to_have_alpha(webp: bytes) -> bytes:
    """Set a flag that the encoder leaves out where it has cut all frames to what is opaque.

    A file without extended header, which it makes of equal frames, is left as it is.
    """
    place = webp.find(b"VP8X", RIFF_HEAD, RIFF_HEAD + 4)
    if place < 0:
        return webp
    flags = place + CHUNK_HEAD
    return webp[:flags] + bytes([webp[flags] | ALPHA]) + webp[flags + 1 :]
