"""Waiting for a while, whatever is done to the machine's clock meanwhile."""

from __future__ import annotations

import select


def pause(seconds: float) -> None:
    """Do nothing for so long.

    Not `time.sleep`, which waits for a moment rather than for a while: under libfaketime, by which
    it is tried what a clock that is set does, there is no such moment and it raises OSError.
    """
    select.select([], [], [], seconds)
