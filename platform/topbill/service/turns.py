"""The event loop's turns in the work of one request: others are served between them."""

from __future__ import annotations

import asyncio
import time

LONGEST = 2e-3
"""Seconds for which a batch holds the event loop before others have their turn."""


_OTHERS = 1e-3
"""Seconds that others have then at least. One round of the loop is not enough: a request that is
answered by a thread needs several, and would wait for as many long turns."""


async def let_others() -> None:
    """The others' turn."""
    await asyncio.sleep(_OTHERS)


class Turn:
    """Begins when it is made, and anew each time that it ends."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    async def end_if_long(self) -> None:
        """Let others have their turn where this one has taken long."""
        if time.perf_counter() - self._began > LONGEST:
            await let_others()
            self._began = time.perf_counter()
