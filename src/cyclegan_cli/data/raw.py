"""Raw photos: what a sensor saw, which is no image before somebody has developed it."""

from __future__ import annotations

from pathlib import PurePath

from cyclegan_cli.errors import DataError

# Extensions of cameras' raw files.
RAW_SUFFIXES = frozenset(
    {".3fr", ".ari", ".arw", ".bay", ".cap", ".cr2", ".cr3", ".crw", ".dcr", ".dcs", ".dng",
     ".drf", ".eip", ".erf", ".fff", ".gpr", ".iiq", ".k25", ".kdc", ".mdc", ".mef", ".mos",
     ".mrw", ".nef", ".nrw", ".orf", ".pef", ".ptx", ".r3d", ".raf", ".rw2", ".rwl", ".rwz",
     ".sr2", ".srf", ".srw", ".x3f"}
)  # fmt: skip
# What raw files that are no TIFF begin with, from a place in them.
SIGNATURES = (
    (0, b"FUJIFILMCCD-RAW", "RAF"), (0, b"IIRO", "ORF"), (0, b"IIRS", "ORF"), (0, b"MMOR", "ORF"),
    (0, b"IIU\0", "RW2"), (0, b"FOVb", "X3F"), (0, b"\0MRM", "MRW"), (6, b"HEAPCCDR", "CRW"),
    (4, b"ftypcrx ", "CR3"), (4, b"\x10\0\0\0CR\2\0", "CR2"),
)  # fmt: skip
HEAD_BYTES = 64


def refuse_raw(head: bytes, name: str) -> None:
    """Refuse a raw photo that is no TIFF, or one of Canon's.

    Args:
        head: The first ``HEAD_BYTES`` of the file.
        name: For the message.

    Raises:
        DataError: It is one.
    """
    for place, signature, kind in SIGNATURES:
        if head[place:].startswith(signature):
            raise raw_photo(name, kind)


def raw_photo(name: str, kind: str = "") -> DataError:
    """What to raise of a raw photo.

    Args:
        name: The file's.
        kind: What kind of file it is; by default what its extension says.
    """
    suffix = PurePath(name).suffix
    kind = kind or (suffix[1:].upper() if suffix.lower() in RAW_SUFFIXES else "TIFF")
    return DataError(
        f"{name} is a raw photo ({kind}): it holds what the sensor saw",
        "Develop it first, e.g. with darktable or RawTherapee, and translate the TIFF or PNG.",
    )
