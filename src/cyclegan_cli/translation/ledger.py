"""Which translation belongs to which image, for millions of them, in a few bytes each.

Paths are too large to be kept, so their digests are: 16 bytes tell apart as many paths as any
disk can hold. Planning takes 40 bytes an image, and 25 of them stay while it is worked off.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

DIGEST_BYTES = 16
SHARE_BYTES = 8
RECORD_BYTES = 2 * DIGEST_BYTES + SHARE_BYTES
CHUNK = 1 << 16
Digests = np.ndarray[Any, np.dtype[np.void]]  # [N], of 16 bytes each.
Words = np.ndarray[Any, np.dtype[np.uint64]]


def digest(path: bytes) -> bytes:
    """16 bytes that stand for a path."""
    return blake2b(path, digest_size=DIGEST_BYTES).digest()


def share_number(path: bytes) -> int:
    """A number in 0..2^64-1 that depends on nothing but the path: the same on every machine."""
    return int.from_bytes(blake2b(path, digest_size=SHARE_BYTES, person=b"share").digest(), "big")


@dataclass(frozen=True)
class Clashes:
    """Digests of outputs that must not be written.

    Attributes:
        shared: Those that two different inputs would be written to.
        inputs: Those that are inputs themselves.
    """

    shared: frozenset[bytes]
    inputs: frozenset[bytes]

    def __bool__(self) -> bool:
        return bool(self.shared or self.inputs)


class Draft:
    """Collects pairs of input and output, in any order."""

    def __init__(self) -> None:
        self._records = bytearray()

    def add(self, source: bytes, output: bytes, share: int) -> None:
        """Note digests of an input and its output, and the number that decides whose it is."""
        self._records += output + source + share.to_bytes(SHARE_BYTES, "big")

    def finish(self, pass_over_outputs: bool) -> tuple[Ledger, Clashes]:
        """What is to be translated, and what stands against it.

        Args:
            pass_over_outputs: Whether inputs that are another input's output are left out.
        """
        records = np.frombuffer(self._records, dtype=f"V{RECORD_BYTES}")
        # In place; by output, then input, then share: the smallest share of a pair comes first.
        records.sort()
        words = records.view(">u8").reshape(-1, RECORD_BYTES // 8)
        is_new = _differs_from_the_one_before(words[:, 0:4])
        words = words if is_new.all() else words[is_new]
        if pass_over_outputs:
            words = words[~_are_outputs_of_others(words)]
        outputs, inputs = _digests(words[:, 0:2]), _digests(words[:, 2:4])
        inputs.sort()
        is_input = _found_in(outputs, inputs)
        is_first = _differs_from_the_one_before(words[:, 0:2])
        clashes = Clashes(
            frozenset(key.tobytes() for key in outputs[~is_first]),
            frozenset(key.tobytes() for key in outputs[is_input]),
        )
        return Ledger(outputs[is_first], words[is_first, 4].astype(np.uint64)), clashes


class Ledger:
    """What is to be translated: each output once.

    Args:
        outputs: Digests, sorted.
        shares: Their share numbers.
    """

    def __init__(self, outputs: Digests, shares: Words) -> None:
        self._outputs, self._shares = outputs, shares
        self._taken = np.zeros(len(outputs), dtype=bool)

    def __len__(self) -> int:
        return len(self._outputs)

    def keep_share(self, index: int, count: int) -> None:
        """Leave out all but the ``index``-th (from 0) of ``count`` disjoint shares."""
        mine = self._shares % np.uint64(count) == index
        self._outputs, self._shares = self._outputs[mine], self._shares[mine]
        self._taken = self._taken[mine]

    def take(self, output: bytes) -> bool:
        """Whether it is to be translated now: it is in the ledger and nobody has taken it yet."""
        place = int(self._outputs.searchsorted(np.void(output)))
        if place == len(self) or self._outputs[place].tobytes() != output or self._taken[place]:
            return False
        self._taken[place] = True
        return True


def _digests(words: Words) -> Digests:
    """``[N, 2]`` words to ``[N]`` digests."""
    return np.ascontiguousarray(words).view(f"V{DIGEST_BYTES}").reshape(-1)


def _differs_from_the_one_before(words: Words) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """``[N, W]`` to ``[N]``; the first one does."""
    differs = np.ones(len(words), dtype=bool)
    differs[1:] = (words[1:] != words[:-1]).any(axis=1)
    return differs


def _are_outputs_of_others(words: Words) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which inputs are written to from another input; ``[N, 5]``, sorted."""
    is_own = (words[:, 0:2] == words[:, 2:4]).all(axis=1)
    return _found_in(_digests(words[:, 2:4]), _digests(words[~is_own, 0:2]))


def _found_in(sought: Digests, ordered: Digests) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which of ``sought`` are among ``ordered``, which is sorted."""
    if not len(ordered):
        return np.zeros(len(sought), dtype=bool)
    found = np.empty(len(sought), dtype=bool)
    for start in range(0, len(sought), CHUNK):
        part = sought[start : start + CHUNK]
        places = np.minimum(ordered.searchsorted(part), len(ordered) - 1)
        same = ordered[places].view("u8") == part.view("u8")
        found[start : start + CHUNK] = same.reshape(-1, 2).all(axis=1)
    return found
