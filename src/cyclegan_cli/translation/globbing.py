"""Globs in a fixed order, without a list of all that matches."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterator
from pathlib import PurePath


def iglob_in_order(pattern: str) -> Iterator[str]:
    """The files that a pattern matches, folder by folder, sorted in each.

    ``*``, ``?`` and ``[abc]`` stand for characters of one name, ``**`` for any folders. Like the
    shell's, they match no hidden names unless the pattern has the dot. Links to folders are
    followed where the pattern names them, but not by ``**``.

    Args:
        pattern: A path with at least one of these in it.
    """
    path = PurePath(pattern)
    return _expand(path.anchor, path.parts[1 if path.anchor else 0 :])


def _expand(base: str, parts: tuple[str, ...]) -> Iterator[str]:
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
                yield from _expand(os.path.join(base, name), rest)
    else:
        yield from _expand(os.path.join(base, head), rest)


def _expand_any_depth(base: str, rest: tuple[str, ...]) -> Iterator[str]:
    """What ``rest`` matches in ``base``, and in each folder below it."""
    while rest[:1] == ("**",):
        rest = rest[1:]
    yield from _expand(base, rest or ("*",))
    for name in _names(base):
        path = os.path.join(base, name)
        if not name.startswith(".") and not os.path.islink(path) and os.path.isdir(path):
            yield from _expand_any_depth(path, rest)


def _names(folder: str) -> Iterator[str]:
    try:
        names = sorted(os.listdir(folder or "."), reverse=True)
    except OSError:
        return  # Like the shell: what is no folder, or cannot be listed, matches nothing.
    while names:
        yield names.pop()
