"""Of what a caller can bring about at will only a few lines a second are written: whoever sends a
million wrong requests must not fill the disk."""

from __future__ import annotations

from collections.abc import Callable

MOST = 20
"""Lines a second."""


class FewASecond:
    """Lets `MOST` through each second of `clock` (seconds), and counts the others."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._second = 0
        self._let_through = 0
        self._left_out = 0

    def ask(self) -> int | None:
        """None where this one is left out; otherwise how many were, since the last that was not."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._let_through = second, 0
        if self._let_through >= MOST:
            self._left_out += 1
            return None
        self._let_through += 1
        left_out, self._left_out = self._left_out, 0
        return left_out
