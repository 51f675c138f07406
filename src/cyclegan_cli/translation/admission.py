"""How many images are under way at once."""

from __future__ import annotations

import threading
from dataclasses import dataclass

PIXEL_BYTES = 256 << 20  # Two images of 48 megapixels do not fit.
WINDOW = 32


@dataclass(frozen=True)
class Limits:
    """How much is done at once.

    Attributes:
        workers: Threads that decode, and as many that encode.
        pixel_bytes: Of all images under way; one that is larger is alone.
        window: Images under way, or whose outcome nobody has taken yet.
    """

    workers: int = 1
    pixel_bytes: int = PIXEL_BYTES
    window: int = WINDOW


DEFAULT_LIMITS = Limits()


class Admission:
    """Lets jobs begin as others end.

    Args:
        limits: How much may be under way.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._changed = threading.Condition()
        self._weight = self._images = self._untold = 0
        self._closed = False

    def enter(self, weight: int) -> bool:
        """Wait until there is room for an image; False: no more are let in."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_room(weight))
            if not self._closed:
                self._weight += weight
                self._images += 1
                self._untold += 1
            return not self._closed

    def _has_room(self, weight: int) -> bool:
        if self._untold >= self._limits.window:
            return False
        return not self._images or self._weight + weight <= self._limits.pixel_bytes

    def leave(self, weight: int) -> None:
        """An image's pixels are gone."""
        with self._changed:
            self._weight -= weight
            self._images -= 1
            self._changed.notify_all()

    def told(self) -> None:
        """Its outcome has been handed over."""
        with self._changed:
            self._untold -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody in any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
