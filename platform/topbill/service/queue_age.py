"""How long requests wait for their turn of the event loop: where it is too long, the late ones are
better refused at once than answered after their callers have given up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

LONGEST = 1.0
"""Seconds that a request may have waited before it is refused. Clients have deadlines well below
it."""
_BEAT = 0.02


class QueueAge:
    """Measures the wait by a timer that is due every 20 ms: what comes late when the loop is busy
    is the timer, too.

    The loop runs due timers before it reads sockets. So while the requests that it has read in one
    turn are served, the timer is overdue by as long as these requests have waited.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due: float | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Measure `loop` from now on."""

        def beat() -> None:
            self._due = self._clock() + _BEAT
            loop.call_later(_BEAT, beat)

        beat()

    @property
    def seconds(self) -> float:
        """How long the requests of this turn have waited, at most; 0.0 before `start`."""
        return 0.0 if self._due is None else self._clock() - self._due
