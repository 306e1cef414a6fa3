"""When the garbage collector comes, in processes that run for long."""

from __future__ import annotations

import gc


def collect_rarely() -> None:
    """Leave what is loaded now out of every collection, and collect more rarely than by default.

    What is loaded stays as long as the process. Decisions and what is learned of them make few
    objects that only a collector could free, and by default it takes a third of a worker's time.
    """
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)
