"""How often a password may be tried: by all viewers together, since a browser that opens another
tab is another viewer.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

MOST = 10
"""Wrong passwords within SECONDS. Who comes then waits, with the right one too."""
SECONDS = 60.0


class Tries:
    """Counts wrong passwords. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: deque[float] = deque(maxlen=MOST)
        # Each viewer has a thread of the server.
        self._lock = threading.Lock()

    def wait(self) -> float:
        """Seconds until the next try; 0.0 where it may be now."""
        with self._lock:
            if len(self._failures) < MOST:
                return 0.0
            return max(0.0, self._failures[0] + SECONDS - self._clock())

    def failed(self) -> None:
        """A wrong password was given."""
        with self._lock:
            self._failures.append(self._clock())


TRIES = Tries()
"""Of this server."""
