"""Image files that a search through a folder passes over: counted, so that nobody misses them."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter

from cyclegan_cli.data.raw import HEAD_BYTES, RAW_SUFFIXES

# Extensions of images that are not read here.
UNREAD_SUFFIXES = RAW_SUFFIXES | {
    ".ai", ".djvu", ".emf", ".eps", ".exr", ".fits", ".hdr", ".jxl", ".jxr", ".kra", ".pcd",
    ".psb", ".svg", ".svgz", ".wdp", ".wmf", ".xcf",
}  # fmt: skip
# What images of formats that are read begin with, and JPEG XL.
IMAGE_HEAD = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|II\*\0|MM\0\*|II\+\0|MM\0\+|RIFF....WEBP|8BPS"
    rb"|BM....\0\0\0\0|....ftyp(?:avif|avis|heic|heix|heim|heis|hevc|hevx|mif1|msf1)"
    rb"|\0\0\0\x0cjP  \r\n|\xff\x4f\xff\x51|P[1-6]\s|(?P<unread>\0\0\0\x0cJXL \r\n|\xff\x0a)",
    re.DOTALL,
)
KINDS_NAMED = 5


class PassedOver:
    """Counts image files that are passed over, by their extensions."""

    def __init__(self) -> None:
        self.unread: Counter[str] = Counter()
        self.misnamed: Counter[str] = Counter()

    def add(self, path: str) -> None:
        """Count a file that a search has passed over, if it is an image.

        Args:
            path: Where it is. Files with the extension of no image are looked into.
        """
        suffix = os.path.splitext(path)[1].lower()
        if suffix in UNREAD_SUFFIXES:
            self.unread[suffix] += 1
        elif found := IMAGE_HEAD.match(_head(path)):
            counts = self.unread if found["unread"] else self.misnamed
            counts[suffix or "without extension"] += 1

    @property
    def counts(self) -> dict[str, int]:
        """How many there are, by extension; fit for JSON."""
        return dict((self.unread + self.misnamed).most_common())

    def sentence(self, where: str = "") -> str:
        """How many there are and what to do about them; empty if there are none.

        Args:
            where: The folder, if it is to be named.
        """
        count = self.unread.total() + self.misnamed.total()
        if not count:
            return ""
        parts = []
        if self.unread:
            parts.append(
                f"{_listed(self.unread)} (not read here: convert them to PNG, TIFF or JPEG)"
            )
        if self.misnamed:
            parts.append(
                f"{_listed(self.misnamed)} (found by extension alone: rename them to .jpg or "
                "whatever they are)"
            )
        files = "1 image file was" if count == 1 else f"{count} image files were"
        return f"{where + ': ' if where else ''}{files} passed over: {' and '.join(parts)}"


def _listed(counts: Counter[str]) -> str:
    named = [f"{count} {kind}" for kind, count in counts.most_common(KINDS_NAMED)]
    rest = counts.total() - sum(count for _, count in counts.most_common(KINDS_NAMED))
    return ", ".join([*named, f"{rest} others"] if rest else named)


def _head(path: str) -> bytes:
    """The first bytes of a regular file; none of anything else, which could keep us waiting."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return b""
        with open(path, "rb") as file:
            return file.read(HEAD_BYTES)
    except (OSError, ValueError):
        return b""
