"""When the garbage collector comes, in processes that run for long."""

from __future__ import annotations

import gc


def load_first() -> None:
    """Collect next to nothing while a process starts: what it loads stays, and to look through it
    again and again takes a tenth of a start.
    """
    gc.set_threshold(100_000, 50, 50)


def collect_rarely() -> None:
    """Leave what is loaded now out of every collection, and collect more rarely than by default.

    What is loaded stays as long as the process. Decisions and what is learned of them make few
    objects that only a collector could free, and by default it takes a third of a worker's time.
    """
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)
