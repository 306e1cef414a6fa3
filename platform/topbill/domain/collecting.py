"""When the garbage collector comes, in processes that run for long."""

from __future__ import annotations

import gc

_RARELY = (20_000, 50, 50)
"""New objects between two collections, and how many of each generation before the next one's."""


def load_first() -> None:
    """Collect rarely from the start on: what a process loads stays, and to look through it again
    and again takes a tenth of a start.
    """
    gc.set_threshold(*_RARELY)


def collect_rarely() -> None:
    """Leave what is loaded now out of every collection, and collect more rarely than by default.

    What is loaded stays as long as the process. Decisions and what is learned of them make few
    objects that only a collector could free, and by default it takes a third of a worker's time.
    """
    gc.freeze()
    gc.set_threshold(*_RARELY)
